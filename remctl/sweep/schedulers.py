"""What the schedulers know about jobs. One question: in which state is each of these tasks?

SLURM is asked by job name, so that jobs are found whose ids were never written down. squeue knows the living and, for
some minutes, the dead; sacct, where a cluster keeps accounts, remembers the dead; what a launcher has once seen of an end
is in the submission's finals.jsonl; what nobody knows has no state.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from remctl.errors import MachineError
from remctl.runs.files import append_lines, read_jsonl
from remctl.runs.layout import RunFolder
from remctl.runs.lock import is_held
from remctl.sweep.clients import ask, ask_rows, settings
from remctl.sweep.records import FINALS, Chunk, Submission, add_chunk

# Ends that say nothing against the run: the machine took it away, or somebody did.
NO_FAULT = frozenset(["CANCELLED", "PREEMPTED", "TIMEOUT", "NODE_FAIL", "BOOT_FAIL", "DEADLINE", "REVOKED", "LOST"])
ENDS = NO_FAULT | {"COMPLETED", "FAILED", "OUT_OF_MEMORY"}  # any other word, of whatever version: the job still lives
UNKNOWN = "UNKNOWN"  # the scheduler does not answer: neither live nor ended
NAMES_AT_ONCE = 100  # a command line has an end
QUEUE_LOCK = "queue.lock"


@dataclass(frozen=True)
class JobState:
    """`state` in SLURM's words, LOST for a local queue that is gone, or UNKNOWN; `reason` why it waits."""

    job: str
    state: str
    reason: str = ""

    @property
    def is_live(self) -> bool:
        """Whether the task is still in somebody's hands."""
        return self.state not in ENDS and self.state != UNKNOWN


States = dict[tuple[str, int], JobState]  # by submission id and number of the task; none where nobody knows


def job_states(submissions: Iterable[Submission], out: Path) -> States:
    """The state of every task that a scheduler knows, of those submissions whose runs are not all done.

    Raises MachineError if SLURM has some of them and cannot be asked.
    """
    asked = [s for s in submissions if not all(RunFolder(out / ref.path).is_done for task in s.tasks for ref in task)]
    states: States = {}
    for submission in asked:
        if submission.executor == "local":
            states |= _all_tasks(submission, _local_state(submission))
    slurm = [s for s in asked if s.executor == "slurm"]
    return states | (_slurm_states(slurm) if slurm else {})


def unknown_states(submissions: Iterable[Submission]) -> States:
    """What is said of SLURM's tasks while the controller does not answer."""
    states: States = {}
    for submission in submissions:
        local = submission.executor == "local"
        states |= _all_tasks(submission, _local_state(submission) if local else JobState("", UNKNOWN))
    return states


def _all_tasks(submission: Submission, state: JobState) -> States:
    return {(submission.id, task): state for task in range(len(submission.tasks))}


def _local_state(submission: Submission) -> JobState:
    """A queue holds a lock for as long as it lives, so there is no dead one to mistake for a living."""
    if is_held(submission.path / QUEUE_LOCK):
        return JobState("local queue", "PENDING", "waits for a free slot")
    return JobState("local queue", "LOST")


# --- SLURM ---


def _slurm_states(submissions: list[Submission]) -> States:
    config = settings()
    cluster, private = config.get("ClusterName", ""), "jobs" in re.split(r"\W+", config.get("PrivateData", ""))
    away = [s for s in submissions if s.cluster and cluster and s.cluster != cluster]
    here = [s for s in submissions if s not in away]
    by_name = {s.job_name: s for s in here}
    states: States = {}
    for s in submissions:
        states |= _finals(s)
    states |= _sacct([s for s in here if s.chunks])
    for name, job, index, state, reason in _squeue(by_name):
        task = _task_of(by_name[name], job, index)
        if task is not None:
            job_id = job if index is None else f"{job}_{index}"
            states[by_name[name].id, task] = JobState(job_id, state, reason)
    for s in away:
        states = _all_tasks(s, JobState("", UNKNOWN, f"on cluster {s.cluster}, SLURM_CONF names {cluster}")) | states
    for s in here if private else ():  # SLURM shows everybody only their own: others' may live
        if s.path.stat().st_uid != os.getuid() != 0:
            states = _all_tasks(s, JobState("", UNKNOWN, "another user's job, which SLURM does not show")) | states
    return states


def _squeue(names: Iterable[str]) -> list[tuple[str, str, int | None, str, str]]:
    """(job name, job id, array index, state, reason) of every job of these names that the controller remembers."""
    names, rows = list(names), list[tuple[str, str, int | None, str, str]]()
    for i in range(0, len(names), NAMES_AT_ONCE):
        chosen = names[i : i + NAMES_AT_ONCE]
        asked = ("squeue", "-r", "-t", "all", "-n", ",".join(chosen))
        for name, job, index, state, reason in ask_rows(*asked, fields=("%j", "%F", "%K", "%T", "%r")):
            if name in chosen and job.isdigit():  # no headings
                said = "" if reason == "None" else reason
                rows += [(name, job, number, state, said) for number in (expand(index) or (None,))]
    return rows


def _task_of(submission: Submission, job: str, index: int | None) -> int | None:
    """Which task a job is. A job whose id was never written down belongs behind those that were."""
    chunk = next((c for c in submission.chunks if c.job == job), None)
    task = (chunk.first if chunk else submission.num_known_tasks) + (index or 0)
    return task if task < len(submission.tasks) else None


def _sacct(submissions: list[Submission]) -> States:
    """Ends that accounting remembers; nothing where a cluster keeps none. Who lives, squeue alone knows."""
    chunks = {chunk.job: (s, chunk) for s in submissions for chunk in s.chunks}
    if not chunks or shutil.which("sacct") is None:
        return {}
    try:
        text = ask("sacct", "-n", "-X", "-P", "-j", ",".join(chunks), "-o", "JobID,State,JobName")
    except MachineError:  # accounting is disabled, or down: no memory, no harm
        return {}
    states: States = {}
    for line in text.splitlines():
        job_id, state, name = (*line.strip().split("|", 2), "", "")[:3]
        job, _, indices = job_id.partition("_")
        submission, chunk = chunks.get(job, (None, None))
        word = state.split()[0] if state.split() else ""  # "CANCELLED by 1000"
        if submission is None or chunk is None or word not in ENDS:
            continue
        if name != submission.job_name:  # an id that was used again
            continue
        for index in expand(indices) if indices else range(chunk.count):  # an array that never began has no tasks
            if index < chunk.count:
                states[submission.id, chunk.first + index] = JobState(chunk.job_id(chunk.first + index), word)
    return states


def expand(indices: str) -> list[int]:
    """Array indices as SLURM writes them: `7` or `[2,4-9%2]`."""
    found: list[int] = []
    for part in re.sub(r"%\d+", "", indices.strip("[]")).split(","):
        low, _, high = part.partition("-")
        if low.isdigit():
            found += range(int(low), int(high or low) + 1)
    return found


# --- what a launcher, who alone may write, keeps ---


def keep_finals(submissions: Iterable[Submission], states: States) -> None:
    """Write down the ends that were seen, once each: SLURM forgets. Only under the launcher's lock. Raises MachineError."""
    for submission in submissions:
        if submission.executor == "local" or not os.access(submission.path, os.W_OK):  # another user's
            continue
        known = {key: s.state for key, s in _finals(submission).items()}
        mine = {key: s for key, s in states.items() if key[0] == submission.id and not s.is_live and s.state != UNKNOWN}
        new = [{"task": key[1], "job": s.job, "state": s.state} for key, s in mine.items() if known.get(key) != s.state]
        if new:
            append_lines(submission.path / FINALS, new)


def _finals(submission: Submission) -> States:
    entries = read_jsonl(submission.path / FINALS)
    return {(submission.id, e["task"]): JobState(e["job"], e["state"]) for e in entries}


def adopt(submission: Submission) -> Submission:
    """With the job ids that its launcher did not live to write down, as far as squeue knows them. Raises MachineError."""
    if submission.executor == "local" or submission.num_known_tasks == len(submission.tasks):
        return submission
    if not os.access(submission.path, os.W_OK):  # another user's
        return submission
    written, last = {chunk.job for chunk in submission.chunks}, dict[str, int]()
    for _, job, index, _, _ in _squeue([submission.job_name]):
        if job not in written:
            last[job] = max(last.get(job, 0), index or 0)
    for job, index in sorted(last.items(), key=lambda item: int(item[0])):
        submission = add_chunk(submission, Chunk(job, submission.num_known_tasks, index + 1))
    return submission


def this_host() -> str:
    """The name of this machine."""
    return socket.gethostname()
