"""A run of imported weights: tested, inspected and reported as that; never resumed, continued, or counted as trained here."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from remctl.config import config_hash, from_yaml, to_yaml
from remctl.runs.layout import RunFolder
from remctl.sweep.device import Device
from remctl.sweep.hours import evidence
from tests.exchange.published import iris_file, rem_file, saved


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "published"


@pytest.fixture
def run(runs: Path, tmp_path: Path, take_in: Callable) -> Path:
    assert take_in(saved(tmp_path / "weights.pt", rem_file())).status == 0
    return runs / "rem/Catch/seed_0"


def test_the_folder_says_where_its_weights_came_from(run: Path, tmp_path: Path) -> None:
    digest = hashlib.sha256((tmp_path / "weights.pt").read_bytes()).hexdigest()
    (start,) = json.loads((run / "provenance.json").read_text())
    assert start["imported"] == {"format": "rem", "file": str(tmp_path / "weights.pt"), "sha256": digest}
    assert json.loads((run / "imported.json").read_text())["sha256"] == digest
    assert not (run / "result.json").exists()
    assert not list(run.parent.glob(".tmp-*"))


def test_eval_keeps_what_is_as_a_final_test_and_report_takes_it(cli: Callable, run: Path, runs: Path) -> None:
    untested = cli("report", runs, "--out", "page")
    assert untested.status == 2
    assert f"imported, and not tested yet: run `remctl eval {run}`, then report" in untested.err
    few = cli("eval", run, "--episodes", 2)
    assert (few.status, (run / "result.json").exists()) == (0, False)
    assert "not kept as the run's score, which takes 5 episodes or more" in few.err
    assert "not kept" in cli("eval", run, "--episodes", 5, "--seed", 7).err
    done = cli("eval", run, "--episodes", 5, "--json")
    assert "kept as the run's score" in done.err
    result = json.loads((run / "result.json").read_text())
    assert (result["score"], result["num_episodes"]) == (json.loads(done.out)["score"], 5)
    assert result["imported"].startswith("weights.pt (sha256 ")

    assert cli("report", runs, "--out", "page").status == 0
    (row,) = csv.DictReader((Path("page") / "runs.csv").read_text().splitlines())
    assert (row["algorithm"], row["origin"]) == ("rem-imported", "imported")
    page = Path("page/index.html").read_text()
    assert "REM (imported)" in page
    assert "Imported, not trained here: REM (imported): Catch seed 0 from weights.pt (sha256" in page


def test_a_trained_run_beside_it_is_another_column(cli: Callable, run: Path, runs: Path) -> None:
    cli("eval", run, "--episodes", 5)
    other = RunFolder(runs / "rem/Catch/seed_1")
    other.path.mkdir()
    config = from_yaml(run / "config.yaml").model_copy(update={"seed": 1})
    other.config.write_text(to_yaml(config))
    result = json.loads((run / "result.json").read_text()) | {"seed": 1, "config_hash": config_hash(config)}
    other.result.write_text(json.dumps(result))
    assert cli("report", runs, "--out", "page").status == 0
    rows = csv.DictReader((Path("page") / "runs.csv").read_text().splitlines())
    assert sorted((row["algorithm"], row["origin"], row["seed"]) for row in rows) == [
        ("rem", "ours", "1"),
        ("rem-imported", "imported", "0"),
    ]


@pytest.mark.parametrize("kind", ["rem", "iris"])
def test_inspect_takes_it(cli: Callable, runs: Path, tmp_path: Path, take_in: Callable, kind: str) -> None:
    file = saved(tmp_path / "x.pt", {"rem": rem_file, "iris": iris_file}[kind]())
    assert take_in(file, kind, "--out", tmp_path / "run").status == 0
    done = cli("inspect", tmp_path / "run")
    assert done.status == 0, done.err
    assert (tmp_path / "run/media/diagnosis.json").is_file()


def test_nothing_is_trained_in_it(cli: Callable, run: Path, tmp_path: Path) -> None:
    before = sorted(run.rglob("*"))
    again = cli("train", "--from", run / "config.yaml", "--name", "published", "--out", tmp_path)
    assert again.status == 2
    assert "holds weights imported from weights.pt" in again.err
    assert again.err.count("\n") == 1
    longer = cli("train", "--continue", run, "--set", "training.num_epochs=9", "--out", tmp_path)
    assert (longer.status, longer.err.count("\n")) == (2, 1)
    assert "there is nothing to continue" in longer.err
    cli("eval", run, "--episodes", 5)
    assert cli("train", "--from", run / "config.yaml", "--name", "published", "--out", tmp_path).status == 2
    assert sorted(run.rglob("*")) == sorted([*before, run / "result.json"])


SPEC = """
name: {name}
question: Is it trained?
control: rem
variants: [rem]
games: [Catch]
seeds: [0]
preset: quick
overrides:
{overrides}
"""


def spec(folder: Path, name: str, run: Path) -> Path:
    """Of the imported run's configuration."""
    from remctl.config import keys, resolve

    usual, mine = keys(resolve("Catch", "quick")), keys(from_yaml(run / "config.yaml"))
    lines = [f"  {key}: {json.dumps(value)}" for key, value in mine.items() if value != usual[key]]
    path = folder / f"{name}.yaml"
    path.write_text(SPEC.format(name=name, overrides="\n".join(lines)))
    return path


def test_no_ablation_counts_it_as_done(cli: Callable, run: Path, tmp_path: Path) -> None:
    cli("eval", run, "--episodes", 5)
    line = ("--out", tmp_path, "--dry-run", "--executor", "local", "--json")
    (action,) = json.loads(cli("ablate", spec(tmp_path, "other", run), *line).out)["actions"]
    assert action["config_hash"] == config_hash(from_yaml(run / "config.yaml"))
    assert "other/rem/Catch/seed_0" in json.dumps(action)
    assert not any("skip" in str(value) or str(value) == "done" for value in action.values())
    there = cli("ablate", spec(tmp_path, "published", run), *line)
    entry = {"variant": "rem", "game": "Catch", "seed": 0, "path": "published/rem/Catch/seed_0"}
    listed = {"variants": [{"name": "rem"}], "runs": [entry | {"config_hash": action["config_hash"]}]}
    (tmp_path / "published/experiment.json").write_text(json.dumps(listed))
    report = cli("report", tmp_path / "published", "--out", tmp_path / "page")
    assert report.status == 2
    assert "weights imported from elsewhere are in its place" in report.err
    assert "holds imported weights, no run trained here" in there.out + there.err
    assert evidence(tmp_path, Device("cpu", "x", 1, 1)) == {}


def test_a_damaged_record_is_named(cli: Callable, run: Path, runs: Path) -> None:
    (run / "imported.json").write_text("[]")
    for line in (("train", "--continue", run), ("export", run, "--format", "rem", "--out", "x.pt", "--without-lpips")):
        done = cli(*line)
        assert (done.status, done.err.count("\n")) == (1, 1)
        assert "imported.json is damaged" in done.err
