"""The same statistics by rliable itself: slow, and the judge of `remctl.report.bootstrap` in the tests.

rliable's `random_state` argument does nothing; it draws from numpy's global generator, which is seeded here and put back
afterwards. It takes full matrices (runs, games) only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np


@contextmanager
def global_seed(seed: int) -> Iterator[None]:
    """numpy's global generator seeded inside, and as it was afterwards."""
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002


def aggregates(scores_RG: np.ndarray) -> np.ndarray:
    """Mean, median, IQM, optimality gap of normalized scores (R, G), and games whose mean is at least 1: (5,)."""
    from rliable import metrics

    superhuman = (scores_RG.mean(axis=0) >= 1).sum()
    gap = metrics.aggregate_optimality_gap(scores_RG)
    central = metrics.aggregate_mean(scores_RG), metrics.aggregate_median(scores_RG), metrics.aggregate_iqm(scores_RG)
    return np.array([*central, gap, superhuman])


def improvement(x_RG: np.ndarray, y_RG: np.ndarray) -> np.ndarray:
    """Probability of improvement of scores (Rx, G) over (Ry, G): (1,)."""
    from rliable import metrics

    return np.array([metrics.probability_of_improvement(x_RG, y_RG)])


def intervals(
    function: Callable[..., np.ndarray], scores: tuple[np.ndarray, ...], reps: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Value (K,) and 95% interval (2, K) of a function of one matrix (R, G), or of several resampled independently."""
    from rliable import library

    data = scores[0] if len(scores) == 1 else list(scores)
    with global_seed(seed):
        values, bounds = library.get_interval_estimates({"it": data}, function, reps=reps)
    return values["it"], bounds["it"]


def profiles(scores_RG: np.ndarray, taus: np.ndarray, reps: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Performance profile (T,) of scores (R, G) at taus (T,) and its pointwise 95% band (2, T)."""
    from rliable import library

    with global_seed(seed):
        values, bands = library.create_performance_profile({"it": scores_RG}, taus, reps=reps)
    return values["it"], bands["it"]
