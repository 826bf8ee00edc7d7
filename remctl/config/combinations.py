"""Settings that are each allowed but cannot work together, every one with its remedy."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from remctl.config.agent import TrainingPhase
    from remctl.config.schema import RunConfig


MAX_LEVELS = 16  # of a tokenizer, where its sizes are named
Check = tuple[bool, str]  # whether it is wrong, and the sentence with its remedy


def impossibilities(c: RunConfig) -> list[str]:
    """Combinations that cannot work, each as a sentence with its remedy; empty when all is well."""
    phases = {
        "tokenizer": c.tokenizer.training,
        "world_model": c.world_model.training,
        "controller": c.controller.training,
    }
    trained = [check(name, phase) for name, phase in phases.items() for check in (_never_trained, _adam_decays)]
    return [message for wrong, message in (*_tokenizer(c), *_world_model(c), *trained) if wrong]


def _tokenizer(c: RunConfig) -> list[Check]:
    v = c.tokenizer
    ratio, rest = divmod(c.environment.frame_size, v.grid_size)
    used = v.channels[: ratio.bit_length()]  # one width per resolution: the frame's and one for each halving
    sizes = [c.environment.frame_size >> i for i in range(min(ratio.bit_length(), MAX_LEVELS))]
    return [
        (
            rest != 0 or ratio < 2 or ratio & (ratio - 1) != 0,
            f"tokenizer.grid_size {v.grid_size} is not environment.frame_size {c.environment.frame_size} halved a "
            "whole number of times: set it to one half, quarter, eighth ... of the frame size",
        ),
        (
            any(width % v.num_groups for width in used),
            f"tokenizer.channels {list(v.channels)} are not all multiples of tokenizer.num_groups {v.num_groups}: "
            "change one",
        ),
        (
            v.architecture == "vqgan" and not set(v.attention_resolutions) <= set(sizes),
            f"tokenizer.attention_resolutions {list(v.attention_resolutions)} are not all sizes that a frame goes "
            f"through: choose among {sizes}, or set it to []",
        ),
        (
            v.codebook_init == "kmeans" and v.warmup == "none",
            "tokenizer.codebook_init=kmeans needs a trained encoder: set tokenizer.warmup=fixed or beats_median",
        ),
        (
            v.codebook_init == "kmeans" and v.num_codes > 2048,
            f"tokenizer.codebook_init=kmeans of {v.num_codes} codes would take minutes to hours: set tokenizer.num_codes "
            "to 2048 at most, or codebook_init=uniform",
        ),
        (
            v.grid_size < 2,
            "tokenizer.grid_size 1 is a single token, which cannot be normalised: set it to 2 or more",
        ),
        (
            v.warmup != "none" and v.warmup_steps < 1,
            f"tokenizer.warmup={v.warmup} with warmup_steps 0 does nothing: set tokenizer.warmup_steps",
        ),
    ]


def _world_model(c: RunConfig) -> list[Check]:
    v, m = c.tokenizer, c.world_model
    return [
        (
            m.observation_embeddings == "tokenizer" and m.embed_dim != v.embed_dim,
            f"world_model.embed_dim {m.embed_dim} and tokenizer.embed_dim {v.embed_dim} differ: make them equal, or "
            "set world_model.observation_embeddings=separate",
        ),
        (
            m.embed_dim % (8 * m.num_heads) != 0,
            f"world_model.embed_dim {m.embed_dim} is not a multiple of 8 x num_heads {m.num_heads}: choose "
            f"{8 * m.num_heads * max(1, (m.embed_dim + 4 * m.num_heads) // (8 * m.num_heads))}",
        ),
        (
            m.architecture == "transformer" and m.observation_prediction == "pop",
            "world_model.observation_prediction=pop needs a RetNet's state: set "
            "world_model.observation_prediction=token_by_token, or world_model.architecture=retnet",
        ),
        (
            m.loss_rule == "all_positions" and m.observation_prediction == "pop",
            "world_model.loss_rule=all_positions trains tokens on those before them in the same observation, which POP "
            "never sees: set world_model.loss_rule=supervise_starts, or observation_prediction=token_by_token",
        ),
        (
            m.context_blocks >= m.sequence_blocks,
            f"world_model.context_blocks {m.context_blocks} leaves nothing to predict in world_model.sequence_blocks "
            f"{m.sequence_blocks}: raise sequence_blocks above it",
        ),
        (
            c.num_rewarded_steps < 1,
            f"imagination.horizon {c.imagination.horizon} leaves no step that trains C: set it to at least "
            f"{m.context_blocks + 1}",
        ),
        (
            not v.training.start_after_epoch <= m.training.start_after_epoch <= c.controller.training.start_after_epoch,
            "training must start in the order tokenizer, world_model, controller: raise the later start_after_epoch",
        ),
        (
            c.imagination.burn_in_frames < m.context_blocks - 1,
            f"imagination.burn_in_frames {c.imagination.burn_in_frames} cannot hold M's context: set it to at least "
            f"world_model.context_blocks - 1 = {m.context_blocks - 1}",
        ),
    ]


def _adam_decays(name: str, phase: TrainingPhase) -> Check:
    return phase.optimizer == "adam" and phase.weight_decay > 0, (
        f"{name}.training.optimizer=adam has no decoupled weight decay: set {name}.training.weight_decay=0, or use adamw"
    )


def _never_trained(name: str, phase: TrainingPhase) -> Check:
    start, stop = phase.start_after_epoch, phase.stop_after_epoch
    return stop is not None and stop <= start, (
        f"{name}.training.stop_after_epoch {stop} is not after start_after_epoch {start}, so it would never train: "
        "raise stop_after_epoch, or set it to null"
    )
