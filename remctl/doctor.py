"""`remctl doctor`: what this machine has and lacks, as data; each problem with its fix in one sentence.

Nothing is changed and nothing downloaded. torch is imported inside, so that a broken one is a finding.
"""

from __future__ import annotations

import platform
import re
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path
from typing import Literal, NamedTuple

from packaging.requirements import Requirement
from rich.table import Table

from remctl.errors import MachineError, UserError
from remctl.games import ATARI_100K
from remctl.paths import refuse_no_folder
from remctl.runs.cores import cores_here
from remctl.runs.lock import try_exclusive
from remctl.runs.provenance import cpu_model

State = Literal["ok", "warn", "fail"]

FULL_RUN_GB = 2.0  # replay, two checkpoint generations, media
NO_RUN_GB = 0.1
MIN_PYTHON = (3, 11)
SLURM_TOOLS = ("sbatch", "squeue", "sacct")
PROJECT = Path(__file__).resolve().parent.parent
REINSTALL = "run `make venv` in the repository, or install remctl again with pip"


class Check(NamedTuple):
    """One finding. `fix` is empty exactly where the state is ok."""

    name: str
    state: State
    found: str
    fix: str = ""


def check_all(out: Path = Path("runs")) -> list[Check]:
    """Every check; one that cannot be made is a failure of its own, not of the others."""
    made: list[tuple[str, Callable[[], Iterable[Check]]]] = [
        ("Python", lambda: [check_python()]),
        ("libraries", check_libraries),
        ("torch", check_torch),
        ("ROMs", lambda: [check_roms()]),
        ("LPIPS weights", lambda: [check_weights()]),
        ("free disk", lambda: [check_disk(out)]),
        ("out folder", lambda: [check_writable(out)]),
        ("file locks", lambda: [check_locks(out)]),
        ("SLURM", lambda: [check_slurm()]),
        ("extras", check_extras),
    ]
    return [check for name, checks in made for check in _survived(name, checks)]


def _survived(name: str, checks: Callable[[], Iterable[Check]]) -> list[Check]:
    try:
        return list(checks())
    except Exception as error:
        return [Check(name, "fail", _one_line(f"{type(error).__name__}: {error}"), REINSTALL)]


def failed(checks: Iterable[Check]) -> bool:
    """Whether anything fails; warnings do not."""
    return any(check.state == "fail" for check in checks)


# --- Python and its libraries


def check_python() -> Check:
    """The version."""
    found = f"{platform.python_version()} ({sys.executable})"
    if sys.version_info >= MIN_PYTHON:
        return Check("Python", "ok", found)
    return Check("Python", "fail", found, "install Python 3.11 or newer and make the environment again")


def check_libraries() -> list[Check]:
    """Every required library against its required version, and against the pins of a checkout."""
    pins = pinned_versions(PROJECT / "constraints.txt")
    checks = [check_library(requirement, pins) for requirement in requirements() if not requirement.marker]
    bad = [check for check in checks if check.state != "ok"]
    good = ", ".join(check.found for check in checks if check.state == "ok")
    return [Check("libraries", "ok", good), *bad] if good else bad


def check_library(requirement: Requirement, pins: dict[str, str]) -> Check:
    """One library."""
    name, title = requirement.name, f"library {requirement.name}"
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return Check(title, "fail", "not installed", REINSTALL)
    if not requirement.specifier.contains(version, prereleases=True):
        return Check(title, "fail", f"{version}, needed is {requirement.specifier}", REINSTALL)
    pin = pins.get(normal(name), version)
    if version.partition("+")[0] != pin.partition("+")[0]:
        return Check(title, "warn", f"{version}, tested is {pin}", "run `make venv` to get the tested version")
    return Check(title, "ok", f"{name} {version}")


def requirements() -> list[Requirement]:
    """What remctl requires: its installed metadata, or the checkout's pyproject.toml where it is not installed."""
    try:
        lines = metadata.requires("remctl") or []
    except metadata.PackageNotFoundError:
        project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        extras = project.get("optional-dependencies", {})
        lines = project["dependencies"] + [f"{r}; extra == '{e}'" for e, rs in extras.items() for r in rs]
    return [Requirement(line) for line in lines]


def pinned_versions(constraints: Path) -> dict[str, str]:
    """`name==version` lines; empty where there is no such file."""
    text = constraints.read_text(encoding="utf-8") if constraints.is_file() else ""
    return {normal(name): version for name, version in re.findall(r"(?m)^([\w.-]+)==([^\s;#]+)", text)}


def normal(name: str) -> str:
    """A distribution's name as the package index compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def check_extras() -> list[Check]:
    """Optional features: installed or not, both fine."""
    extras: dict[str, list[str]] = {}
    for requirement in requirements():
        if extra := re.search(r"extra\s*==\s*['\"]([\w-]+)['\"]", str(requirement.marker or "")):
            extras.setdefault(extra[1], []).append(requirement.name)
    return [Check(f"extra {extra}", "ok", _extra_found(extra, names)) for extra, names in extras.items()]


def _extra_found(extra: str, names: list[str]) -> str:
    present = {normal(d.metadata["Name"]) for name in names for d in metadata.distributions(name=name)}
    missing = [name for name in names if normal(name) not in present]
    if not missing:
        return f"installed ({', '.join(names)})"
    return f"not installed, optional ({', '.join(missing)}): pip install 'remctl[{extra}]'"


# --- the devices


def check_torch() -> list[Check]:
    """torch, its CUDA devices, and what the CPU can do."""
    import torch

    devices = [check_cuda_device(i) for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    missing = Check(
        "CUDA device",
        "warn",
        "none",
        "use --preset quick on this CPU; for other presets, a GPU and a CUDA build of torch",
    )
    return [Check("torch", "ok", f"{torch.__version__}"), *(devices or [missing]), check_cpu()]


def check_cuda_device(index: int) -> Check:
    """Name, memory and the precision it computes well."""
    import torch

    from remctl.precision import native_precision

    device = torch.cuda.get_device_properties(index)
    precision = native_precision(torch.device("cuda", index))
    return Check(
        f"cuda:{index}", "ok", f"{device.name}, {device.total_memory / 2**30:.0f} GiB, computes in {precision}"
    )


def check_cpu() -> Check:
    """Cores that this process may use, by affinity and CPU quota, and the precision it computes well."""
    import torch

    from remctl.precision import native_precision

    precision = native_precision(torch.device("cpu"))
    return Check("CPU", "ok", f"{cpu_model()}, {cores_here()}, computes in {precision}")


# --- data


def check_roms() -> Check:
    """The ROM of each of the 26 games is a file that is there."""
    from ale_py import roms

    from remctl.games import atari_games, rom_id

    known = atari_games()
    missing = [game for game in ATARI_100K if game not in known or not _is_file(roms.get_rom_path(rom_id(game)))]
    if missing:
        return Check("ROMs", "fail", f"missing: {', '.join(missing)}", "run `pip install --force-reinstall ale-py`")
    return Check("ROMs", "ok", f"all {len(ATARI_100K)} games (ale-py {metadata.version('ale-py')})")


def _is_file(path: object) -> bool:
    return path is not None and Path(str(path)).is_file()


def check_weights() -> Check:
    """Only needed where tokenizer.perceptual is lpips; training fetches them itself if there is a network."""
    from remctl.weights import lpips_status

    status = lpips_status()
    found = status.line.removeprefix("LPIPS weights: ")
    if status.state == "ready":
        return Check("LPIPS weights", "ok", found)
    return Check("LPIPS weights", "warn", found, f"{status.fix} (64 MB; preset quick does without them)")


# --- the disk


def check_disk(out: Path) -> Check:
    """Free space where the runs go."""
    folder = nearest_folder(out)
    free_gb = shutil.disk_usage(folder).free / 1e9
    found = f"{free_gb:.1f} GB in {folder}; a full run needs {FULL_RUN_GB:.0f} GB"
    state: State = "ok" if free_gb >= FULL_RUN_GB else "warn" if free_gb >= NO_RUN_GB else "fail"
    return Check(
        "free disk", state, found, "" if state == "ok" else "free some space, or give --out a folder on another disk"
    )


def check_writable(out: Path) -> Check:
    """A file can be made where the runs go (in the nearest folder that exists: nothing is left behind)."""
    folder = nearest_folder(out)
    try:
        refuse_no_folder(out)
        with tempfile.TemporaryFile(dir=folder):
            return Check("out folder", "ok", f"{out.absolute()} is writable")
    except (OSError, UserError) as error:
        why = str(error) if isinstance(error, UserError) else f"{out.absolute()}: {error.strerror}"
        return Check("out folder", "fail", why, "make it writable, or give --out another folder")


def check_locks(out: Path) -> Check:
    """A file can be locked where the runs go, as every run and every launcher does."""
    folder = nearest_folder(out)
    try:
        with tempfile.NamedTemporaryFile(dir=folder) as file:
            try_exclusive(file.fileno(), Path(file.name))
    except OSError:
        return Check("file locks", "warn", f"not tried: no file can be made in {folder}", "see `out folder`")
    except MachineError as error:
        return Check("file locks", "fail", str(error), "give --out a folder on a file system with flock, such as NFS 4")
    return Check("file locks", "ok", f"files can be locked in {folder}")


def nearest_folder(path: Path) -> Path:
    """`path`, or the nearest folder above it that exists."""
    whole = path.absolute()
    return next(folder for folder in (whole, *whole.parents) if folder.is_dir())


# --- the cluster


def check_slurm() -> Check:
    """All of SLURM's tools, or none (then runs are started locally)."""
    present = [tool for tool in SLURM_TOOLS if shutil.which(tool)]
    if len(present) == len(SLURM_TOOLS):
        return Check("SLURM", "ok", f"{', '.join(present)} found")
    if not present:
        return Check("SLURM", "ok", "not on this machine; only launches on a cluster need it")
    missing = ", ".join(tool for tool in SLURM_TOOLS if tool not in present)
    return Check("SLURM", "warn", f"{missing} missing", f"put {missing} on the PATH (often: module load slurm)")


# --- how it looks


def as_table(checks: Iterable[Check]) -> Table:
    """State, name, finding; the fix on a line of its own."""
    made = Table.grid(padding=(0, 2))
    for _ in range(3):
        made.add_column()
    styles = {"ok": "green", "warn": "yellow", "fail": "red"}
    for check in checks:
        text = f"{check.found}\nfix: {check.fix}" if check.fix else check.found
        made.add_row(check.state, check.name, text, style=styles[check.state] if check.state != "ok" else "")
    return made


def conclusion(checks: Iterable[Check]) -> str:
    """One line."""
    states = [check.state for check in checks]
    return f"{len(states)} checks: {states.count('fail')} failed, {states.count('warn')} warnings"


def _one_line(text: str) -> str:
    return " ".join(text.split())[:200]
