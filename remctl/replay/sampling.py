"""Which steps to train on: uniform over admissible ones, drawn for a whole phase at once (no synchronisation in loops)."""

from __future__ import annotations

import numpy as np

from remctl.errors import UserError
from remctl.replay.buffer import Episodes


def sample_frames(episodes: Episodes, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Any stored frame. (steps, batch) int64."""
    return rng.integers(len(episodes.start), size=shape)


def sample_segments(
    episodes: Episodes, shape: tuple[int, int], min_blocks: int, rng: np.random.Generator
) -> np.ndarray:
    """First steps of segments with at least `min_blocks` real blocks. (steps, batch) int64."""
    return _pick(np.flatnonzero(episodes.remaining >= min_blocks), shape, rng, f"{min_blocks} steps")


def sample_starts(episodes: Episodes, shape: tuple[int, int], min_before: int, rng: np.random.Generator) -> np.ndarray:
    """Steps with at least `min_before` earlier ones in their episode. (steps, batch) int64."""
    return _pick(np.flatnonzero(episodes.before >= min_before), shape, rng, f"{min_before + 1} steps")


def _pick(admissible: np.ndarray, shape: tuple[int, int], rng: np.random.Generator, need: str) -> np.ndarray:
    if len(admissible) == 0:
        raise UserError(
            f"no episode collected so far has {need}: episodes of this game are too short for the configuration; set "
            "imagination.imagine_from=any_frame and world_model.loss_rule=supervise_starts, or raise collection.initial_steps"
        )
    return admissible[rng.integers(len(admissible), size=shape)]
