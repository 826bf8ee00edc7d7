"""The local queue with real processes: slots, kills of everything that can be killed, cancelling, retrying."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from remctl.errors import UserError
from remctl.runs.layout import RunFolder
from remctl.runs.lock import holder, is_held
from remctl.sweep.job import Slot
from remctl.sweep.launch import Options, choose_executor, follow, launch
from remctl.sweep.local import slots
from remctl.sweep.records import Submission, attempts, submissions
from remctl.sweep.requests import cancel, to_retry
from remctl.sweep.schedulers import QUEUE_LOCK
from remctl.sweep.spec import read_spec
from remctl.sweep.status import choose, standing
from tests.sweep.support import queues_end_with_this_process, write_spec

ROOT = Path(__file__).parents[2]
ENDLESS = ("training.num_epochs=10000",)
TWO_AT_ONCE = Options("local", max_parallel=2)


@pytest.fixture
def out(tmp_path: Path) -> Iterator[Path]:
    with queues_end_with_this_process():
        yield tmp_path / "runs"
    wait_for(lambda: not any(stop_queue(submission) for submission in submissions(tmp_path / "runs")))


def wait_for(condition: Callable[[], bool], timeout_s: float = 90) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def stop_queue(submission: Submission) -> bool:
    """Ask a queue to leave; whether it is still there. Its lock tells, as it is passed on before its command line is."""
    for pid in queues(submission.path):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    return is_held(submission.path / QUEUE_LOCK)


def queues(folder: Path) -> list[int]:
    """Processes of the queues that work below a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if f"remctl.sweep.local\0{folder}" in path.read_text():
                found.append(int(path.parent.name))
    return found


def labels(out: Path) -> list[str]:
    return [row.label for row in standing(out, "tiny").rows]


def wait_for_epoch(out: Path, epoch: int, num_runs: int) -> None:
    wait_for(lambda: sum(row.state.progress.epoch >= epoch for row in standing(out, "tiny").rows) >= num_runs)


def test_a_queue_runs_everything_and_never_more_than_it_may_at_once(tmp_path: Path, out: Path) -> None:
    spec = read_spec(write_spec(tmp_path, seeds="[0]"))
    most = 0

    def count(_: object) -> None:
        nonlocal most
        most = max(most, labels(out).count("running"))

    last = follow(out, spec, Options("local", max_parallel=1), count, poll_s=0.2)
    assert [action.kind for action in last] == ["skip"] * 2
    assert most == 1
    assert len(submissions(out)) == 1
    wait_for(lambda: not queues(tmp_path))
    rows = standing(out, "tiny").rows
    assert all(row.state.progress.score is not None and RunFolder(row.state.folder).is_done for row in rows)
    assert [[e["event"] for e in attempts(RunFolder(row.state.folder))] for row in rows] == [["start", "end"]] * 2


def test_a_queue_that_is_killed_takes_its_runs_along_and_they_go_on_in_the_next(tmp_path: Path, out: Path) -> None:
    spec = read_spec(write_spec(tmp_path, more=ENDLESS))
    launch(out, spec, TWO_AT_ONCE)
    wait_for_epoch(out, 1, 2)
    (queue,) = queues(tmp_path)
    os.kill(queue, signal.SIGKILL)
    wait_for(lambda: labels(out) == ["stopped"] * 4)
    assert {row.state.failures for row in standing(out, "tiny").rows} == {0}
    actions, _ = launch(out, spec, TWO_AT_ONCE)
    assert sorted(action.kind for action in actions) == ["resume", "resume", "run", "run"]
    wait_for_epoch(out, 2, 2)


LAUNCHER = """
import sys
from pathlib import Path
from remctl.sweep.launch import launch
from tests.sweep.support import queues_end_with_this_process, write_spec
from tests.sweep.test_local import ENDLESS, TWO_AT_ONCE, read_spec
folder = Path(sys.argv[1])
with queues_end_with_this_process():
    launch(folder / "runs", read_spec(write_spec(folder, more=ENDLESS)), TWO_AT_ONCE)
    print("launched", flush=True)
    sys.stdin.read()
"""


def test_tests_that_are_killed_leave_no_queue_and_no_run_behind(tmp_path: Path, out: Path) -> None:
    command = [sys.executable, "-c", LAUNCHER, str(tmp_path)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, **pipes) as tests:
        assert tests.stdout is not None
        assert tests.stdout.readline() == "launched\n"
        wait_for_epoch(out, 1, 2)
        runs = _process(out)
        assert len(queues(tmp_path)) == 1
        tests.kill()
    wait_for(lambda: not queues(tmp_path) and not any(Path(f"/proc/{pid}").exists() for pid in runs if pid))


def test_a_second_queue_waits_for_the_first(tmp_path: Path, out: Path) -> None:
    launch(out, read_spec(write_spec(tmp_path, seeds="[0]", more=ENDLESS)), TWO_AT_ONCE)
    wait_for_epoch(out, 1, 2)
    launch(out, read_spec(write_spec(tmp_path, name="second", seeds="[5]", more=ENDLESS)), TWO_AT_ONCE)
    time.sleep(1.0)
    assert len(queues(tmp_path)) == 2
    assert [row.label for row in standing(out, "second").rows] == ["queued", "queued"]


def test_a_killed_run_is_a_failure_and_is_tried_again_until_it_is_held(tmp_path: Path, out: Path) -> None:
    spec = read_spec(write_spec(tmp_path, seeds="[0]", more=ENDLESS))
    for failures in (1, 2, 3):
        launch(out, spec, TWO_AT_ONCE)
        wait_for(lambda: labels(out) == ["running", "running"] and all(_process(out)))
        for pid in _process(out):
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda: labels(out) == ["failed", "failed"])
        state = standing(out, "tiny").rows[0].state
        assert (state.failures, state.error) == (failures, "killed by SIGKILL (out of memory?)")
    actions, submission = launch(out, spec, TWO_AT_ONCE)
    assert [action.kind for action in actions] == ["hold", "hold"]
    assert submission is None
    again = {row.ref.config_hash for row in to_retry(standing(out, "tiny"), ["rem/Catch/seed_0"])}
    actions, submission = launch(out, spec, TWO_AT_ONCE, retrying=again)
    assert [action.kind for action in actions][1] == "hold"
    assert [action.kind for action in actions][0] in ("run", "resume")
    assert submission
    assert len(submission.tasks) == 1
    assert standing(out, "tiny").rows[0].state.failures == 0


def _process(out: Path) -> list[int]:
    holders = [holder(RunFolder(row.state.folder)) for row in standing(out, "tiny").rows]
    return [who.get("pid", 0) if who else 0 for who in holders]


def test_cancelling_some_leaves_the_others_alone(tmp_path: Path, out: Path) -> None:
    spec = read_spec(write_spec(tmp_path, more=ENDLESS))
    launch(out, spec, TWO_AT_ONCE)
    wait_for_epoch(out, 1, 2)
    stopped = cancel(standing(out, "tiny"), ["rem"])
    assert [row.ref.variant for row in stopped] == ["rem", "rem"]
    wait_for(lambda: labels(out)[:2] == ["cancelled", "cancelled"] and labels(out)[2:] == ["running", "running"])
    cancel(standing(out, "tiny"), [])
    wait_for(lambda: labels(out) == ["cancelled"] * 4)
    wait_for(lambda: not queues(tmp_path))
    assert {row.state.failures for row in standing(out, "tiny").rows} == {0}
    actions, _ = launch(out, spec, TWO_AT_ONCE)
    assert {action.kind for action in actions} <= {"run", "resume"}


def test_a_run_started_by_hand_is_waited_for(tmp_path: Path, out: Path) -> None:
    from remctl.runs.lock import locked
    from remctl.sweep.records import default_path
    from remctl.sweep.spec import wanted_runs

    spec = read_spec(write_spec(tmp_path, seeds="[0]"))
    with locked(RunFolder(default_path(out, "tiny", wanted_runs(spec)[0]))):
        actions, _ = launch(out, spec, TWO_AT_ONCE)
        assert [action.kind for action in actions] == ["wait", "run"]
        assert f"process {os.getpid()}" in actions[0].reason


def test_names_of_runs(tmp_path: Path, out: Path) -> None:
    spec = read_spec(write_spec(tmp_path, more=ENDLESS))
    launch(out, spec, TWO_AT_ONCE)
    rows = standing(out, "tiny").rows
    assert len(choose(rows, ["seed_0"])) == 2
    assert len(choose(rows, ["rem/Catch"])) == 2
    assert len(choose(rows, [])) == 4
    with pytest.raises(UserError, match="no run 'Pong' in this experiment: name one as tiny/rem"):
        choose(rows, ["Pong"])


def on(gpu: str, threads: int) -> Slot:
    return Slot(gpu, "cuda", threads)


@pytest.mark.parametrize(
    ("gpus", "per_gpu", "most", "cores", "expected"),
    [
        ([], 1, None, 8, [Slot("", "cpu", 2)] * 4),
        ([], 1, None, 1, [Slot("", "cpu", 1)]),
        ([], 4, 3, 2, [Slot("", "cpu", 1)] * 3),
        (["0", "1"], 1, None, 8, [on("0", 4), on("1", 4)]),
        (["0", "1"], 2, None, 8, [on("0", 2), on("1", 2), on("0", 2), on("1", 2)]),
        (["3", "5"], 2, 3, 6, [on("3", 2), on("5", 2), on("3", 2)]),
        (["0"], 1, 2, 4, [on("0", 2), on("0", 2)]),
    ],
)
def test_slots_share_out_gpus_and_cores(
    gpus: list[str], per_gpu: int, most: int | None, cores: int, expected: list[Slot]
) -> None:
    assert slots(gpus, per_gpu, most, cores) == expected


def test_an_unknown_executor_and_an_absent_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert choose_executor("auto") == "local"
    with pytest.raises(UserError, match="allowed are auto, slurm, local"):
        choose_executor("pbs")
    with pytest.raises(UserError, match="no sbatch here"):
        choose_executor("slurm")
