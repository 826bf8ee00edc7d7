"""Random play: its exact expectation, its streams, and the statistics of its returns."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from remctl import random_play
from remctl.cli import run
from remctl.config import resolve
from remctl.envs import make_env
from remctl.random_play import play_randomly, statistics


def test_catch_scores_what_it_must_in_expectation() -> None:
    found = play_randomly(resolve("Catch", "quick"), 400, lambda _: None)
    low, high = found["interval"]
    assert low < -0.75 < high
    assert low < found["mean"] < high < found["bound_of_100"]
    assert found["lengths_steps"] == [7] * 400


def test_an_episode_does_not_depend_on_how_many_there_are_but_on_the_seed() -> None:
    config = resolve("Catch", "quick")
    few, many = (play_randomly(config, n, lambda _: None)["returns"] for n in (10, 30))
    assert many[:10] == few
    assert play_randomly(resolve("Catch", "quick", seed=1), 30, lambda _: None)["returns"] != many


def test_the_rules_are_those_of_a_test(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def noting(*args: object, **given: object) -> object:
        asked.append(given["training"])
        return make_env(*args, **given)  # type: ignore[arg-type]

    monkeypatch.setattr(random_play, "make_env", noting)
    play_randomly(resolve("Catch", "quick"), 2, lambda _: None)
    assert asked == [False]


def test_statistics_are_the_bootstrap_of_the_mean() -> None:
    rng = np.random.default_rng(0)
    returns = rng.normal(5.0, 2.0, 500)
    found = statistics(returns, seed=0)
    error = returns.std() / np.sqrt(500)
    assert found["interval"] == pytest.approx([returns.mean() - 1.96 * error, returns.mean() + 1.96 * error], abs=0.03)
    assert found["bound_of_100"] == pytest.approx(returns.mean() + 3.09 * returns.std() / 10, abs=0.05)
    assert statistics(np.full(3, 2.5), seed=0) == {"mean": 2.5, "interval": [2.5, 2.5], "bound_of_100": 2.5}


def test_the_verb_prints_and_writes_every_return(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "random.json"
    assert run(["random", "--game", "Catch", "--preset", "quick", "--episodes", "20", "--out", str(out), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads(out.read_text())
    assert (printed["game"], printed["episodes"], len(printed["returns"])) == ("Catch", 20, 20)


@pytest.mark.parametrize(
    ("args", "line"),
    [
        ([], "no game given: add --game Pong"),
        (["--game", "Catsh"], "did you mean Catch?"),
        (["--game", "Catch", "--out", "."], "is no place for a file"),
        (["--game", "Catch", "--episodes", "1"], "greater than or equal to 2"),
    ],
)
def test_bad_input_gets_one_line(args: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["random", *args]) == 2
    error = capsys.readouterr().err
    assert line in error
    assert error.count("\n") == 1
