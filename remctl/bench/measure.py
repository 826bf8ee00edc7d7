"""A group of configurations, measured side by side: checked, counted, then timed in turns."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field

import torch

from remctl.bench.checks import check_agent
from remctl.bench.cost import CostModel, floor_s, total
from remctl.bench.counting import ROLLOUTS, count
from remctl.bench.machine import Machine
from remctl.bench.result import Case, Check, Counts, Exponent, Predicted, Prediction
from remctl.bench.spread import ratio, spread
from remctl.bench.suites import Group, Subject
from remctl.bench.timing import Work, interleaved, peak_memory_mb, repeats_for
from remctl.bench.whole_run import ASSUMPTION, Surroundings, num_actions, predict, test_envs
from remctl.config import RunConfig, config_hash
from remctl.rem.perceptual import LPIPS, PerceptualLoss
from remctl.replay.buffer import ENCODE_BATCH
from remctl.train.build import Agent, build_agent
from remctl.train.phases import PART_SIZES
from remctl.train.workload import PHASES, Workload
from remctl.weights import lpips_shapes

Key = tuple[str, str]  # name of the subject, phase
CALIBRATION: Key = ("", "calibration")


@dataclass
class Measured:
    """What a benchmark has found so far."""

    cases: list[Case] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    predictions: list[Prediction] = field(default_factory=list)
    checked: set[str] = field(default_factory=set)


def measure_group(
    group: Group, machine: Machine, rounds: int, found: Measured, log: Callable[[str], None], check: Callable[[], None]
) -> None:
    """Adds the group's cases to `found`. `check` is called between measurements, and may raise to leave."""
    loads = {s.name: make_workload(s.config, machine.device) for s in group.subjects}
    for subject in group.subjects:
        check()
        check_once(subject.name, loads[subject.name].agent, found)
    works: dict[Key, Work] = {(s.name, p): loads[s.name].step(p) for s in group.subjects for p in s.phases}
    with ExitStack() as stack:
        if group.suite == "phases":
            around = stack.enter_context(closing(Surroundings(loads[group.subjects[0].name].agent)))
            works |= {(group.subjects[0].name, phase): work for phase, work in around.works().items()}
        where = f" at {group.axis} {group.value}" if group.axis else ""
        log(f"{group.suite}{where}: {len(works)} cases, {rounds} rounds in turns")
        timed = _time(works, machine, rounds, check)
    for subject in group.subjects:
        for phase in [p for name, p in works if name == subject.name]:
            check()
            counts = count(loads[subject.name], phase) if phase in PHASES else None
            found.cases.append(_case(group, subject, phase, timed, counts, machine))
    if group.suite == "phases":
        medians = {phase: statistics.median(one.seconds) for (_, phase), one in timed.items()}
        subject = group.subjects[0]
        found.predictions.append(predict(subject.config, medians, f"{subject.name} ({ASSUMPTION})"))


@dataclass(frozen=True)
class Timed:
    """Seconds of each round, how often the work was repeated within one, and the memory it takes, in 10^6 bytes."""

    seconds: list[float]
    repeats: int
    memory_mb: float | None


def _time(works: Mapping[Key, Work], machine: Machine, rounds: int, check: Callable[[], None]) -> dict[Key, Timed]:
    """Each work runs alone, twice (tables are built; memory), then a round that does not count, then the rounds."""
    memory, repeats = {}, {}
    for key, work in works.items():
        check()
        work()
        begin = time.perf_counter()
        memory[key] = peak_memory_mb(work, machine.device)
        repeats[key] = repeats_for(time.perf_counter() - begin)
    everything: dict[Key, Work] = {**works, CALIBRATION: machine.calibrate}
    interleaved(works, repeats, 1, machine.device, check)
    seconds = interleaved(everything, repeats | {CALIBRATION: 1}, rounds, machine.device, check)
    return {key: Timed(seconds[key], repeats[key], memory[key]) for key in works}


def make_workload(config: RunConfig, device: torch.device) -> Workload:
    """An untrained agent of `config`, for its environment, with its work. LPIPS has random weights: no time depends on them."""
    lpips = None
    if config.tokenizer.perceptual == "lpips":
        tensors = {name: torch.randn(shape) * 0.05 for name, shape in lpips_shapes().items()}
        lpips = LPIPS(tensors, head_dropout=config.tokenizer.lpips_head_dropout).to(device)
    return Workload(
        build_agent(config, num_actions(config), device), PerceptualLoss(config.tokenizer.perceptual, lpips)
    )


def check_once(name: str, agent: Agent, found: Measured) -> bool:
    """The checks of this M, unless one like it was checked already; whether it was new. Raises MachineError."""
    config = agent.config
    what = f"{config.world_model.model_dump_json(exclude={'training'})} {config.tokenizer.grid_size} {config.training}"
    is_new = what not in found.checked
    if is_new:
        found.checked.add(what)
        found.checks += check_agent(name, agent)
    return is_new


def _case(
    group: Group,
    subject: Subject,
    phase: str,
    timed: Mapping[Key, Timed],
    counts: Counts | None,
    machine: Machine,
) -> Case:
    config, mine = subject.config, timed[subject.name, phase]
    median, base = statistics.median(mine.seconds), group.subjects[0].name
    steps, tokens = _imagined(config, phase)
    per_epoch = _steps_per_epoch(config, phase)
    flops_per_s = counts.flops / median if counts else None
    compared = timed.get((base, phase)) if subject.name != base else None
    return Case(
        suite=group.suite,
        name=subject.name,
        phase=phase,
        batch_size=_batch_size(config, phase),
        precision=config.training.precision,
        config_hash=config_hash(config),
        seconds=tuple(mine.seconds),
        median=median,
        spread=spread(mine.seconds),
        runs_per_round=mine.repeats,
        ratio=ratio(mine.seconds, compared.seconds, base) if compared else None,
        axis=group.axis,
        value=group.value,
        steps_per_epoch=per_epoch,
        imagined_steps=steps,
        imagined_tokens=tokens,
        per_epoch_s=None if per_epoch is None else median * per_epoch,
        per_imagined_step_s=median / steps if steps else None,
        per_imagined_token_s=median / tokens if tokens else None,
        counts=counts,
        predicted=_predicted(config, phase, machine),
        flops_per_s=flops_per_s,
        share_of_peak=flops_per_s / machine.matmul_flops_per_s[config.training.precision] if flops_per_s else None,
        peak_memory_mb=mine.memory_mb,
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
    parts = (
        model.imagination(batch) if phase in ROLLOUTS else model.training(batch, PART_SIZES.get(machine.device.type))
    )
    cost = total(parts)
    return Predicted(
        model_calls=cost.calls,
        model_operations=cost.operations,
        model_flops=cost.flops,
        model_bytes=cost.bytes,
        floor_s=floor_s(parts, machine.matmul_flops_per_s[config.training.precision], machine.copy_bytes_per_s),
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
