"""What is done about a run, from every state it can be found in."""

from __future__ import annotations

from pathlib import Path

import pytest

from remctl import runner
from remctl.cli import run as cli
from remctl.errors import UserError
from remctl.report.runs import read_runs
from remctl.runs.files import read_jsonl
from remctl.sweep.launch import Options, launch
from remctl.sweep.observe import Progress, RunState, find_places, observe
from remctl.sweep.plan import Rules, plan
from remctl.sweep.records import now, submissions, write_experiment
from remctl.sweep.schedulers import JobState, States, expand, keep_finals
from remctl.sweep.status import standing
from remctl.sweep.wanted import WantedRun
from tests.sweep.support import attempt, begin, record, request, tiny_spec

HERE = Path("somewhere")


@pytest.fixture
def runs(tmp_path: Path) -> list[WantedRun]:
    return tiny_spec(tmp_path)[1]


@pytest.mark.parametrize(
    ("state", "kind", "reason"),
    [
        (RunState("absent", HERE), "run", "new"),
        (RunState("queued", HERE, job="7_1", reason="Priority"), "wait", "queued as 7_1 (Priority)"),
        (RunState("running", HERE, reason="process 3 on a"), "wait", "running (process 3 on a)"),
        (RunState("unknown", HERE, reason="SLURM does not answer"), "wait", "SLURM does not answer"),
        (RunState("stopped", HERE, Progress(3), reason="its local queue is gone"), "resume", "epoch 3 of 4 (its"),
        (RunState("stopped", HERE, reason="cancelled", cancelled=True), "run", "cancelled"),
        (RunState("failed", HERE, failures=1, error="disk full"), "retry", "attempt 2 of 3 (disk full)"),
        (RunState("failed", HERE, failures=3, error="disk full"), "hold", "failed 3 times (disk full)"),
        (RunState("done", HERE, Progress(4, score=0.5)), "skip", "done, score 0.5"),
        (RunState("blocked", HERE, reason="belongs to configuration abc"), "hold", "configuration abc"),
    ],
    ids=lambda value: value.status if isinstance(value, RunState) else "",
)
def test_every_state_has_its_action(state: RunState, kind: str, reason: str, runs: list[WantedRun]) -> None:
    (action,) = plan(runs[:1], {runs[0].config_hash: state})
    assert action.kind == kind
    assert reason in action.reason


def test_what_was_cancelled_while_one_looks_stays_cancelled(runs: list[WantedRun]) -> None:
    state = RunState("stopped", HERE, Progress(2), cancelled=True)
    (action,) = plan(runs[:1], {runs[0].config_hash: state}, Rules(resume_cancelled=False))
    assert action.kind == "hold"


def test_of_two_names_for_one_configuration_one_runs(runs: list[WantedRun]) -> None:
    twin = WantedRun("twin", runs[0].game, runs[0].seed, runs[0].config, runs[0].config_hash)
    actions = plan([runs[0], twin], {runs[0].config_hash: RunState("absent", HERE)})
    assert [a.kind for a in actions] == ["run", "skip"]
    assert "same configuration as rem" in actions[1].reason


# --- from the disk and the scheduler to the state ---


def look(out: Path, runs: list[WantedRun], jobs: States | None = None) -> list[RunState]:
    known = submissions(out)
    states = observe(find_places(out, "tiny", runs, known), known, jobs or {})
    return [states[run.config_hash] for run in runs]


def slurm(submission: object, *states: str) -> States:
    return {(submission.id, i): JobState(f"100_{i}", state, "why") for i, state in enumerate(states) if state}  # type: ignore[attr-defined]


def test_a_run_that_nobody_began_is_absent(tmp_path: Path, runs: list[WantedRun]) -> None:
    assert {state.status for state in look(tmp_path, runs)} == {"absent"}


def test_a_run_done_by_another_experiment_is_done(tmp_path: Path, runs: list[WantedRun]) -> None:
    begin(tmp_path, runs[0], epoch=4, experiment="begun_only")
    begin(tmp_path, runs[0], epoch=4, done=True, experiment="other")
    state = look(tmp_path, runs)[0]
    assert (state.status, state.progress.score, state.progress.wall_s) == ("done", 0.5, 8.0)
    assert state.folder == tmp_path / "other/rem/Catch/seed_0"


def test_a_run_begun_by_another_experiment_goes_on_there(tmp_path: Path, runs: list[WantedRun]) -> None:
    begin(tmp_path, runs[0], epoch=2, experiment="other")
    state = look(tmp_path, runs)[0]
    assert (state.status, state.progress.epoch, state.folder) == ("stopped", 2, tmp_path / "other/rem/Catch/seed_0")


def test_a_run_handed_over_by_another_experiment_is_waited_for(tmp_path: Path, runs: list[WantedRun]) -> None:
    other = record(tmp_path, runs[:1], experiment="other")
    assert look(tmp_path, runs, slurm(other, "PENDING"))[0].status == "queued"


BAD_NUMBERS = [
    *(
        f'{{"score": {score}, "wall_s": {{}}}}'
        for score in ("NaN", "Infinity", "-Infinity", "true", '"7"', "1" + "0" * 400)
    ),
    '{"score": 1, "wall_s": {"test": NaN}}',
]


@pytest.mark.parametrize("text", ["", '{"sco', '{"score": null}', '"x"', "[1]", '{"score": 1}', *BAD_NUMBERS])
def test_a_damaged_result_is_held_and_named(text: str, tmp_path: Path, runs: list[WantedRun]) -> None:
    folder = begin(tmp_path, runs[0], epoch=4)
    (folder / "result.json").write_text(text)
    state = look(tmp_path, runs)[0]
    assert state.status == "blocked"
    assert "result.json is damaged: remove it" in state.reason


@pytest.mark.parametrize("content", [b"", b"a: [", b"\xff\x00", None], ids=["empty", "no YAML", "binary", "folder"])
def test_a_run_whose_configuration_cannot_be_read_is_held_and_named(
    content: bytes | None, tmp_path: Path, runs: list[WantedRun]
) -> None:
    folder = begin(tmp_path, runs[0], epoch=2)
    (folder / "config.yaml").unlink()
    (folder / "config.yaml").mkdir() if content is None else (folder / "config.yaml").write_bytes(content)
    state = look(tmp_path, runs)[0]
    assert state.status == "blocked"
    assert "config.yaml is damaged" in state.reason or "choose another --out" in state.reason


@pytest.mark.parametrize(
    "damage", [None, "a: [", "", "schema: 2\npreset: quick\n"], ids=["gone", "damaged", "empty", "cut"]
)
def test_a_finished_run_whose_configuration_cannot_be_read_is_held_everywhere_in_the_same_words(
    damage: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("remctl.sweep.launch.has_slurm", lambda: False)
    spec, runs = tiny_spec(tmp_path, seeds="[0]")
    out = tmp_path / "runs"
    for run in runs:
        folder = begin(out, run, epoch=4, done=True)
    write_experiment(out, spec, find_places(out, "tiny", runs, []), runs)
    (folder / "config.yaml").unlink()
    if damage is not None:
        (folder / "config.yaml").write_text(damage)
    state = look(out, runs)[1]
    says = state.reason
    assert state.status == "blocked"
    assert says.startswith(f"{folder}/config.yaml is {'gone: ' if damage is None else 'damaged ('}")
    assert says.endswith(": restore it from a copy, or move the run's folder away")
    actions, submission = launch(out, spec, Options(), say=lambda text: None)
    assert ([(a.kind, a.reason == says) for a in actions], submission) == ([("skip", False), ("hold", True)], None)
    assert [(row.label, row.note == says) for row in standing(out, "tiny").rows] == [("done", False), ("blocked", True)]
    for by_hand in (False, True):
        found = read_runs([out / "tiny"]).groups
        assert [len(group.runs) for group in found] == ([1, 0] if not by_hand else [0, 1])
        assert [run.reason for group in found for run in group.missing] == [says]
        assert cli(["scores", "export", str(out)]) == 0
        printed = capsys.readouterr()
        assert (printed.out.count("\n"), says in printed.err) == (2, True)
        (out / "tiny" / "experiment.json").unlink(missing_ok=True)
    assert [row.note for row in standing(out, "tiny").rows if row.label == "blocked"] == [says]
    with pytest.raises(UserError) as refused:
        runner.train(runs[1].config, out=out, experiment="tiny", device="cpu", command=[])
    assert str(refused.value) == says
    (folder / "result.json").unlink()
    assert look(out, runs)[1].status == ("stopped" if damage is None else "blocked")  # its checkpoints say whose it is


def test_a_finished_run_whose_configuration_states_its_hash_counts_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As one that a newer version wrote, or whose rest is damaged."""
    monkeypatch.chdir(tmp_path)
    spec, runs = tiny_spec(tmp_path, seeds="[0]")
    out = tmp_path / "runs"
    folder = begin(out, runs[0], epoch=4, done=True)
    head = "".join((folder / "config.yaml").read_text().splitlines(keepends=True)[:2])
    for rest in ("a: [", "none_of_ours: 1\n"):
        (folder / "config.yaml").write_text(head + rest)
        write_experiment(out, spec, find_places(out, "tiny", runs, []), runs)
        assert look(out, runs)[0].status == "done"
        for _ in ("of an experiment", "by hand"):
            assert [row.label for row in standing(out, "tiny").rows if row.ref.variant == runs[0].variant] == ["done"]
            assert [len(group.runs) for group in read_runs([out / "tiny"]).groups][:1] == [1]
            (out / "tiny" / "experiment.json").unlink(missing_ok=True)


def test_a_folder_of_another_configuration_is_blocked(tmp_path: Path, runs: list[WantedRun]) -> None:
    folder = begin(tmp_path, runs[0])
    (folder / "config.yaml").write_text("# config_hash: 0123456789ab\n")
    assert look(tmp_path, runs)[0].status == "blocked"
    assert "choose another --out" in look(tmp_path, runs)[0].reason


@pytest.mark.parametrize(
    ("job", "status", "failures"),
    [
        ("PENDING", "queued", 0),
        ("RUNNING", "running", 0),
        ("COMPLETING", "running", 0),
        ("SUSPENDED", "queued", 0),
        ("UNKNOWN", "unknown", 0),
        ("REQUEUED", "queued", 0),
        ("CANCELLED", "stopped", 0),
        ("TIMEOUT", "stopped", 0),
        ("PREEMPTED", "stopped", 0),
        ("NODE_FAIL", "stopped", 0),
        ("FAILED", "failed", 1),
        ("OUT_OF_MEMORY", "failed", 1),
        ("COMPLETED", "failed", 1),
        ("", "stopped", 0),  # SLURM lost it, or it was cancelled while it waited, and nobody has started it
    ],
)
def test_the_jobs_state_decides_where_nothing_was_written(
    job: str, status: str, failures: int, tmp_path: Path, runs: list[WantedRun]
) -> None:
    made = record(tmp_path, runs[:2])
    state = look(tmp_path, runs, slurm(made, job))[0]
    assert (state.status, state.failures) == (status, failures)


def test_a_launcher_that_died_before_submitting_has_started_nothing(tmp_path: Path, runs: list[WantedRun]) -> None:
    record(tmp_path, runs, job=None)
    assert [(s.status, s.failures) for s in look(tmp_path, runs)] == [("stopped", 0)] * 4


def test_a_job_whose_id_was_never_written_down_is_found(tmp_path: Path, runs: list[WantedRun]) -> None:
    made = record(tmp_path, runs, job=None)
    assert look(tmp_path, runs, slurm(made, "RUNNING"))[0].status == "running"


def test_a_job_that_began_and_is_forgotten_is_a_failure(tmp_path: Path, runs: list[WantedRun]) -> None:
    made = record(tmp_path, runs[:1], job=None)
    attempt(tmp_path, runs[0], "start", made)
    state = look(tmp_path, runs)[0]
    assert (state.status, state.failures) == ("failed", 1)
    assert "SLURM has forgotten it" in state.error


def test_failures_are_counted_once_per_submission_and_forgiven(tmp_path: Path, runs: list[WantedRun]) -> None:
    for number in range(3):
        made = record(tmp_path, runs[:1])
        attempt(tmp_path, runs[0], "start", made)
        attempt(tmp_path, runs[0], "end", made, outcome="interrupted", error="left")  # a preemption, then:
        attempt(tmp_path, runs[0], "start", made)
        attempt(tmp_path, runs[0], "end", made, outcome="failed", error=f"error {number}")
    state = look(tmp_path, runs)[0]
    assert (state.status, state.failures, state.error) == ("failed", 3, "error 2")
    request(tmp_path, runs[0], "retry", *submissions(tmp_path))
    state = look(tmp_path, runs)[0]
    assert (state.status, state.failures) == ("stopped", 0)


def test_what_still_runs_cannot_be_forgiven_away(tmp_path: Path, runs: list[WantedRun]) -> None:
    made = record(tmp_path, runs[:1])
    request(tmp_path, runs[0], "retry", made)
    assert look(tmp_path, runs, slurm(made, "PENDING"))[0].status == "queued"


def test_a_preempted_run_under_slurm_is_queued_again(tmp_path: Path, runs: list[WantedRun]) -> None:
    made = record(tmp_path, runs[:1])
    attempt(tmp_path, runs[0], "start", made)
    attempt(tmp_path, runs[0], "end", made, outcome="interrupted", error="stopped by SIGUSR2")
    state = look(tmp_path, runs, slurm(made, "PENDING"))[0]
    assert (state.status, state.requeued) == ("queued", True)
    assert look(tmp_path, runs)[0].status == "stopped"


def test_of_runs_that_share_a_task_one_may_fail_while_the_job_goes_on(tmp_path: Path, runs: list[WantedRun]) -> None:
    made = record(tmp_path, runs[:1])
    attempt(tmp_path, runs[0], "start", made)
    attempt(tmp_path, runs[0], "end", made, outcome="failed", error="x")
    assert look(tmp_path, runs, slurm(made, "RUNNING"))[0].status == "failed"


def test_a_run_that_another_process_had_is_no_failure(tmp_path: Path, runs: list[WantedRun]) -> None:
    made = record(tmp_path, runs[:1])
    attempt(tmp_path, runs[0], "end", made, outcome="refused", error="in use by process 3")
    state = look(tmp_path, runs, slurm(made, "COMPLETED"))[0]
    assert (state.status, state.failures, state.reason) == ("stopped", 0, "in use by process 3")


def test_a_result_that_a_network_file_system_does_not_show_yet_is_waited_for(
    tmp_path: Path, runs: list[WantedRun]
) -> None:
    made = record(tmp_path, runs[:1])
    attempt(tmp_path, runs[0], "end", made, outcome="done", error="", time=now())
    assert look(tmp_path, runs)[0].status == "running"
    attempt(tmp_path, runs[0], "end", made, outcome="done", error="")
    assert look(tmp_path, runs)[0].status == "stopped"


def test_a_cancelled_run_is_no_failure_even_if_slurm_forgets(tmp_path: Path, runs: list[WantedRun]) -> None:
    made = record(tmp_path, runs[:1])
    attempt(tmp_path, runs[0], "start", made)
    request(tmp_path, runs[0], "cancel", made)
    state = look(tmp_path, runs)[0]
    assert (state.status, state.cancelled, state.failures) == ("stopped", True, 0)


def test_of_several_folders_of_one_run_the_furthest_is_taken(tmp_path: Path, runs: list[WantedRun]) -> None:
    for experiment, epoch in (("a", 1), ("b", 3), ("c", 2)):
        begin(tmp_path, runs[0], epoch=epoch, experiment=experiment)
    begin(tmp_path, runs[0], epoch=4, experiment="too/deep")
    assert look(tmp_path, runs)[0].folder == tmp_path / "b/rem/Catch/seed_0"


# --- what SLURM says ---


@pytest.mark.parametrize(
    ("text", "indices"),
    [("7", [7]), ("[2,4-6%2]", [2, 4, 5, 6]), ("[0-3]", [0, 1, 2, 3]), ("[1]", [1])],
)
def test_array_indices_are_read_as_slurm_writes_them(text: str, indices: list[int]) -> None:
    assert expand(text) == indices


def test_ends_that_were_seen_are_kept_once(tmp_path: Path, runs: list[WantedRun]) -> None:
    made = record(tmp_path, runs[:3])
    seen = slurm(made, "FAILED", "RUNNING", "TIMEOUT")
    for _ in range(2):
        keep_finals([made], seen)
    kept = read_jsonl(made.path / "finals.jsonl")
    assert [(entry["task"], entry["state"]) for entry in kept] == [(0, "FAILED"), (2, "TIMEOUT")]


def test_progress_is_read_from_the_end_of_a_growing_file(tmp_path: Path, runs: list[WantedRun]) -> None:
    folder = begin(tmp_path, runs[0], epoch=2000)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 2001, "epo')
    progress = look(tmp_path, runs)[0].progress
    assert (progress.epoch, progress.epoch_s, progress.score, progress.wall_s) == (2000, 2.0, 2000.0, 4000.0)
