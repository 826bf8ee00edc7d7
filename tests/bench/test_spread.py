"""Intervals of medians: what they promise, and what they refuse to say."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remctl.bench.result import Spread
from remctl.bench.spread import CONFIDENCE, ratio, spread, verdict

SECONDS = st.floats(1e-6, 1e4)
# Draws and the true median of what they are drawn from; all skewed, the last one with two modes.
SKEWED: dict[str, tuple[Callable[[Random], float], float]] = {
    "exponential": (lambda rng: rng.expovariate(1.0), math.log(2)),
    "lognormal": (lambda rng: rng.lognormvariate(0.0, 1.5), 1.0),
    "pareto": (lambda rng: rng.paretovariate(1.2), 2 ** (1 / 1.2)),
    "now and then slow": (lambda rng: rng.random() + (9 if rng.random() < 0.2 else 0), 0.5 / 0.8),
}


@pytest.mark.parametrize("name", SKEWED)
@pytest.mark.parametrize("num_rounds", [6, 7, 9, 20])
def test_the_interval_holds_the_true_median_as_often_as_it_says(name: str, num_rounds: int) -> None:
    draw, median = SKEWED[name]
    rng, repetitions = Random(1), 4000
    intervals = [spread([draw(rng) for _ in range(num_rounds)]) for _ in range(repetitions)]
    held = sum(i.low <= median <= i.high for i in intervals) / repetitions
    nominal = intervals[0].coverage
    assert nominal >= CONFIDENCE
    assert held >= nominal - 4 * math.sqrt(nominal * (1 - nominal) / repetitions)


@pytest.mark.parametrize(
    ("num_rounds", "k", "coverage"),
    [(1, 1, 0.0), (2, 1, 0.5), (5, 1, 0.9375), (6, 1, 0.96875), (8, 1, 0.9921875), (9, 2, 0.9609375), (20, 6, 0.9586)],
)
def test_the_narrowest_of_95_percent(num_rounds: int, k: int, coverage: float) -> None:
    made = spread([float(i) for i in range(num_rounds, 0, -1)])
    assert (made.low, made.high) == (k, num_rounds + 1 - k)
    assert made.coverage == pytest.approx(coverage, abs=1e-4)


@given(st.lists(SECONDS, min_size=1, max_size=40), st.randoms())
def test_any_order_of_the_rounds_gives_the_same_interval_around_the_median(values: list[float], rng: Random) -> None:
    made = spread(values)
    assert min(values) <= made.low <= statistics.median(values) <= made.high <= max(values)
    assert spread(rng.sample(values, len(values))) == made


@given(st.lists(SECONDS, min_size=6, max_size=12), st.floats(1.01, 50.0))
def test_what_slows_a_whole_round_cancels_out(base: list[float], factor: float) -> None:
    made = ratio([factor * x for x in base], base, "REM")
    assert made.median == pytest.approx(factor)
    assert (made.verdict, made.to) == ("slower", "REM")
    assert ratio(base, [factor * x for x in base], "REM").verdict == "faster"
    assert ratio(base, base, "REM").verdict == "no difference"


@pytest.mark.parametrize("num_rounds", range(1, 6))
def test_too_few_rounds_tell_nothing(num_rounds: int) -> None:
    assert ratio([9.0] * num_rounds, [1.0] * num_rounds, "REM").verdict == "no difference"


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(1.1, 1.2, "slower"), (0.8, 0.9, "faster"), (0.9, 1.1, "no difference"), (1.0, 1.1, "no difference")],
)
def test_a_difference_inside_the_spread_is_none(low: float, high: float, expected: str) -> None:
    assert verdict(Spread(low=low, high=high, coverage=0.96)) == expected
    assert verdict(Spread(low=low, high=high, coverage=0.94)) == "no difference"
