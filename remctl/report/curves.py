"""Learning curves and times from the `metrics.jsonl` and `result.json` of finished runs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from remctl.report.numbers import is_count, is_number
from remctl.report.results import Algorithm, Curve, RunScore, Timing
from remctl.report.runs import read_result
from remctl.runs.files import read_jsonl
from remctl.runs.layout import RunFolder
from remctl.runs.metrics import epoch_of

STEPS = "collect/env_steps"
WALL = "/wall_s"
PHASES = ("collect", "tokenizer", "encode", "world_model", "controller", "test", "epoch", "final_test", "media", "run")
UNKNOWN_HARDWARE = "unknown"


@dataclass
class _Points:
    """Values of one metric, by epoch, over the runs of one game."""

    values: dict[int, list[float]] = field(default_factory=dict)
    steps: dict[int, list[float]] = field(default_factory=dict)

    def add(self, epoch: int, value: float, steps: float) -> None:
        self.values.setdefault(epoch, []).append(value)
        self.steps.setdefault(epoch, []).append(steps)


@dataclass
class _Times:
    """Seconds of one phase on one kind of hardware: per epoch, and per run."""

    epochs: list[float] = field(default_factory=list)
    totals: list[float] = field(default_factory=list)


def read_training(algorithm: Algorithm, metrics: Sequence[str]) -> tuple[list[Curve], list[Timing]]:
    """The given metrics over training, and the times of every phase. Raises MachineError for a damaged file."""
    points: dict[tuple[str, str], _Points] = {}
    times: dict[tuple[str, str], _Times] = {}
    if algorithm.origin != "ours":
        return [], []
    for run in algorithm.runs:
        folder = RunFolder(Path(run.path))
        hardware = run.hardware or UNKNOWN_HARDWARE
        steps, steps_by = math.nan, dict[Any, float]()
        for entry in read_jsonl(folder.metrics):
            steps = _number(entry.get(STEPS)) or steps
            if is_count(entry.get("epoch")):
                steps_by[entry["epoch"]] = steps
            _add_points(points, run, entry, metrics, steps_by)
            for phase, seconds in _epoch_times(entry):
                times.setdefault((hardware, phase), _Times()).epochs.append(seconds)
        for phase, seconds in _totals(folder):
            times.setdefault((hardware, phase), _Times()).totals.append(seconds)
    return _curves(algorithm, points, metrics), _timings(algorithm, times)


def _number(value: Any) -> float | None:
    return float(value) if is_number(value) else None


def _add_points(
    points: dict[tuple[str, str], _Points],
    run: RunScore,
    entry: dict[str, Any],
    metrics: Sequence[str],
    steps_by: Mapping[int, float],
) -> None:
    for metric in metrics:
        value, epoch = _number(entry.get(metric)), epoch_of(entry, metric)
        if value is not None and is_count(epoch):
            points.setdefault((run.game, metric), _Points()).add(epoch, value, steps_by.get(epoch, math.nan))


def _epoch_times(entry: dict[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in entry.items():
        seconds = _number(value)
        if name.endswith(WALL) and seconds is not None:
            yield name.removesuffix(WALL), seconds


def _totals(folder: RunFolder) -> Iterator[tuple[str, float]]:
    phases = read_result(folder).get("wall_s")
    if not isinstance(phases, dict):
        return
    totals = {name: seconds for name, value in phases.items() if (seconds := _number(value)) is not None}
    yield from totals.items()
    yield (
        "run",
        sum(seconds for name, seconds in totals.items() if name != "epoch"),
    )  # an epoch is the sum of its phases


def _curves(algorithm: Algorithm, points: dict[tuple[str, str], _Points], metrics: Sequence[str]) -> list[Curve]:
    games = list(dict.fromkeys(run.game for run in algorithm.runs))
    return [
        _curve(algorithm.name, game, metric, points[game, metric])
        for game in games
        for metric in metrics
        if (game, metric) in points
    ]


def _curve(name: str, game: str, metric: str, points: _Points) -> Curve:
    epochs = tuple(sorted(points.values))
    values = [points.values[epoch] for epoch in epochs]
    return Curve(
        algorithm=name,
        game=game,
        metric=metric,
        epochs=epochs,
        env_steps=tuple(statistics.fmean(points.steps[epoch]) for epoch in epochs),
        mean=tuple(statistics.fmean(v) for v in values),
        std=tuple(statistics.stdev(v) if len(v) > 1 else 0.0 for v in values),
        num_runs=tuple(len(v) for v in values),
    )


def _timings(algorithm: Algorithm, times: dict[tuple[str, str], _Times]) -> list[Timing]:
    rank = {phase: i for i, phase in enumerate(PHASES)}
    rows = []
    for (hardware, phase), spent in sorted(
        times.items(), key=lambda item: (item[0][0], rank.get(item[0][1], len(PHASES)))
    ):
        epoch_s = statistics.median(spent.epochs) if spent.epochs else None
        total_s = statistics.fmean(spent.totals) if spent.totals else None
        num_runs = sum((run.hardware or UNKNOWN_HARDWARE) == hardware for run in algorithm.runs)
        rows.append(Timing(algorithm.name, algorithm.origin, hardware, phase, epoch_s, total_s, num_runs))
    return rows
