"""A group of configurations, measured side by side: checked, counted, then timed in turns."""

from __future__ import annotations

import gc
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from remctl.bench.checks import check_agent
from remctl.bench.cost import CostModel, floor_s, total
from remctl.bench.counting import ROLLOUTS, count
from remctl.bench.machine import Machine
from remctl.bench.result import Case, Check, Counts, Exponent, Predicted, Prediction
from remctl.bench.spread import ratio, spread
from remctl.bench.suites import Group, Subject
from remctl.bench.timing import Work, interleaved, peak_memory_mb, repeats_for, seconds_of
from remctl.bench.whole_run import ASSUMPTION, Surroundings, num_actions, per_epoch, predict
from remctl.config import RunConfig, config_hash
from remctl.rem.perceptual import LPIPS, PerceptualLoss
from remctl.train.build import Agent, build_agent
from remctl.train.workload import PHASES, Workload
from remctl.weights import lpips_shapes

Key = tuple[str, str]  # name of the subject, phase


@dataclass
class Measured:
    """What a benchmark has found so far."""

    cases: list[Case] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    predictions: list[Prediction] = field(default_factory=list)
    checked: set[str] = field(default_factory=set)


@dataclass
class Facts:
    """What one run of a piece of work showed before it was timed."""

    repeats: int
    memory_mb: float | None
    counts: Counts | None


def measure_group(
    group: Group, machine: Machine, rounds: int, found: Measured, log: Callable[[str], None], check: Callable[[], None]
) -> None:
    """Adds the group's cases to `found`. `check` is called between measurements, and may raise to leave."""
    loads = {s.name: make_workload(s.config, machine.device) for s in group.subjects}
    for subject in group.subjects:
        check_once(subject.name, loads[subject.name].agent, found)
    works: dict[Key, Work] = {(s.name, p): loads[s.name].step(p) for s in group.subjects for p in s.phases}
    around = Surroundings(loads[group.subjects[0].name].agent) if group.suite == "phases" else None
    if around:
        works |= {(group.subjects[0].name, phase): work for phase, work in around.works().items()}
    facts: dict[Key, Facts] = {}
    for key, work in works.items():
        check()
        load = loads[key[0]] if key[1] in PHASES else None
        facts[key] = _look(work, load, key[1], machine.device)
    where = f" at {group.axis} {group.value}" if group.axis else ""
    log(f"{group.suite}{where}: {len(works)} cases, {rounds} rounds in turns")
    named = {"/".join(key): work for key, work in works.items()} | {"calibration": machine.calibrate}
    repeats = {"/".join(key): facts[key].repeats for key in works} | {"calibration": 1}
    times = interleaved(named, repeats, rounds, machine.device, check)
    seconds = {key: times["/".join(key)] for key in works}
    if around:
        around.close()
    for subject in group.subjects:
        for phase in [p for name, p in works if name == subject.name]:
            found.cases.append(_case(group, subject, phase, seconds, facts, machine))
    if around:
        subject = group.subjects[0]
        medians = {phase: statistics.median(values) for (_, phase), values in seconds.items()}
        found.predictions.append(predict(subject.config, medians, f"{subject.name} ({ASSUMPTION})"))
    del loads, works, named
    gc.collect()


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


def _look(work: Work, load: Workload | None, phase: str, device: torch.device) -> Facts:
    memory = peak_memory_mb(work, device)
    warm_s = seconds_of(work, device)
    counts = count(load, phase) if load else None
    return Facts(repeats_for(warm_s), memory, counts)


def _case(
    group: Group,
    subject: Subject,
    phase: str,
    seconds: Mapping[Key, Sequence[float]],
    facts: Mapping[Key, Facts],
    machine: Machine,
) -> Case:
    config, values = subject.config, seconds[subject.name, phase]
    fact, median = facts[subject.name, phase], statistics.median(values)
    base = group.subjects[0].name
    compared = subject.name != base and (base, phase) in seconds
    steps, tokens = _imagined(config, phase)
    epoch = _per_epoch(config, phase)
    flops_per_s = fact.counts.flops / median if fact.counts else None
    return Case(
        suite=group.suite,
        name=subject.name,
        phase=phase,
        batch_size=_batch_size(config, phase),
        precision=config.training.precision,
        config_hash=config_hash(config),
        seconds=tuple(values),
        median=median,
        spread=spread(values),
        runs_per_round=fact.repeats,
        ratio=ratio(values, seconds[base, phase], base) if compared else None,
        axis=group.axis,
        value=group.value,
        steps_per_epoch=_steps_per_epoch(config, phase),
        imagined_steps=steps,
        imagined_tokens=tokens,
        per_epoch_s=None if epoch is None else median * epoch,
        per_imagined_step_s=median / steps if steps else None,
        per_imagined_token_s=median / tokens if tokens else None,
        counts=fact.counts,
        predicted=_predicted(config, phase, machine),
        flops_per_s=flops_per_s,
        share_of_peak=flops_per_s / machine.matmul_flops_per_s[config.training.precision] if flops_per_s else None,
        peak_memory_mb=fact.memory_mb,
    )


def _component(phase: str) -> str:
    return "controller" if phase == "imagination" else phase


def _batch_size(config: RunConfig, phase: str) -> int:
    if phase in ("collect", "encode", "test"):
        return {"collect": 1, "encode": 256, "test": config.evaluation.num_envs}[phase]
    size: int = getattr(config, _component(phase)).training.batch_size
    return size


def _steps_per_epoch(config: RunConfig, phase: str) -> int | None:
    section = getattr(config, _component(phase), None)
    return section.training.steps_per_epoch if section else None


def _per_epoch(config: RunConfig, phase: str) -> float | None:
    steps = _steps_per_epoch(config, phase)
    return per_epoch(config).get(phase) if steps is None else float(steps)


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
    parts = model.imagination(batch) if phase in ROLLOUTS else model.training(batch)
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
