"""Random play: its exact expectation, its streams, and the statistics of its returns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from remctl.cli import run
from remctl.config import resolve
from remctl.progress import Reporter
from remctl.random_play import play_randomly, statistics
from remctl.stopping import StopFlag
from tests.tiny import TINY


def played(num_episodes: int, seed: int = 0) -> dict[str, Any]:
    with Reporter(StopFlag(), quiet=True) as reporter:
        return play_randomly(resolve("Catch", "quick", sets=TINY, seed=seed), num_episodes, reporter)


def test_catch_scores_what_it_must_in_expectation() -> None:
    found = played(400)
    low, high = found["interval"]
    assert low < -0.75 < high
    assert low < found["score"] < high < found["bound_of_100"]
    assert found["score"] == pytest.approx(np.mean(found["returns"]))
    assert found["lengths_steps"] == [7] * 400


def test_an_episode_does_not_depend_on_how_many_there_are_but_on_the_seed() -> None:
    many = played(30)["returns"]
    assert many[:10] == played(10)["returns"]
    assert many != played(30, seed=1)["returns"]


def test_statistics_are_the_bootstrap_of_the_mean() -> None:
    returns = np.random.default_rng(0).normal(5.0, 2.0, 500)
    found, mean = statistics(list(returns)), returns.mean()
    error = returns.std() / np.sqrt(500)
    assert found["interval"] == pytest.approx([mean - 1.96 * error, mean + 1.96 * error], abs=0.03)
    assert found["bound_of_100"] == pytest.approx(mean + 3.09 * returns.std() / 10, abs=0.06)
    assert statistics([2.5] * 3) == {"interval": [2.5, 2.5], "bound_of_100": 2.5}


def test_the_verb_prints_and_writes_every_return(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "random.json"
    assert run(["random", "--game", "Catch", "--preset", "quick", "--episodes", "20", "--out", str(out), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads(out.read_text())
    assert (printed["game"], printed["num_episodes"], len(printed["returns"])) == ("Catch", 20, 20)


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
