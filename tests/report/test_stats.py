"""The rows of a report: equal to rliable, to the paper's printed digits, and to answers by hand."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from importlib.resources import files

import numpy as np
import pytest

from remctl.games import ABLATION_SUBSET, ATARI_100K, normalized, reference_scores
from remctl.report import published, reference, stats
from remctl.report.collect import means_of
from remctl.report.results import METRICS, Algorithm, RunScore
from remctl.report.stats import Bootstrap

HOW = Bootstrap(reps=300, seed=5)


def algorithm(name: str, scores: Mapping[str, Sequence[float]], seeds: Sequence[int] | None = None) -> Algorithm:
    """Raw scores by game."""
    runs = tuple(
        RunScore(game, None if seeds is None else seeds[i], score, "")
        for game, of_game in scores.items()
        for i, score in enumerate(of_game)
    )
    return Algorithm(name, name, "ours", "", 0, runs, means_of(runs))


def from_normalized(name: str, scores: Mapping[str, Sequence[float]], seeds: Sequence[int] | None = None) -> Algorithm:
    """The raw scores that are these human-normalized ones."""
    norms = {g: reference_scores(g) for g in scores}
    raw = {g: [n.random + s * (n.score - n.random) for s in scores[g]] for g, n in norms.items()}
    return algorithm(name, raw, seeds)


def matrix(a: Algorithm, games: Sequence[str]) -> np.ndarray:
    return np.array([[normalized(g, r.score) for r in a.runs if r.game == g] for g in games]).T


def drawn(name: str, num_runs: int = 4, games: Sequence[str] = ABLATION_SUBSET, seed: int = 0) -> Algorithm:
    rng = np.random.default_rng([seed, len(name), *name.encode()])
    return from_normalized(name, {g: rng.gamma(1.5, 1.0, num_runs).tolist() for g in games}, range(num_runs))


# --- the paper


@pytest.mark.parametrize("table", ["table1", "table8"])
def test_published_means_give_the_printed_aggregates(table: published.Table) -> None:
    text = (files("remctl") / "data" / "paper_aggregates.csv").read_text()
    printed = {row["algorithm"]: row for row in csv.DictReader(text.splitlines()) if row["table"] == table}
    games = published.TABLE_GAMES[table]
    agents = published.published([table])
    assert [a.name for a in agents] == list(printed)
    for agent in agents:
        rows = {row.metric: row for row in stats.aggregates(agent, games, HOW)}
        assert set(rows) == {"mean", "median", "superhuman"}
        row = printed[agent.name]
        assert f"{rows['mean'].value:.3f}" == row["mean"]
        assert f"{rows['median'].value:.3f}" == row["median"]
        assert f"{rows['superhuman'].value:.0f}" == row["superhuman"]
        assert all((r.ci_low, r.ci_high, r.reps, r.num_runs) == (None, None, 0, 5) for r in rows.values())
        as_printed = {p.metric: f"{p.value:.3f}" for p in published.printed(agent, agent.name, games)}
        assert as_printed == {"iqm": row["iqm"], "optimality_gap": row["optimality_gap"]}


def test_table8_agrees_with_table1_on_rem() -> None:
    one, eight = published.published(["table1"])[-1], published.published(["table8"])[0]
    assert eight.means == {game: one.means[game] for game in ABLATION_SUBSET}
    both = [a.name for a in published.published(["table1", "table8"])]
    assert both.count("REM") == 1
    assert "rem" not in both
    on_eight = {(p.algorithm, p.metric): (p.value, p.source) for p in published.printed(one, "REM", ABLATION_SUBSET)}
    assert on_eight == {
        ("REM", "iqm"): (2.201, "paper, Table 8"),
        ("REM", "optimality_gap"): (0.198, "paper, Table 8"),
    }
    iris = published.published(["table1"])[-2]
    assert published.printed(iris, "IRIS", ABLATION_SUBSET) == []  # printed over 26 games, not over these 8
    assert published.printed(one, "REM", ABLATION_SUBSET[:7]) == []


def test_the_papers_speed_up() -> None:
    seconds = {(t.algorithm, t.phase): t.epoch_s or 0 for t in published.epoch_times()}
    ratio = seconds["IRIS (as published)", "controller"] / seconds["REM (as published)", "controller"]
    assert round(ratio, 2) == 15.45


# --- rliable


def test_aggregates_are_rliables() -> None:
    a = drawn("a")
    rows = stats.aggregates(a, ABLATION_SUBSET, HOW)
    value, bounds = reference.intervals(reference.aggregates, (matrix(a, ABLATION_SUBSET),), HOW.reps, HOW.seed)
    assert [row.metric for row in rows] == list(METRICS)
    assert [row.value for row in rows] == pytest.approx(value)
    assert [row.ci_low for row in rows] == pytest.approx(bounds[0])
    assert [row.ci_high for row in rows] == pytest.approx(bounds[1])
    assert {(row.num_games, row.num_runs, row.reps, row.seed) for row in rows} == {(8, 4, 300, 5)}


def test_improvement_and_profile_are_rliables() -> None:
    x, y = drawn("x"), drawn("y", 3)
    (row,) = stats.improvements([y, x], "x", ABLATION_SUBSET, (), HOW)
    matrices = (matrix(x, ABLATION_SUBSET), matrix(y, ABLATION_SUBSET))
    value, bounds = reference.intervals(reference.improvement, matrices, HOW.reps, HOW.seed)
    assert (row.better, row.than, row.num_runs_better, row.num_runs_than, row.num_games) == ("x", "y", 4, 3, 8)
    assert (row.probability, row.ci_low, row.ci_high) == pytest.approx((value[0], *bounds[:, 0]))
    profile = stats.profiles([x, y], ABLATION_SUBSET, HOW)[0]
    value, bands = reference.profiles(matrices[0], np.array(profile.taus), HOW.reps, HOW.seed)
    np.testing.assert_allclose(profile.fractions, value, atol=1e-12)
    np.testing.assert_allclose([profile.ci_low, profile.ci_high], bands, atol=1e-12)
    assert profile.taus[0] == 0
    assert profile.taus[-1] == math.ceil(max(m.max() for m in matrices))


def test_an_interval_depends_on_nothing_but_its_own_scores() -> None:
    a, b, c = drawn("a"), drawn("b"), drawn("c")
    one = stats.differences([a, b], "a", ABLATION_SUBSET, (), HOW)
    assert one == [d for d in stats.differences([a, c, b], "a", ABLATION_SUBSET, (), HOW) if d.algorithm == "b"]
    assert one != stats.differences([a, b], "a", ABLATION_SUBSET, (), Bootstrap(300, 6))


def test_without_a_control_all_pairs() -> None:
    rows = stats.improvements([drawn(n, 2) for n in "abc"], None, ABLATION_SUBSET, (), Bootstrap(100, 0))
    assert [(r.better, r.than) for r in rows] == [("a", "b"), ("a", "c"), ("b", "c")]


# --- differences


def test_a_paired_difference_by_hand() -> None:
    """The same seeds, b better by 0.5 in every run: resampled together the difference does not vary at all."""
    a = from_normalized("a", {"Pong": [0.0, 1.0, 5.0], "Alien": [0.2, 0.4, 3.0]}, [0, 1, 2])
    b = from_normalized("b", {"Pong": [0.5, 1.5, 5.5], "Alien": [0.7, 0.9, 3.5]}, [0, 1, 2])
    rows = {(d.metric, d.game): d for d in stats.differences([a, b], "a", ("Alien", "Pong"), ("Alien", "Pong"), HOW)}
    mean = rows["mean", None]
    assert (mean.value, mean.ci_low, mean.ci_high) == pytest.approx((0.5, 0.5, 0.5))
    assert (mean.pairing, mean.separated, mean.more_seeds, mean.is_better) == ("game and seed", True, 0, True)
    assert rows["median", None].value == pytest.approx(0.5)
    assert rows["iqm", None].value == pytest.approx(0.5)
    # Runs of a below 1: Pong 0, Alien 0.2, 0.4. Capped at 1 they gain 0.5 each, of six runs.
    assert rows["optimality_gap", None].value == pytest.approx(-3 * 0.5 / 6)
    assert rows["optimality_gap", None].is_better
    pong = rows["raw_mean", "Pong"]
    assert (pong.value, pong.ci_low, pong.ci_high) == pytest.approx((0.5 * 35.3,) * 3)


def test_other_seeds_are_resampled_apart() -> None:
    scores = {"Pong": [0.0, 1.0, 5.0]}
    a, b = from_normalized("a", scores, [0, 1, 2]), from_normalized("b", scores, [3, 4, 5])
    (mean, *_) = stats.differences([a, b], "a", ("Pong",), (), HOW)
    assert (mean.pairing, mean.value, mean.separated) == ("game", 0.0, False)
    assert mean.ci_low is not None
    assert mean.ci_low < 0
    assert (mean.more_seeds, mean.is_better) == (None, None)  # no difference to be found
    nameless = from_normalized("c", scores)
    assert stats.differences([nameless, nameless], "c", ("Pong",), (), HOW) == []
    assert stats.differences([nameless, a], "c", ("Pong",), (), HOW)[0].pairing == "game"


@pytest.mark.parametrize(
    ("value", "low", "high", "runs", "expected"),
    [
        (1.0, 0.5, 1.5, 5, 0),  # separated
        (-1.0, -1.5, -0.5, 5, 0),
        (1.0, -1.0, 3.0, 5, 47),  # half-width 2 must become 1 / 1.42942: 5 * 5/4 * (2 * 1.42942)^2 = 51.08, 52 runs
        (-1.0, -3.0, 1.0, 5, 47),
        (1.0, -0.01, 9.0, 5, 9),  # towards zero only: 5 * 5/4 * (1.01 * 1.42942)^2 = 13.03, 14 runs
        (0.001, -1.0, 1.0, 5, None),  # more than a thousand
        (0.0, -1.0, 1.0, 5, None),
        (1.0, None, None, 1, None),
    ],
)
def test_more_seeds_by_hand(
    value: float, low: float | None, high: float | None, runs: int, expected: int | None
) -> None:
    assert stats.more_seeds(value, low, high, runs) == expected


def test_more_seeds_do_separate() -> None:
    """With as many seeds as said, about 80% of experiments separate a true difference of that size."""
    rng, how, games = np.random.default_rng(1), Bootstrap(400, 0), ("Pong",)
    needed = math.ceil((1.959964 + 0.841621) ** 2 * 2)  # normal scores of unit variance, both resampled, difference 1
    half_width = 1.959964 * math.sqrt(2 / 5 * 4 / 5)  # as resampling 5 runs shows it
    assert 5 + (stats.more_seeds(1.0, 1 - half_width, 1 + half_width, 5) or 0) == pytest.approx(needed, abs=1)
    found = 0
    for _ in range(60):
        a, b = (from_normalized(n, {"Pong": rng.normal(m, 1, needed).tolist()}) for n, m in (("a", 0), ("b", 1)))
        found += bool(stats.differences([a, b], "a", games, (), how)[0].separated)
    assert 0.65 <= found / 60 <= 0.97


def test_more_seeds_are_the_same_from_few_runs() -> None:
    """However few runs it is told by, the interval leads to the number that has 80%: here 39 runs in all."""
    rng, games = np.random.default_rng(3), ATARI_100K
    difference = (1.959964 + 0.841621) * math.sqrt(2 / (39 * len(games)))
    for num_runs in (2, 3, 5):
        widths = []
        for _ in range(12):
            a, b = (from_normalized(n, {g: rng.normal(0, 1, num_runs).tolist() for g in games}) for n in "ab")
            mean = stats.differences([a, b], "a", games, (), Bootstrap(400, 0))[0]
            assert mean.ci_low is not None
            assert mean.ci_high is not None
            widths.append((mean.ci_high - mean.ci_low) / 2)
        half = math.sqrt(float(np.mean(np.square(widths))))
        more = stats.more_seeds(difference, difference - half, difference + half, num_runs)
        assert num_runs + (more or 0) == pytest.approx(39, rel=0.12), num_runs


# --- per game, ragged, few


def test_scores_per_game() -> None:
    a = algorithm("a", {"Pong": [-20.7, 14.6], "Tetris": [1.0]}, [3, 1])
    pong, tetris = stats.game_scores(a, ("Pong", "Tetris"), ("Pong",), HOW)
    assert (pong.mean, pong.normalized, pong.num_runs, pong.num_used) == (
        pytest.approx(-3.05),
        pytest.approx(0.5),
        2,
        2,
    )
    assert (pong.ci_low, pong.ci_high, pong.is_superhuman) == (-20.7, 14.6, False)  # a quarter of resamples each
    assert (pong.scores, pong.seeds) == ((-20.7, 14.6), (3, 1))
    assert (tetris.normalized, tetris.ci_low, tetris.num_used, tetris.is_superhuman) == (None, None, 0, None)


def test_exactly_human_is_superhuman() -> None:
    """As the paper counts: IRIS plays Pong exactly as well as the human and has ten such games."""
    a = algorithm("a", {"Pong": [14.6, 14.6]})
    assert stats.game_scores(a, ("Pong",), ("Pong",), HOW)[0].is_superhuman
    assert stats.aggregates(a, ("Pong",), HOW)[-1].value == 1


def test_one_run_has_no_interval() -> None:
    a, b = drawn("a", 1), drawn("b", 3)
    assert all(row.ci_low is None and row.reps == 0 for row in stats.aggregates(a, ABLATION_SUBSET, HOW))
    (improvement,) = stats.improvements([a, b], "a", ABLATION_SUBSET, (), HOW)
    assert improvement.ci_low is None
    rows = stats.differences([a, b], "a", ABLATION_SUBSET, ABLATION_SUBSET, HOW)
    assert {(row.ci_low, row.separated, row.more_seeds) for row in rows} == {(None, None, None)}
    assert stats.profiles([a, b], ABLATION_SUBSET, HOW)[0].ci_low is None


def test_one_run_of_one_game_is_enough_to_have_none() -> None:
    a = from_normalized("a", {"Alien": [0.1, 0.2, 0.6], "Pong": [1.0]})
    assert {row.ci_low for row in stats.aggregates(a, ("Alien", "Pong"), HOW)} == {None}
    alien, pong = stats.game_scores(a, ("Alien", "Pong"), ("Alien", "Pong"), HOW)
    assert (alien.ci_low is None, pong.ci_low is None) == (False, True)


@pytest.mark.parametrize(
    ("best", "last", "num"), [(0.1, 1.0, 101), (2.2, 3.0, 109), (8.5, 9.0, 109), (30.0, 10.0, 121)]
)
def test_the_profile_reaches_just_above_the_best_score(best: float, last: float, num: int) -> None:
    (profile,) = stats.profiles([from_normalized("a", {"Pong": [0.0, best]})], ("Pong",), HOW)
    assert (profile.taus[0], profile.taus[-1], len(profile.taus)) == (0.0, last, num)
    assert {0.25, 0.5, 0.75, 1.0} <= {round(tau, 9) for tau in profile.taus}


def test_ragged_runs_are_all_used_or_drawn_equally() -> None:
    a = from_normalized("a", {"Alien": [0.1, 0.2, 0.6], "Pong": [1.0, 2.0]}, [0, 1, 2])
    games = ("Alien", "Pong")
    every = {row.metric: row for row in stats.aggregates(a, games, HOW)}
    assert every["mean"].value == pytest.approx((0.3 + 1.5) / 2)
    assert every["mean"].num_runs == 2
    drawn_runs = stats.used_runs(a, games, Bootstrap(100, 3, "equalise"))
    assert [len(runs) for runs in drawn_runs.values()] == [2, 2]
    assert drawn_runs == stats.used_runs(a, games, Bootstrap(100, 3, "equalise"))
    kept = {tuple(r.seed for r in stats.used_runs(a, games, Bootstrap(100, s, "equalise"))["Alien"]) for s in range(30)}
    assert kept == {(0, 1), (0, 2), (1, 2)}
    rows = stats.game_scores(a, games, games, Bootstrap(100, 3, "equalise"))
    assert [(row.num_runs, row.num_used) for row in rows] == [(3, 2), (2, 2)]


def test_raw_games_are_compared_raw() -> None:
    a, b = algorithm("a", {"Catch": [0.5, 1.0]}, [0, 1]), algorithm("b", {"Catch": [0.0, 0.25]}, [0, 1])
    assert stats.aggregates(a, (), HOW) == []
    (improvement,) = stats.improvements([a, b], "a", (), ("Catch",), HOW)
    assert (improvement.game, improvement.probability) == ("Catch", 1.0)
    (difference,) = stats.differences([a, b], "a", (), ("Catch",), HOW)
    assert (difference.metric, difference.game, difference.value) == ("raw_mean", "Catch", pytest.approx(-0.625))
    assert (difference.separated, difference.is_better) == (True, False)


def test_all_26_games() -> None:
    a = drawn("a", 2, ATARI_100K)
    assert stats.aggregates(a, ATARI_100K, Bootstrap(100, 0))[0].num_games == 26
