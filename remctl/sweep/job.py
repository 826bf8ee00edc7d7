"""What works where the GPU is: a supervisor starts runs, each a process of its own, and writes what becomes of them.

Under SLURM submitit calls a `Task`, whose runs share a GPU; locally the queue has one `Pool` for all. When SLURM asks the
job to leave (time limit, preemption), submitit calls `checkpoint`, which only says that the task goes in again: every run
resumes from its last complete epoch. Runs end with their supervisor, however that ends.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from remctl.errors import InUseError, UserError
from remctl.runs.files import make_folder
from remctl.runs.layout import RunFolder
from remctl.sweep.observe import progress
from remctl.sweep.records import (
    RunRef,
    Submission,
    add_attempt,
    attempts,
    last_line,
    log_path,
    read_submission,
    requested,
)

LEAVING = (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT)
PATIENCE_S = 15.0  # a run leaves between two steps
POLL_S = 0.2
REQUESTS_EVERY_S = 1.0
LAST_WORD_S = 600.0
MAX_FRUITLESS_STARTS = 5
PR_SET_PDEATHSIG = 1


class RunsFailedError(Exception):
    """Some run of a task ended with an error of its own; which and why is in its attempts.jsonl."""


@dataclass(frozen=True)
class Slot:
    """Room for one run: on which GPU (None: the one that the job has, "": none), which device, how many threads."""

    gpu: str | None
    device: str
    threads: int

    @property
    def environment(self) -> dict[str, str]:
        """What the run's process is told."""
        told = {"OMP_NUM_THREADS": str(self.threads), "PYTHONUNBUFFERED": "1"}
        return told | ({"CUDA_VISIBLE_DEVICES": self.gpu} if self.gpu is not None else {})


@dataclass
class Supervised:
    """One run's process. `start` and `finish` write the attempts that everything else is derived from."""

    out: Path
    ref: RunRef
    submission: Submission
    job: str
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def run(self) -> RunFolder:
        """Its folder."""
        return RunFolder(self.out / self.ref.path)

    @property
    def is_over(self) -> bool:
        """Whether it must not be started: done, cancelled, or failed in this submission. Raises MachineError."""
        mine = attempts(self.run, self.submission.id)
        failed = bool(mine) and mine[-1].get("outcome") == "failed"
        return (self.run.is_done and not self.run.is_imported) or failed or self.is_cancelled

    @property
    def is_cancelled(self) -> bool:
        """Whether somebody asked for it to stop. Raises MachineError."""
        return self.submission.id in requested(self.run, "cancel")

    def start(self, slot: Slot) -> None:
        """Start the run, or go on with it; what cannot be started has failed, which is written. Raises MachineError."""
        make_folder(self.run.path)
        epoch = progress(self.run).epoch
        fruitless = [e for e in attempts(self.run, self.submission.id) if e["event"] == "start" and e["epoch"] == epoch]
        add_attempt(self.run, "start", self.submission.id, job=self.job, pid=os.getpid(), epoch=epoch)
        if len(fruitless) >= MAX_FRUITLESS_STARTS:
            self.fail(
                f"{MAX_FRUITLESS_STARTS} starts ended without one more epoch: give it more time (`time` of the profile)"
            )
            return
        command = [sys.executable, "-m", "remctl", "train", "--from", str(self.submission.config(self.ref))]
        command += ["--out", str(self.out), "--name", Path(self.ref.path).parts[0], "--device", slot.device]
        try:
            with log_path(self.run).open("ab") as log:
                self.process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=os.environ | slot.environment,
                    preexec_fn=end_with_parent,
                )
        except OSError as error:
            self.fail(f"not started: {error}")

    @property
    def has_ended(self) -> bool:
        """Whether no process works on it (any more)."""
        return self.process is None or self.process.poll() is not None

    def finish(self) -> str:
        """Write how the process ended and return that: done, interrupted, refused or failed. Raises MachineError."""
        if self.process is None:
            return "failed"
        status = self.process.returncode
        outcome = outcome_of(status)
        error = "" if outcome == "done" else _error(status, log_path(self.run))
        add_attempt(self.run, "end", self.submission.id, job=self.job, outcome=outcome, status=status, error=error)
        return outcome

    def fail(self, error: str) -> None:
        """Write an end without a process. Raises MachineError."""
        add_attempt(self.run, "end", self.submission.id, job=self.job, outcome="failed", status=None, error=error)

    def leave(self) -> None:
        """Ask the process to leave."""
        if self.process and self.process.poll() is None:
            self.process.terminate()


class Pool:
    """Runs that wait, slots, and the runs in them. `outcomes` of those that have ended, by path."""

    def __init__(self, waiting: Iterable[Supervised], slots: Iterable[Slot]) -> None:
        self.waiting = deque(waiting)
        self.free = deque(slots)
        self.running: list[tuple[Supervised, Slot]] = []
        self.outcomes: dict[str, str] = {}
        self.stopping = False
        self._looked_s = 0.0

    def work(self) -> dict[str, str]:
        """Until nothing is left or `stopping` is set. Whatever ends this ends the runs, and writes that."""
        try:
            while (self.waiting or self.running) and not self.stopping:
                self._collect()
                self._obey()
                self._fill()
                time.sleep(POLL_S)
        finally:
            end_all([run for run, _ in self.running])
            self._collect()
        return self.outcomes

    def _collect(self) -> None:
        for run, slot in [item for item in self.running if item[0].has_ended]:
            self.running.remove((run, slot))
            self.free.append(slot)
            try:
                self.outcomes[run.ref.path] = run.finish()
            except UserError as error:  # its folder is gone or full: the others go on
                self.outcomes[run.ref.path] = "failed"
                print(f"{run.ref.path}: {error}", flush=True)
            print(f"{run.ref.path}: {self.outcomes[run.ref.path]}", flush=True)

    def _obey(self) -> None:
        """Ask those to leave that were cancelled."""
        if time.monotonic() - self._looked_s < REQUESTS_EVERY_S:
            return
        self._looked_s = time.monotonic()
        for run, _ in self.running:
            try:
                if run.is_cancelled:
                    run.leave()
            except UserError as error:
                print(f"{run.ref.path}: {error}", flush=True)

    def _fill(self) -> None:
        while self.free and self.waiting and not self.stopping:
            run, slot = self.waiting.popleft(), self.free.popleft()
            try:
                if run.is_over:
                    self.free.appendleft(slot)
                    continue
                run.start(slot)
            except UserError as error:
                print(f"{run.ref.path}: not started: {error}", flush=True)
            print(f"{run.ref.path}: started on {slot}", flush=True)
            self.running.append((run, slot))


@dataclass(frozen=True)
class Task:
    """The runs of one task of a submission: what submitit pickles, so it holds paths and numbers only."""

    submission: Path
    number: int
    out: Path
    cpus: int
    device: str

    def __call__(self) -> dict[str, str]:
        """Run to the end; outcomes by run. Raises RunsFailedError if any failed."""
        runs = supervised(read_submission(self.submission), self.number, self.out, job=slurm_job_id())
        slot = Slot("" if self.device == "cpu" else None, self.device, max(1, self.cpus // len(runs)))
        outcomes = Pool(runs, [slot] * len(runs)).work()
        if "interrupted" in outcomes.values() and not all(run.is_over for run in runs):
            time.sleep(LAST_WORD_S)  # SLURM is taking the job away: an end of our own would keep it from being requeued
        failed = [path for path, outcome in outcomes.items() if outcome == "failed"]
        if failed:
            raise RunsFailedError(", ".join(failed))
        return outcomes

    def checkpoint(self) -> Any:
        """For submitit: the same task again."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def supervised(submission: Submission, number: int, out: Path, job: str) -> list[Supervised]:
    """The runs of a task, not started."""
    return [Supervised(out, ref, submission, job) for ref in submission.tasks[number]]


def end_with_parent() -> None:
    """In a process just forked: have the kernel ask it to leave when its parent dies (Linux; elsewhere nothing)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def end_all(runs: Iterable[Supervised]) -> None:
    """Ask every process that still runs to leave, then kill what has not."""
    open_runs = [run for run in runs if not run.has_ended]
    for run in open_runs:
        run.leave()
    deadline = time.monotonic() + PATIENCE_S
    for run in open_runs:
        assert run.process
        try:
            run.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            run.process.kill()
            run.process.wait()


def outcome_of(status: int) -> str:
    """done, interrupted (a signal asked it to leave), refused (another process had the run) or failed."""
    if status == 0:
        return "done"
    if status == InUseError.exit_code:
        return "refused"
    left = {-s for s in LEAVING} | {128 + s for s in LEAVING}
    return "interrupted" if status in left else "failed"


def _error(status: int, log: Path) -> str:
    """The last line that a process wrote, or the signal that ended it."""
    if status < 0:
        name = signal.Signals(-status).name
        return f"killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    return last_line(log) or f"exit status {status}"


def slurm_job_id() -> str:
    """`123_4` of an array's task, `123` of a job, "" outside SLURM."""
    array, index = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{index}" if array and index else os.environ.get("SLURM_JOB_ID", "")
