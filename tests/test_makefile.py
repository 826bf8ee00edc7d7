"""`make venv` says what it does, with a Python that does nothing but take its time."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PYTHON = """#!/bin/sh
case "$*" in
    *"-m venv "*) mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
    *--version) echo Python 3.12.1 ;;
    *"pip install"*" torch") sleep 2; echo "$*" >> asked; [ ! -e refuse ] || { echo "ERROR: no network" >&2; exit 3; } ;;
    *"pip install"*) echo "$*" >> asked ;;
esac
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    python = tmp_path / "python"
    python.write_text(PYTHON)
    python.chmod(0o755)
    return tmp_path


def make_venv(folder: Path) -> subprocess.CompletedProcess[str]:
    command = ["make", "venv", f"PYTHON={folder / 'python'}", "LINE_EVERY_S=0.1"]
    outer = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES")  # of `make test`
    clean = {name: value for name, value in os.environ.items() if name not in outer}
    return subprocess.run(command, cwd=folder, env=clean, capture_output=True, text=True, timeout=60, check=False)


pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="no make here")


def test_each_step_is_said_before_it_is_done_and_while_it_lasts(folder: Path) -> None:
    done = make_venv(folder)
    assert (done.returncode, done.stderr) == (0, "")
    said = done.stdout.splitlines()
    assert said[0] == "creating .venv with Python 3.12.1"
    torch = next(i for i, text in enumerate(said) if text.startswith("installing torch 2."))
    assert said[torch + 1].startswith("  still installing torch 2.")
    assert re.fullmatch(r"  took \d s", said[-1])
    assert said[-2] == "installing remctl and what else it needs"
    asked = (folder / "asked").read_text().splitlines()
    assert len(asked) == 2
    assert all("--quiet" in each and "--constraint constraints.txt" in each for each in asked)
    assert make_venv(folder).stdout == "make: Nothing to be done for 'venv'.\n"


def test_what_fails_is_said_with_its_own_words_and_nothing_follows(folder: Path) -> None:
    (folder / "refuse").touch()
    done = make_venv(folder)
    assert done.returncode == 2
    assert "ERROR: no network" in done.stderr
    assert re.fullmatch(r"  failed after \d s: see above", done.stdout.splitlines()[-1])
    assert not (folder / ".venv" / ".installed").exists()
