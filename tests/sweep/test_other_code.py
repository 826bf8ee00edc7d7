"""Runs that other code began or finished: said, taken as they are, and with --same-code run again beside the old ones."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from remctl.errors import MachineError, UserError
from remctl.report.runs import read_runs
from remctl.runs.code import Code, this_code
from remctl.runs.files import read_json
from remctl.runs.layout import RunFolder, find_runs
from remctl.sweep.again import make_room
from remctl.sweep.launch import Options, launch, survey
from remctl.sweep.observe import RunState
from remctl.sweep.plan import Rules, plan
from remctl.sweep.records import add_request, submissions
from remctl.sweep.requests import cancel
from remctl.sweep.schedulers import JobState
from remctl.sweep.status import standing
from remctl.sweep.wanted import Spec, WantedRun
from tests.runs.test_lock import in_another_users_process, public_folder  # noqa: F401 - a fixture
from tests.sweep.support import begin, record, tiny_spec

HERE = Path("somewhere")
OLD = {"remctl": "0.1.0", "sources": ""}
SELF = {"remctl": this_code().version, "sources": this_code().sources}
NEW = Code("0.2.0+gabc", "5")


def made_by(folder: Path, *starts: dict[str, Any]) -> Path:
    (folder / "provenance.json").write_text(json.dumps(starts))
    return folder


@pytest.fixture
def spec(tmp_path: Path) -> Spec:
    return tiny_spec(tmp_path)[0]


@pytest.fixture
def runs(tmp_path: Path) -> list[WantedRun]:
    return tiny_spec(tmp_path)[1]


@pytest.fixture(autouse=True)
def handed(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Paths of what is handed to the local queue, which is not started."""
    found: list[list[str]] = []
    monkeypatch.setattr("remctl.sweep.launch.has_slurm", lambda: False)
    monkeypatch.setattr(
        "remctl.sweep.local.start_queue",
        lambda submission, out: found.append([ref.path for task in submission.tasks for ref in task]),
    )
    return found


@pytest.mark.parametrize(
    ("status", "kind", "said"),
    [
        ("done", "skip", "made by other code (0.1.0)"),
        ("stopped", "run", "begun by other code (0.1.0)"),
        ("failed", "retry", "begun by other code (0.1.0)"),
        ("running", "wait", ""),
        ("queued", "wait", ""),
        ("blocked", "hold", ""),
    ],
)
def test_what_other_code_made_is_said_and_with_same_code_run_again(
    status: Any, kind: str, said: str, runs: list[WantedRun]
) -> None:
    state = RunState(status, HERE, codes=(Code("0.1.0"),))
    (action,) = plan(runs[:1], {runs[0].config_hash: state}, Rules(code=NEW))
    assert (action.kind, said in action.reason, "other code" in action.reason) == (kind, True, bool(said))
    (action,) = plan(runs[:1], {runs[0].config_hash: state}, Rules(code=NEW, same_code=True))
    assert (action.kind, action.again) == (("run", True) if said else (kind, False))


@pytest.mark.parametrize("codes", [(), (NEW,), (Code("0.2.0", "5"),)])
def test_the_same_code_and_an_unknown_one_are_not_other_code(codes: tuple[Code, ...], runs: list[WantedRun]) -> None:
    state = RunState("done", HERE, codes=codes)
    (action,) = plan(runs[:1], {runs[0].config_hash: state}, Rules(code=NEW, same_code=True))
    assert (action.kind, action.reason, action.again) == ("skip", "done", False)


def test_a_finished_run_moves_aside_and_the_same_command_with_same_code_ends(
    tmp_path: Path, spec: Spec, runs: list[WantedRun], handed: list[list[str]]
) -> None:
    out = tmp_path / "runs"
    old = made_by(begin(out, runs[0], 4, done=True), OLD)
    made_by(begin(out, runs[1], 4, done=True), SELF)
    made_by(begin(out, runs[2], 2), OLD, SELF)  # resumed by this code
    made_by(begin(out, runs[3], 2), SELF)
    actions, made = launch(out, spec, Options(), say=lambda text: None)
    assert [a.kind for a in actions] == ["skip", "skip", "resume", "resume"]
    assert "other code (0.1.0)" in actions[0].reason
    assert made is not None
    for run in runs[2:]:
        add_request(RunFolder(out / f"tiny/{run.variant}/Catch/seed_{run.seed}"), "cancel", [made.id])

    options = Options(same_code=True)
    actions, _ = launch(out, spec, options, Rules(same_code=True), say=lambda text: None)
    assert [(a.kind, a.again) for a in actions] == [("run", True), ("skip", False), ("run", True), ("resume", False)]
    assert len(handed[1]) == 3
    assert not (old / "result.json").exists()
    aside = out / "tiny" / ".other-code"
    assert (aside / "rem/Catch/seed_0.1/result.json").is_file()
    assert (aside / "no_action_inputs/Catch/seed_0.1/config.yaml").is_file()
    assert [run.path.name for run in find_runs(out)] == ["seed_1", "seed_1"]  # no report finds what was set aside

    made_by(begin(out, runs[0], 4, done=True), SELF)
    made_by(begin(out, runs[2], 4, done=True), SELF)
    made_by(begin(out, runs[3], 4, done=True), SELF)
    actions, made = launch(out, spec, options, Rules(same_code=True), say=lambda text: None)
    assert ([a.kind for a in actions], made) == (["skip"] * 4, None)


def test_the_end_of_an_earlier_job_is_no_failure_of_the_new_run(
    tmp_path: Path, spec: Spec, runs: list[WantedRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "runs"
    made_by(begin(out, runs[0], 4, done=True), OLD)
    finished = record(out, runs[:1], executor="slurm")
    states = {(finished.id, 0): JobState("100", "COMPLETED")}
    monkeypatch.setattr("remctl.sweep.launch.job_states", lambda known, out: states)
    launch(out, spec, Options(same_code=True), Rules(same_code=True), say=lambda text: None)
    actions, _ = launch(out, spec, Options(same_code=True), say=lambda text: None)
    assert (actions[0].kind, actions[0].state.failures) == ("run", 0)


def test_a_run_of_another_experiment_stays_and_is_run_again_here(
    tmp_path: Path, spec: Spec, runs: list[WantedRun], handed: list[list[str]]
) -> None:
    out = tmp_path / "runs"
    theirs = made_by(begin(out, runs[0], 4, done=True, experiment="other"), OLD)
    options = Options(same_code=True)
    launch(out, spec, options, Rules(same_code=True), say=lambda text: None)
    assert (theirs / "result.json").is_file()
    assert "tiny/rem/Catch/seed_0" in handed[0]
    assert "tiny/rem/Catch/seed_0" in {run["path"] for run in read_json(out / "tiny" / "experiment.json")["runs"]}
    made_by(begin(out, runs[0], 1), SELF)
    for kwargs in ({"rules": Rules(same_code=True)}, {}):  # the command again, and what --wait and retry look at
        actions, _ = launch(out, spec, options, say=lambda text: None, **kwargs)  # type: ignore[arg-type]
        assert (actions[0].kind, actions[0].state.folder) == ("resume", out / "tiny/rem/Catch/seed_0")
        handed.clear()
    made_by(begin(out, runs[0], 4, done=True), SELF)
    actions, _ = launch(out, spec, options, Rules(same_code=True), say=lambda text: None)
    assert (actions[0].kind, actions[0].others) == ("skip", ())


def test_back_at_the_code_that_made_it_elsewhere_every_command_shows_that_run(
    tmp_path: Path, spec: Spec, runs: list[WantedRun], handed: list[list[str]]
) -> None:
    out = tmp_path / "runs"
    for run in runs:
        theirs = made_by(begin(out, run, 4, done=True, experiment="other"), OLD)
    launch(out, spec, *AGAIN, say=lambda text: None)
    for run in runs:
        own = made_by(begin(out, run, 4, done=True), SELF)
        made_by(out / "other" / own.relative_to(out / "tiny"), SELF)
        made_by(own, OLD)  # as if this were the code that made theirs
    launch(out, spec, *AGAIN, say=lambda text: None)
    for options in (AGAIN, PLAIN, AGAIN):
        actions, _ = launch(out, spec, *options, say=lambda text: None)
        assert {(a.kind, a.state.folder.parts[-4]) for a in actions} == {("skip", "other")}
        assert {row.state.folder.parts[-4] for row in standing(out, "tiny").rows} == {"other"}
        assert {Path(run.path).parts[-4] for group in read_runs([out / "tiny"]).groups for run in group.runs} == {
            "other"
        }
    assert (out / "tiny/.other-code" / own.relative_to(out / "tiny")).with_name(f"{own.name}.1").is_dir()
    assert (theirs / "result.json").is_file()


def test_what_follows_does_not_run_again_what_other_code_finishes_meanwhile(
    tmp_path: Path, spec: Spec, runs: list[WantedRun]
) -> None:
    out = tmp_path / "runs"
    for run in runs:
        made_by(begin(out, run, 4, done=True), {"remctl": "edited", "sources": "e"})
    actions, made = launch(out, spec, Options(same_code=True), Rules(resume_cancelled=False), say=lambda text: None)
    assert ([a.kind for a in actions], made) == (["skip"] * 4, None)


def test_a_place_of_another_configuration_is_refused_before_anything_moves(
    tmp_path: Path, spec: Spec, runs: list[WantedRun]
) -> None:
    out = tmp_path / "runs"
    made_by(begin(out, runs[0], 4, done=True, experiment="other"), OLD)
    place = out / "tiny/rem/Catch/seed_0"
    place.mkdir(parents=True)
    (place / "config.yaml").write_text("# config_hash: 0123456789ab\n")
    with pytest.raises(UserError, match="belongs to another configuration: move it away"):
        launch(out, spec, Options(same_code=True), Rules(same_code=True), say=lambda text: None)
    assert not submissions(out)


# --- handed over again, and still queued


@pytest.fixture
def queues_live(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("remctl.sweep.schedulers.is_held", lambda lock: True)


PLAIN, AGAIN = (Options(), Rules()), (Options(same_code=True), Rules(same_code=True))


def one_seed(folder: Path, name: str = "tiny") -> Spec:
    return tiny_spec(folder, name=name, seeds="[0]")[0]


@pytest.mark.parametrize("its_own_too", [False, True], ids=["theirs", "theirs and its own"])
def test_a_run_that_is_queued_again_goes_before_copies_of_other_code(
    its_own_too: bool, tmp_path: Path, runs: list[WantedRun], handed: list[list[str]], queues_live: None
) -> None:
    out, spec, place = tmp_path / "runs", one_seed(tmp_path), tmp_path / "runs/tiny/rem/Catch/seed_0"
    made_by(begin(out, runs[0], 4, done=True, experiment="other"), OLD)
    if its_own_too:
        made_by(begin(out, runs[0], 4, done=True), OLD)
    launch(out, spec, *AGAIN, say=lambda text: None)
    assert handed.pop() == ["tiny/rem/Catch/seed_0", "tiny/no_action_inputs/Catch/seed_0"]

    def places() -> set[Path]:
        looks = [launch(out, spec, *how, say=lambda text: None)[0][0] for how in (AGAIN, (AGAIN[0], PLAIN[1]), PLAIN)]
        assert handed == []
        row, (group,) = (
            standing(out, "tiny").rows[0],
            [g for g in read_runs([out / "tiny"]).groups if g.variant == "rem"],
        )
        assert group.missing or row.label == "done"
        assert [RunFolder(Path(run.path)).path for run in (*group.runs, *group.missing)] == [row.state.folder]
        return {row.state.folder, *(action.state.folder for action in looks)}

    assert places() == {place}
    assert standing(out, "tiny").rows[0].label == "queued"
    actions, _ = launch(out, one_seed(tmp_path, "second"), *AGAIN, say=lambda text: None)  # what one does no other does
    assert [(a.kind, a.state.folder) for a in actions][0] == ("wait", place)
    made_by(place, SELF)  # started
    assert places() == {place}
    made_by(begin(out, runs[0], 1), SELF)
    assert places() == {place}
    made_by(begin(out, runs[0], 4, done=True), SELF)
    assert places() == {place}


def test_another_experiment_without_same_code_takes_what_is_finished(
    tmp_path: Path, runs: list[WantedRun], queues_live: None
) -> None:
    out = tmp_path / "runs"
    theirs = made_by(begin(out, runs[0], 4, done=True, experiment="other"), OLD)
    launch(out, one_seed(tmp_path), *AGAIN, say=lambda text: None)
    actions, _ = launch(out, one_seed(tmp_path, "second"), *PLAIN, say=lambda text: None)
    assert (actions[0].kind, actions[0].state.folder) == ("skip", theirs)


def test_a_run_that_was_cancelled_before_it_began_is_done_where_it_was_done_since(
    tmp_path: Path, runs: list[WantedRun]
) -> None:
    out, spec = tmp_path / "runs", one_seed(tmp_path)
    launch(out, spec, *PLAIN, say=lambda text: None)
    cancel(standing(out, "tiny"), [])
    theirs = made_by(begin(out, runs[0], 4, done=True, experiment="other"), SELF)
    actions, _ = launch(out, spec, *PLAIN, say=lambda text: None)
    assert (actions[0].kind, actions[0].state.folder) == ("skip", theirs)
    assert standing(out, "tiny").rows[0].label == "done"


# --- what cannot be run again


@pytest.mark.parametrize("status", ["done", "stopped", "failed"])
def test_what_cannot_be_trained_any_more_is_not_started_for_its_code(status: Any, runs: list[WantedRun]) -> None:
    training = runs[0].config.training.model_copy(update={"random_streams": "shared"})
    run = replace(runs[0], config=runs[0].config.model_copy(update={"training": training}))
    state = RunState(status, HERE, codes=(Code("0.1.0"),))
    (action,) = plan([run], {run.config_hash: state}, Rules(code=NEW, same_code=True))
    assert (action.kind, action.again) == ("skip" if status == "done" else "hold", False)
    assert "made by other code" in action.reason if status == "done" else "random_streams" in action.reason


def test_an_environment_that_is_gone_moves_nothing(
    tmp_path: Path, spec: Spec, runs: list[WantedRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "runs"
    old = made_by(begin(out, runs[0], 4, done=True), OLD)

    def gone(*_: object, **__: object) -> None:
        raise UserError("no such environment")

    monkeypatch.setattr("remctl.sweep.playable.make_env", gone)
    with pytest.raises(UserError, match="no such environment; nothing was started"):
        launch(out, spec, *AGAIN, say=lambda text: None)
    assert ((old / "result.json").is_file(), submissions(out)) == (True, [])


def test_nothing_moves_where_one_place_is_taken(tmp_path: Path, spec: Spec, runs: list[WantedRun]) -> None:
    out = tmp_path / "runs"
    old = made_by(begin(out, runs[0], 4, done=True), OLD)
    made_by(begin(out, runs[3], 4, done=True, experiment="other"), OLD)
    place = out / "tiny" / runs[3].variant / "Catch" / f"seed_{runs[3].seed}"
    for name, says in (("config.yaml", "belongs to another configuration"), ("result.json", "config.yaml is gone")):
        place.mkdir(parents=True, exist_ok=True)
        (place / name).write_text("# config_hash: 0123456789ab\n")
        with pytest.raises(UserError, match=says):
            launch(out, spec, *AGAIN, say=lambda text: None)
        assert ((old / "result.json").is_file(), (out / "tiny/.other-code").exists()) == (True, False)
        assert submissions(out) == []
        assert not list(out.rglob("requests.jsonl"))
        shutil.rmtree(place)


def test_nothing_moves_where_the_gpus_cannot_be_asked_for(
    tmp_path: Path, spec: Spec, runs: list[WantedRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "runs"
    old = [made_by(begin(out, run, 4, done=True), OLD) for run in runs]

    def hang(say: Any) -> list[str]:
        raise MachineError("nvidia-smi did not answer")

    monkeypatch.setattr("remctl.sweep.local.visible_gpus", hang)
    with pytest.raises(MachineError, match="did not answer"):
        launch(out, spec, *AGAIN, say=lambda text: None)
    assert ([(run / "result.json").is_file() for run in old], submissions(out)) == ([True] * 4, [])


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be two users")
def test_nothing_moves_where_one_place_may_not_be_written(public_folder: Path) -> None:  # noqa: F811
    out, (spec, runs) = public_folder / "runs", tiny_spec(public_folder)
    mine = made_by(begin(out, runs[0], 4, done=True), OLD)
    made_by(begin(out, runs[2], 4, done=True, experiment="other"), OLD)
    closed = out / "tiny" / runs[2].variant
    closed.mkdir(parents=True)
    for folder in (out, *out.rglob("*")):
        folder.chmod(0o777)
    closed.chmod(0o755)

    def look() -> None:
        actions = plan(runs, survey(out, spec).states, Rules(code=this_code(), same_code=True))
        try:
            make_room(out, "tiny", [a for a in actions if a.starts], [], [])
        except MachineError as error:
            os._exit(3 if f"{closed} may not be written" in str(error) else 4)
        os._exit(5)

    assert in_another_users_process(look) == 3
    assert (mine / "result.json").is_file()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be two users")
def test_nothing_moves_where_one_run_may_not_be_moved(public_folder: Path) -> None:  # noqa: F811
    out, (spec, runs) = public_folder / "runs", tiny_spec(public_folder)
    mine, yours = (made_by(begin(out, run, 4, done=True), OLD) for run in (runs[0], runs[2]))
    for folder in (out, *out.rglob("*")):
        folder.chmod(0o777)
    yours.parent.chmod(0o755)

    def look() -> None:
        actions = plan(runs, survey(out, spec).states, Rules(code=this_code(), same_code=True))
        try:
            make_room(out, "tiny", actions, [], [])
        except MachineError as error:
            os._exit(3 if f"{yours.parent} may not be written" in str(error) else 4)
        os._exit(5)

    assert in_another_users_process(look) == 3
    assert (mine / "result.json").is_file()
