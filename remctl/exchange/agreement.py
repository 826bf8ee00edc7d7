"""Two tests of an agent: does the second agree with the first?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations, count
from typing import Any, NamedTuple

import numpy as np

from remctl.errors import MachineError
from remctl.report.numbers import is_number

REPETITIONS = 10_000
LEAST_P = 0.01  # an honest test disagrees by chance once in a hundred
CHUNK_VALUES = 1 << 20  # drawn at once: many episodes would fill the memory
SEED = 0  # of resampling: the same numbers each time


class Comparison(NamedTuple):
    """Whether two tests agree. `p`: how often two tests of one agent differ by as much or more, by chance.

    `agrees` None: so few episodes that they could not disagree, however far apart the returns; `enough` would do.
    """

    agrees: bool | None
    p: float
    is_same: bool  # every return is the stored one
    enough: int


def stored_returns(result: Mapping[str, Any], where: object) -> list[float]:
    """Return the returns that a result.json's score is the mean of. Raises MachineError if it is not, or has none.

    What is not finite is stored as null.
    """
    returns, score = result.get("returns"), result.get("score", math.nan)
    if isinstance(returns, list) and any(x is None or (isinstance(x, float) and not math.isfinite(x)) for x in returns):
        raise MachineError(
            f"{where}: its returns are not finite, so it has no score: train it again with another --seed"
        )
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
    low, high = np.quantile(resampled_means(returns, len(returns)), (0.025, 0.975))
    return float(low), float(high)


def resampled_means(returns: Sequence[float], size: int) -> np.ndarray:
    """Return means (REPETITIONS,) of `size` returns each, drawn with replacement."""
    values, rng = np.asarray(returns, float), np.random.default_rng(SEED)
    rows = max(1, CHUNK_VALUES // size)
    counts = [min(rows, REPETITIONS - begin) for begin in range(0, REPETITIONS, rows)]
    return np.concatenate([rng.choice(values, (count, size)).mean(axis=1) for count in counts])


def compare(played: Sequence[float], stored: Sequence[float]) -> Comparison:
    """Compare the means of two samples of returns by a permutation test: an exact one where there are few permutations."""
    pooled, n = np.array([*played, *stored], float), len(played)
    found = _difference(pooled, n) - 1e-12
    if math.comb(len(pooled), n) <= REPETITIONS:
        splits = combinations(range(len(pooled)), n)
        p = float(np.mean([_difference(_first(pooled, chosen), n) >= found for chosen in splits]))
    else:
        rng = np.random.default_rng(SEED)
        drawn = [_difference(rng.permutation(pooled), n) for _ in range(REPETITIONS)]
        p = (1 + sum(each >= found for each in drawn)) / (1 + REPETITIONS)
    is_same, m = list(played) == list(stored), len(stored)
    agrees = None if _smallest_p(n, m) >= LEAST_P and not is_same else p >= LEAST_P
    return Comparison(agrees, p, is_same, next(k for k in count(1) if _smallest_p(k, m) < LEAST_P))


def _smallest_p(n: int, m: int) -> float:
    """Return the p of n and m returns that are as far apart as can be: of all ways to split them, theirs is the extreme."""
    return (2 if n == m else 1) / math.comb(n + m, n)


def _first(values: np.ndarray, chosen: Sequence[int]) -> np.ndarray:
    """Return values (n + m,) with those at `chosen` (n indices) before the others."""
    return np.concatenate([values[list(chosen)], np.delete(values, chosen)])


def _difference(values: np.ndarray, n: int) -> float:
    """Between the means of the first n values (n + m,) and of the others."""
    return abs(float(values[:n].mean() - values[n:].mean()))
