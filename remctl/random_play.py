"""Uniformly random play under the protocol of a final test: the score that everything learned is compared with."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from remctl.config import RunConfig
from remctl.envs import make_env
from remctl.interfaces import Env

CONFIDENCE = 0.95
BOUND, BOUND_EPISODES = 0.999, 100  # a final test has 100 episodes
CHUNK_VALUES = 1 << 20  # drawn at once


def play_randomly(config: RunConfig, num_episodes: int, advance: Callable[[int], None]) -> dict[str, Any]:
    """Play test episodes with uniformly random actions; `advance` gets how many are done, and may raise to leave.

    Returns the returns (raw sums of rewards) and lengths in agent steps, and what `statistics` says. Episode i draws its reset
    and its actions from its own stream of `config.seed`. Raises UserError for an environment that cannot be used.
    """
    env = make_env(config.game, config.environment, training=False, seed=config.seed)
    try:
        episodes = []
        for i in range(num_episodes):
            advance(i)
            episodes.append(_episode(env, np.random.default_rng([config.seed, i]), partial(advance, i)))
        advance(num_episodes)
    finally:
        env.close()
    returns, lengths = map(list, zip(*episodes, strict=True))
    about = {"game": config.game, "seed": config.seed, "episodes": num_episodes, "num_actions": env.num_actions}
    return about | statistics(np.array(returns), config.seed) | {"returns": returns, "lengths_steps": lengths}


def _episode(env: Env, rng: np.random.Generator, check: Callable[[], None]) -> tuple[float, int]:
    env.reset(rng)
    total, steps, is_over = 0.0, 0, False
    while not is_over:
        check()
        result = env.step(int(rng.integers(env.num_actions)))
        total, steps = total + result.reward, steps + 1
        is_over = result.terminated or result.truncated
    return total, steps


def statistics(returns: np.ndarray, seed: int) -> dict[str, Any]:
    """Mean of returns (n,), its 95% bootstrap interval, and the 99.9% quantile of the mean of 100 episodes (percentiles)."""
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(_resampled_means(returns, len(returns), 2_000, seed), [tail, 100 - tail])
    bound = np.percentile(_resampled_means(returns, BOUND_EPISODES, 20_000, seed), 100 * BOUND)
    return {"mean": float(returns.mean()), "interval": [float(low), float(high)], "bound_of_100": float(bound)}


def _resampled_means(returns: np.ndarray, size: int, count: int, seed: int) -> np.ndarray:
    """Means (count,) of `size` returns each, drawn with replacement."""
    rng = np.random.default_rng(seed)
    rows = max(1, CHUNK_VALUES // size)
    parts = [rng.choice(returns, (min(rows, count - i), size)).mean(axis=1) for i in range(0, count, rows)]
    return np.concatenate(parts)
