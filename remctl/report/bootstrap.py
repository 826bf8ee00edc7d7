"""The stratified bootstrap of rliable and its metrics, for many resamples at once.

Legend: C resamples in a chunk, R runs (the most of any game), G games, N = R * G.

rliable resamples one at a time in Python; 50,000 repetitions for a whole report would take minutes. Here the same indices
are drawn in the same order from the same legacy generator, a thousand resamples at a time, so that every interval is
rliable's own; `remctl.report.reference` is rliable itself, and the tests compare the two. The generator is a private
one: numpy's global generator is not touched.

Ragged runs: a game with fewer runs than R is padded, and its padding has weight 0. Every game counts the same, so each of
a game's runs weighs 1 / (its number of runs).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from remctl.report.results import CONFIDENCE

CHUNK_VALUES = 1 << 17  # values in flight: small enough for the processor's cache


@dataclass(frozen=True)
class ScoreMatrix:
    """Scores of one algorithm: `values` (R, G), padded with 0 below the `counts` (G,) of runs that each game has."""

    values: np.ndarray
    counts: np.ndarray

    @classmethod
    def from_lists(cls, scores: Sequence[Sequence[float]]) -> ScoreMatrix:
        """`scores[g]` are the runs of game g, at least one each."""
        counts = np.array([len(runs) for runs in scores])
        assert counts.size, "no games"
        assert counts.min() > 0, "a game without runs"
        values = np.zeros((counts.max(), len(scores)))
        for g, runs in enumerate(scores):
            values[: len(runs), g] = runs
        return cls(values, counts)

    @property
    def is_ragged(self) -> bool:
        return bool(self.counts.min() < self.counts.max())

    @property
    def bears_intervals(self) -> bool:
        """At least two runs of every game: one run alone shows no spread."""
        return bool(self.counts.min() > 1)

    @property
    def weights(self) -> np.ndarray:
        """(R, G), sums to 1."""
        present = np.arange(len(self.values))[:, None] < self.counts
        return present / self.counts / self.counts.size

    def take(self, index_CRG: np.ndarray) -> np.ndarray:
        """Resampled values (C, R, G) for indices (C, R, G)."""
        return np.take_along_axis(self.values[None], index_CRG, axis=1)


def draws(matrices: Sequence[ScoreMatrix], reps: int, seed: int) -> Iterator[list[np.ndarray]]:
    """Chunks of `reps` resamples: for each matrix indices (C, R, G), in the order in which rliable draws them."""
    highs = [np.broadcast_to(m.counts, m.values.shape).ravel() for m in matrices]
    high, ends = np.concatenate(highs), np.cumsum([h.size for h in highs])[:-1]
    generator = np.random.RandomState(seed)  # noqa: NPY002 - the generator that rliable draws from
    chunk = max(1, CHUNK_VALUES // high.size)
    for begin in range(0, reps, chunk):
        count = min(chunk, reps - begin)
        flat = generator.randint(0, np.broadcast_to(high, (count, high.size)))
        parts = np.split(flat, ends, axis=1)
        yield [part.reshape(count, *m.values.shape) for part, m in zip(parts, matrices, strict=True)]


def interval(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The 95% percentile interval over the first axis of samples (reps, ...): two arrays (...)."""
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(samples, [tail, 100 - tail], axis=0)
    return low, high


# --- statistics of normalised scores: values (C, R, G), weights (R, G) -> (C, len(METRICS))


def statistics(values_CRG: np.ndarray, matrix: ScoreMatrix) -> np.ndarray:
    """Mean, median, IQM, optimality gap and number of superhuman games of each resample (C, R, G): (C, 5)."""
    games_CG = game_means(values_CRG, matrix)
    weights = matrix.weights
    capped = np.minimum(values_CRG, 1.0)
    columns = (
        games_CG.mean(axis=1),
        np.median(games_CG, axis=1),
        _weighted_iqm(values_CRG, weights) if matrix.is_ragged else _iqm(values_CRG),
        1.0 - np.einsum("crg,rg->c", capped, weights),
        (games_CG >= 1.0).sum(axis=1),
    )
    return np.stack(columns, axis=1)


def game_means(values_CRG: np.ndarray, matrix: ScoreMatrix) -> np.ndarray:
    """Mean over the runs of each game: (C, R, G) -> (C, G)."""
    if not matrix.is_ragged:
        return values_CRG.mean(axis=1)
    return np.einsum("crg,rg->cg", values_CRG, matrix.weights * matrix.counts.size)


def _iqm(values_CRG: np.ndarray) -> np.ndarray:
    """Mean of the middle half of all runs, as scipy's trim_mean: a quarter of N, rounded down, is cut at either end."""
    flat = values_CRG.reshape(len(values_CRG), -1)
    cut = int(0.25 * flat.shape[1])
    return np.sort(flat, axis=1)[:, cut : flat.shape[1] - cut].mean(axis=1)


def _weighted_iqm(values_CRG: np.ndarray, weights_RG: np.ndarray) -> np.ndarray:
    """Mean of the middle half of the weight; runs at either end count with the part of their weight that is inside."""
    flat = values_CRG.reshape(len(values_CRG), -1)
    order = np.argsort(flat, axis=1, kind="stable")
    weights = weights_RG.ravel()[order]
    upto = np.cumsum(weights, axis=1)
    inside = np.clip(np.minimum(upto, 0.75) - np.maximum(upto - weights, 0.25), 0.0, None)
    return (np.take_along_axis(flat, order, axis=1) * inside).sum(axis=1) / inside.sum(axis=1)


def probability_of_improvement(x_CRG: np.ndarray, y_CRG: np.ndarray, x: ScoreMatrix, y: ScoreMatrix) -> np.ndarray:
    """P(x > y) + P(x = y) / 2 within each game, averaged over games: (C, Rx, G), (C, Ry, G) -> (C,)."""
    wins = np.zeros(len(x_CRG))
    share_x, share_y = x.weights * x.counts.size, y.weights
    for run in range(y_CRG.shape[1]):
        other = y_CRG[:, run : run + 1]
        score = (x_CRG > other) + 0.5 * (x_CRG == other)
        wins += np.einsum("crg,rg,g->c", score, share_x, share_y[run])
    return wins


# --- performance profile


def profile(matrix: ScoreMatrix, taus: np.ndarray, multiplicity_CN: np.ndarray | None = None) -> np.ndarray:
    """Fraction of runs above each of taus (T,), averaged over games: (T,), or (C, T) for resamples (C, N).

    `multiplicity_CN`: how often each run was drawn.
    """
    above_NT = matrix.values.reshape(-1, 1) > taus
    weights = matrix.weights.ravel()
    drawn = weights if multiplicity_CN is None else multiplicity_CN * weights
    fractions: np.ndarray = drawn @ above_NT
    return fractions


def multiplicity(index_CRG: np.ndarray, matrix: ScoreMatrix) -> np.ndarray:
    """How often each of the N runs stands among the drawn ones (padding left out): (C, R, G) -> (C, N)."""
    C, R, G = index_CRG.shape
    present = matrix.weights > 0
    place = (np.arange(C)[:, None, None] * R + index_CRG) * G + np.arange(G)
    counts: np.ndarray = np.bincount(place[:, present].ravel(), minlength=C * R * G).reshape(C, R * G)
    return counts


# --- sample them


def bootstrap(
    matrices: Sequence[ScoreMatrix],
    functions: Mapping[str, Callable[..., np.ndarray]],
    reps: int,
    seed: int,
) -> dict[str, np.ndarray]:
    """Samples (reps, ...) of each function of the resampled matrices' indices (C, R, G), all from the same draws."""
    samples: dict[str, list[np.ndarray]] = {name: [] for name in functions}
    for indices in draws(matrices, reps, seed):
        for name, function in functions.items():
            samples[name].append(function(*indices))
    return {name: np.concatenate(parts) for name, parts in samples.items()}
