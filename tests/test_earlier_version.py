"""Runs that version 0.1.0 left: one finished, one interrupted after its first epoch. Every later version goes on from them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from remctl import runner
from remctl.config import config_hash, from_yaml
from remctl.report.runs import read_runs
from remctl.runs.files import read_json
from remctl.runs.metrics import MetricsLog
from remctl.sweep.launch import survey
from remctl.sweep.plan import plan
from remctl.sweep.records import submissions, write_experiment
from remctl.sweep.spec import read_spec
from remctl.sweep.status import standing

DATA = Path(__file__).parent / "data" / "runs_0_1_0"
SPEC = Path(__file__).parent / "data" / "old.yaml"
REM, NO_POP = "old/rem/Catch/seed_0", "old/no_pop/Catch/seed_0"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return Path(shutil.copytree(DATA, tmp_path / "runs"))


def test_the_launcher_knows_what_is_done_and_what_is_not(out: Path) -> None:
    seen = survey(out, read_spec(SPEC))
    actions = plan(seen.wanted, seen.states)
    assert [(a.kind, a.reason.split(" (")[0]) for a in actions] == [
        ("skip", "done, score -1"),
        ("resume", "epoch 1 of 2"),
    ]
    assert [place.relative_to(out) for place in seen.places.values()] == [Path(REM), Path(NO_POP)]


def test_what_it_submitted_is_found_under_todays_hashes(out: Path) -> None:
    (submission,) = submissions(out)
    for (ref,), old in zip(submission.tasks, ("f34645391923", "491cf6566d7e"), strict=True):
        assert ref.config_hash == config_hash(from_yaml(out / ref.path / "config.yaml"))
        assert submission.config(ref).name == f"{old}.yaml"


def test_status_reads_its_experiment(out: Path) -> None:
    assert [row.label for row in standing(out, "old").rows] == ["done", "stopped"]


def test_the_launcher_writes_the_experiment_under_todays_hashes(out: Path) -> None:
    seen = survey(out, read_spec(SPEC))
    write_experiment(out, seen.spec, seen.places, seen.wanted)
    assert [row.label for row in standing(out, "old").rows] == ["done", "stopped"]
    assert [len(group.runs) for group in read_runs([out / "old"]).groups] == [1, 0]


def test_the_report_reads_its_experiment(out: Path) -> None:
    groups = read_runs([out / "old"]).groups
    assert [(g.label, [(r.score, r.precision) for r in g.runs], len(g.missing)) for g in groups] == [
        ("REM", [(-1.0, "fp32")], 0),
        ("No POP", [], 1),
    ]


def arguments(out: Path) -> dict[str, object]:
    return {"out": out, "experiment": "old", "device": "cpu", "command": ["test"], "quiet": True}


def test_a_finished_run_is_finished(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runner.train(from_yaml(out / REM / "config.yaml"), **arguments(out))
    assert "finished already by other code (remctl 0.1.0), score -1.00" in capsys.readouterr().out


def test_an_interrupted_run_resumes_from_its_checkpoint(out: Path) -> None:
    run = runner.train(from_yaml(out / NO_POP / "config.yaml"), **arguments(out))
    assert [entry["epoch"] for entry in MetricsLog(run).entries()] == [1, 2]
    assert "resuming after epoch 1 of 2" in run.log.read_text()
    assert read_json(run.result)["config_hash"] == config_hash(from_yaml(run.config))
    seen = survey(out, read_spec(SPEC))
    assert [action.kind for action in plan(seen.wanted, seen.states)] == ["skip", "skip"]
    assert [len(group.runs) for group in read_runs([out / "old"]).groups] == [1, 1]
