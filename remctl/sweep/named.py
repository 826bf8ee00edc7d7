"""Find what a user means by NAME, in the same way for every verb: an experiment's name, a run's path or a folder.

NAME is searched for in the folder of runs (`--out`), then in the working folder. If it begins with `.` or `/` it is a path.
`pop`, `runs/pop`, `pop/no_pop`, `runs/pop/no_pop/Pong/seed_0` and files in these folders are all understood.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from remctl.config.resolve import suggestion
from remctl.errors import MachineError, UserError
from remctl.paths import from_here, user_path
from remctl.runs.layout import RunFolder, find_runs
from remctl.sweep.records import EXPERIMENT

LEVELS = ("variant", "game", "seed_n")  # folders of an experiment, down to a run's


@dataclass(frozen=True)
class Place:
    """`out`: the folder of runs. `name`: the experiment; '' for all in `out`. `part`: which of its runs; '' for all."""

    out: Path
    name: str
    part: str = ""

    @property
    def folder(self) -> Path:
        """Return its path."""
        return self.out / self.name / self.part

    @property
    def one(self) -> str:
        """Return the experiment's name. Raises UserError if there are several."""
        if not self.name:
            is_usual = self.out == Path("runs").absolute()
            paths = [name if is_usual else str(from_here(self.out / name)) for name in experiment_names(self.out)]
            raise UserError(f"{self.out} is a folder of experiments: name one of them ({', '.join(paths) or 'none'})")
        return self.name


def place(given: str, out: Path) -> Place:
    """Return the experiment, or part of one, that `given` means. Raises UserError with the nearest names if there is none."""
    paths = [Path(os.path.normpath(path.absolute())) for path in _candidates(given, out)]
    found = next(filter(None, (_recorded(path) for path in paths)), None)
    found = found or next(filter(None, (_by_hand(path) for path in paths)), None)
    if found is None:
        raise UserError(f"no experiment {given!r} in {out}, and no such run or folder: {_advice(given, out)}")
    return found


def folder(given: str, out: Path) -> Path:
    """Return the folder that `given` means, as it was written; of what lies in a run, or a record, the run or experiment.

    Raises UserError with the nearest names if there is none.
    """
    found = next((path for path in _candidates(given, out) if path.exists()), None)
    if found is None:
        raise UserError(
            f"{user_path(given)}: no such folder, and no experiment of that name in {out}: {_advice(given, out)}"
        )
    if found.is_file() and (found.parent / EXPERIMENT).is_file():
        return found.parent
    if found.is_file() or not find_runs(found):
        return next((path for path in (found, *found.absolute().parents) if _is_run(path)), found)
    return found


def _is_run(path: Path) -> bool:
    return RunFolder(path).config.is_file()


def experiment_names(out: Path) -> list[str]:
    """Return the experiments in `out`, or the paths of those deeper inside.

    They were launched from a spec, or are folders of runs that were started by hand. A single run that was moved from where
    `remctl train` puts it is one by itself.
    """
    folders = sorted(path for path in out.iterdir() if path.is_dir()) if out.is_dir() else []
    found = [path for path in folders if (path / EXPERIMENT).is_file() or _holds_runs(path)]
    found += [run for path in folders if path not in found for run in _deeper(path)]
    return [str(path.relative_to(out)) for path in sorted(found)]


def _holds_runs(experiment: Path) -> bool:
    return not experiment.name.startswith(".") and next(experiment.glob("*/*/seed_*/config.yaml"), None) is not None


def _deeper(path: Path) -> Iterator[Path]:
    """Yield the experiments at or below a folder that is none of them by its form."""
    if path.is_symlink() or path.name.startswith("."):
        return
    with suppress(MachineError):  # a folder without permission to read
        yield from dict.fromkeys(_experiment_of(run.path, path) for run in find_runs(path))


def _experiment_of(run: Path, top: Path) -> Path:
    """The experiment's folder of a run below `top`; the run's own if it was moved there."""
    around = [path for path in run.parents if path == top or top in path.parents]
    recorded = next((path for path in around if (path / EXPERIMENT).is_file()), None)
    return recorded or (around[2] if run.name.startswith("seed_") and len(around) > 2 else run)


def _candidates(given: str, out: Path) -> list[Path]:
    if not given:
        return []
    path = user_path(given)
    return [path] if path.is_absolute() or given.startswith(".") else [out / path, path]


def _recorded(path: Path) -> Place | None:
    """Return a place in an experiment launched from a spec, even before a run's folder exists, or a folder of experiments."""
    for experiment in (path, *path.parents):
        if not path.exists() and Path.cwd().is_relative_to(experiment):
            break  # being inside an experiment does not turn an unknown name into a part of it
        if (experiment / EXPERIMENT).is_file():
            return _within(experiment, path)
    return Place(path, "") if next(path.glob(f"*/{EXPERIMENT}"), None) else None


def _by_hand(path: Path) -> Place | None:
    """Return runs that `remctl train` made, where it puts them or moved elsewhere."""
    if not path.exists():
        return None
    around = (RunFolder(p) for p in (path, *path.parents) if _is_run(p))
    run = next(around, None) or next(iter(find_runs(path)), None)
    if run is None:
        return None
    moved = not run.path.name.startswith("seed_") or len(run.path.parents) < 4
    experiment = run.path if moved else run.path.parents[2]
    if path.is_relative_to(experiment):
        return _within(experiment, path)
    are_moved = all(_is_run(path / name) for name in experiment_names(path))
    return Place(path.parent, path.name) if are_moved else Place(path, "")


def _within(experiment: Path, path: Path) -> Place:
    """Return the part of an experiment that a path below it means. The path may lie inside a run's folder, or be a file."""
    parts = path.relative_to(experiment).parts[: len(LEVELS)]
    if path.is_file() and len(path.relative_to(experiment).parts) <= len(LEVELS):
        parts = parts[:-1]
    return Place(experiment.parent, experiment.name, "/".join(parts))


def _advice(given: str, out: Path) -> str:
    names = experiment_names(out)
    near = suggestion(Path(given).parts[0] if Path(given).parts else given, names)
    if near.startswith("did you mean"):
        return near
    return f"known: {', '.join(names)}" if names else "there is none yet; start one with `remctl ablate smoke`"
