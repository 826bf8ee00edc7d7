"""Every way out: its exit status, and one line on stderr."""

from __future__ import annotations

import errno
import io
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from remctl.commands.failures import describe, guarded, say
from remctl.errors import Interrupted, MachineError, UserError
from remctl.weights import lpips_status


def error_with(code: int, *names: str) -> OSError:
    return OSError(code, "whatever", *names)


CASES = [
    (UserError("no such game"), 2, "no such game"),
    (MachineError("disk full"), 1, "disk full"),
    (Interrupted(signal.SIGINT), 130, "stopped by SIGINT; run the same command again; training resumes"),
    (Interrupted(signal.SIGTERM), 143, "stopped by SIGTERM"),
    (Interrupted(signal.SIGUSR2), 128 + signal.SIGUSR2, "stopped by SIGUSR2"),
    (KeyboardInterrupt(), 130, "interrupted; run the same command again"),
    (error_with(errno.ENOSPC, "runs/x"), 1, "disk full while using runs/x: free space"),
    (error_with(errno.EACCES, "runs/x"), 1, "permission denied while using runs/x: make it writable"),
    (error_with(errno.EROFS, "runs/x"), 1, "read-only file system while using runs/x"),
    (error_with(errno.ENOSPC), 1, "whatever: check the disk"),
    (ConnectionResetError(), 1, "ConnectionResetError: check"),
    (MemoryError("8 GB"), 1, "out of memory (8 GB): lower the batch sizes"),
    (RuntimeError("shapes differ"), 70, "internal error: RuntimeError: shapes differ; run again with --debug"),
    (AssertionError(), 70, "internal error: AssertionError; run again with --debug"),
    (ValueError("two\nlines"), 70, "internal error: ValueError: two lines;"),
]


@pytest.mark.parametrize(("error", "status", "message"), CASES, ids=[type(e).__name__ + str(s) for e, s, _ in CASES])
@pytest.mark.parametrize("debug", [False, True])
def test_out_of_a_verb(
    cli: Callable, runner: SimpleNamespace, error: BaseException, status: int, message: str, debug: bool
) -> None:
    runner.raises = error
    done = cli("train", "--game", "Pong", *(["--debug"] if debug else []))
    assert done.status == status
    assert done.err.splitlines()[-1].startswith(f"remctl: {message}")
    typer_swallows_it = isinstance(error, KeyboardInterrupt)
    assert ("Traceback" in done.err) == (debug and not typer_swallows_it)
    assert debug or done.err.count("\n") == 1


@pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt(), 130), (SystemExit(3), 3), (SystemExit("x"), 1)])
def test_outside_of_typer(error: BaseException, status: int) -> None:
    def command() -> None:
        raise error

    assert guarded(command) == status


def test_torch_out_of_memory_is_the_machines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class OutOfMemoryError(RuntimeError):
        pass

    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(OutOfMemoryError=OutOfMemoryError))

    def command() -> None:
        raise OutOfMemoryError("CUDA out of memory.\nTried to allocate 2 GiB")

    assert guarded(command) == 1
    assert capsys.readouterr().err.startswith(
        "remctl: out of memory (CUDA out of memory. Tried to allocate 2 GiB): lower"
    )


def test_a_user_without_a_home_folder_gets_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nowhere)
    for name in ("REMCTL_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert lpips_status() == (
        "missing",
        "LPIPS weights: missing (no home folder to keep them in: set REMCTL_CACHE to a folder)",
    )
    with pytest.raises(RuntimeError) as caught:
        Path.home()
    assert describe(caught.value) == (1, "this user has no home folder: set HOME to a folder that is writable")


def test_control_characters_are_shown_not_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    say("game '\x1b[31mred\x07' [bold]x[/bold] \udcff é\nnext")
    line = capsys.readouterr().err
    assert line == "remctl: game '\\x1b[31mred\\x07' [bold]x[/bold] \\udcff é next\n"


@pytest.mark.parametrize("line", ["config schema", "--version", "list games"])  # more than a buffer, less, rich
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_leaves_early_is_no_error(line: str, unbuffered: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    command = [sys.executable, "-m", "remctl", *line.split()]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()  # before anything was written
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(timeout=60) == 1


def test_a_full_disk_behind_stdout(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    class Full(io.StringIO):
        def flush(self) -> None:
            raise error_with(errno.ENOSPC)

    monkeypatch.setattr(sys, "stdout", Full())
    assert guarded(lambda: None) == 1
    assert "whatever" in capsys.readouterr().err
