"""Kills, full disks and broken disks at write boundaries, and kills at random times (`tests/train/boundary_faults.py`)."""

import subprocess
import sys
from pathlib import Path

import pytest

KINDS = pytest.mark.parametrize("kind", ["KILL", "ENOSPC", "EIO"])


def faults(*arguments: object) -> str:
    command = [sys.executable, "-m", "tests.train.boundary_faults", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@KINDS
@pytest.mark.parametrize(("part", "stride"), [("epoch", 20), ("finish", 20)])
def test_some_boundaries(part: str, stride: int, kind: str, tmp_path: Path) -> None:
    assert faults(part, tmp_path, kind, stride).count("the same") >= 3


@pytest.mark.slow
@KINDS
@pytest.mark.parametrize("part", ["epoch", "finish"])
def test_every_distinct_boundary(part: str, kind: str, tmp_path: Path) -> None:
    assert faults(part, tmp_path, kind).count("the same") >= 40


@pytest.mark.slow
def test_kill_9_at_20_random_times(tmp_path: Path) -> None:
    assert faults("random", tmp_path, 20).count("the same") == 20
