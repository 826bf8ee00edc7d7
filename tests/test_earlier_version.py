"""Runs that version 0.1.0 left: one finished, which is known and reported, one cut, which only that version can finish."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from remctl import runner
from remctl.config import build, config_hash, from_yaml, keys, resolve
from remctl.errors import UserError
from remctl.report.runs import read_runs
from remctl.sweep.launch import Options, launch, survey
from remctl.sweep.plan import plan
from remctl.sweep.records import submissions, write_experiment
from remctl.sweep.spec import read_spec
from remctl.sweep.status import standing

DATA = Path(__file__).parent / "data" / "runs_0_1_0"
SPEC = Path(__file__).parent / "data" / "old.yaml"
STREAMS = "overrides:\n  training.random_streams: shared"
REM, NO_POP = "old/rem/Catch/seed_0", "old/no_pop/Catch/seed_0"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return Path(shutil.copytree(DATA, tmp_path / "runs"))


@pytest.fixture
def its_spec(tmp_path: Path) -> Path:
    """The spec of its experiment, which asks for the random streams of that version."""
    file = tmp_path / "old.yaml"
    file.write_text(SPEC.read_text().replace("overrides:", STREAMS))
    return file


def test_the_launcher_knows_what_is_done_and_holds_what_it_cannot_finish(out: Path, its_spec: Path) -> None:
    seen = survey(out, read_spec(its_spec))
    done, cut = plan(seen.wanted, seen.states)
    assert (done.kind, done.reason) == ("skip", "done, score -1")
    assert (cut.kind, cut.state.progress.epoch) == ("hold", 1)
    assert "finish it with that version, or train it anew" in cut.reason
    assert [place.relative_to(out) for place in seen.places.values()] == [Path(REM), Path(NO_POP)]


def test_the_spec_as_it_was_asks_for_other_runs_and_leaves_the_experiment_alone(out: Path) -> None:
    before = (out / "old" / "experiment.json").read_bytes()
    actions, submission = launch(out, read_spec(SPEC), Options(executor="local"))
    assert {a.kind for a in actions} == {"hold"}
    assert all("of an earlier version: choose another --out, or another name in the spec" in a.reason for a in actions)
    assert submission is None
    assert (out / "old" / "experiment.json").read_bytes() == before


def test_what_it_submitted_is_found_under_todays_hashes(out: Path) -> None:
    (submission,) = submissions(out)
    for (ref,), old in zip(submission.tasks, ("f34645391923", "491cf6566d7e"), strict=True):
        assert ref.config_hash == config_hash(from_yaml(out / ref.path / "config.yaml"))
        assert submission.config(ref).name == f"{old}.yaml"


def test_status_reads_its_experiment(out: Path) -> None:
    assert [row.label for row in standing(out, "old").rows] == ["done", "stopped"]


def test_the_launcher_writes_the_experiment_under_todays_hashes(out: Path, its_spec: Path) -> None:
    seen = survey(out, read_spec(its_spec))
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


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_an_interrupted_run_is_refused_in_one_line_that_says_what_to_do(out: Path) -> None:
    before = contents(out)
    with pytest.raises(UserError) as refused:
        runner.train(from_yaml(out / NO_POP / "config.yaml"), **arguments(out))
    assert str(refused.value) == (
        f"{out / NO_POP} cannot be trained: its random streams are those of version 0.1.0 (training.random_streams=shared), "
        "which this version does not draw from: finish it with that version, or train it anew, with "
        "training.random_streams=named and another --name or --out"
    )
    assert contents(out) == before


@pytest.mark.parametrize(
    ("folder", "what"),
    [(REM, "it is a finished run of an earlier version"), (NO_POP, "the version that began it can finish it")],
)
def test_the_command_that_began_it_asks_for_another_run_now(folder: str, what: str, out: Path) -> None:
    old, before = from_yaml(out / folder / "config.yaml"), contents(out)
    now = build(keys(old) | {"training.random_streams": "named"})
    assert config_hash(now) != config_hash(old)
    with pytest.raises(UserError, match=rf'random_streams is "shared" there, "named" here.*\({what}\)'):
        runner.train(now, **arguments(out))
    assert contents(out) == before


def test_no_new_run_is_begun_with_the_streams_of_an_earlier_version(tmp_path: Path) -> None:
    config = resolve("Catch", "quick", sets=["training.random_streams=shared"])
    with pytest.raises(UserError, match="cannot be trained: its random streams are those of version 0.1.0"):
        runner.train(config, **arguments(tmp_path / "runs"))
    assert not (tmp_path / "runs").exists()


def test_the_agent_of_an_earlier_version_can_still_be_tested(out: Path) -> None:
    before = contents(out)
    assert len(runner.evaluate(out / NO_POP, 2, "cpu")["returns"]) == 2
    assert contents(out) == before
