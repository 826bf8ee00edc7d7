"""Which keys have no effect in a configuration. They are no part of a run's identity, and users may not set them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from remctl.config.arguments import key_of
from remctl.config.resolve import keys
from remctl.errors import UserError
from remctl.games import kind

if TYPE_CHECKING:
    from remctl.config.schema import RunConfig

# A rule that is added, removed or corrected changes the hash of runs with such a key. Raise SCHEMA in `remctl.config.stored`
# then, so that earlier files are known by both hashes.
Rule = tuple[bool, str, tuple[str, ...]]  # whether it holds, why, and the keys that then have no effect

ATARI_ONLY = tuple(
    f"environment.{name}"
    for name in (
        "sticky_probability",
        "full_action_space",
        "max_noops_train",
        "noops_test",
        "end_on_life_loss",
        "late_game_over",
        "dead_starts",
    )
)
LIMITS = (  # without effect if they lie beyond the run's end, but a user may set them to lift a preset's limit
    "collection.last_epoch",
    *(f"{name}.training.stop_after_epoch" for name in ("tokenizer", "world_model", "controller")),
)
TOYS_LACK = (
    *ATARI_ONLY,
    "environment.frame_skip",
    "environment.time_limit_train_frames",
    "environment.time_limit_test_frames",
    "environment.time_limit_ends",
)
PREDICTION_TOKENS = ("world_model.prediction_tokens", "world_model.spare_prediction_token")
RETENTION = ("world_model.decay", "world_model.layer_init", "world_model.blocks_per_chunk", "world_model.block_states")


def without_effect(config: RunConfig) -> dict[str, str]:
    """Return the keys that change nothing in this configuration, each with the reason."""
    return {key: why for holds, why, names in (*_environment(config), *_agent(config)) if holds for key in names}


def refuse_without_effect(config: RunConfig, given: Iterable[str], without: Callable[[], RunConfig]) -> None:
    """Raise UserError for the first key given by a user that has no effect.

    A key is accepted if `without`, the configuration without the given keys, has the same value for it.
    """
    reasons, values = without_effect(config), keys(config)
    idle = [key for key in map(key_of, given) if key in reasons and key not in LIMITS]
    before = keys(without()) if idle else {}
    for key in idle:
        if values[key] != before[key]:
            raise UserError(f"{key} has no effect here: {reasons[key]}; leave it out")


def _environment(c: RunConfig) -> Iterator[Rule]:
    family = kind(c.game)
    yield family == "toy", f"{c.game} has none", TOYS_LACK
    yield family == "gym", "only Atari games have it", ATARI_ONLY
    lives = c.environment.end_on_life_loss
    yield not lives, "environment.end_on_life_loss is false", ("environment.dead_starts",)
    yield family != "gym", "only gym: environments have it", ("environment.arguments", "environment.enlarge")
    unused = c.training.num_epochs <= c.collection.last_epoch
    yield unused, f"training ends after epoch {c.training.num_epochs}", ("collection.last_epoch",)


def _agent(c: RunConfig) -> Iterator[Rule]:
    v, m = c.tokenizer, c.world_model
    vqgan = ("tokenizer.num_res_blocks", "tokenizer.attention_resolutions")
    yield v.architecture != "vqgan", f"tokenizer.architecture is {v.architecture}", vqgan
    yield v.warmup == "none", "tokenizer.warmup is none", ("tokenizer.warmup_steps",)
    yield v.warmup != "beats_median", f"tokenizer.warmup is {v.warmup}", ("tokenizer.warmup_margin",)
    yield v.perceptual != "lpips", f"tokenizer.perceptual is {v.perceptual}", ("tokenizer.lpips_head_dropout",)
    pop = m.observation_prediction == "pop"
    yield not pop, f"world_model.observation_prediction is {m.observation_prediction}", PREDICTION_TOKENS
    yield m.architecture != "retnet", f"world_model.architecture is {m.architecture}", RETENTION
    frames = c.controller.observes == "frames"
    yield frames, "with controller.observes=frames C has the CNN of IRIS", ("controller.conv_channels",)
    told = ("imagination.burn_in_actions", "collection.executed_action_to_controller")
    yield not c.controller.action_inputs, "controller.action_inputs is false", told
    yield c.collection.epsilon == 0, "collection.epsilon is 0", told[1:]
    yield c.imagination.burn_in_frames == 0, "imagination.burn_in_frames is 0", told[:1]
    rare = "imagination.burn_in_action_every"
    fed = c.imagination.burn_in_actions
    yield fed != "published" or not c.controller.action_inputs, f"imagination.burn_in_actions is {fed}", (rare,)
    beyond = v.tokens_per_obs > c.imagination.burn_in_frames
    yield beyond, f"no action is told in {c.imagination.burn_in_frames} frames of {v.tokens_per_obs} tokens", (rare,)
    levels = (c.environment.frame_size // v.grid_size).bit_length()
    yield levels <= len(v.channels), f"tokenizer.channels has all {levels} levels", ("tokenizer.further_levels",)
    for name in ("tokenizer", "world_model", "controller"):
        yield from _phase(c, name)


def _phase(c: RunConfig, name: str) -> Iterator[Rule]:
    """Yield the rules of a component that never trains, and of a freeze after the run's end."""
    phase: Any = getattr(c, name).training
    end, prefix = c.training.num_epochs, f"{name}.training"
    settings = ("steps_per_epoch", "first_epoch_extra_steps", "optimizer", "learning_rate", "weight_decay")
    trained = tuple(f"{prefix}.{setting}" for setting in (*settings, "gradient_clip", "stop_after_epoch"))
    yield (
        phase.start_after_epoch >= end,
        f"{prefix}.start_after_epoch is {phase.start_after_epoch} of {end} epochs",
        trained,
    )
    late = phase.stop_after_epoch is None or phase.stop_after_epoch >= end
    yield late, f"training ends after epoch {end}", (f"{prefix}.stop_after_epoch",)
