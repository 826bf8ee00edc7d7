"""`remctl cancel` and `retry`: what a user asks of runs, written into their folders, and told to whom it concerns."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from typing import Any

from remctl.errors import MachineError
from remctl.runs.layout import RunFolder
from remctl.runs.lock import holder, is_held
from remctl.sweep import slurm
from remctl.sweep.observe import OPEN
from remctl.sweep.records import Submission, add_request
from remctl.sweep.schedulers import QUEUE_LOCK, this_host
from remctl.sweep.status import Row, Standing, choose


def cancel(standing: Standing, chosen: Sequence[str]) -> list[Row]:
    """Stop what is queued or running of the named runs; returns those. What they have computed stays.

    Supervisors look for requests every second, so that of runs that share a task the others go on; a SLURM task of which
    nothing is left open is cancelled as a whole. Everything is tried before an error is raised: UserError for an unknown
    name, MachineError where a scheduler cannot be told, a process is on another machine, or a run is another user's.
    """
    _refuse_blind(standing)
    rows = [row for row in choose(standing.rows, chosen) if row.state.status in OPEN]
    kept = {row.state.job for row in standing.rows if row.state.status in OPEN and row not in rows}
    by_id = {s.id: s for s in standing.known}
    jobs = {row.state.job for row in rows if row.state.job and _executor(by_id, row) == "slurm"} - kept
    unasked = [error for row in rows if (error := _tried(_ask, row)) is not None]
    uncancelled = _tried(slurm.cancel, sorted(jobs))
    unstopped = [_tried(_stop_process, row) for row in rows if unasked or not _is_supervised(by_id, row)]
    for error in (uncancelled, *unasked, *unstopped):
        if error is not None:
            raise error
    return rows


def _tried(act: Callable[..., None], *arguments: Any) -> MachineError | None:
    """The error, if there is one."""
    try:
        act(*arguments)
    except MachineError as error:
        return error
    return None


def _ask(row: Row) -> None:
    """Write the request into the run's folder."""
    if row.state.submission:
        try:
            add_request(RunFolder(row.state.folder), "cancel", [row.state.submission])
        except MachineError as error:
            if isinstance(error.__cause__, PermissionError):
                raise _anothers(row) from None
            raise


def _anothers(row: Row) -> MachineError:
    return MachineError(f"{row.ref.path} is another user's: ask the owner of {row.state.folder} to cancel it")


def _executor(by_id: dict[str, Submission], row: Row) -> str | None:
    submission = by_id.get(row.state.submission)
    return submission.executor if submission else None


def _is_supervised(by_id: dict[str, Submission], row: Row) -> bool:
    """Whether somebody looks for the request: SLURM's task, or a queue that lives."""
    submission = by_id.get(row.state.submission)
    if submission is None:
        return False
    return submission.executor == "slurm" or is_held(submission.path / QUEUE_LOCK)


def _stop_process(row: Row) -> None:
    """Ask the process that holds the run, started by hand, to leave."""
    who = holder(RunFolder(row.state.folder))
    if not who or not isinstance(who.get("pid"), int):
        return
    if who.get("host") != this_host():
        raise MachineError(f"{row.ref.path} is run by process {who['pid']} on {who.get('host')}: stop it there")
    try:
        os.kill(who["pid"], signal.SIGTERM)
    except PermissionError:
        raise _anothers(row) from None
    except ProcessLookupError:  # it has left meanwhile
        return


def to_retry(standing: Standing, chosen: Sequence[str]) -> list[Row]:
    """Those of the named runs that failed or were stopped. Raises UserError for an unknown name, MachineError if blind."""
    _refuse_blind(standing)
    return [row for row in choose(standing.rows, chosen) if row.state.status in ("failed", "stopped")]


def _refuse_blind(standing: Standing) -> None:
    """Nothing is decided about runs whose state is not known."""
    if standing.is_blind:
        raise MachineError(standing.notes[-1])
