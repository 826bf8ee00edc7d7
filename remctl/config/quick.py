"""The preset `quick`: small networks, and budgets of minutes on a CPU for each kind of environment.

What those for the environments of others were tried with, and what they reach: docs/learning-log.md.
"""

from __future__ import annotations

from typing import Any

from remctl.games import kind

Overrides = dict[str, Any]

QUICK: Overrides = {
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

# A board of 10 by 5 cells, and 9 actions an episode.
QUICK_BSUITE_CATCH: Overrides = QUICK_TOY | {
    "environment.enlarge": "nearest",
    "world_model.sequence_blocks": 9,
    "imagination.horizon": 9,
    "evaluation.every_epochs": 4,
    "evaluation.num_episodes": 2,
    "evaluation.num_envs": 10,
    "training.num_epochs": 8,
}

QUICK_MINIGRID: Overrides = QUICK_TOY | {
    "collection.initial_steps": 2000,
    "tokenizer.training.first_epoch_extra_steps": 200,
    "tokenizer.training.stop_after_epoch": 3,
    "world_model.sequence_blocks": 12,
    "world_model.training.first_epoch_extra_steps": 500,
    "world_model.training.steps_per_epoch": 80,
    "imagination.burn_in_frames": 4,  # one frame shows all
    "imagination.horizon": 12,
    "controller.entropy_weight": 0.01,
    "controller.discount": 0.97,  # the sign of a reward does not show how early it came
    "controller.training.batch_size": 48,
    "evaluation.every_epochs": 4,
    "evaluation.num_episodes": 2,
    "evaluation.num_envs": 10,
    "training.num_epochs": 8,
}

# A token for each cell of the board. Going forward often ends the episode with -1: with a lower entropy weight, C stops
# doing it everywhere before it can tell where it is safe.
QUICK_OBSTACLES: Overrides = QUICK_MINIGRID | {
    "environment.frame_size": 40,
    "collection.initial_steps": 4000,
    "collection.steps_per_epoch": 500,
    "tokenizer.grid_size": 5,
    "tokenizer.training.first_epoch_extra_steps": 300,
    "tokenizer.training.stop_after_epoch": 2,
    "world_model.sequence_blocks": 8,
    "world_model.training.first_epoch_extra_steps": 1000,
    "world_model.training.steps_per_epoch": 120,
    "controller.entropy_weight": 0.2,
    "controller.discount": 0.9,
    "controller.training.batch_size": 64,
    "controller.training.steps_per_epoch": 150,
    "training.num_epochs": 30,
}

# A token for each 2x2 cells of the 10x10. V goes on learning for longer: what C's progress brings into view is new to it.
QUICK_MINATAR: Overrides = QUICK_MINIGRID | {
    "environment.frame_size": 40,
    "environment.enlarge": "nearest",
    "collection.initial_steps": 4000,
    "collection.steps_per_epoch": 1000,
    "tokenizer.num_codes": 128,
    "tokenizer.grid_size": 5,
    "tokenizer.warmup_steps": 200,
    "tokenizer.training.first_epoch_extra_steps": 400,
    "tokenizer.training.steps_per_epoch": 60,
    "tokenizer.training.stop_after_epoch": 8,
    "world_model.sequence_blocks": 8,
    "world_model.training.first_epoch_extra_steps": 800,
    "world_model.training.steps_per_epoch": 350,
    "imagination.horizon": 15,
    "controller.discount": 0.99,
    "controller.training.batch_size": 64,
    "controller.training.steps_per_epoch": 150,
    "evaluation.every_epochs": 6,
    "training.num_epochs": 24,
}

# Environments by the beginning of their id, the module before it left out; the first that fits. Others are as Atari games.
BY_PREFIX: dict[str, Overrides] = {
    "bsuite/catch": QUICK_BSUITE_CATCH,
    "MiniGrid-Dynamic-Obstacles-5x5": QUICK_OBSTACLES,
    "MiniGrid-": QUICK_MINIGRID,
    "MinAtar/": QUICK_MINATAR,
}


def quick_overrides(game: str) -> Overrides:
    """The overrides of `quick` for `game`."""
    if kind(game) == "toy":
        return QUICK_TOY
    env_id = game.rpartition(":")[2]
    return next((sizes for prefix, sizes in BY_PREFIX.items() if env_id.startswith(prefix)), QUICK_ATARI)
