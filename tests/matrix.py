"""`make test-matrix`: remctl on every Python from 3.11 on that this machine has, with the oldest and the newest torch.

Each combination gets a fresh environment in a temporary folder: remctl is installed into it as its users do, not as a
checkout, and then imported, checked by its doctor, trained, interrupted and resumed, and its agent is tested. torch is
downloaded anew for each unless pip has it in its cache: some GB.

    make test-matrix ARGS='--python 3.12 --torch oldest --folder /tmp/matrix --keep'
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
MIN_MINOR, MAX_MINOR = 11, 30
LIMIT_S = 1800
NUM_EPOCHS = 8
SMALL = {  # a run of seconds
    "training.num_epochs": NUM_EPOCHS,
    "environment.frame_size": 32,
    "collection.initial_steps": 100,
    "collection.steps_per_epoch": 50,
    "tokenizer.warmup_steps": 1,
    "tokenizer.training.first_epoch_extra_steps": 0,
    "tokenizer.training.steps_per_epoch": 2,
    "world_model.training.first_epoch_extra_steps": 0,
    "world_model.training.steps_per_epoch": 2,
    "controller.training.steps_per_epoch": 2,
    "evaluation.every_epochs": NUM_EPOCHS,
    "evaluation.final_episodes": 2,
}
TRAIN = ["train", "--game", "Catch", "--preset", "quick", "--device", "cpu"]
TRAIN += [word for key, value in SMALL.items() for word in ("--set", f"{key}={value}")]
RUN = Path("runs/quick/rem/Catch/seed_0")


class Place(NamedTuple):
    """One environment: its Python, an empty folder to work in, and the log of everything that runs."""

    python: Path
    work: Path
    log: Path

    def run(self, *args: str, cwd: Path | None = None) -> None:
        """Run this Python with `args`. Raises CalledProcessError or TimeoutExpired."""
        with self.log.open("ab") as log:
            log.write(f"\n$ python {' '.join(args)}\n".encode())
            log.flush()
            command = [str(self.python), *args]
            subprocess.run(command, cwd=cwd or self.work, stdout=log, stderr=log, check=True, timeout=LIMIT_S)


def pythons() -> dict[str, Path]:
    """Return one interpreter per minor version from 3.11 on, by `3.11`: on the PATH, pyenv's, uv's."""
    found: dict[str, Path] = {}
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    for version in (f"3.{minor}" for minor in range(MIN_MINOR, MAX_MINOR)):
        places = [
            *sorted(pyenv.glob(f"versions/{version}.*/bin/python"), reverse=True),
            shutil.which(f"python{version}"),
        ]
        places += [_asked_of_uv(version)]
        usable = [Path(place) for place in places if place and _has_venv(place, version)]
        found |= {version: usable[0]} if usable else {}
    return found


def _asked_of_uv(version: str) -> str | None:
    if not shutil.which("uv"):
        return None
    command = ["uv", "python", "find", "--no-python-downloads", version]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or None


def _has_venv(python: str | Path, version: str) -> bool:
    code = "import ensurepip, sys, venv; print('%d.%d' % sys.version_info[:2])"
    done = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=False)
    return done.stdout.strip() == version


def torches() -> dict[str, str]:
    """Return pip's requirement for the oldest torch that pyproject.toml admits, and for the newest."""
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    (oldest,) = (found[1] for line in wanted if (found := re.match(r"torch\s*>=\s*([\d.]+)$", line)))
    return {"oldest": f"torch=={oldest}.*", "newest": "torch"}


def install(place: Place, requirement: str) -> None:
    """Install remctl with the tested versions of everything but torch."""
    pins = place.log.with_suffix(".constraints")
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins.write_text("\n".join(line for line in lines if not line.startswith("torch==")))
    pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--constraint", str(pins)]
    place.run(*pip, "--upgrade", requirement)
    place.run(*pip, "--force-reinstall", "--no-deps", str(ROOT))
    place.run(*pip, str(ROOT), "pytest", "hypothesis")


def import_silently(place: Place) -> None:
    """Import what training imports; a warning is an error."""
    place.run("-W", "error", "-c", "import remctl.runner, remctl.report.write")


def resume(place: Place) -> None:
    """Train, interrupt by SIGTERM after the first epoch, resume to the end."""
    command = [str(place.python), "-m", "remctl", *TRAIN]
    with place.log.open("ab") as log:
        process = subprocess.Popen(command, cwd=place.work, stdout=log, stderr=log)
        until = time.monotonic() + LIMIT_S
        while process.poll() is None and time.monotonic() < until and not _has_an_epoch(place.work / RUN):
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        if process.wait(timeout=60) != 128 + signal.SIGTERM:
            raise RuntimeError(f"the first start ended with {process.returncode}, not by the signal")
    place.run("-m", "remctl", *TRAIN)
    if not (place.work / RUN / "result.json").is_file():
        raise RuntimeError("the second start left no result")


def _has_an_epoch(run: Path) -> bool:
    metrics = run / "metrics.jsonl"
    return metrics.is_file() and b"\n" in metrics.read_bytes()


STEPS: dict[str, Callable[[Place], None]] = {
    "import": import_silently,
    "doctor": lambda place: place.run("-m", "remctl", "doctor"),
    "train": resume,
    "report": lambda place: place.run("-m", "remctl", "report", "runs/quick", "--reps", "100"),
    "tests": lambda place: place.run(
        *("-m", "pytest", "-q", "-m", "not slow and not network", "tests/rem", "tests/train/test_captured.py"), cwd=ROOT
    ),
}


def check(python: Path, requirement: str, folder: Path) -> tuple[str, dict[str, str]]:
    """Return the version of torch that was installed, and for each step its seconds or why it failed."""
    work = folder / "work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    place, results = Place(folder / "venv/bin/python", work, folder / "log"), {}
    subprocess.run([str(python), "-m", "venv", str(folder / "venv")], check=True)
    results["install"] = _outcome(lambda: install(place, requirement))
    if results["install"].startswith("FAILED"):
        return "none", results
    code = "import importlib.metadata as m; print(m.version('torch'))"
    version = subprocess.run([str(place.python), "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    return version, results | {name: _outcome(lambda step=step: step(place)) for name, step in STEPS.items()}


def _outcome(step: Callable[[], None]) -> str:
    start = time.monotonic()
    try:
        step()
    except (subprocess.SubprocessError, OSError, RuntimeError) as error:
        return f"FAILED ({type(error).__name__})"
    return f"{time.monotonic() - start:.0f} s"


@contextmanager
def folder_of(given: Path | None) -> Iterator[Path]:
    """Give the chosen folder, or one that goes when all is done."""
    if given:
        yield given.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="remctl-matrix-") as made:
        yield Path(made)


def main(args: Sequence[str]) -> int:
    """Check every combination; return 0 if all steps of all of them succeeded."""
    parser = argparse.ArgumentParser(prog="make test-matrix", description=__doc__.partition("\n")[0])
    parser.add_argument("--python", action="append", metavar="3.12", help="only this one; repeatable")
    parser.add_argument("--torch", action="append", choices=torches(), help="only this one; repeatable")
    parser.add_argument("--folder", type=Path, help="where the environments go; else a temporary folder")
    parser.add_argument("--keep", action="store_true", help="keep the environments in --folder")
    given = parser.parse_args(args)
    known = pythons()
    print(f"Python here: {', '.join(f'{version} ({path})' for version, path in known.items())}", flush=True)
    missing, failed = [version for version in given.python or () if version not in known], False
    if missing or not known:
        print(f"no Python {' or '.join(missing or ['3.11 or newer'])} with venv on this machine")
        return 2
    print("  ".join(f"{title:10}" for title in ("python", "torch", "install", *STEPS)))
    with folder_of(given.folder) as folder:
        for version, which in product(given.python or known, given.torch or torches()):
            here = folder / f"py{version}-torch-{which}"
            installed, results = check(known[version], torches()[which], here)
            print("  ".join(f"{cell:10}" for cell in (version, installed, *results.values())), flush=True)
            if any(cell.startswith("FAILED") for cell in results.values()):
                failed = True
                print((here / "log").read_text(errors="replace")[-2000:])
            if not given.keep:
                shutil.rmtree(here / "venv")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
