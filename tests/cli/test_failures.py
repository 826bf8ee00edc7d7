"""Every way out: its exit status, and one line on stderr."""

from __future__ import annotations

import errno
import io
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

import remctl
from remctl.commands.failures import describe, guarded, say
from remctl.errors import Interrupted, MachineError, UserError
from remctl.weights import lpips_status
from tests.tiny import WALK

ROOT = Path(remctl.__file__).parents[1]


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
        "LPIPS weights: missing (no home folder to keep the LPIPS weights in: set REMCTL_CACHE to a folder)",
        "set REMCTL_CACHE to a folder, then run `remctl weights fetch`",
    )
    with pytest.raises(RuntimeError) as caught:
        Path.home()
    assert describe(caught.value) == (1, "this user has no home folder: set HOME to a folder that is writable")


def test_control_characters_are_shown_not_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    say("game '\x1b[31mred\x07' [bold]x[/bold] \udcff é\nnext")
    line = capsys.readouterr().err
    assert line == "remctl: game '\\x1b[31mred\\x07' [bold]x[/bold] \\udcff é next\n"


@pytest.mark.parametrize(
    "line", ["config schema", "--version", "list games", "--help"]
)  # more than a buffer, less, ours, rich
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
    assert process.wait(timeout=60) == 128 + signal.SIGPIPE


def test_nobody_reads_what_went_wrong() -> None:
    process = subprocess.Popen([sys.executable, "-m", "remctl", "list", "gamez"], stderr=subprocess.PIPE)
    assert process.stderr is not None
    process.stderr.close()
    assert process.wait(timeout=60) == 2
    closed = subprocess.run(
        "exec 2>&-; exec " + shlex.join(process.args), shell=True, stdout=subprocess.PIPE, timeout=60
    )
    assert (closed.returncode, closed.stdout) == (2, b"")


def test_a_broken_pipe_to_a_process_of_ours_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    assert guarded(command) == 1
    assert "Broken pipe" in capsys.readouterr().err


SOMEWHERE = "import os, signal; os.kill(os.getpid(), signal.SIGINT)\n"


@pytest.mark.parametrize("module", ["typer", "pydantic", "pandas"])  # of the command line, of all verbs, of this verb
def test_ctrl_c_while_modules_are_imported(module: str, tmp_path: Path) -> None:
    (tmp_path / f"{module}.py").write_text(SOMEWHERE)
    (tmp_path / "a.json").write_text('{"game": ["Pong"], "score": [1]}')
    done = subprocess.run(
        [sys.executable, "-m", "remctl", "report", "--scores", "A=a.json"],
        env=os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "remctl: interrupted\n")


CTRL_C = "os.kill(os.getpid(), signal.SIGINT)"
MOMENTS = {
    "swallowed": f"try: {CTRL_C}\n    except BaseException: pass",
    "turned into another error": f"try: {CTRL_C}\n    except BaseException: raise RecursionError",
    "turned into an error of ours": f"try: {CTRL_C}\n    except BaseException: raise MachineError('no answer')",
    "in a finaliser": "AtTheEnd()",
    "twice, the first swallowed": f"try: {CTRL_C}\n    except BaseException: {CTRL_C}\n    print('never')",
}


def with_ctrl_c(body: str, before: str = "") -> subprocess.CompletedProcess[str]:
    """`remctl list games`, in the middle of which `body` runs; no module is imported then."""
    script = (
        "import os, signal, sys\n"
        "from remctl.__main__ import main\n"
        "from remctl.commands import output\n"
        "from remctl.errors import MachineError\n"
        f"class AtTheEnd:\n    def __del__(self): {CTRL_C}\n"
        f"def show(table):\n    {body}\n"
        "output.show = show\n"
        f"{before}\n"
        "sys.argv = ['remctl', 'list', 'games']\n"
        "main()\n"
    )
    return subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("moment", MOMENTS)
def test_ctrl_c_counts_whatever_a_library_makes_of_it(moment: str) -> None:
    done = with_ctrl_c(MOMENTS[moment])
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "remctl: interrupted\n")


@pytest.mark.parametrize("when", ["import atexit; atexit.register(AtTheEnd().__del__)", "sys.end = AtTheEnd()"])
def test_ctrl_c_after_the_end_changes_nothing(when: str) -> None:
    done = with_ctrl_c("print('shown')", before=when)
    assert (done.returncode, done.stdout, done.stderr) == (0, "shown\nshown\n", "")


@pytest.mark.parametrize("how", ["-m remctl", "a script"])
def test_modules_of_the_working_folder_are_found_and_take_nothings_place(how: str, tmp_path: Path) -> None:
    (tmp_path / "random.py").write_text("raise SystemExit('not this one')")
    (tmp_path / "my_games.py").write_text(WALK)
    script = tmp_path / "bin" / "remctl"
    script.parent.mkdir()
    script.write_text("from remctl.__main__ import main\nmain()\n")
    started = [str(script)] if how == "a script" else how.split()
    done = subprocess.run(
        [sys.executable, *started, "train", "--game", "gym:my_games:Walk-v0", "--preset", "quick"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "my_games:Walk-v0 has actions Box" in done.stderr


# --- homes


def test_every_path_may_begin_at_home(
    cli: Callable, runner: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.yaml").write_text("training.num_epochs: 7\n")
    assert cli("train", "--game=Catch", "--preset=quick", "--out=~/x", "--config=~/a.yaml").status == 0
    (_, (config,), given) = runner.calls[0]
    assert (config.training.num_epochs, given["out"]) == (7, tmp_path / "x")
    (tmp_path / "s.json").write_text('{"Pong": [1, 2]}')
    (tmp_path / "r.yaml").write_text("scores: [A=~/s.json]\nreps: 100\n")
    (tmp_path / "p.yaml").write_text("unknown: 1\n")
    assert cli("report", "--spec=~/r.yaml", "--out=~/r", "--format=csv").out.endswith(f"{tmp_path}/r\n")
    assert f"{tmp_path}/p.yaml: unknown key" in cli("ablate", "smoke", "--profile=~/p.yaml", "--executor=slurm").err
    assert f"{tmp_path}/nothing: no such folder" in cli("report", "~/nothing").err
    monkeypatch.setenv("REMCTL_CACHE", "~/cache")
    assert str(tmp_path / "cache") in lpips_status().line
    monkeypatch.delenv("REMCTL_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "~/xdg")
    assert str(tmp_path / "xdg" / "remctl") in lpips_status().line
    assert [p.name for p in tmp_path.iterdir() if "~" in p.name] == []


def test_nobodys_home_is_refused(cli: Callable, runner: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    done = cli("train", "--game=Catch", "--out=~no_such_user/x")
    assert (done.status, runner.calls) == (2, [])
    assert "~no_such_user/x: no home folder for ~no_such_user; write the whole path" in done.err
    monkeypatch.setenv("REMCTL_CACHE", "~no_such_user")
    assert lpips_status().state == "missing"


def test_a_full_disk_behind_stdout(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    class Full(io.StringIO):
        def flush(self) -> None:
            raise error_with(errno.ENOSPC)

    monkeypatch.setattr(sys, "stdout", Full())
    assert guarded(lambda: None) == 1
    assert "whatever" in capsys.readouterr().err


NOTHING = {
    "train --game Catch --out": "--out",
    "train --game Catch --config": "--config",
    "train --from": "--from",
    "train --continue": "--continue",
    "init": "[DIR]",
    "eval": "RUN",
    "inspect": "RUN",
    "logs": "NAME",
    "report runs": "RUN_OR_DIR",
    "report --bench": "--bench",
    "report --out": "--out",
    "bench --json": "--json",
    "bench compare a.json": "B.json",
    "doctor --out": "--out",
    "ablate": "SPEC",
    "ablate smoke --profile": "--profile",
    "cancel smoke": "[RUN]...",
    "scores export --out": "--out",
}


@pytest.mark.parametrize("line", NOTHING)
def test_an_empty_argument_is_not_the_working_folder(
    line: str, cli: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = cli(*line.split(), "")
    assert done.status == 2
    assert done.err.startswith(f"remctl: {NOTHING[line]}: given '', which names nothing: give a value")
    assert list(tmp_path.iterdir()) == []


TO_WRITE = (
    "train --game Catch --out",
    "init",
    "report --out",
    "bench --out",
    "status --out",
    "ablate smoke --dry-run --out",
)


@pytest.mark.parametrize("line", TO_WRITE)
@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_file_in_the_place_of_a_folder_is_bad_input(line: str, place: str, cli: Callable, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = cli(*line.split(), str(tmp_path / place))
    assert done.status == 2
    assert f"{tmp_path}/file is no folder" in done.err
    assert done.err.endswith(": choose another folder\n")


def test_fetching_without_a_home_folder_says_so_before_anything_else(
    cli: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nowhere)
    for name in ("REMCTL_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    done = cli("weights", "fetch")
    assert (done.status, done.out) == (1, "")
    assert done.err == "remctl: no home folder to keep the LPIPS weights in: set REMCTL_CACHE to a folder\n"
    done = cli("weights", "status")
    assert (done.status, done.out.splitlines()[1]) == (
        1,
        "fix: set REMCTL_CACHE to a folder, then run `remctl weights fetch`",
    )


def test_experiments_that_are_not_there(cli: Callable, tmp_path: Path) -> None:
    for verb in ("status", "cancel", "retry"):
        done = cli(verb, "nope", "--out", str(tmp_path))
        assert done.status == 2
        assert done.err.endswith(
            f"no experiment 'nope' in {tmp_path}, and no such run or folder: there is none yet; start one with "
            "`remctl ablate smoke`\n"
        )
