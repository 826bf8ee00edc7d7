"""Files that a kill, a full disk or a power cut cannot leave half-written.

A whole file is written beside its place, flushed to the disk and renamed over the old one. A JSON-lines file grows by
whole lines; what a kill left of a last line (anything after the last newline) is ignored by readers and dropped by the
next append. Every operating system error becomes a `MachineError` that names the cause and the file.

JSON here is strict: a float that is not finite (NaN, inf) is written as null, so that every reader can parse the file
and a diverged run still equals its own repetition (NaN never equals NaN). A value that was not measured is left out.

Temporary names start with `.tmp-<pid>-`. Nothing of that name ever counts; `remove_stale` clears them away.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from remctl.errors import MachineError, UserError, machine_error
from remctl.paths import refuse_no_folder

_NO_FOLDER_SYNC = (errno.EINVAL, errno.ENOTSUP)  # some network file systems cannot flush a folder
_TEMPORARY = re.compile(r"^\.tmp-\d+-")


def boundary(name: str) -> None:
    """Called before and after every write, flush, rename and removal: `before write metrics.jsonl`.

    Does nothing; the fault tests put a kill or an `OSError` here.
    """


@contextmanager
def _step(operation: str, path: Path) -> Iterator[None]:
    label = _TEMPORARY.sub("", path.name)
    boundary(f"before {operation} {label}")
    yield
    boundary(f"after {operation} {label}")


@contextmanager
def named_errors(action: str, path: Path) -> Iterator[None]:
    """Turns any `OSError` inside into a `MachineError`: `with named_errors("writing", path): ...`."""
    try:
        yield
    except OSError as error:
        raise machine_error(error, action, path) from error


# --- the steps everything durable is made of (they raise OSError) ---


class DurableFile:
    """A new file under `path`; it counts and hashes what passes through, so that nothing is read a second time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.num_bytes = 0
        self._hash = hashlib.sha256()
        with _step("create", path):
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)

    @property
    def sha256(self) -> str:
        """Hexadecimal digest of what was written so far."""
        return self._hash.hexdigest()

    def write(self, data: bytes | memoryview) -> int:
        """Writes all of `data`; returns its number of bytes."""
        with _step("write", self.path):
            _write_all(self._fd, data)
        self._hash.update(data)
        self.num_bytes += len(data)
        return len(data)

    def sync(self) -> None:
        """Returns once the disk has everything."""
        with _step("fsync", self.path):
            os.fsync(self._fd)

    def close(self) -> None:
        """Closes without flushing; `sync` first."""
        os.close(self._fd)


def _write_all(fd: int, data: bytes | memoryview) -> None:
    rest = memoryview(data)
    while len(rest):
        rest = rest[os.write(fd, rest) :]


@contextmanager
def durable(path: Path) -> Iterator[DurableFile]:
    """A `DurableFile` that is flushed at a clean exit and closed at any."""
    file = DurableFile(path)
    try:
        yield file
        file.sync()
    finally:
        file.close()


def sync_folder(folder: Path) -> None:
    """Makes the names inside `folder` durable (creation, renaming, removal)."""
    with _step("fsync", folder):
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        except OSError as error:
            if error.errno not in _NO_FOLDER_SYNC:
                raise
        finally:
            os.close(fd)


def rename(source: Path, target: Path) -> None:
    """Renames, over an existing file if there is one. Durable only after `sync_folder` of the parent."""
    with _step("rename", target):
        os.replace(source, target)


def remove(path: Path) -> None:
    """Removes a file, a link or a whole folder; nothing there is fine."""
    with _step("remove", path):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def make_folder(folder: Path) -> None:
    """Creates the folder and its parents, durable on return; one that exists is fine.

    Raises `UserError` where no folder can be, `MachineError` where the machine refuses.
    """
    refuse_no_folder(folder)
    with named_errors("creating", folder):
        for path in _missing(folder):
            _make_one(path)


def _missing(folder: Path) -> list[Path]:
    """`folder` and those around it that are not there, the outermost first."""
    return [path for path in reversed((folder, *folder.parents)) if not os.path.exists(path)]


def _make_one(folder: Path) -> None:
    try:
        with _step("create", folder):
            folder.mkdir(exist_ok=True)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise UserError(f"{folder.name}: too long for the name of a folder: choose a shorter one") from None
        if error.errno == errno.ENOENT and folder.parent.is_dir():  # /proc
            raise UserError(f"{folder}: {folder.parent} takes no folders: choose another folder") from None
        raise
    sync_folder(folder.parent)


def refuse_target(path: Path) -> None:
    """UserError or MachineError where a file cannot be written to `path`; an earlier file may be there. Leaves all as it was.

    For results that take long: better refused before than lost after.
    """
    if not path.name or os.path.islink(path) or (os.path.exists(path) and not path.is_file()):
        raise UserError(f"{str(path)!r} is no place for a file: give the path of a regular file, or of none yet")
    refuse_no_folder(path.parent)
    missing = _missing(path.parent)
    probe = temporary(path)
    try:
        make_folder(path.parent)
        with named_errors("writing", probe):
            probe.touch()
    finally:
        discard(probe)
        for folder in reversed(missing):
            with suppress(OSError):
                folder.rmdir()


def names_below(folder: Path) -> list[str]:
    """Return the files in a folder and its subfolders, as sorted relative paths with `/`. Raises `MachineError`."""
    with named_errors("reading", folder):
        return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())


def temporary(path: Path) -> Path:
    """The name beside `path` under which it is written before it counts."""
    return path.with_name(f".tmp-{os.getpid()}-{path.name}")


def remove_stale(folder: Path) -> None:
    """Clears away what killed processes left. Only for the process that holds the run's lock. Raises `MachineError`."""
    with named_errors("clearing", folder):
        for path in sorted(folder.glob(".tmp-*")):
            if _TEMPORARY.match(path.name):
                remove(path)


# --- whole files ---


def write_atomic(path: Path, content: bytes | str) -> None:
    """Replaces `path` by `content` (text as UTF-8): readers see the old file or the new one, never a part.

    The folder must exist. Raises `MachineError`; the old file is then still there.
    """
    data = content.encode() if isinstance(content, str) else content
    scratch = temporary(path)
    with named_errors("writing", path):
        try:
            with durable(scratch) as file:
                file.write(data)
            rename(scratch, path)
            sync_folder(path.parent)
        except BaseException:
            discard(scratch)
            raise


def discard(path: Path) -> None:
    """Gives the space back after a failure, which must stay the error that is reported."""
    with suppress(OSError):
        remove(path)


def write_json(path: Path, value: Any) -> None:
    """`write_atomic` of indented JSON. Raises `MachineError`; `TypeError` for what JSON cannot hold."""
    write_atomic(path, json.dumps(finite(value), indent=2, allow_nan=False) + "\n")


def read_json(path: Path, max_bytes: int = 64 << 20) -> Any:
    """Reads one JSON value. Raises `MachineError` when the file is missing, too large or not JSON."""
    with named_errors("reading", path):
        if path.stat().st_size > max_bytes:
            raise MachineError(f"{path} is larger than {max_bytes} bytes: this is not a file of a run")
        data = path.read_bytes()
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise MachineError(f"{path} is damaged ({error}): restore it from a copy or move it away") from error


def finite(value: Any) -> Any:
    """The same value with null in the place of every float that is not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def is_described(entry: Any) -> bool:
    """Whether an entry of a manifest has the number of bytes and the SHA-256 of a file."""
    return isinstance(entry, dict) and type(entry.get("bytes")) is int and isinstance(entry.get("sha256"), str)


# --- JSON lines ---


def append_line(path: Path, entry: dict[str, Any]) -> None:
    """`append_lines` of one entry."""
    append_lines(path, [entry])


def append_lines(path: Path, entries: Iterable[dict[str, Any]]) -> None:
    """Appends one JSON line per entry, durable on return; creates the file, not its folder.

    Raises `MachineError`; `TypeError` for what JSON cannot hold, before the file is touched.
    """
    data = "".join(json.dumps(finite(entry), allow_nan=False) + "\n" for entry in entries).encode()
    with named_errors("writing", path):
        created = not path.exists()
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        try:
            _drop_half_line(fd, path)
            with _step("write", path):
                _write_all(fd, data)
            with _step("fsync", path):
                os.fsync(fd)
        finally:
            os.close(fd)
        if created:
            sync_folder(path.parent)


def _drop_half_line(fd: int, path: Path) -> None:
    end = os.fstat(fd).st_size
    whole = _end_of_last_line(fd, end)
    if whole < end:
        with _step("truncate", path):
            os.ftruncate(fd, whole)


def _end_of_last_line(fd: int, end: int, step_bytes: int = 1 << 16) -> int:
    """Offset just after the last newline, looked for from the end."""
    while end > 0:
        start = max(0, end - step_bytes)
        newline = os.pread(fd, end - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """All whole lines, in order; no file is no lines; a half-written last line is ignored.

    Raises `MachineError` naming the line when a whole line is not a JSON object.
    """
    return [entry for _, entry in _numbered_entries(path)]


def _numbered_entries(path: Path) -> list[tuple[bytes, dict[str, Any]]]:
    lines = _whole_lines(path)
    return [(line, _parsed(path, number, line)) for number, line in enumerate(lines, start=1)]


def _whole_lines(path: Path) -> list[bytes]:
    with named_errors("reading", path):
        data = path.read_bytes() if path.exists() else b""
    return data.split(b"\n")[:-1]  # the last piece is empty, or half-written


def _parsed(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        entry = None
    if not isinstance(entry, dict):
        raise MachineError(f"{path} line {number} is damaged: restore the file from a copy or remove that line")
    return entry


def truncate_jsonl(path: Path, keep: Callable[[dict[str, Any]], bool]) -> int:
    """Keeps, to the byte, the lines whose entry `keep` accepts; returns how many were dropped. Atomic.

    Leaves a file alone that has nothing to drop. Raises `MachineError`.
    """
    lines = _numbered_entries(path)
    kept = [line + b"\n" for line, entry in lines if keep(entry)]
    if len(kept) < len(lines):
        write_atomic(path, b"".join(kept))
    return len(lines) - len(kept)
