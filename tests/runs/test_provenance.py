"""One entry per start, with code, machine and command, and without secrets."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from importlib import metadata
from pathlib import Path

import pytest

import remctl
from remctl.errors import MachineError
from remctl.runs import provenance
from remctl.runs.layout import RunFolder

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout that tracks a package; returns the package's folder."""
    package = tmp_path / "checkout" / "package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    git(package.parent, "init", "-q")
    git(package.parent, "add", ".")
    git(package.parent, "commit", "-q", "-m", "first")
    return package


def test_an_entry_says_where_it_was_made() -> None:
    entry = provenance.collect(["remctl", "train", "--game", "Pong"], {"name": "cpu"})
    assert entry["command"] == ["remctl", "train", "--game", "Pong"]
    assert entry["remctl"] == remctl.__version__
    assert entry["python"] == platform.python_version()
    assert entry["packages"]["numpy"] == metadata.version("numpy")
    assert entry["device"] == {"name": "cpu"}
    time = datetime.fromisoformat(entry["time"])
    assert time.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - time) < timedelta(minutes=1)
    assert entry["machine"]["hostname"] == platform.node()
    assert 1 <= entry["machine"]["num_cores_usable"] <= entry["machine"]["num_cores"]
    pages = int(subprocess.run(["getconf", "_PHYS_PAGES"], capture_output=True, text=True, check=True).stdout)
    assert entry["machine"]["ram_mb"] == pages * os.sysconf("SC_PAGE_SIZE") // 10**6
    assert entry["machine"]["cpu"]


def test_slurm_ids_are_kept_and_nothing_else_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("SLURM_"):
            monkeypatch.delenv(name)
    assert provenance.collect([])["slurm"] == {}
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    monkeypatch.setenv("SLURM_JWT", "hidden-token")
    monkeypatch.setenv("WANDB_API_KEY", "hidden-key")
    entry = provenance.collect([])
    assert entry["slurm"] == {"SLURM_JOB_ID": "4711", "SLURM_ARRAY_TASK_ID": "3"}
    assert "hidden" not in json.dumps(entry)


def test_a_missing_package_is_null(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "PACKAGES", ("no-such-package",))
    assert provenance.collect([])["packages"] == {"no-such-package": None}


@needs_git
def test_git_commit_and_dirt(checkout: Path) -> None:
    commit = git(checkout, "rev-parse", "HEAD")
    assert provenance.git_state(checkout) == {"commit": commit, "dirty": False}
    (checkout.parent / "notes.txt").write_text("beside the package")
    assert provenance.git_state(checkout) == {"commit": commit, "dirty": False}
    (checkout / "new.py").write_text("untracked, yet part of what runs")
    assert provenance.git_state(checkout) == {"commit": commit, "dirty": True}
    (checkout / "new.py").unlink()
    (checkout / "__init__.py").write_text("changed")
    assert provenance.git_state(checkout) == {"commit": commit, "dirty": True}


@needs_git
def test_a_package_installed_inside_another_checkout_has_no_commit(checkout: Path) -> None:
    installed = checkout.parent / ".venv" / "package"
    installed.mkdir(parents=True)
    (installed / "__init__.py").write_text("")
    assert provenance.git_state(installed) is None


def test_without_git_there_is_no_commit(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert provenance.git_state(checkout) is None
    assert provenance.collect([])["git"] is None


def test_each_start_adds_one_entry(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    provenance.append(run, {"n": 1})
    provenance.append(run, {"n": float("nan")})
    assert json.loads(run.provenance.read_text()) == [{"n": 1}, {"n": None}]


@pytest.mark.parametrize("text", ["{}", "[", ""])
def test_a_damaged_file_is_named_and_left_alone(tmp_path: Path, text: str) -> None:
    run = RunFolder(tmp_path)
    run.provenance.write_text(text)
    with pytest.raises(MachineError, match=r"provenance\.json is damaged"):
        provenance.append(run, {"n": 1})
    assert run.provenance.read_text() == text
