"""One process per run: refused while the holder lives, taken over when it was killed."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from remctl.errors import MachineError
from remctl.runs.layout import RunFolder
from remctl.runs.lock import exclusive_within, holder, is_held, locked, open_lock
from remctl.sweep.launch import launching
from remctl.sweep.local import start_queue
from remctl.sweep.records import Submission

ROOT = Path(__file__).parents[2]
HOLD = """
import os, sys
from pathlib import Path
from remctl.runs.layout import RunFolder
from remctl.runs.lock import locked
with locked(RunFolder(Path(sys.argv[1]))):
    {inside}
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def holding_process(path: Path, inside: str = "pass") -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", HOLD.format(inside=inside), str(path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdin
    assert process.stdout
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def test_the_file_says_who_holds_it(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "new" / "run")
    with locked(run):
        who = json.loads(run.lock.read_text())
        assert holder(run) == who
    assert (who["pid"], who["host"]) == (os.getpid(), socket.gethostname())
    assert abs(datetime.now(UTC) - datetime.fromisoformat(who["since"])) < timedelta(minutes=1)
    assert json.loads(run.lock.read_text()) == who
    assert holder(run) is None


def test_a_live_holder_is_respected_and_named(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    with holding_process(tmp_path) as process:
        who = holder(run)
        assert who is not None
        with pytest.raises(MachineError) as caught, locked(run, patience_s=0):
            pytest.fail("entered a held run")
        for part in (str(tmp_path), f"process {process.pid}", socket.gethostname(), who["since"]):
            assert part in str(caught.value)
        assert json.loads(run.lock.read_text()) == who


def test_a_killed_holder_is_taken_over(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    with holding_process(tmp_path) as process:
        process.kill()
        process.wait()
        assert holder(run) is None
        with locked(run, patience_s=0):
            assert json.loads(run.lock.read_text())["pid"] == os.getpid()


def test_a_forked_worker_does_not_keep_the_lock_of_its_killed_parent(tmp_path: Path) -> None:
    with holding_process(tmp_path, "os.fork() or os.read(0, 1)") as process:
        process.kill()
        process.wait()
        with locked(RunFolder(tmp_path), patience_s=10):  # the worker may get its first turn late
            pass


def test_a_forked_worker_does_not_release_the_lock_of_its_living_parent(tmp_path: Path) -> None:
    with holding_process(tmp_path, "os.waitpid(os.fork() or os._exit(0), 0)"):
        assert holder(RunFolder(tmp_path)) is not None


def test_one_process_cannot_hold_a_run_twice(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    with locked(run), pytest.raises(MachineError, match=f"process {os.getpid()} "), locked(run, patience_s=0):
        pytest.fail("entered a held run")


def test_an_error_inside_releases(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    with pytest.raises(KeyboardInterrupt), locked(run):
        raise KeyboardInterrupt
    with locked(run, patience_s=0):
        pass


@pytest.mark.parametrize("content", [b"", b"\xff\x00", b"[" * 5000, b"[1]", b"{}"])
def test_a_strange_lock_file_hinders_nobody(tmp_path: Path, content: bytes) -> None:
    run = RunFolder(tmp_path)
    run.lock.write_bytes(content)
    assert holder(run) is None
    with run.lock.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(MachineError, match="process [?] on [?]"), locked(run, patience_s=0):
            pytest.fail("entered a held run")
        assert holder(run) == {}
    with locked(run, patience_s=0):
        assert json.loads(run.lock.read_text())["pid"] == os.getpid()


def test_a_glance_at_the_lock_refuses_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunFolder(tmp_path)
    run.lock.touch()
    glance = run.lock.open("rb")
    fcntl.flock(glance, fcntl.LOCK_SH)
    monkeypatch.setattr("time.sleep", lambda seconds: glance.close())
    with locked(run):
        assert glance.closed


def test_holding_clears_what_a_killed_process_left(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.media.mkdir()
    stale = [tmp_path / ".tmp-1-metrics.jsonl", run.media / ".tmp-1-dream.webp"]
    for path in stale:
        path.write_text("half")
    with locked(run):
        assert not any(path.exists() for path in stale)


def test_a_second_process_clears_nothing(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    with locked(run):
        (tmp_path / ".tmp-1-result.json").write_text("being written")
        with pytest.raises(MachineError), locked(run, patience_s=0):
            pass
        assert (tmp_path / ".tmp-1-result.json").exists()


NO_LOCKS = [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP]


def launches(out: Path) -> None:
    with launching(out):
        pass


def trains(out: Path) -> None:
    with locked(RunFolder(out / "run")):
        pass


def looks(out: Path) -> None:
    (out / "lock").touch()
    holder(RunFolder(out))


def sees_a_queue(out: Path) -> None:
    (out / "queue.lock").touch()
    is_held(out / "queue.lock")


def starts_a_queue(out: Path) -> None:
    start_queue(Submission(out / "id", "local", "", "", ()), out)


@pytest.mark.parametrize(
    ("code", "words"),
    [*((code, "no file locks on the file system of .*: choose another folder") for code in NO_LOCKS)]
    + [(errno.EIO, "input/output error"), (errno.EBADF, "permission denied")],
)
@pytest.mark.parametrize("use", [launches, trains, looks, sees_a_queue, starts_a_queue])
def test_a_file_system_that_cannot_lock_is_named(
    use: Callable[[Path], None], code: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(fd: int, kind: int) -> None:
        raise OSError(code, "x")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(MachineError, match=words):
        use(tmp_path)


# --- two users in one folder ---


@pytest.fixture
def mask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """pytest's own are private."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.parametrize(("folder", "file"), [(0o755, 0o644), (0o775, 0o664), (0o2770, 0o664), (0o777, 0o666)])
def test_a_lock_is_for_all_who_may_write_in_its_folder(mask: None, folder: int, file: int, tmp_path: Path) -> None:
    tmp_path.chmod(folder)
    launches(tmp_path)
    assert stat.S_IMODE((tmp_path / ".launching").stat().st_mode) == file
    (tmp_path / ".launching").chmod(0o644)  # of a version that shared it with nobody
    launches(tmp_path)
    assert stat.S_IMODE((tmp_path / ".launching").stat().st_mode) == file


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be two users")
def test_a_second_user_launches_in_a_shared_folder(mask: None, public_folder: Path) -> None:
    shared = public_folder
    shared.chmod(0o777)
    (shared / ".launching").touch()
    (shared / ".launching").chmod(0o644)
    assert in_another_users_process(lambda: launches(shared)) == 0
    with launching(shared):
        assert in_another_users_process(lambda: launching_at_once(shared)) == 1
    trains(shared)
    assert in_another_users_process(lambda: trains(shared)) == 1  # whose folder that is not


def launching_at_once(out: Path) -> None:
    fd = open_lock(out / ".launching")
    if not exclusive_within(fd, out / ".launching", 0):
        raise MachineError("held")


def in_another_users_process(act: Callable[[], None]) -> int:
    """1 where it raised MachineError, 0 where nothing, 2 for anything else."""
    pid = os.fork()
    if pid == 0:
        status = 2
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            act()
            status = 0
        except MachineError:
            status = 1
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
