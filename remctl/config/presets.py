"""The presets: `paper` (published behaviour), `quick` (minutes on a CPU), `corrected`, `paper-text`, and the baseline's.

A preset is a flat mapping of dotted keys to values, laid over the schema's defaults.
"""

from __future__ import annotations

from typing import Any

from remctl.games import kind
from remctl.variants import VARIANTS

Overrides = dict[str, Any]

# What the published code does around the networks where nobody would expect it, as one would.
SURROUNDINGS: Overrides = {
    "environment.late_game_over": False,
    "environment.dead_starts": False,
    "environment.time_limit_ends": False,
    "collection.untrained_policy": "uniform",
    "collection.controller_memory": "carried",
    "tokenizer.further_levels": "repeated",
    "training.sampling": "steps",
}

# What looks like an accident in how the agent is trained, mended.
ACCIDENTS: Overrides = {
    "imagination.burn_in_actions": "all",
    "collection.executed_action_to_controller": True,
    "imagination.mask_after_end": True,
    "imagination.imagine_from": "any_frame",
    "world_model.loss_rule": "supervise_starts",
}

CORRECTIONS = ACCIDENTS | SURROUNDINGS

PAPER_TEXT: Overrides = {
    "tokenizer.reconstruction": "l1",
    "world_model.ffn_activation": "gelu",
    "world_model.decay": "power_of_two",
    "imagination.burn_in_frames": 10,  # Algorithm 7: C sees H real frames
    "imagination.imagined_steps": "text",
    "imagination.last_step": "used",
    "imagination.burn_in_actions": "all",
    "imagination.imagine_from": "any_frame",
    "collection.executed_action_to_controller": True,
    "world_model.loss_rule": "supervise_starts",
    "training.sampling": "steps",
}

QUICK: Overrides = CORRECTIONS | {
    "tokenizer.channels": (8, 16, 32, 64),
    "tokenizer.embed_dim": 64,
    "tokenizer.num_codes": 64,
    "tokenizer.perceptual": "pixel",
    "tokenizer.codebook_init": "kmeans",
    "tokenizer.commitment_weight": 0.25,
    "tokenizer.training.start_after_epoch": 0,
    "tokenizer.training.batch_size": 32,
    "tokenizer.training.learning_rate": 1e-3,
    "world_model.num_layers": 2,
    "world_model.num_heads": 2,
    "world_model.embed_dim": 64,
    "world_model.ffn_dim": 256,
    "world_model.dropout": 0.0,
    "world_model.layer_init": "independent",
    "world_model.blocks_per_chunk": 1,
    "world_model.training.start_after_epoch": 0,
    "world_model.training.batch_size": 16,
    "world_model.training.learning_rate": 2e-3,
    "world_model.training.gradient_clip": 1.0,
    "controller.conv_channels": (32, 16),
    "controller.hidden_dim": 128,
    "controller.entropy_weight": 0.03,
    "controller.training.start_after_epoch": 0,
    "controller.training.learning_rate": 1e-3,
    "runtime.precision": "fp32",
}

QUICK_TOY: Overrides = QUICK | {
    "collection.initial_steps": 1500,
    "collection.steps_per_epoch": 300,
    "tokenizer.grid_size": 4,
    "tokenizer.warmup": "fixed",
    "tokenizer.warmup_steps": 100,
    "tokenizer.training.first_epoch_extra_steps": 150,
    "tokenizer.training.steps_per_epoch": 25,
    "tokenizer.training.stop_after_epoch": 2,
    "world_model.sequence_blocks": 7,  # an episode has 7 actions
    "world_model.training.first_epoch_extra_steps": 600,
    "world_model.training.steps_per_epoch": 120,
    "imagination.burn_in_frames": 8,  # and 8 frames
    "imagination.horizon": 7,
    "controller.training.start_after_epoch": 1,
    "controller.training.batch_size": 64,
    "controller.training.steps_per_epoch": 80,
    "evaluation.every_epochs": 5,
    "training.num_epochs": 9,
}

QUICK_ATARI: Overrides = QUICK | {
    "collection.initial_steps": 2000,
    "collection.steps_per_epoch": 200,
    "tokenizer.warmup": "beats_median",
    "tokenizer.warmup_steps": 1500,
    "tokenizer.warmup_margin": 0.7,
    "tokenizer.training.first_epoch_extra_steps": 300,
    "tokenizer.training.steps_per_epoch": 100,
    "tokenizer.training.stop_after_epoch": 2,
    "world_model.training.first_epoch_extra_steps": 200,
    "world_model.training.steps_per_epoch": 80,
    "controller.training.batch_size": 16,
    "controller.training.steps_per_epoch": 40,
    "evaluation.every_epochs": 4,
    "evaluation.num_episodes": 2,
    "evaluation.num_envs": 20,
    "evaluation.final_episodes": 40,
    "training.num_epochs": 4,
}

# Presets that are `paper` with a variant of the switchboard, where the overrides are written; they bear its label.
PRESET_VARIANTS = {"iris": "iris", "iris-rem": "iris_rem"}

DESCRIPTIONS = {
    "paper": "the published agent, published behaviour; 100,000 steps; needs a GPU",
    "quick": "small networks, corrected behaviour; minutes on two CPU cores; sizes by kind of game",
    "corrected": "paper with its accidents corrected, in training and around it",
    "paper-text": "paper with the text's side wherever text and published code differ",
    "iris": "the baseline as published: Transformer, VQGAN tokenizer, 16 tokens, horizon 20; needs a GPU",
    "iris-rem": "the baseline with REM's 64 tokens, horizon 10, and controller batches; needs a GPU",
}

# Section A.5: on Freeway the policy is sampled nearly greedily, or no reward is ever seen.
GAME_OVERRIDES: dict[str, Overrides] = {"Freeway": {"collection.temperature": 0.01}}
# Gymnasium environments are not Atari: their actions are meant to be taken one by one.
GYM_OVERRIDES: Overrides = {"environment.frame_skip": 1}


def preset_overrides(preset: str, game: str) -> Overrides:
    """The dotted overrides of `preset` for `game`. The name must be one of DESCRIPTIONS."""
    quick = QUICK_TOY if kind(game) == "toy" else QUICK_ATARI
    table: dict[str, Overrides] = {"paper": {}, "quick": quick, "corrected": CORRECTIONS, "paper-text": PAPER_TEXT}
    table |= {name: VARIANTS[variant].overrides for name, variant in PRESET_VARIANTS.items()}
    return table[preset] | GAME_OVERRIDES.get(game, GYM_OVERRIDES if kind(game) == "gym" else {})
