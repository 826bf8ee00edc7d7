"""Two tests of an agent: does the second agree with the first?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from remctl.errors import MachineError
from remctl.report.numbers import is_number

REPETITIONS = 10_000
LEAST_P = 0.01  # an honest test disagrees by chance once in a hundred
SEED = 0  # of resampling: the same numbers each time


class Comparison(NamedTuple):
    """Whether two tests agree. `p`: how often two tests of one agent differ by as much or more, by chance."""

    agrees: bool
    p: float
    is_same: bool  # every return is the stored one


def stored_returns(result: Mapping[str, Any], where: object) -> list[float]:
    """Return the returns that a result.json's score is the mean of. Raises MachineError if it is not, or has none."""
    returns, score = result.get("returns"), result.get("score", math.nan)
    if (
        not isinstance(returns, list)
        or not returns
        or not all(map(is_number, (*returns, score)))
        or not math.isclose(sum(returns) / len(returns), score, rel_tol=1e-9, abs_tol=1e-9)
    ):
        raise MachineError(f"{where}: its score is not the mean of its returns: restore it from a copy")
    return [float(x) for x in returns]


def interval(returns: Sequence[float]) -> tuple[float, float]:
    """Return the 95% percentile bootstrap interval of the mean of some episodes' returns."""
    values, rng = np.asarray(returns, float), np.random.default_rng(SEED)
    means = rng.choice(values, (REPETITIONS, len(values))).mean(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def compare(played: Sequence[float], stored: Sequence[float]) -> Comparison:
    """Compare the means of two samples of returns by a permutation test."""
    pooled, rng = np.array([*played, *stored], float), np.random.default_rng(SEED)
    found = _difference(pooled, len(played)) - 1e-12
    drawn = [_difference(rng.permutation(pooled), len(played)) for _ in range(REPETITIONS)]
    p = (1 + sum(each >= found for each in drawn)) / (1 + REPETITIONS)
    return Comparison(p >= LEAST_P, p, list(played) == list(stored))


def _difference(values: np.ndarray, n: int) -> float:
    """Between the means of the first n values (n + m,) and of the others."""
    return abs(float(values[:n].mean() - values[n:].mean()))
