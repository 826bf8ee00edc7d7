"""The state of every wanted run, derived from run folders, records and schedulers; nothing is remembered elsewhere."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from remctl.config import from_yaml, known_hashes, why_not_trained
from remctl.errors import MachineError, UserError
from remctl.runs.code import Code, distinct
from remctl.runs.layout import RunFolder, find_runs
from remctl.runs.lock import holder
from remctl.runs.places import is_again, is_awaited, is_nameless, why_nameless
from remctl.runs.provenance import starts
from remctl.runs.result import damaged_result, read_result
from remctl.sweep.records import LAST_WORDS, Submission, attempts, default_path, last_line, log_path, requested
from remctl.sweep.schedulers import NO_FAULT, UNKNOWN, JobState, States
from remctl.sweep.wanted import WantedRun

Status = Literal["absent", "queued", "running", "unknown", "stopped", "failed", "done", "blocked"]
OPEN: tuple[Status, ...] = ("queued", "running", "unknown")
TAIL_BYTES = 1 << 16
VISIBLE_AFTER_S = 120.0  # a network file system may show a result that late
RUN_DEPTH = 4  # experiment/variant/game/seed_n


@dataclass(frozen=True)
class Progress:
    """How far a run is, from the tail of its metrics. `epoch_s`: seconds per epoch lately, interruptions left out."""

    epoch: int = 0
    epoch_s: float | None = None
    score: float | None = None
    wall_s: float = 0.0


@dataclass(frozen=True)
class RunState:
    """One run as it stands.

    `status`: absent; queued or running (in a scheduler's or somebody's hands: `job`); unknown (SLURM has it and does not
    answer); stopped (begun or handed over, and nothing works on it); failed (`failures` times, last with `error`); done;
    blocked (what is in its folder must be looked at first). `reason`: why it waits, was stopped, or by whom it is run.
    `submission`: the last one that had it. `requeued`: that one has started it before.
    """

    status: Status
    folder: Path
    progress: Progress = Progress()
    failures: int = 0
    error: str = ""
    reason: str = ""
    job: str = ""
    submission: str = ""
    requeued: bool = False
    cancelled: bool = False
    slurm_log: Path | None = None
    codes: tuple[Code, ...] = ()  # of every start

    @property
    def log(self) -> Path | None:
        """What its job printed, if that ended without a word of the run; else what the run did; None if there is nothing."""
        log = log_path(RunFolder(self.folder))
        return self.slurm_log or (log if log.is_file() else None)


def find_places(
    out: Path, name: str, wanted: Iterable[WantedRun], submitted: Iterable[Submission], code: Code | None = None
) -> dict[str, Path]:
    """By configuration hash: the folder in which a run was begun, whoever asked for it, else where it will be.

    Of several a finished one is taken, then one that somebody works in, then the furthest; but before all, of this
    experiment, one that was begun again for its code, or is about to be. Given a code, before all one that was made, or will
    be, by no other, then one of this experiment.
    """

    def preference(folder: RunFolder) -> tuple[object, ...]:
        is_own = folder.path.is_relative_to(out / name)
        usual = (folder.is_done, holder(folder) is not None, progress(folder).epoch)
        if code is None:
            return (is_own and is_again(folder), *usual)
        made_by = codes_of(folder)
        is_same = not any(code.is_other(c) for c in made_by) and (bool(made_by) or is_awaited(folder))
        return (is_same, is_own, *usual)

    wanted = list(wanted)
    recorded: dict[str, list[Path]] = {}
    for submission in submitted:
        for ref in (ref for task in submission.tasks for ref in task):
            recorded.setdefault(ref.config_hash, []).append(out / ref.path)
    begun: dict[str, list[RunFolder]] = {}
    for folder in find_runs(out):
        known = known_hashes(folder.config)
        if known and not folder.is_imported and len(folder.path.relative_to(out).parts) == RUN_DEPTH:
            begun.setdefault(known[0], []).append(folder)
    places: dict[str, Path] = {}
    for run in wanted:  # of two names for one configuration the first gives the folder
        handed_over = recorded.get(run.config_hash, [])
        folders = [*begun.get(run.config_hash, []), *filter(is_awaited, map(RunFolder, dict.fromkeys(handed_over)))]
        if len(folders) > 1:
            folders = [max(folders, key=preference)]
        found = [folder.path for folder in folders] or handed_over[-1:] or [default_path(out, name, run)]
        places.setdefault(run.config_hash, found[0])
    return places


def observe(places: dict[str, Path], known: Iterable[Submission], jobs: States) -> dict[str, RunState]:
    """The state of each run, by configuration hash. Raises MachineError where a folder cannot be read."""
    handed_over: dict[str, dict[tuple[str, int], Submission]] = {}
    for submission in known:  # a copied folder holds the same ones once more
        for number, task in enumerate(submission.tasks):
            for ref in task:
                handed_over.setdefault(ref.config_hash, {}).setdefault((submission.id, number), submission)
    tasks = {h: [(s, number) for (_, number), s in found.items()] for h, found in handed_over.items()}
    return {h: _state(h, RunFolder(place), tasks.get(h, []), jobs) for h, place in places.items()}


def _state(identity: str, run: RunFolder, handed_over: list[tuple[Submission, int]], jobs: States) -> RunState:
    found = known_hashes(run.config)
    if found and identity not in found:
        what = f"configuration {found[0]}{' of an earlier version' if _is_earlier(run) else ''}"
        why = f"{run.path} belongs to {what}: choose another --out, or another name in the spec"
        return RunState("blocked", run.path, reason=why)
    if is_nameless(run) or (not found and os.path.lexists(run.config)):
        return damaged(run)
    if run.is_imported:
        why = (
            f"{run.path} holds imported weights, no run trained here: choose another --out, or another name in the spec"
        )
        return RunState("blocked", run.path, reason=why)
    if run.is_done:
        return _done(run)
    events, cancelled, forgiven = attempts(run), requested(run, "cancel"), requested(run, "retry")
    ends = [_end(s, number, jobs.get((s.id, number)), events, cancelled) for s, number in handed_over]
    still_open = [end for end in ends if end.status in OPEN]
    ends = [end for end in ends if end.submission not in forgiven]
    faults = [end for end in ends if end.status == "failed"]
    last = (still_open or ends or [_End("absent")])[-1]
    if last.status == "absent" and (run.checkpoints.exists() or events):
        last = replace(last, status="stopped")
    who = holder(run)
    if who:
        last = replace(last, status="running", why=f"process {who.get('pid', '?')} on {who.get('host', '?')}")
    return RunState(
        last.status,
        run.path,
        progress(run),
        failures=len(faults),
        error=faults[-1].error if faults else "",
        reason=last.why,
        job=last.job,
        submission=last.submission,
        requeued=last.started,
        cancelled=last.submission in cancelled or last.cancelled,
        slurm_log=last.log,
        codes=codes_of(run) if run.checkpoints.exists() else (),
    )


def damaged(run: RunFolder) -> RunState:
    """The state of a run whose config.yaml cannot be read."""
    return RunState("blocked", run.path, progress(run), reason=why_nameless(run))


def _is_earlier(run: RunFolder) -> bool:
    """Whether this version cannot train what is in the folder, but reports it."""
    with suppress(UserError):
        return why_not_trained(from_yaml(run.config)) is not None
    return False


@dataclass(frozen=True)
class _End:
    """What became of one run in one submission, or how that stands."""

    status: Status
    submission: str = ""
    job: str = ""
    why: str = ""
    error: str = ""
    started: bool = False
    cancelled: bool = False
    log: Path | None = None


def _end(
    submission: Submission, number: int, job: JobState | None, events: list[dict[str, Any]], cancelled: set[str]
) -> _End:
    """What the supervisor wrote goes before what the scheduler says, except that SLURM may start a run once more."""
    mine = [event for event in events if event.get("submission") == submission.id]
    last = mine[-1] if mine else {"event": ""}
    ended = last["event"] == "end"
    end = _End("stopped", submission.id, job.job if job else submission.job_id(number) or "", started=bool(mine))
    if ended and last["outcome"] == "failed":
        return replace(end, status="failed", error=last["error"])
    if ended and last["outcome"] == "done" and _age_s(last) < VISIBLE_AFTER_S:
        return replace(end, status="running", why="done; its result is not to be seen here yet")
    is_cancelled = submission.id in cancelled
    if job is not None and job.state == UNKNOWN and not is_cancelled:
        return replace(end, status="unknown", why=job.reason or "SLURM does not answer")
    given_back = ended and (is_cancelled or submission.executor == "local")  # else SLURM may start it once more
    if job is not None and job.is_live and not given_back and not (is_cancelled and not mine):
        return _open(end, submission, job, last)
    if is_cancelled or (job is not None and job.state == "CANCELLED"):
        return replace(end, why="cancelled", cancelled=True)
    if ended:  # a signal asked it to leave, or another process had it
        return replace(end, why=last["error"])
    return _without_a_word(end, submission, job)


def _open(end: _End, submission: Submission, job: JobState, last: dict[str, Any]) -> _End:
    if submission.executor == "local" and last["event"] == "start":
        return replace(end, status="running", why="starting")
    if job.state in ("RUNNING", "COMPLETING"):
        return replace(end, status="running", why="starting" if job.state == "RUNNING" else "its job is ending")
    reason = job.reason if job.state == "PENDING" else " ".join(filter(None, (job.state, job.reason)))
    return replace(end, status="queued", why=reason)


def _without_a_word(end: _End, submission: Submission, job: JobState | None) -> _End:
    """The job is over, and the supervisor did not come to write why: SLURM may have kept what was printed."""
    if job is not None and job.state == "LOST":
        words = last_line(submission.queue_log)
        return replace(end, why="its local queue is gone" + (f" ({words})" if words.startswith(LAST_WORDS) else ""))
    if job is not None and job.state in NO_FAULT:
        return replace(end, why=f"its job ended as {job.state}")
    log = submission.slurm_log(end.job)
    if job is None and not end.started and log is None:
        return replace(end, why="its job was never submitted, or SLURM lost it before it began")
    state = ", ".join(filter(None, (job.state, job.reason))) if job else "SLURM has forgotten it"
    words = last_line(log) if log else f"SLURM kept no log in {submission.path / 'slurm'}"
    return replace(end, status="failed", error=f"its job ended without a word of the run ({state}): {words}", log=log)


def _age_s(event: dict[str, Any]) -> float:
    """Seconds since an event, by the wall clocks of two machines: good for nothing but patience."""
    try:
        return abs((datetime.now(UTC) - datetime.fromisoformat(event["time"])).total_seconds())
    except (KeyError, TypeError, ValueError):
        return VISIBLE_AFTER_S


# --- progress ---


def progress(run: RunFolder) -> Progress:
    """From the tail of metrics.jsonl; entries that are not whole are passed over."""
    entries = _tail(run.metrics)
    if not entries:
        return Progress()
    walls = [e["epoch/wall_s"] for e in entries[-10:] if isinstance(e.get("epoch/wall_s"), int | float)]
    tested = [e["test/return_mean"] for e in entries if isinstance(e.get("test/return_mean"), int | float)]
    epoch, epoch_s = int(entries[-1].get("epoch", 0)), sum(walls) / len(walls) if walls else None
    return Progress(epoch, epoch_s, tested[-1] if tested else None, (epoch_s or 0.0) * epoch)


def _done(run: RunFolder) -> RunState:
    try:
        result = read_result(run, "score", "wall_s")
        score, wall_s = result["score"], sum(result["wall_s"].values())
        if isinstance(score, bool | str) or not (math.isfinite(score) and math.isfinite(wall_s)):
            raise ValueError("no numbers")
    except UserError as error:
        return RunState("blocked", run.path, progress(run), reason=str(error))
    except (AttributeError, OverflowError, TypeError, ValueError):
        return RunState("blocked", run.path, progress(run), reason=damaged_result(run))
    codes = codes_of(run) or distinct([result])
    return RunState("done", run.path, Progress(progress(run).epoch, None, float(score), wall_s), codes=codes)


def codes_of(run: RunFolder) -> tuple[Code, ...]:
    """The code of every start of a run, as far as provenance.json says."""
    try:
        return distinct(starts(run))
    except MachineError:
        return ()


def _tail(path: Path) -> list[dict[str, Any]]:
    """The last whole lines of a JSON-lines file that may be growing, out of its last TAIL_BYTES."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL_BYTES))
            lines = file.read().split(b"\n")
    except OSError:
        return []
    whole = lines[1:-1] if size > TAIL_BYTES else lines[:-1]
    entries = []
    for line in whole:
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict):
            entries.append(entry)
    return entries
