"""A benchmark from beginning to end. `remctl bench` calls `run`; `bench.json` is written after every group."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from remctl import __version__
from remctl.bench.bounds import bounds
from remctl.bench.checks import check_counts
from remctl.bench.machine import Machine
from remctl.bench.measure import Measured, check_once, exponents, make_workload, measure_group
from remctl.bench.result import FORMAT, Result, write
from remctl.bench.suites import ROUNDS, SUITES, Group, Scale, groups, what_was_scaled
from remctl.config import RunConfig
from remctl.progress import Reporter, StopFlag
from remctl.runner import describe_device, pick_device, prepare_torch
from remctl.runs import provenance
from remctl.runs.files import make_folder


def run(
    suites: Sequence[str],
    scale: Scale | None,
    device: str,
    batch: int | None,
    rounds: int | None,
    phases_of: Callable[[Scale], RunConfig],
    paths: Sequence[Path],
    command: Sequence[str],
    check_only: bool = False,
) -> Result:
    """Measure `suites` (all of SUITES where empty) and write the result to every one of `paths`.

    `scale`: None is full on a GPU, reduced elsewhere. `phases_of(scale)`: what the suite `phases` measures. `check_only`:
    outputs against the reference, nothing timed. Raises UserError for bad input, MachineError where a check fails or the
    machine refuses, Interrupted on a signal; groups measured until then stand in the files.
    """
    wanted = tuple(s for s in SUITES if s in suites or not suites)
    where = pick_device(device)
    chosen: Scale = scale or ("full" if where.type == "cuda" else "reduced")
    config = phases_of(chosen)
    prepare_torch(config)
    todo = [group for suite in wanted for group in groups(suite, chosen, batch, config)]
    with StopFlag().listening() as stop, Reporter(stop) as reporter:
        for path in paths:
            make_folder(path.parent)
        machine, found = Machine(where), Measured()

        def result(complete: bool) -> Result:
            about = provenance.collect(command, describe_device(where))
            return _result(wanted, chosen, batch, machine, found, about, complete)

        if check_only:
            _check(todo, found, where, reporter)
            return result(complete=True)
        for number, group in enumerate(todo, start=1):
            measure_group(group, machine, rounds or ROUNDS[chosen], found, reporter.log, stop.check)
            _write(paths, result(complete=number == len(todo)))
        return result(complete=True)


def _check(todo: Sequence[Group], found: Measured, device: torch.device, reporter: Reporter) -> None:
    for subject in (subject for group in todo for subject in group.subjects):
        reporter.stop.check()
        workload = make_workload(subject.config, device)
        if check_once(subject.name, workload.agent, found):
            found.checks += check_counts(subject.name, workload)


def _write(paths: Sequence[Path], result: Result) -> None:
    for path in paths:
        write(path, result)


def _result(
    suites: tuple[str, ...],
    scale: Scale,
    batch: int | None,
    machine: Machine,
    found: Measured,
    about: dict[str, object],
    complete: bool,
) -> Result:
    device = machine.describe()
    return Result(
        format=FORMAT,
        remctl_version=__version__,
        scale=scale,
        scaled=what_was_scaled(suites, scale, batch),
        suites=suites,
        complete=complete,
        provenance=about,
        device=device,
        checks=tuple(found.checks),
        cases=tuple(found.cases),
        bounds=tuple(bounds(device)),
        exponents=tuple(exponents(found.cases)),
        predictions=tuple(found.predictions),
    )
