"""A benchmark from beginning to end. `remctl bench` calls `plan`, then `run` or `check`."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from remctl.bench.bounds import bounds
from remctl.bench.checks import check_counts
from remctl.bench.machine import Machine
from remctl.bench.measure import Measured, check_once, exponents, make_workload, measure_group
from remctl.bench.packing import measure_packing
from remctl.bench.precision import measure_precision
from remctl.bench.result import FORMAT, Check, Result, write
from remctl.bench.suites import ROUNDS, SUITES, USUAL_SUITES, Group, Scale, groups, what_was_left_out, what_was_scaled
from remctl.config import Precision, RunConfig
from remctl.errors import UserError
from remctl.precision import native_precision, settled
from remctl.progress import Reporter
from remctl.runner import describe_device, pick_device, prepare_torch
from remctl.runs import provenance
from remctl.runs.code import this_code
from remctl.runs.files import discard
from remctl.stopping import StopFlag

MEASURES = {"packing": measure_packing, "precision": measure_precision}
REDUCED_BUDGET_S = 220.0  # the whole reduced benchmark takes minutes, whatever the machine


@dataclass(frozen=True)
class Plan:
    """What is measured where; `batch` is for all batch sizes, None as published. `budget_s`: no group begins later."""

    suites: tuple[str, ...]
    scale: Scale
    device: torch.device
    batch: int | None
    rounds: int
    groups: tuple[Group, ...]
    budget_s: float = math.inf

    @property
    def precisions(self) -> set[Precision]:
        """fp32, what the device computes well, and whatever else is asked for."""
        asked = {s.config.runtime.precision for group in self.groups for s in group.subjects}
        return {"fp32", native_precision(self.device)} | {p for p in asked if p != "auto"}


def plan(
    suites: Sequence[str],
    scale: Scale | None,
    device: str,
    batch: int | None,
    rounds: int | None,
    phases_of: Callable[[Scale], RunConfig],
) -> Plan:
    """`suites`: USUAL_SUITES where empty. `scale`: None is full on a GPU, reduced elsewhere. `phases_of(scale)`: what the
    suites `phases`, `packing` and `precision` measure, the last one always as at full scale. Raises UserError for bad input.
    """
    wanted = tuple(s for s in SUITES if s in (suites or USUAL_SUITES))
    where = pick_device(device)
    chosen: Scale = scale or ("full" if where.type == "cuda" else "reduced")
    configs = {suite: phases_of("full" if suite == "precision" else chosen) for suite in wanted}
    if "precision" in wanted and configs["precision"].runtime.precision != "bf16":
        _refuse_emulated(where)
    todo = tuple(_on(where, group) for suite in wanted for group in groups(suite, chosen, batch, configs[suite]))
    budget_s = REDUCED_BUDGET_S if chosen == "reduced" and not suites else math.inf
    return Plan(wanted, chosen, where, batch, rounds or ROUNDS[chosen], todo, budget_s)


def _refuse_emulated(device: torch.device) -> None:
    """Raises UserError where bf16 would only be emulated."""
    if native_precision(device) == "fp32":
        raise UserError(
            "--suite precision: this device only emulates bf16, which takes tens of times as long: "
            "--set runtime.precision=bf16 measures it all the same"
        )


def _on(device: torch.device, group: Group) -> Group:
    """The group with every precision decided."""
    subjects = tuple(replace(subject, config=settled(subject.config, device)) for subject in group.subjects)
    return replace(group, subjects=subjects)


def run(todo: Plan, paths: Sequence[Path], command: Sequence[str]) -> Result:
    """Measure, and write the result to every one of `paths`; until then what is known is kept beside the first of them.

    Raises MachineError where a check fails or the machine refuses, Interrupted on a signal.
    """
    with StopFlag().listening() as stop, Reporter(stop, bars=False) as reporter:
        prepare_torch(todo.groups[0].subjects[0].config)  # the machine's rates are of the same settings
        begin, left_out = time.perf_counter(), list[Group]()
        with reporter.doing("measuring the machine's rates"):
            machine, found = Machine(todo.device, todo.precisions, stop.check), Measured()
        about = provenance.collect(command, describe_device(todo.device))
        partial = paths[0].with_suffix(".partial.json")
        for group in todo.groups:
            if time.perf_counter() - begin > todo.budget_s:
                left_out.append(group)
                continue
            prepare_torch(group.subjects[0].config)
            try:
                measure = MEASURES.get(group.suite, measure_group)
                with reporter.doing(group.title):
                    measure(group, machine, todo.rounds, found, reporter.log, stop.check)
            finally:  # on a signal too: what was measured counts
                result = _result(todo, machine, found, about)
                known = found.cases or found.precision
                if known:
                    write(partial, result)
                if stop.signum and known:
                    reporter.log(f"{partial} holds what was measured until now")
    result = result.model_copy(update={"complete": True, "scaled": (*result.scaled, *what_was_left_out(left_out))})
    for path in paths:
        write(path, result)
    discard(partial)
    return result


def check(todo: Plan) -> list[Check]:
    """Outputs against the reference and counts against the cost model for all that `run` would measure; nothing is timed.

    Raises MachineError for the first that fails, Interrupted on a signal.
    """
    found, subjects = Measured(), [subject for group in todo.groups for subject in group.subjects]
    with StopFlag().listening() as stop, Reporter(stop, to_stderr=True) as reporter:
        for i in reporter.track(range(len(subjects)), "checks", len(subjects)):
            subject = subjects[i]
            prepare_torch(subject.config)
            workload = make_workload(subject.config, todo.device)
            check_once(subject.name, workload.agent, found)
            found.checks += check_counts(subject.name, workload, stop.check)
    return found.checks


def _result(todo: Plan, machine: Machine, found: Measured, about: dict[str, object]) -> Result:
    device = machine.describe()
    return Result(
        format=FORMAT,
        remctl_version=this_code().version,
        scale=todo.scale,
        scaled=what_was_scaled(todo.suites, todo.scale, todo.batch),
        suites=todo.suites,
        complete=False,
        provenance=about,
        device=device,
        checks=tuple(found.checks),
        cases=tuple(found.cases),
        bounds=tuple(bounds(device)) if found.cases else (),
        exponents=tuple(exponents(found.cases)),
        predictions=tuple(found.predictions),
        packing=tuple(found.packing),
        precision=tuple(found.precision),
    )
