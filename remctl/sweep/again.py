"""`--same-code`: room for runs that other code has made, so that they are run again. Nothing is deleted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from remctl.errors import UserError
from remctl.runs.files import make_folder, named_errors
from remctl.runs.layout import RunFolder
from remctl.sweep.observe import RunState
from remctl.sweep.plan import Action
from remctl.sweep.records import Submission, add_request, default_path

ASIDE = ".other-code"


def make_room(out: Path, name: str, actions: Iterable[Action], known: Sequence[Submission]) -> list[Action]:
    """Return the actions, those with `again` as new runs of the experiment `name`.

    A run of this experiment moves to <experiment>/.other-code/; one of another experiment stays, and the new one is
    begun in this experiment. Raises UserError if that place is taken, MachineError if the disk refuses.
    """
    return [_fresh(out, name, a, known) if a.again else a for a in actions]


def _fresh(out: Path, name: str, action: Action, known: Sequence[Submission]) -> Action:
    old, place = action.state.folder, default_path(out, name, action.run)
    if old.is_relative_to(out / name):
        place = old
        _set_aside(old, out / name)
    elif RunFolder(place).config.exists():
        raise UserError(f"{place} belongs to another configuration: move it away, or choose another --out")
    # What became of earlier jobs says nothing about the new run.
    add_request(RunFolder(place), "retry", [s.id for s in known])
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
