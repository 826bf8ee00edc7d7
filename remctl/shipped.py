"""Find the files that remctl ships for its users to run and edit: ablation specs, report specs, SLURM profiles.

A wheel has them in `remctl/data/`, a checkout in its top-level folders of the same names, so that each exists once.
A bare name means the file in the working folder (`ablations/pop.yaml`) before the shipped one, as a copy that
`remctl init` made is there to be edited; `remctl:pop` always means the shipped one. Anything with a slash or an
ending is a path.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from remctl.config.resolve import suggestion
from remctl.errors import UserError
from remctl.paths import user_path
from remctl.runs.files import make_folder, named_errors, write_atomic

Kind = Literal["ablations", "reports", "slurm"]

KINDS: tuple[Kind, ...] = ("ablations", "reports", "slurm")
NAMES = {"ablations": "ablation spec", "reports": "report spec", "slurm": "SLURM profile"}
PREFIX = "remctl:"
PACKAGE = Path(__file__).resolve().parent


def folder(kind: Kind) -> Path:
    """Return the folder of the shipped files of a kind: the wheel's, else the checkout's."""
    inside = PACKAGE / "data" / kind
    return inside if inside.is_dir() else PACKAGE.parent / kind


def shipped(kind: Kind) -> dict[str, Path]:
    """Return the shipped files of a kind by name."""
    return _by_name(folder(kind))


def available(kind: Kind) -> dict[str, Path]:
    """Return by name every file that a bare name finds from the working folder."""
    found = shipped(kind) | _by_name(Path(kind))
    return {name: found[name] for name in sorted(found)}


def _by_name(where: Path) -> dict[str, Path]:
    return {path.stem: path for path in sorted(where.glob("*.yaml"))}


def find(kind: Kind, given: str) -> Path:
    """Return the file that a name or a path means. Raises UserError with the nearest names if there is none."""
    if given.startswith(PREFIX):
        found = shipped(kind).get(given.removeprefix(PREFIX))
    elif _is_path(given):
        path = user_path(given)
        found = path if path.exists() else None
    else:
        found = Path(given) if Path(given).is_file() else available(kind).get(given)
    if found is None and user_path(given).is_dir() or found is not None and found.is_dir():
        raise UserError(f"{given} is a folder, no {NAMES[kind]}: {_advice(kind, given)}")
    if found is None:
        missing = "" if given.startswith(PREFIX) or not _is_path(given) else " (there is no such file)"
        raise UserError(f"no {NAMES[kind]} {given!r}{missing}: {_advice(kind, given)}")
    return found


def _is_path(given: str) -> bool:
    return "/" in given or given.endswith((".yaml", ".yml"))


def _advice(kind: Kind, given: str) -> str:
    name, known = Path(given.removeprefix(PREFIX)).stem, available(kind)
    if name in known:
        return f"did you mean {name}, which needs no path?"
    near = suggestion(name, list(known))
    return near if near.startswith("did you mean") else f"known: {', '.join(known)}"


def reference(kind: Kind, path: Path) -> str:
    """Return how to record a file so that `find` finds it again: a shipped one by name, as installations move."""
    where = path.resolve()
    return f"{PREFIX}{where.stem}" if shipped(kind).get(where.stem) == where else str(where)


def copy_into(target: Path, *, overwrite: bool = False) -> tuple[list[Path], list[Path]]:
    """Copy all shipped files into the folders `ablations`, `reports` and `slurm` of `target`.

    Returns the files that were written and those that were kept because they are not as shipped. Equal files are
    neither. Raises MachineError.
    """
    written, kept = [], []
    for kind in KINDS:
        for source in sorted(path for path in folder(kind).iterdir() if path.is_file()):
            copy = target / kind / source.name
            with named_errors("reading", copy):
                old = copy.read_bytes() if copy.exists() else None
            if old is None or (overwrite and old != source.read_bytes()):
                make_folder(copy.parent)
                write_atomic(copy, source.read_bytes())
                written.append(copy)
            elif old != source.read_bytes():
                kept.append(copy)
    return written, kept
