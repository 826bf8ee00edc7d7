"""Before long work starts on this machine: the estimate, the question, and what is never started unasked."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from remctl.sweep.device import Device
from tests.cli.conftest import Outcome
from tests.sweep.support import begin, tiny_spec, write_spec

Cli = Callable[..., Outcome]
LONG = ("ablate", "pop")


@pytest.fixture(autouse=True)
def handed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Without SLURM and GPU; how many runs were handed to the queue, which is not started."""
    monkeypatch.chdir(tmp_path)
    found: list[int] = []
    monkeypatch.setattr("remctl.sweep.launch.has_slurm", lambda: False)
    monkeypatch.setattr("remctl.sweep.device.visible_gpus", list)
    monkeypatch.setattr("remctl.sweep.local.start_queue", lambda submission, out: found.append(len(submission.tasks)))
    monkeypatch.setattr("remctl.weights.require_lpips", lambda *a, **k: pytest.fail("a download before the answer"))
    return found


def terminal(monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setattr("typer.confirm", lambda text, **k: {"y": True, "n": False}[answer])


def test_long_work_that_nobody_is_asked_about_is_refused_with_the_fix(
    cli: Cli, tmp_path: Path, handed: list[int]
) -> None:
    got = cli(*LONG)
    assert (got.status, got.out, got.err.count("\n"), handed) == (2, "", 1, [])
    assert "pop: 80 runs on " in got.err
    assert "no GPU: about " in got.err
    assert " years: add --yes to start them, or --preset quick, small networks: about " in got.err
    assert not list(tmp_path.iterdir())


def test_yes_starts_it_and_still_says_how_long(cli: Cli, handed: list[int]) -> None:
    got = cli(*LONG, "--yes")
    assert (got.status, handed) == (0, [80])
    assert "about " in got.err
    assert "operations, by " in got.err


@pytest.mark.parametrize("answer", ["y", "n"])
def test_a_terminal_is_asked(
    answer: str, cli: Cli, tmp_path: Path, handed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal(monkeypatch, answer)
    got = cli(*LONG)
    assert (got.status, handed) == ((0, [80]) if answer == "y" else (1, []))
    assert "shorter: --preset quick, small networks: about " in got.err
    assert "keeps the precision and the number of threads of its first start" in got.err
    assert ("nothing was started" in got.err) == (answer == "n")
    assert (tmp_path / "runs").exists() == (answer == "y")


@pytest.mark.parametrize("typed", [b"\n", b"\x04"], ids=["return", "Ctrl-D"])
def test_the_question_on_a_real_terminal(typed: bytes, tmp_path: Path) -> None:
    main, side = pty.openpty()
    code = (
        "import remctl.sweep.launch as launch, remctl.sweep.device as device, sys\n"
        "launch.has_slurm = lambda: False\ndevice.visible_gpus = list\n"
        "import sys\nfrom remctl.__main__ import main\nsys.argv = ['remctl', 'ablate', 'pop']\nmain()"
    )
    process = subprocess.Popen(
        ["setsid", "--ctty", "--wait", sys.executable, "-c", code], stdin=side, stdout=side, stderr=side, cwd=tmp_path
    )
    os.close(side)
    shown = b""
    while b"[y/N]" not in shown:
        shown += os.read(main, 4096)
    os.write(main, typed)  # the default is no
    while True:
        try:
            part = os.read(main, 4096)
        except OSError:
            break
        if not part:
            break
        shown += part
    os.close(main)
    assert process.wait(30) == 1
    assert b"Start? [y/N]" in shown
    assert b"nothing was started" in shown
    assert b"interrupted" not in shown
    assert not list(tmp_path.iterdir())


def test_small_work_starts_unasked(cli: Cli, tmp_path: Path, handed: list[int]) -> None:
    got = cli("ablate", "smoke", "--json")
    assert (got.status, handed) == (0, [4])
    assert json.loads(got.out)["submission"]
    assert "minutes (" in got.err
    assert cli("ablate", str(write_spec(tmp_path))).status == 0


def test_what_is_done_or_under_way_costs_nothing(cli: Cli, tmp_path: Path, handed: list[int]) -> None:
    spec, runs = tiny_spec(tmp_path)
    for run in runs:
        begin(tmp_path / "runs", run, 4, done=True)
    got = cli("ablate", str(spec.path))
    assert (got.status, got.err, handed) == (0, "", [])


def test_gpus_share_the_hours(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def hours(count: int) -> float:
        monkeypatch.setattr("remctl.commands.before_start.this_device", lambda: Device("cuda", "NVIDIA A", count))
        got = cli(*LONG)
        assert f"on {count} x NVIDIA A: about " in got.err
        return float(got.err.split("about ")[1].split(" days")[0].replace(",", ""))

    assert hours(1) == pytest.approx(4 * hours(4), rel=0.05)


def test_slurm_is_not_asked_about(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr("remctl.sweep.launch.has_slurm", lambda: True)
    monkeypatch.setattr("remctl.sweep.launch.settings", dict)
    monkeypatch.setattr("remctl.sweep.slurm.check", lambda *a: asked.append("check"))
    monkeypatch.setattr("remctl.sweep.slurm.probe", lambda *a: None)
    monkeypatch.setattr("remctl.sweep.slurm.submit", lambda submission, profile, out: submission)
    assert cli(*LONG).status == 0
    assert asked == ["check"]


def test_another_preset_is_another_experiment_and_is_kept_for_retry(
    cli: Cli, tmp_path: Path, handed: list[int]
) -> None:
    (tmp_path / "mine.yaml").write_text("variants: [rem, no_pop]\ngames: [Catch]\nseeds: 1\n")
    assert cli("ablate", "mine.yaml", "--preset", "quick", "--yes").status == 0
    kept = json.loads((tmp_path / "runs/mine-quick/experiment.json").read_text())
    assert (kept["name"], kept["preset"]) == ("mine-quick", "quick")
    assert cli("ablate", "mine.yaml", "--preset", "quick", "--name", "x", "--dry-run").out.startswith("x\n")
    assert cli("ablate", "mine.yaml", "--preset", "paper", "--dry-run").out.startswith("mine\n")
    (tmp_path / "runs/mine-quick/rem/Catch/seed_0/checkpoints").mkdir(parents=True)
    assert cli("retry", "mine-quick").status == 0
    assert handed == [2, 2]


@pytest.mark.parametrize(
    ("args", "says"), [(("--preset", "quik"), "unknown preset 'quik': did you mean quick?"), (("--yess",), "--yes")]
)
def test_a_mistake_gets_one_line(args: tuple[str, ...], says: str, cli: Cli, tmp_path: Path) -> None:
    got = cli(*LONG, *args)
    assert (got.status, got.err.count("\n"), list(tmp_path.iterdir())) == (2, 1, [])
    assert says in got.err
