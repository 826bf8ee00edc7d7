"""One process per run: refused while the holder lives, taken over when it was killed."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from remctl.errors import MachineError
from remctl.runs.layout import RunFolder
from remctl.runs.lock import holder, locked

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


@pytest.mark.parametrize(("code", "words"), [(errno.ENOLCK, "no file locks"), (errno.EIO, "input/output error")])
def test_a_file_system_that_cannot_lock_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, words: str
) -> None:
    def flock(fd: int, kind: int) -> None:
        raise OSError(code, "x")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(MachineError, match=words), locked(RunFolder(tmp_path)):
        pass
