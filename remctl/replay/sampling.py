"""Which steps to train on, drawn for a whole phase at once (no synchronisation in loops).

`by` says how a batch is drawn from the admissible steps (configuration key `training.sampling`):

- `passes`: shuffled anew for each pass over them, without replacement, as the published code does. A pass's last batch is
  short: its missing places hold NONE, since the shape of a batch must not change where steps are captured.
- `steps`: uniformly, with replacement.
- `episodes`: uniformly over the episodes that have any, then over theirs (IRIS).
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from remctl.errors import UserError
from remctl.replay.buffer import NONE, Episodes

By = Literal["passes", "steps", "episodes"]


def sample_frames(episodes: Episodes, shape: tuple[int, int], rng: np.random.Generator, by: By = "steps") -> np.ndarray:
    """Any stored frame. (steps, batch) int64."""
    return _pick(episodes, np.arange(len(episodes.start)), shape, rng, by)


def sample_segments(
    episodes: Episodes, shape: tuple[int, int], min_blocks: int, rng: np.random.Generator, by: By = "steps"
) -> np.ndarray:
    """First steps of segments with at least `min_blocks` real blocks. (steps, batch) int64."""
    admissible = np.flatnonzero(episodes.remaining >= min_blocks)
    return _pick(episodes, admissible, shape, rng, by, f"{min_blocks} steps")


def sample_starts(
    episodes: Episodes, shape: tuple[int, int], min_before: int, rng: np.random.Generator, by: By = "steps"
) -> np.ndarray:
    """Steps with at least `min_before` earlier ones in their episode. (steps, batch) int64."""
    admissible = np.flatnonzero(episodes.before >= min_before)
    return _pick(episodes, admissible, shape, rng, by, f"{min_before + 1} steps")


def _pick(
    episodes: Episodes,
    admissible: np.ndarray,
    shape: tuple[int, int],
    rng: np.random.Generator,
    by: By,
    need: str = "a step",
) -> np.ndarray:
    if len(admissible) == 0:
        raise UserError(
            f"no episode collected so far has {need}: episodes of this game are too short for the configuration; set "
            "imagination.imagine_from=any_frame and world_model.loss_rule=supervise_starts, or raise collection.initial_steps"
        )
    if by == "passes":
        return _in_passes(admissible, shape, rng)
    if by == "steps":
        return admissible[rng.integers(len(admissible), size=shape)]
    _, first, count = np.unique(episodes.start[admissible], return_index=True, return_counts=True)
    episode = rng.integers(len(first), size=shape)
    return admissible[first[episode] + rng.integers(count[episode])]


def _in_passes(admissible: np.ndarray, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    steps, batch = shape
    per_pass = -(-len(admissible) // batch)
    picked = np.full((-(-steps // per_pass), per_pass * batch), NONE)
    for one_pass in picked:
        one_pass[: len(admissible)] = rng.permutation(admissible)
    return picked.reshape(-1, batch)[:steps]
