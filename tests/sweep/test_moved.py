"""Folders of experiments that were renamed or copied: what lies in them counts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from remctl.commands.sweep_output import show_logs
from remctl.report.runs import read_runs
from remctl.sweep.launch import Options, launch
from remctl.sweep.named import experiment_names
from remctl.sweep.observe import find_places
from remctl.sweep.records import submissions, write_experiment
from remctl.sweep.schedulers import job_states
from remctl.sweep.status import standing
from remctl.sweep.wanted import Spec, WantedRun
from tests.sweep.fake_slurm import FakeSlurm
from tests.sweep.support import attempt, begin, record, tiny_spec, write_spec

Change = Callable[[Path, Path], object]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """An experiment with one run done, one begun, one failed, and one that nobody began."""
    out = tmp_path / "runs"
    spec, runs = tiny_spec(tmp_path)
    made = record(out, runs, job="100")
    begin(out, runs[0], epoch=4, done=True)
    begin(out, runs[1], epoch=2)
    attempt(out, runs[2], "start", made)
    attempt(out, runs[2], "end", made, outcome="failed", error="disk full")
    describe(out, spec, runs)
    return out


def describe(out: Path, spec: Spec, runs: list[WantedRun]) -> None:
    write_experiment(out, spec, find_places(out, spec.name, runs, submissions(out)), runs)


def labels(out: Path, name: str) -> list[str]:
    return [row.label for row in standing(out, name).rows]


@pytest.fixture(autouse=True)
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    return FakeSlurm(tmp_path / "slurm", monkeypatch)


@pytest.mark.parametrize("change", [shutil.move, shutil.copytree], ids=["mv", "cp -r"])
def test_a_renamed_or_copied_experiment_is_all_there(change: Change, out: Path, tmp_path: Path) -> None:
    before = labels(out, "tiny")
    assert before == ["done", "stopped", "failed", "stopped"]
    change(out / "tiny", out / "new")
    assert "new" in experiment_names(out)
    assert labels(out, "new") == before
    rows = standing(out, "new").rows
    assert [row.ref.path.split("/")[0] for row in rows[:2]] == ["new", "new"]
    assert rows[2].state.failures == 1
    (rows[0].state.folder / "job.log").write_text("hello\n")
    log = rows[0].state.log
    assert log is not None
    show_logs([log], 5, follow=False)
    found = read_runs([out / "new"])
    assert [(run.path.split("/")[-4], run.score) for group in found.groups for run in group.runs] == [("new", 0.5)]
    assert {group.experiment for group in found.groups} == {"new"}
    again, submission = launch(out, tiny_spec(tmp_path)[0], Options("local"), say=lambda _: None, retrying=set())
    assert submission is None
    assert [action.kind for action in again][0] == "skip"


def test_a_run_that_another_experiment_refers_to_is_found_where_it_went(out: Path, tmp_path: Path) -> None:
    spec, runs = tiny_spec(tmp_path, name="other")
    describe(out, spec, runs)
    assert labels(out, "other")[:2] == ["done", "stopped"]
    (out / "tiny").rename(out / "renamed")
    assert labels(out, "other")[:2] == ["done", "stopped"]
    assert [run.score for group in read_runs([out / "other"]).groups for run in group.runs] == [0.5]


def test_a_finished_copy_goes_before_an_unfinished_original(out: Path, tmp_path: Path) -> None:
    shutil.copytree(out / "tiny", out / "copy")
    _, runs = tiny_spec(tmp_path)
    begin(out, runs[1], epoch=4, done=True)
    assert labels(out, "copy")[:2] == ["done", "done"]
    assert standing(out, "copy").rows[0].state.folder == out / "copy/rem/Catch/seed_0"


def test_a_run_of_another_configuration_in_its_place_is_not_taken(out: Path) -> None:
    (out / "tiny").rename(out / "new")
    config = out / "new/rem/Catch/seed_0/config.yaml"
    config.write_text("# config_hash: 0123456789ab\nschema: 2\n")
    assert labels(out, "new")[0] != "done"


def test_a_renamed_experiment_that_is_done_asks_no_scheduler(out: Path, tmp_path: Path, slurm: FakeSlurm) -> None:
    _, runs = tiny_spec(tmp_path)
    for run in runs:
        begin(out, run, epoch=4, done=True)
    (out / "tiny").rename(out / "new")
    slurm.site("squeue", "sys.exit(1)")
    assert job_states(submissions(out), out) == {}
    assert not standing(out, "new").is_blind


def test_a_job_is_known_by_the_name_that_it_was_submitted_under(tmp_path: Path, slurm: FakeSlurm) -> None:
    out, spec, _ = tmp_path / "runs", *tiny_spec(tmp_path, seeds="[0]")
    (tmp_path / "cpu.yaml").write_text("gpus: 0\n")
    launch(out, spec, Options("slurm", str(tmp_path / "cpu.yaml")), say=lambda _: None)
    (out / "tiny").rename(out / "new")
    assert labels(out, "new") == ["queued", "queued"]
    actions, submission = launch(out, spec, Options("slurm", str(tmp_path / "cpu.yaml")), say=lambda _: None)
    assert [action.kind for action in actions] == ["wait", "wait"]
    assert submission is None


def test_a_retry_stays_in_the_renamed_folder(out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from remctl.cli import run

    handed: list[Path] = []
    monkeypatch.setattr("remctl.sweep.local.start_queue", lambda submission, out: handed.append(submission.path))
    (out / "tiny").rename(out / "new")
    write_spec(tmp_path)
    (made,) = submissions(out)
    content = json.loads((made.path / "submission.json").read_text())
    content["options"] = {"executor": "local"}
    (made.path / "submission.json").write_text(json.dumps(content))
    assert run(["retry", "new", "--out", str(out)]) == 0
    assert [path.parents[1].name for path in handed] == ["new"]
    assert not (out / "tiny").exists()


def test_training_a_finished_run_under_another_name_says_where_it_is(
    out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from remctl import runner
    from remctl.errors import UserError

    def started(*_: object, **__: object) -> None:
        raise UserError("training starts here")

    monkeypatch.setattr(runner, "make_env", started)
    _, runs = tiny_spec(tmp_path)
    (out / "tiny").rename(out / "done")
    for run, did in ((runs[0], "finished"), (runs[1], "begun"), (runs[2], None)):
        with pytest.raises(UserError, match="training starts here"):
            runner.train(run.config, out=out, experiment="other", device="cpu", command=[])
        place = f"rem/Catch/seed_{run.seed}"
        line = f"{out}/done/{place}: has {did} this configuration already; {out}/other/{place} trains it once more\n"
        assert capsys.readouterr().out == (line if did else "")
