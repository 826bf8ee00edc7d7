"""Where a number came from: code, machine and command of every start of a run. No environment dump, no secrets."""

from __future__ import annotations

import os
import platform
import socket
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from remctl.errors import MachineError
from remctl.runs.code import this_code
from remctl.runs.cores import usable_cores
from remctl.runs.files import read_json, write_json
from remctl.runs.layout import RunFolder

PACKAGES = ("torch", "numpy", "gymnasium", "ale-py", "yet-another-retnet", "pillow", "pydantic", "safetensors")
ENVIRONMENT_PACKAGES = ("minigrid", "MinAtar", "bsuite", "shimmy", "vizdoom")  # recorded if installed
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
        "remctl": this_code().version,
        "sources": this_code().sources,
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES} | _installed(ENVIRONMENT_PACKAGES),
        "machine": _machine(),
        "device": dict(device or {}),
        "slurm": {name: os.environ[name] for name in SLURM_IDS if name in os.environ},
    }


def _installed(names: Sequence[str]) -> dict[str, str]:
    return {name: version for name in names if (version := _version(name)) is not None}


def append(run: RunFolder, entry: dict[str, Any]) -> None:
    """Adds one start to `provenance.json`, a list. Raises `MachineError`, also for a file that is no list."""
    entries = read_json(run.provenance) if run.provenance.exists() else []
    if not isinstance(entries, list):
        raise MachineError(f"{run.provenance} is damaged (no list): restore it from a copy or move it away")
    write_json(run.provenance, [*entries, entry])


def starts(run: RunFolder) -> list[dict[str, Any]]:
    """Every start of a run, the first first; what is no entry is left out. Raises `MachineError` for an unreadable file."""
    entries = read_json(run.provenance) if run.provenance.exists() else []
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []


def last_device(run: RunFolder) -> dict[str, Any]:
    """The device of the last start: name, threads, precision; empty if the run never started.

    Raises `MachineError` for a `provenance.json` that cannot be read.
    """
    device = next((entry.get("device") for entry in reversed(starts(run))), None)
    return device if isinstance(device, dict) else {}


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
