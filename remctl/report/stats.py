"""From scores to the rows of a report: aggregates, profiles, improvements, differences, scores per game.

Definitions follow Agarwal et al. (2021) as rliable computes them (Section 3 and Appendix A.4 of the paper). Every
interval starts its own generator from the report's seed, so that it does not depend on what else is in the report.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from remctl.games import HUMAN, find_reference, normalized, reference_name
from remctl.report import bootstrap as bs
from remctl.report.bootstrap import ScoreMatrix
from remctl.report.published import NUM_RUNS
from remctl.report.results import (
    LOWER_IS_BETTER,
    METRICS,
    Aggregate,
    Algorithm,
    Difference,
    GameScore,
    Improvement,
    Profile,
    RunScore,
)

MIN_TAU_STEPS = 100
MAX_TAU = 10
MAX_MORE_SEEDS = 1000
# Half-widths of the interval that the true difference must measure to be found with a probability of 80%:
# (z(0.975) + z(0.8)) / z(0.975).
POWER_FACTOR = (1.959964 + 0.841621) / 1.959964
DIFFERENCE_METRICS = METRICS[:4]


@dataclass(frozen=True)
class Bootstrap:
    """How resampling is done: repetitions, seed, and what becomes of ragged runs (`all` | `equalise`)."""

    reps: int
    seed: int
    ragged: str = "all"


def used_runs(algorithm: Algorithm, games: Sequence[str], how: Bootstrap) -> dict[str, list[RunScore]]:
    """The runs of each game of `games` that take part in aggregates: all, or equally many by a seeded draw."""
    runs = {game: [run for run in algorithm.runs if run.game == game] for game in games}
    if how.ragged != "equalise" or not runs:
        return runs
    count = min(len(of_game) for of_game in runs.values())
    generator = np.random.default_rng(how.seed)
    drawn = {}
    for game, of_game in runs.items():
        keep = sorted(generator.choice(len(of_game), size=count, replace=False).tolist())
        drawn[game] = [of_game[i] for i in keep]
    return drawn


def normalized_matrix(runs: dict[str, list[RunScore]]) -> ScoreMatrix:
    """Normalized scores of `runs`, all of games that have reference scores."""
    return ScoreMatrix.from_lists([[normalized(game, r.score) for r in of_game] for game, of_game in runs.items()])


def raw_matrix(runs: dict[str, list[RunScore]]) -> ScoreMatrix:
    """Raw scores of `runs`."""
    return ScoreMatrix.from_lists([[r.score for r in of_game] for of_game in runs.values()])


# --- aggregates


def aggregates(algorithm: Algorithm, games: tuple[str, ...], how: Bootstrap) -> list[Aggregate]:
    """All metrics over `games` with intervals; for published means the three that means bear, without.

    The number of superhuman games only if the reference of all `games` is human.
    """
    if not games:
        return []
    if algorithm.origin == "published":
        return _published_aggregates(algorithm, games, how.seed)
    matrix = normalized_matrix(used_runs(algorithm, games, how))
    values = bs.statistics(matrix.values[None], matrix)[0]
    lows, highs = _intervals(matrix, how)
    reps = how.reps if matrix.bears_intervals else 0
    num_runs = int(matrix.counts.min())
    return [
        Aggregate(algorithm.name, metric, value, low, high, len(games), num_runs, reps, how.seed)
        for metric, value, low, high in zip(METRICS, values.tolist(), lows, highs, strict=True)
        if metric != "superhuman" or reference_name(games) == HUMAN
    ]


def _intervals(matrix: ScoreMatrix, how: Bootstrap) -> tuple[list[float | None], list[float | None]]:
    if not matrix.bears_intervals:
        return [None] * len(METRICS), [None] * len(METRICS)
    functions = {"it": lambda index: bs.statistics(matrix.take(index), matrix)}
    low, high = bs.interval(bs.bootstrap([matrix], functions, how.reps, how.seed)["it"])
    return low.tolist(), high.tolist()


def _published_aggregates(algorithm: Algorithm, games: tuple[str, ...], seed: int) -> list[Aggregate]:
    scores = [normalized(game, algorithm.means[game]) for game in games]
    values = {
        "mean": float(np.mean(scores)),
        "median": float(np.median(scores)),
        "superhuman": float(sum(score >= 1 for score in scores)),
    }
    return [
        Aggregate(algorithm.name, metric, values[metric], None, None, len(games), NUM_RUNS, 0, seed)
        for metric in METRICS
        if metric in values
    ]


# --- performance profiles


def profiles(algorithms: Iterable[Algorithm], games: tuple[str, ...], how: Bootstrap) -> list[Profile]:
    """The share of runs above tau, for tau from 0 to just above the best score (at most MAX_TAU)."""
    with_runs = [a for a in algorithms if a.runs]
    if not games or not with_runs:
        return []
    matrices = {a.name: normalized_matrix(used_runs(a, games, how)) for a in with_runs}
    best = max(float(m.values.max()) for m in matrices.values())
    last = min(max(math.ceil(best), 1), MAX_TAU)
    per_unit = 4 * math.ceil(MIN_TAU_STEPS / last / 4)  # quarters are among them
    taus = np.linspace(0.0, last, last * per_unit + 1)
    return [_profile(name, matrix, taus, how) for name, matrix in matrices.items()]


def _profile(name: str, matrix: ScoreMatrix, taus: np.ndarray, how: Bootstrap) -> Profile:
    values = bs.profile(matrix, taus)
    if not matrix.bears_intervals:
        return Profile(name, tuple(taus.tolist()), tuple(values.tolist()), None, None)
    functions = {"it": lambda index: bs.profile(matrix, taus, bs.multiplicity(index, matrix))}
    low, high = bs.interval(bs.bootstrap([matrix], functions, how.reps, how.seed)["it"])
    rows = [tuple(row.tolist()) for row in (taus, values, low, high)]
    return Profile(name, rows[0], rows[1], rows[2], rows[3])


# --- probability of improvement


def improvements(
    algorithms: Sequence[Algorithm], control: str | None, games: tuple[str, ...], raw: tuple[str, ...], how: Bootstrap
) -> list[Improvement]:
    """P(control > other), or of every pair without a control: over `games`, and on each game of `raw`."""
    pairs = [(a, b) for a, b in combinations([a for a in algorithms if a.runs], 2)]
    if control is not None:
        pairs = [(a, b) if a.name == control else (b, a) for a, b in pairs if control in (a.name, b.name)]
    rows = []
    for better, than in pairs:
        if games:
            x, y = (normalized_matrix(used_runs(a, games, how)) for a in (better, than))
            rows.append(_improvement(better.name, than.name, None, x, y, how))
        for game in (g for g in raw if g in better.means and g in than.means):
            x, y = (raw_matrix(used_runs(a, (game,), how)) for a in (better, than))
            rows.append(_improvement(better.name, than.name, game, x, y, how))
    return rows


def _improvement(
    better: str, than: str, game: str | None, x: ScoreMatrix, y: ScoreMatrix, how: Bootstrap
) -> Improvement:
    value = float(bs.probability_of_improvement(x.values[None], y.values[None], x, y)[0])
    low = high = None
    if x.bears_intervals and y.bears_intervals:
        functions = {"it": lambda i, j: bs.probability_of_improvement(x.take(i), y.take(j), x, y)}
        bounds = bs.interval(bs.bootstrap([x, y], functions, how.reps, how.seed)["it"])
        low, high = float(bounds[0]), float(bounds[1])
    runs = int(x.counts.min()), int(y.counts.min())
    return Improvement(better, than, game, value, low, high, x.counts.size, *runs)


# --- differences to the control


def differences(
    algorithms: Sequence[Algorithm],
    control: str | None,
    games: tuple[str, ...],
    all_games: tuple[str, ...],
    how: Bootstrap,
) -> list[Difference]:
    """Each algorithm minus the control: metrics over `games`, then the raw mean on each shared game of `all_games`."""
    with_runs = {a.name: a for a in algorithms if a.runs}
    if control not in with_runs:
        return []
    base = with_runs[control]
    rows = []
    for algorithm in (a for a in with_runs.values() if a is not base):
        if games:
            rows += _aggregate_differences(algorithm, base, games, how)
        shared = tuple(g for g in all_games if g in algorithm.means and g in base.means)
        rows += [_game_difference(algorithm, base, game, how) for game in shared]
    return rows


def _aggregate_differences(
    algorithm: Algorithm, base: Algorithm, games: tuple[str, ...], how: Bootstrap
) -> list[Difference]:
    runs = [used_runs(a, games, how) for a in (algorithm, base)]
    x, y = (normalized_matrix(r) for r in runs)
    columns = slice(0, len(DIFFERENCE_METRICS))

    def gap(x_CRG: np.ndarray, y_CRG: np.ndarray) -> np.ndarray:
        return (bs.statistics(x_CRG, x) - bs.statistics(y_CRG, y))[:, columns]

    paired = _same_seeds(*runs)
    return [
        _difference(algorithm, base, metric, None, row, paired, x, y)
        for metric, row in zip(DIFFERENCE_METRICS, _compare(x, y, gap, paired, how), strict=True)
    ]


def _game_difference(algorithm: Algorithm, base: Algorithm, game: str, how: Bootstrap) -> Difference:
    runs = [used_runs(a, (game,), Bootstrap(how.reps, how.seed)) for a in (algorithm, base)]
    x, y = (raw_matrix(r) for r in runs)

    def gap(x_CRG: np.ndarray, y_CRG: np.ndarray) -> np.ndarray:
        return bs.game_means(x_CRG, x) - bs.game_means(y_CRG, y)

    paired = _same_seeds(*runs)
    (row,) = _compare(x, y, gap, paired, how)
    return _difference(algorithm, base, "raw_mean", game, row, paired, x, y)


def _same_seeds(x: dict[str, list[RunScore]], y: dict[str, list[RunScore]]) -> bool:
    """Whether run i of every game has the same, known seed in both."""
    seeds = [[[run.seed for run in of_game] for of_game in runs.values()] for runs in (x, y)]
    return seeds[0] == seeds[1] and all(seed is not None for of_game in seeds[0] for seed in of_game)


_Row = tuple[float, float | None, float | None]
_Gap = Callable[[np.ndarray, np.ndarray], np.ndarray]


def _compare(x: ScoreMatrix, y: ScoreMatrix, gap: _Gap, paired: bool, how: Bootstrap) -> list[_Row]:
    """Value and interval of each column of gap(values of x, values of y); paired runs are resampled together."""
    values = gap(x.values[None], y.values[None])[0].tolist()
    if not (x.bears_intervals and y.bears_intervals):
        return [(value, None, None) for value in values]
    if paired:
        samples = bs.bootstrap([x], {"it": lambda i: gap(x.take(i), y.take(i))}, how.reps, how.seed)["it"]
    else:
        samples = bs.bootstrap([x, y], {"it": lambda i, j: gap(x.take(i), y.take(j))}, how.reps, how.seed)["it"]
    low, high = bs.interval(samples)
    return list(zip(values, low.tolist(), high.tolist(), strict=True))


def _difference(
    algorithm: Algorithm,
    base: Algorithm,
    metric: str,
    game: str | None,
    row: _Row,
    paired: bool,
    x: ScoreMatrix,
    y: ScoreMatrix,
) -> Difference:
    value, low, high = row
    num_runs = int(min(x.counts.min(), y.counts.min()))
    return Difference(
        algorithm=algorithm.name,
        control=base.name,
        metric=metric,
        game=game,
        value=value,
        ci_low=low,
        ci_high=high,
        pairing="game and seed" if paired else "game",
        separated=None if low is None or high is None else low > 0 or high < 0,
        more_seeds=more_seeds(value, low, high, num_runs),
        is_better=None if value == 0 else (value < 0) == (metric in LOWER_IS_BETTER),
        num_games=x.counts.size,
        num_runs=num_runs,
    )


def more_seeds(value: float, low: float | None, high: float | None, num_runs: int) -> int | None:
    """Further runs per game that separate a true difference of `value` with a probability of 80%.

    An interval's half-width shrinks with the square root of the number of runs: the half of it that lies towards zero
    must become value / POWER_FACTOR. Resampling n runs shows the spread too small by sqrt((n - 1) / n), which is put
    right here. 0 if the interval excludes 0 already; None where it cannot be said.
    """
    if low is None or high is None:
        return None
    if low > 0 or high < 0:
        return 0
    towards_zero = value - low if value > 0 else high - value
    if value == 0 or towards_zero == 0:
        return None
    needed = num_runs * num_runs / (num_runs - 1) * (POWER_FACTOR * towards_zero / value) ** 2
    return max(1, math.ceil(needed) - num_runs) if needed <= MAX_MORE_SEEDS else None


# --- per game


def game_scores(algorithm: Algorithm, games: tuple[str, ...], used: tuple[str, ...], how: Bootstrap) -> list[GameScore]:
    """A row for each of `games` that the algorithm has; `used` are those that the aggregates go over."""
    in_use = used_runs(algorithm, used, how) if algorithm.runs else {}
    num_used = {game: len(runs) for game, runs in in_use.items()}
    return [
        _game_score(algorithm, game, NUM_RUNS if not algorithm.runs and game in used else num_used.get(game, 0), how)
        for game in games
        if game in algorithm.means
    ]


def _game_score(algorithm: Algorithm, game: str, num_used: int, how: Bootstrap) -> GameScore:
    runs = [run for run in algorithm.runs if run.game == game]
    low = high = None
    if len(runs) > 1:
        matrix = raw_matrix({game: runs})
        functions = {"it": lambda index: bs.game_means(matrix.take(index), matrix)}
        bounds = bs.interval(bs.bootstrap([matrix], functions, how.reps, how.seed)["it"][:, 0])
        low, high = float(bounds[0]), float(bounds[1])
    mean = algorithm.means[game]
    found = None if any(run.has_arguments for run in runs) else find_reference(game)
    of_reference = None if found is None else found.normalized(mean)
    return GameScore(
        algorithm=algorithm.name,
        game=game,
        mean=mean,
        ci_low=low,
        ci_high=high,
        normalized=of_reference,
        is_superhuman=None if found is None or of_reference is None or found.name != HUMAN else of_reference >= 1,
        num_runs=len(runs) or NUM_RUNS,
        num_used=num_used,
        scores=tuple(run.score for run in runs),
        seeds=tuple(run.seed for run in runs),
    )
