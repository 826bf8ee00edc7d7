"""What starting runs on this machine costs, and the question before what takes long."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import typer

from remctl.errors import UserError
from remctl.runs.code import this_code
from remctl.sweep.device import Device, this_device
from remctl.sweep.hours import Hours, estimate, evidence
from remctl.sweep.launch import Options, Survey, survey
from remctl.sweep.observe import RunState
from remctl.sweep.plan import Action, Rules, plan
from remctl.sweep.records import ref_of
from remctl.sweep.spec import read_spec
from remctl.sweep.status import packing
from remctl.sweep.wanted import Spec

LONG_H = 1.0
SMALL = "quick"  # the preset with small networks
HOURS = ((24 * 365 * 2, 24 * 365, "years"), (48, 24, "days"), (1, 1, "hours"), (0, 1 / 60, "minutes"))


def aside(text: str) -> None:
    """What the user should know beside the output proper."""
    print(text, file=sys.stderr, flush=True)


def hours_of(look: Survey, actions: Sequence[Action], device: Device) -> Hours:
    """What the runs of a plan have used and need, those that are run again as new ones."""
    refs = [ref_of(look.out, a.run, look.places[a.run.config_hash]) for a in actions]
    states = [RunState("absent", a.state.folder) if a.again else a.state for a in actions]
    configs = {run.config_hash: run.config for run in look.wanted}
    finished = cache(lambda: evidence(look.out, device))
    runs = list(zip(refs, states, strict=True))
    return estimate(runs, packing(look.known), lambda ref: configs.get(ref.config_hash), device, finished)


def planned(
    out: Path, spec: Spec, options: Options, say: Callable[[str], None] | None = None
) -> tuple[Survey, list[Action]]:
    """Return what is known and what would be done; nothing is written. Raises MachineError."""
    look = survey(out.absolute(), spec, same_code=options.same_code, say=say)
    rules = Rules(code=this_code(), same_code=options.same_code, experiment=spec.name)
    return look, plan(look.wanted, look.states, rules)


def confirm(out: Path, spec: Spec, options: Options, yes: bool) -> None:
    """Say how long the runs that would start take on this machine, and ask if that is long; nothing is touched before.

    Raises UserError if they take long and nobody can be asked.
    """
    look, actions = planned(out, spec, options)
    starting, device = [action for action in actions if action.starts], this_device()
    hours = hours_of(look, starting, device)
    if not starting or hours.left is None:
        return
    takes = f"{spec.name}: {_count(len(starting))} on {device.words}: about {words(hours.left / device.count)}"
    if hours.left / device.count <= LONG_H or yes:
        aside(f"{takes} ({hours.basis})")
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UserError(f"{takes}: add --yes to start them, or --preset {SMALL}{_small(out, spec, options, device)}")
    aside(f"{takes} ({hours.basis})")
    if spec.preset != SMALL:
        aside(f"shorter: --preset {SMALL}{_small(out, spec, options, device)}")
    aside("A run keeps the precision and the number of threads of its first start.")
    try:
        is_wanted = typer.confirm("Start?", err=True)
    except typer.Abort:  # Ctrl-D or Ctrl-C, which leave the line open
        aside("")
        is_wanted = False
    if not is_wanted:
        aside("nothing was started")
        raise typer.Exit(1)


def _small(out: Path, spec: Spec, options: Options, device: Device) -> str:
    """How long the same takes with small networks; empty if the spec does not go with them."""
    try:
        small = read_spec(spec.path, spec.sets, None, SMALL)
        look, actions = planned(out, small, options)
        left = hours_of(look, actions, device).left
    except UserError:
        return ", small networks"
    return f", small networks: about {words(left / device.count)}" if left else ", small networks"


def words(hours: float) -> str:
    """A duration in its natural unit, to two digits: `3.4 hours`, `9.2 years`."""
    _, unit, name = next(row for row in HOURS if hours >= row[0])
    amount = hours / unit
    return f"{amount:,.0f} {name}" if amount >= 10 else f"{amount:.1f} {name}"


def _count(number: int) -> str:
    return "1 run" if number == 1 else f"{number} runs"
