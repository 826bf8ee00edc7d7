"""`--same-code`: room for runs that other code has made, so that they are run again. Nothing is deleted."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from remctl.errors import MachineError, UserError
from remctl.runs.files import make_folder, named_errors
from remctl.runs.layout import RunFolder
from remctl.runs.places import AGAIN, is_again, is_nameless, why_nameless
from remctl.sweep.observe import RunState
from remctl.sweep.plan import Action
from remctl.sweep.records import Submission, add_request, default_path

ASIDE = ".other-code"


def make_room(
    out: Path, name: str, starting: Sequence[Action], settled: Iterable[Action], known: Sequence[Submission]
) -> list[Action]:
    """Return the actions that are `starting`, those with `again` as new runs of the experiment `name`.

    A run of this experiment moves to <experiment>/.other-code/; one of another experiment stays, and the new one is
    begun in this experiment. Where a `settled` run lies elsewhere, what yet other code began again here moves too.
    Nothing moves before every place was looked at. Raises UserError if one is taken, MachineError if the disk refuses.
    """
    superseded = [own for a in settled if (own := _superseded(out, name, a))]
    for own in superseded:
        _check_movable(own, out / name)
    places = [_place(out / name, default_path(out, name, a.run), a.state.folder) if a.again else None for a in starting]
    for own in superseded:
        _set_aside(own, out / name)
    return [_fresh(out / name, a, place, known) if place else a for a, place in zip(starting, places, strict=True)]


def _place(experiment: Path, default: Path, old: Path) -> Path:
    """Where the new run will be, if that can be: raises UserError or MachineError and changes nothing."""
    if old.is_relative_to(experiment):
        _check_movable(old, experiment)
        return old
    _check_writable(next(folder for folder in (default, *default.parents) if folder.exists()))
    if is_nameless(RunFolder(default)):
        raise UserError(why_nameless(RunFolder(default)))
    if RunFolder(default).config.exists():
        raise UserError(f"{default} belongs to another configuration: move it away, or choose another --out")
    return default


def _superseded(out: Path, name: str, action: Action) -> Path | None:
    """A run that was begun again in this experiment by yet other code, where that of this code lies elsewhere."""
    own = default_path(out, name, action.run)
    return own if own != action.state.folder and is_again(RunFolder(own)) and RunFolder(own).is_done else None


def _check_movable(run: Path, experiment: Path) -> None:
    for folder in (run, run.parent, experiment):  # out of one folder into another
        _check_writable(folder)


def _check_writable(folder: Path) -> None:
    if not os.access(folder, os.W_OK):
        raise MachineError(f"{folder} may not be written: ask its owner, or choose another --out")


def _fresh(experiment: Path, action: Action, place: Path, known: Sequence[Submission]) -> Action:
    if place == action.state.folder:
        _set_aside(place, experiment)
    # What became of earlier jobs says nothing about the new run.
    add_request(RunFolder(place), "retry", [s.id for s in known])
    add_request(RunFolder(place), AGAIN, [s.id for s in known])
    return replace(action, state=RunState("absent", place))


def _set_aside(run: Path, experiment: Path) -> None:
    """Move a run's folder to where no report and no launcher looks for runs."""
    aside = experiment / ASIDE / run.relative_to(experiment)
    number = 1
    while (target := aside.with_name(f"{aside.name}.{number}")).exists():
        number += 1
    make_folder(target.parent)
    with named_errors("moving", run):
        run.rename(target)
