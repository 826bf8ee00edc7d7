"""The bootstrap against rliable itself, and against answers computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from remctl.report import bootstrap as bs
from remctl.report import reference
from remctl.report.bootstrap import ScoreMatrix
from remctl.report.results import METRICS

REPS = 200


def scores(num_runs: int, num_games: int, seed: int = 0) -> np.ndarray:
    """Human-normalized scores (num_runs, num_games) between 0 and about 5."""
    return np.random.default_rng(seed).gamma(1.0, 1.0, (num_runs, num_games))


def matrix(values: np.ndarray) -> ScoreMatrix:
    return ScoreMatrix.from_lists(values.T.tolist())


def statistics(values: ScoreMatrix) -> dict[str, float]:
    return dict(zip(METRICS, bs.statistics(values.values[None], values)[0].tolist(), strict=True))


# --- equal to rliable


@pytest.mark.parametrize("shape", [(5, 26), (3, 8), (2, 1), (7, 3), (1, 4)])
@pytest.mark.parametrize("seed", [0, 7])
def test_aggregates_equal_rliable(shape: tuple[int, int], seed: int) -> None:
    values = scores(*shape)
    m = matrix(values)
    samples = bs.bootstrap([m], {"it": lambda i: bs.statistics(m.take(i), m)}, REPS, seed)["it"]
    value, bounds = reference.intervals(reference.aggregates, (values,), REPS, seed)
    np.testing.assert_allclose(bs.statistics(m.values[None], m)[0], value, rtol=1e-12)
    np.testing.assert_allclose(bs.interval(samples), bounds, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("runs", [(5, 5), (3, 5), (4, 2)])
def test_improvement_equals_rliable(runs: tuple[int, int]) -> None:
    x, y = scores(runs[0], 6, 1).round(1), scores(runs[1], 6, 2).round(1)  # rounded: with ties
    mx, my = matrix(x), matrix(y)
    functions = {"it": lambda i, j: bs.probability_of_improvement(mx.take(i), my.take(j), mx, my)}
    samples = bs.bootstrap([mx, my], functions, REPS, 3)["it"]
    value, bounds = reference.intervals(reference.improvement, (x, y), REPS, 3)
    np.testing.assert_allclose(bs.probability_of_improvement(x[None], y[None], mx, my), value, rtol=1e-12)
    np.testing.assert_allclose(bs.interval(samples), bounds[:, 0], rtol=1e-12)


def test_profile_equals_rliable() -> None:
    values, taus = scores(4, 9), np.linspace(0, 5, 11)
    m = matrix(values)
    samples = bs.bootstrap([m], {"it": lambda i: bs.profile(m, taus, bs.multiplicity(i, m))}, REPS, 5)["it"]
    value, bands = reference.profiles(values, taus, REPS, 5)
    np.testing.assert_allclose(bs.profile(m, taus), value, rtol=1e-12)
    np.testing.assert_allclose(bs.interval(samples), bands, rtol=1e-12, atol=1e-14)


def test_chunks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    m, n = matrix(scores(5, 4)), matrix(scores(3, 4))
    whole = [np.concatenate(parts) for parts in zip(*bs.draws([m, n], 50, 1), strict=True)]
    monkeypatch.setattr(bs, "CHUNK_VALUES", 100)
    for a, b in zip(
        whole, [np.concatenate(parts) for parts in zip(*bs.draws([m, n], 50, 1), strict=True)], strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_the_global_generator_is_left_alone() -> None:
    np.random.seed(11)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    m = matrix(scores(3, 3))
    bs.bootstrap([m], {"it": m.take}, 10, 0)
    reference.intervals(reference.aggregates, (scores(3, 3),), 10, 0)
    with pytest.raises(ZeroDivisionError), reference.global_seed(5):
        _ = 1 / 0
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002


# --- known answers


def test_statistics_by_hand() -> None:
    # Games' means: 0.25, 1, 2. All six runs: 0, 0.5, 0.5, 1.5, 1.5, 2.5; a quarter of six rounds down to one cut at either end.
    found = statistics(ScoreMatrix.from_lists([[0.0, 0.5], [0.5, 1.5], [1.5, 2.5]]))
    assert found["mean"] == pytest.approx(3.25 / 3)
    assert found["median"] == 1.0
    assert found["iqm"] == pytest.approx((0.5 + 0.5 + 1.5 + 1.5) / 4)
    assert found["optimality_gap"] == pytest.approx(1 - (0 + 0.5 + 0.5 + 3) / 6)
    assert found["superhuman"] == 2


def test_interval_of_two_runs_by_hand() -> None:
    # Of two runs 0 and 1 a quarter of all resamples are (0, 0), a quarter (1, 1): the interval reaches from 0 to 1.
    m = ScoreMatrix.from_lists([[0.0, 1.0]])
    low, high = bs.interval(bs.bootstrap([m], {"it": lambda i: bs.game_means(m.take(i), m)}, 2000, 0)["it"])
    assert (low[0], high[0]) == (0.0, 1.0)
    assert bs.bootstrap([m], {"it": m.take}, 4000, 0)["it"].mean() == pytest.approx(0.5, abs=0.03)


def test_interval_of_the_mean_is_that_of_the_normal_distribution_for_many_runs() -> None:
    values = np.random.default_rng(3).normal(0, 1, (400, 2))
    m = matrix(values)
    samples = bs.bootstrap([m], {"it": lambda i: bs.statistics(m.take(i), m)[:, 0]}, 4000, 0)["it"]
    low, high = bs.interval(samples)
    error = math.sqrt(values.var(axis=0).sum() / 400) / 2
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.05)


def test_improvement_by_hand() -> None:
    # Game 1: x wins 3 of 4 pairs; game 2: one tie and one win of two pairs each run, (0.5 + 1) / 2.
    x = ScoreMatrix.from_lists([[2.0, 4.0], [1.0, 1.0]])
    y = ScoreMatrix.from_lists([[1.0, 3.0], [1.0, 0.0]])
    assert bs.probability_of_improvement(x.values[None], y.values[None], x, y)[0] == pytest.approx((0.75 + 0.75) / 2)
    assert bs.probability_of_improvement(x.values[None], x.values[None], x, x)[0] == pytest.approx(0.5)


def test_profile_by_hand() -> None:
    m = ScoreMatrix.from_lists([[0.5, 1.5], [1.0, 2.0]])
    assert bs.profile(m, np.array([0.0, 0.5, 1.0, 1.9, 2.0])).tolist() == [1.0, 0.75, 0.5, 0.25, 0.0]


# --- ragged runs: every game counts the same


RAGGED = [[0.2, 0.4], [3.0], [1.0, 2.0, 6.0]]


def test_ragged_statistics_are_those_of_repeated_runs() -> None:
    """Each game's runs repeated to six: the same weights, in a full matrix."""
    found = statistics(ScoreMatrix.from_lists(RAGGED))
    full = statistics(ScoreMatrix.from_lists([runs * (6 // len(runs)) for runs in RAGGED]))
    assert {k: v for k, v in found.items() if k != "iqm"} == pytest.approx(
        {k: v for k, v in full.items() if k != "iqm"}
    )
    # 18 runs: the exact quarter is 4.5 runs, which trim_mean rounds down. By hand, in sixths of a game:
    # 0.2 x3 0.4 x3 | 1 x2 2 x2 3 x6 6 x2; the middle nine: 1.5 of 0.4, then 1 x2, 2 x2, 3 x3.5.
    assert found["iqm"] == pytest.approx((1.5 * 0.4 + 2 * 1 + 2 * 2 + 3.5 * 3) / 9)


def test_ragged_improvement_is_that_of_repeated_runs() -> None:
    x, full = ScoreMatrix.from_lists(RAGGED), ScoreMatrix.from_lists([runs * (6 // len(runs)) for runs in RAGGED])
    y = matrix(scores(4, 3))
    ragged = bs.probability_of_improvement(x.values[None], y.values[None], x, y)
    np.testing.assert_allclose(ragged, bs.probability_of_improvement(full.values[None], y.values[None], full, y))
    taus = np.linspace(0, 7, 15)
    np.testing.assert_allclose(bs.profile(x, taus), bs.profile(full, taus))


def test_padding_is_never_drawn() -> None:
    m = ScoreMatrix.from_lists(RAGGED)
    for (index,) in bs.draws([m], 300, 0):
        assert (index < m.counts).all()
        counted = bs.multiplicity(index, m)
        assert (counted.reshape(-1, *m.values.shape).sum(axis=1) == m.counts).all()
        np.testing.assert_allclose(
            bs.profile(m, np.array([1.5]), counted)[:, 0],
            ((m.take(index) > 1.5) * m.weights).sum(axis=(1, 2)),
        )
