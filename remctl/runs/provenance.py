"""Where a number came from: code, machine and command of every start of a run. No environment dump, no secrets."""

from __future__ import annotations

import os
import platform
import re
import socket
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import remctl
from remctl.errors import MachineError
from remctl.programs import ask_program
from remctl.runs.cores import usable_cores
from remctl.runs.files import read_json, write_json
from remctl.runs.layout import RunFolder

PACKAGES = ("torch", "numpy", "gymnasium", "ale-py", "yet-another-retnet", "pillow", "pydantic", "safetensors")
GIT_S = 10
SLURM_IDS = (
    "SLURM_JOB_ID",
    "SLURM_ARRAY_JOB_ID",
    "SLURM_ARRAY_TASK_ID",
    "SLURM_RESTART_COUNT",
    "SLURM_CLUSTER_NAME",
)


def collect(command: Sequence[str], device: dict[str, Any] | None = None) -> dict[str, Any]:
    """One entry, JSON-compatible. `command` is the command line; `device` what the caller knows of its device.

    Raises nothing: what cannot be found out is null.
    """
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": list(command),
        "remctl": remctl.__version__,
        "git": git_state(Path(remctl.__file__).parent),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "machine": _machine(),
        "device": dict(device or {}),
        "slurm": {name: os.environ[name] for name in SLURM_IDS if name in os.environ},
    }


def append(run: RunFolder, entry: dict[str, Any]) -> None:
    """Adds one start to `provenance.json`, a list. Raises `MachineError`, also for a file that is no list."""
    entries = read_json(run.provenance) if run.provenance.exists() else []
    if not isinstance(entries, list):
        raise MachineError(f"{run.provenance} is damaged (no list): restore it from a copy or move it away")
    write_json(run.provenance, [*entries, entry])


def last_device(run: RunFolder) -> dict[str, Any]:
    """The device of the last start: name, threads, precision; empty if the run never started.

    Raises `MachineError` for a `provenance.json` that cannot be read.
    """
    entries = read_json(run.provenance) if run.provenance.exists() else []
    last = entries[-1] if isinstance(entries, list) and entries else None
    device = last.get("device") if isinstance(last, dict) else None
    return device if isinstance(device, dict) else {}


def git_state(folder: Path) -> dict[str, Any] | None:
    """{commit, dirty} of the checkout that tracks `folder`; None when none does (an installed package may lie inside
    a checkout that knows nothing of it). `dirty`: the folder differs from the commit, or holds untracked files."""
    if not _git(r"__init__\.py", folder, "ls-files", "--", "__init__.py"):
        return None
    commits = _git(r"[0-9a-f]{40,64}", folder, "rev-parse", "HEAD")
    changes = _git(r"[ ?!A-Z]{2} .+", folder, "status", "--porcelain", "--", ".")
    return {"commit": commits[-1], "dirty": None if changes is None else bool(changes)} if commits else None


def _git(form: str, folder: Path, *arguments: str) -> list[str] | None:
    """The lines of git's answer that have this form, and no others; None without an answer."""
    try:
        said = ask_program("git", "--no-optional-locks", "-C", str(folder), *arguments, timeout_s=GIT_S)
    except MachineError:
        return None
    return [line for line in said.out.splitlines() if re.fullmatch(form, line)] if said.status == 0 else None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _machine() -> dict[str, Any]:
    return {
        "hostname": socket.gethostname(),
        "platform": platform.platform(),
        "cpu": cpu_model(),
        "num_cores": os.cpu_count(),
        "num_cores_usable": usable_cores(),
        "ram_mb": _ram_mb(),
    }


def cpu_model() -> str | None:
    """The processor's name as the operating system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except (OSError, ValueError):
        return platform.processor() or None
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _ram_mb() -> int | None:
    """Megabytes (10^6 bytes) of memory in the machine."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 10**6
    except (OSError, ValueError):
        return None
