"""One entry per start, with code, machine and command, and without secrets."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from datetime import UTC, datetime, timedelta
from importlib import metadata
from pathlib import Path

import pytest

from remctl.errors import MachineError
from remctl.runs import provenance
from remctl.runs.code import this_code
from remctl.runs.layout import RunFolder


def test_an_entry_says_where_it_was_made() -> None:
    entry = provenance.collect(["remctl", "train", "--game", "Pong"], {"name": "cpu"})
    assert entry["command"] == ["remctl", "train", "--game", "Pong"]
    assert (entry["remctl"], entry["sources"]) == this_code()
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
    monkeypatch.setattr(provenance, "ENVIRONMENT_PACKAGES", ("no-such-environment", "pytest"))
    assert provenance.collect([])["packages"] == {"no-such-package": None, "pytest": pytest.__version__}


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
