"""Paths as users give them: on the command line, in files and in environment variables."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from remctl.errors import UserError


def user_path(given: str | Path) -> Path:
    """Return the path with a leading `~` or `~name` as the home folder it means: shells leave `--out=~/x` as it is.

    Raises UserError for a user without a home folder.
    """
    expanded = os.path.expanduser(given)
    if expanded.startswith("~"):
        who = expanded.split("/")[0]
        raise UserError(
            f"{given}: no home folder for {who}; write the whole path, or ./{given} for a folder of that name"
        )
    return Path(expanded)


def from_here(path: Path) -> Path:
    """Return an absolute path relative to the working folder if it lies there, else as it is."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def refuse_nowhere(path: Path) -> None:
    """Raise UserError, with what has a similar name there, if nothing is at `path`: a typo, no fault of the machine."""
    if os.path.lexists(path):
        return
    folder = next((parent for parent in path.parents if parent.is_dir()), Path())
    wanted = path.relative_to(folder).parts[0]
    try:
        near = difflib.get_close_matches(wanted, os.listdir(folder), n=1)
    except OSError:
        near = []
    hint = f"did you mean {folder / near[0]}?" if near else f"{folder.absolute()} has no {wanted!r}; check the path"
    raise UserError(f"{path}: no such file or folder; {hint}")


def refuse_no_folder(folder: Path) -> None:
    """Raise UserError if `folder` is none and cannot become one: it or a folder above it is something else."""
    taken = next((path for path in (folder, *folder.parents) if os.path.lexists(path)), None)
    if taken is not None and not os.path.isdir(taken):
        what = "a link to nowhere" if os.path.islink(taken) and not os.path.exists(taken) else "no folder"
        inside = "" if taken == folder else ", so there can be none in it"
        raise UserError(f"{folder}: {taken} is {what}{inside}: choose another folder")
