"""One process per run folder.

The lock is the kernel's (`flock`): it ends with the process that holds it, however that process ends, so there is no
stale lock to judge by age. The file's content, {pid, host, since}, only tells people who holds it and stays afterwards.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from remctl.errors import InUseError, MachineError
from remctl.runs.files import machine_error, make_folder, named_errors, remove_stale
from remctl.runs.layout import RunFolder

_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
_held: set[int] = set()


@contextmanager
def locked(run: RunFolder, patience_s: float = 0.3) -> Iterator[None]:
    """Holds the run for this process; creates its folder and clears away what a killed process left half-written.

    Raises `InUseError` naming pid, host and start time of the holder when another process has the run (for longer
    than `patience_s`, so that a glance by `holder` refuses nobody), `MachineError` when the folder cannot be locked.
    """
    make_folder(run.path)
    fd = _acquire(run, patience_s)
    _held.add(fd)
    try:
        _sign(run, fd)
        for folder in (run.path, run.media):
            remove_stale(folder)
        yield
    finally:
        _release(fd)


def holder(run: RunFolder) -> dict[str, Any] | None:
    """{pid, host, since} of the process that runs this folder now, or None. Fields are missing while it is signing."""
    if not run.lock.is_file():
        return None
    with named_errors("reading", run.lock):
        fd = os.open(run.lock, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return None if _try_lock(run, fd, fcntl.LOCK_SH) else _signature(run)
    finally:
        os.close(fd)


def open_lock(path: Path) -> int:
    """A file descriptor to lock with `try_exclusive`. Raises MachineError."""
    with named_errors("locking", path):
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)


def try_exclusive(fd: int) -> bool:
    """Lock an open file for this process alone, unless another has it. Raises OSError where files cannot be locked."""
    return _flock(fd, fcntl.LOCK_EX)


def exclusive_within(fd: int, patience_s: float) -> bool:
    """`try_exclusive` for so long: somebody's glance locks a file for a moment. Raises OSError like it."""
    deadline = time.monotonic() + patience_s
    while not try_exclusive(fd):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def is_held(path: Path) -> bool:
    """Whether some process has locked this file, which need not exist. Raises MachineError where that cannot be seen."""
    if not path.is_file():
        return False
    with named_errors("reading", path):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return not _flock(fd, fcntl.LOCK_SH)
        finally:
            os.close(fd)


def _flock(fd: int, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _acquire(run: RunFolder, patience_s: float) -> int:
    fd = open_lock(run.lock)
    try:
        deadline = time.monotonic() + patience_s
        while not _try_lock(run, fd, fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                raise InUseError(_refusal(run))
            time.sleep(0.02)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _try_lock(run: RunFolder, fd: int, kind: int) -> bool:
    try:
        return _flock(fd, kind)
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            raise MachineError(f"no file locks on the file system of {run.path}: choose another folder") from error
        raise machine_error(error, "locking", run.lock) from error


def _refusal(run: RunFolder) -> str:
    who = _signature(run)
    name = f"process {who.get('pid', '?')} on {who.get('host', '?')} since {who.get('since', '?')}"
    return f"{run.path} is in use by {name}: wait for it or stop it"


def _signature(run: RunFolder) -> dict[str, Any]:
    try:
        who = json.loads(run.lock.read_bytes()[:4096])
    except (OSError, ValueError, RecursionError):
        return {}
    return who if isinstance(who, dict) else {}


def _sign(run: RunFolder, fd: int) -> None:
    """Written in place: the lock belongs to this very file, so another cannot be renamed over it."""
    since = datetime.now(UTC).isoformat(timespec="seconds")
    text = json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since})
    with named_errors("writing", run.lock):
        os.ftruncate(fd, 0)
        os.pwrite(fd, text.encode() + b"\n", 0)


def _release(fd: int) -> None:
    if fd in _held:
        _held.discard(fd)
        os.close(fd)


def _forget_in_child() -> None:
    """A forked worker would keep the lock when its parent is killed. Closing its copy unlocks nothing."""
    for fd in list(_held):
        _release(fd)


os.register_at_fork(after_in_child=_forget_in_child)
