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
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from remctl.errors import InUseError, MachineError, machine_error
from remctl.runs.files import make_folder, named_errors, remove_stale
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
        return None if _flock(fd, fcntl.LOCK_SH, run.lock) else _signature(run)
    finally:
        os.close(fd)


def open_lock(path: Path) -> int:
    """A file descriptor to lock with `try_exclusive`, for all who may write in the file's folder. Raises MachineError."""
    with named_errors("locking", path):
        try:
            return _open(path)
        except PermissionError:  # another user's, of a version that shared it with nobody: locking needs no writing
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def _open(path: Path) -> int:
    """For writing; one's own is shared with those who may write in its folder, whom a mask such as 022 would keep out."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    with suppress(OSError):  # not one's own, or a file system without such rights
        mode, writers = os.fstat(fd).st_mode, path.parent.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        if writers & ~mode:
            os.fchmod(fd, stat.S_IMODE(mode) | writers | writers << 1)  # may read, too
    return fd


def try_exclusive(fd: int, path: Path) -> bool:
    """Lock an open file for this process alone, unless another has it. Raises MachineError where files cannot be locked."""
    return _flock(fd, fcntl.LOCK_EX, path)


def exclusive_within(fd: int, path: Path, patience_s: float) -> bool:
    """`try_exclusive` for so long: somebody's glance locks a file for a moment. Raises MachineError like it."""
    deadline = time.monotonic() + patience_s
    while not try_exclusive(fd, path):
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
        return not _flock(fd, fcntl.LOCK_SH, path)
    finally:
        os.close(fd)


def _flock(fd: int, kind: int, path: Path) -> bool:
    """Whether the lock could be had at once. Raises MachineError where there are no locks."""
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            raise MachineError(f"no file locks on the file system of {path.parent}: choose another folder") from error
        if error.errno == errno.EBADF:  # a network file system: it locks only what may be written
            error = PermissionError(errno.EACCES, "")
        raise machine_error(error, "locking", path) from error
    return True


def _acquire(run: RunFolder, patience_s: float) -> int:
    with named_errors("locking", run.lock):
        fd = _open(run.lock)
    try:
        if not exclusive_within(fd, run.lock, patience_s):
            raise InUseError(_refusal(run))
    except BaseException:
        os.close(fd)
        raise
    return fd


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
