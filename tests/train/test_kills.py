"""Kill -9 at write boundaries and at random times (`tests/train/kills.py`)."""

import subprocess
import sys
from pathlib import Path

import pytest


def kills(*arguments: object) -> str:
    command = [sys.executable, "-m", "tests.train.kills", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_kill_9_at_some_write_boundaries_of_an_epoch(tmp_path: Path) -> None:
    assert kills("boundaries", tmp_path, 20).count("the same") >= 3


@pytest.mark.slow
def test_kill_9_at_every_write_boundary_of_an_epoch(tmp_path: Path) -> None:
    assert kills("boundaries", tmp_path).count("the same") >= 40


@pytest.mark.slow
def test_kill_9_at_20_random_times(tmp_path: Path) -> None:
    assert kills("random", tmp_path, 20).count("the same") == 20
