"""A group of configurations, measured side by side: checked, counted, then timed in turns."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field

import torch

from remctl.bench.checks import check_agent
from remctl.bench.cost import CostModel, floor_s, total
from remctl.bench.counting import ROLLOUTS, count
from remctl.bench.machine import Machine
from remctl.bench.result import Case, Check, Counts, Exponent, Packing, PrecisionEffect, Predicted, Prediction
from remctl.bench.spread import ratio, spread
from remctl.bench.suites import Group, Subject
from remctl.bench.timing import Work, interleaved, peak_memory_mb, repeats_for, seconds_of
from remctl.bench.whole_run import Surroundings, num_actions, predict, runs_per_epoch, test_envs
from remctl.config import RunConfig, config_hash
from remctl.rem.perceptual import LPIPS, PerceptualLoss
from remctl.replay.buffer import ENCODE_BATCH
from remctl.train.build import Agent, build_agent, lpips_options
from remctl.train.learner import part_size
from remctl.train.workload import PHASES, Workload
from remctl.weights import lpips_shapes

Key = tuple[int, str]  # number of the subject in its group, phase
CALIBRATION: Key = (-1, "calibration")


@dataclass
class Measured:
    """What a benchmark has found so far."""

    cases: list[Case] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    predictions: list[Prediction] = field(default_factory=list)
    packing: list[Packing] = field(default_factory=list)
    precision: list[PrecisionEffect] = field(default_factory=list)
    checked: set[str] = field(default_factory=set)


@dataclass
class Timed:
    """What the clock said: seconds of each round by work, how often each is repeated within one, memory in 10^6 bytes."""

    seconds: dict[Key, list[float]] = field(default_factory=dict)
    repeats: dict[Key, int] = field(default_factory=dict)
    memory_mb: dict[Key, float | None] = field(default_factory=dict)
    counts: dict[Key, Counts] = field(default_factory=dict)

    def whole_rounds(self) -> None:
        """Forget a round that was cut off."""
        rounds = min(map(len, self.seconds.values()))
        self.seconds = {key: values[:rounds] for key, values in self.seconds.items()}


def measure_group(
    group: Group, machine: Machine, rounds: int, found: Measured, log: Callable[[str], None], check: Callable[[], None]
) -> None:
    """Adds the group's cases to `found`. `check` is called between measurements, and may raise Interrupted to leave: what
    whole rounds there are then count."""
    loads = [make_workload(s.config, machine.device) for s in group.subjects]
    for subject, load in zip(group.subjects, loads, strict=True):
        check()
        check_once(subject.name, load.agent, found)
    works: dict[Key, Work] = {(i, p): loads[i].step(p) for i, s in enumerate(group.subjects) for p in s.phases}
    timed = Timed()
    with ExitStack() as stack:
        if group.suite == "phases":
            around = stack.enter_context(closing(Surroundings(loads[0].agent)))
            works |= {(0, phase): work for phase, work in around.works().items()}
        log(f"{group.title}: {len(works)} cases, {rounds} rounds in turns")
        try:
            _look_at(works, loads, machine, timed, check)
            if group.suite == "phases":  # from here on as a run takes its steps; whole, they could not be looked into
                works |= {(0, phase): loads[0].fast_step(phase) for phase in group.subjects[0].phases}
            _time(works, machine, rounds, timed, check)
        finally:
            if timed.seconds and all(timed.seconds.values()):
                timed.whole_rounds()
                machine.calibration += timed.seconds[CALIBRATION]
                _record(group, timed, machine, found)


def _look_at(
    works: Mapping[Key, Work],
    loads: Sequence[Workload],
    machine: Machine,
    timed: Timed,
    check: Callable[[], None],
) -> None:
    """Each work runs alone: its tables are built, its memory measured, its operations counted."""
    for key, work in works.items():
        check()
        work()
        timed.memory_mb[key] = peak_memory_mb(work, machine.device)
        if key[1] in PHASES:
            timed.counts[key] = count(loads[key[0]], key[1])


def _time(works: Mapping[Key, Work], machine: Machine, rounds: int, timed: Timed, check: Callable[[], None]) -> None:
    """Each work alone for its length, then a round that does not count, then the rounds."""
    for key, work in works.items():
        check()
        timed.repeats[key] = repeats_for(seconds_of(work, machine.device))
    everything: dict[Key, Work] = {**works, CALIBRATION: machine.calibrate}
    repeats = timed.repeats | {CALIBRATION: 1}
    interleaved(everything, repeats, 1, machine.device, check, {})
    interleaved(everything, repeats, rounds, machine.device, check, timed.seconds)


def _record(group: Group, timed: Timed, machine: Machine, found: Measured) -> None:
    for i, subject in enumerate(group.subjects):
        base = group.subjects.index(group.baseline(subject))
        for phase in [phase for number, phase in timed.memory_mb if number == i]:
            found.cases.append(_case(group, subject, (i, phase), (base, phase), timed, machine))
    if group.suite == "phases":
        medians = {phase: statistics.median(timed.seconds[0, phase]) for _, phase in timed.memory_mb}
        subject = group.subjects[0]
        found.predictions.append(predict(subject.config, medians, subject.name))


def make_workload(config: RunConfig, device: torch.device) -> Workload:
    """An untrained agent of `config`, for its environment, with its work. LPIPS has random weights: no time depends on them.

    The precision of `config` is decided.
    """
    lpips = None
    if config.tokenizer.perceptual == "lpips":
        tensors = {name: torch.randn(shape) * 0.05 for name, shape in lpips_shapes().items()}
        lpips = LPIPS(tensors, **lpips_options(config)).to(device)
    return Workload(
        build_agent(config, num_actions(config), device), PerceptualLoss(config.tokenizer.perceptual, lpips)
    )


def check_once(name: str, agent: Agent, found: Measured) -> None:
    """The checks of this M, unless one like it was checked already. Raises MachineError."""
    config = agent.config
    what = f"{config.world_model.model_dump_json(exclude={'training'})} {config.tokenizer.grid_size} {config.runtime.precision}"
    if what not in found.checked:
        found.checked.add(what)
        found.checks += check_agent(name, agent)


def _case(group: Group, subject: Subject, key: Key, base: Key, timed: Timed, machine: Machine) -> Case:
    config, seconds, phase = subject.config, timed.seconds[key], key[1]
    median, counts = statistics.median(seconds), timed.counts.get(key)
    steps, tokens = _imagined(config, phase)
    per_epoch = _runs_per_epoch(config, phase)
    flops_per_s = counts.flops / median if counts else None
    compared = timed.seconds.get(base) if base != key else None
    return Case(
        suite=group.suite,
        name=subject.name,
        phase=phase,
        batch_size=_batch_size(config, phase),
        precision=config.runtime.precision,
        config_hash=config_hash(config),
        seconds=tuple(seconds),
        calibration=tuple(timed.seconds[CALIBRATION]),
        median=median,
        spread=spread(seconds),
        runs_per_round=timed.repeats[key],
        ratio=ratio(seconds, compared, group.subjects[base[0]].name) if compared else None,
        axis=group.axis,
        value=subject.value,
        steps_per_epoch=_steps_per_epoch(config, phase),
        imagined_steps=steps,
        imagined_tokens=tokens,
        per_epoch_s=median * per_epoch,
        per_imagined_step_s=median / steps if steps else None,
        per_imagined_token_s=median / tokens if tokens else None,
        counts=counts,
        predicted=_predicted(config, phase, machine),
        flops_per_s=flops_per_s,
        share_of_peak=flops_per_s / machine.matmul_flops_per_s[config.runtime.precision] if flops_per_s else None,
        peak_memory_mb=timed.memory_mb[key],
    )


def _component(phase: str) -> str:
    return "controller" if phase == "imagination" else phase


def _batch_size(config: RunConfig, phase: str) -> int:
    if phase in ("collect", "encode", "test"):
        return {"collect": 1, "encode": ENCODE_BATCH, "test": test_envs(config)}[phase]
    size: int = getattr(config, _component(phase)).training.batch_size
    return size


def _steps_per_epoch(config: RunConfig, phase: str) -> int | None:
    section = getattr(config, _component(phase), None)
    return section.training.steps_per_epoch if section else None


def _runs_per_epoch(config: RunConfig, phase: str) -> float:
    steps = _steps_per_epoch(config, phase)
    return runs_per_epoch(config)[phase] if steps is None else float(steps)


def _imagined(config: RunConfig, phase: str) -> tuple[int, int]:
    """Imagined steps and tokens of one run, over its batch: observations that C acts on (REM as published: 9)."""
    if phase not in ROLLOUTS:
        return 0, 0
    steps = config.controller.training.batch_size * config.num_imagined_steps
    return steps, steps * config.tokenizer.tokens_per_obs


def _predicted(config: RunConfig, phase: str, machine: Machine) -> Predicted | None:
    if phase not in ("world_model", *ROLLOUTS):
        return None
    model, batch = CostModel(config), _batch_size(config, phase)
    parts = model.imagination(batch) if phase in ROLLOUTS else model.training(batch, part_size(config, machine.device))
    cost = total(parts)
    return Predicted(
        model_calls=cost.calls,
        model_operations=cost.operations,
        model_flops=cost.flops,
        model_bytes=cost.bytes,
        floor_s=floor_s(parts, machine.matmul_flops_per_s[config.runtime.precision], machine.copy_bytes_per_s),
    )


def exponents(cases: Sequence[Case]) -> list[Exponent]:
    """For each model, phase and axis: the slope of log time over log value, fitted in every round."""
    found = []
    for name, phase, axis in dict.fromkeys((c.name, c.phase, c.axis) for c in cases if c.axis):
        rows = [c for c in cases if (c.name, c.phase, c.axis) == (name, phase, axis)]
        if len(rows) < 2:
            continue
        xs = [math.log(c.value or 1) for c in rows]
        slopes = [_slope(xs, [math.log(s) for s in times]) for times in zip(*(c.seconds for c in rows), strict=True)]
        interval = spread(slopes)
        found.append(
            Exponent(name=name, phase=phase, axis=axis or "", exponent=statistics.median(slopes), spread=interval)
        )
    return found


def _slope(xs: Sequence[float], ys: Sequence[float]) -> float:
    return statistics.linear_regression(xs, ys).slope
