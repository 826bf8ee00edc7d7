"""A benchmark as tables of text. Without torch, and without a terminal: `remctl.commands.bench_output` prints them.

A number never travels alone: times bear the interval of their median, ratios theirs and a verdict in words. REM and IRIS
imagine different amounts in an epoch, so that their times are compared per epoch, per imagined step and per imagined token.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from importlib.resources import files
from typing import Any, NamedTuple

from remctl.bench import tables_packing, tables_precision, tables_whole
from remctl.bench.numbers import (
    NOTHING,
    bytes_text,
    counted,
    exact,
    of_peak,
    plain,
    ratio_text,
    seconds_text,
    times_text,
)
from remctl.bench.result import Case, Counts, Predicted, Ratio, Result, Spread
from remctl.bench.spread import CONFIDENCE, verdict
from remctl.bench.table import PER, BenchTable, words
from remctl.config import resolve

WITH_COUNTS = ("paper", "ablations", "components")
SAME_WORK = "The work is the same: the ratios hold per epoch, step and token alike."
# Rows of epoch_times.csv: (agent, configuration) -> the case measured here and the preset that says how much it imagines.
PUBLISHED = {
    ("REM", "as published"): ("REM", "paper"),
    ("IRIS", "as published"): ("IRIS", "iris"),
    ("IRIS", "with REM's configuration"): ("IRIS, REM's configuration", "iris-rem"),
}
PUBLISHED_PHASES = {"tokenizer_s": "tokenizer", "world_model_s": "world_model", "actor_critic_s": "controller"}


class Work(NamedTuple):
    """What an epoch of it is: optimizer steps, imagined steps and tokens per run; None or 0 where there are none."""

    steps_per_epoch: int | None
    imagined_steps: int
    imagined_tokens: int


def tables(result: Result) -> dict[str, BenchTable]:
    """By name, in the order to be read.

    A suite's name holds its times; `<suite>_ratios` the comparisons where the work per run differs (else they stand
    beside the times), `<suite>_counts` what was executed. Then published, exponents, bounds and predictions, each where
    there are any; checks and device always.
    """
    made: list[BenchTable] = []
    for suite in dict.fromkeys((*result.suites, *(c.suite for c in result.cases))):
        cases = in_order(result.of(suite))
        if suite == "packing" and result.packing:
            made.append(_packing(result, cases))
        elif cases:
            made += _suite_tables(result, suite, cases)
    made += tables_precision.precision(result)
    made += [tables_whole.exponents(result)] if result.exponents else []
    made += [tables_whole.bounds(result)] if result.bounds else []
    made += [tables_whole.predictions(result)] if result.predictions else []
    return {table.name: table for table in (*made, tables_whole.checks(result.checks), tables_whole.device(result))}


def in_order(cases: Iterable[Case]) -> list[Case]:
    """By phase, then by what was varied, each in the order of its first appearance: what is compared stands together."""
    given = list(cases)
    phases = list(dict.fromkeys(c.phase for c in given))
    axes = list(dict.fromkeys((c.axis, c.value) for c in given))
    return sorted(given, key=lambda c: (phases.index(c.phase), axes.index((c.axis, c.value))))


def left_header(cases: Sequence[Case]) -> tuple[str, ...]:
    """Titles of the columns that `left` fills."""
    return ("phase", "varied", "case") if any(c.axis for c in cases) else ("phase", "case")


def left(case: Case, cases: Sequence[Case]) -> tuple[str, ...]:
    """What a row is about; batch size and precision are said where only they tell two of `cases` apart."""
    same = [c for c in cases if (c.phase, c.axis, c.value, c.name) == (case.phase, case.axis, case.value, case.name)]
    more = [f"batch {case.batch_size}"] if len({c.batch_size for c in same}) > 1 else []
    more += [case.precision] if len({c.precision for c in same}) > 1 else []
    varied = (f"{words(case.axis)} {case.value}" if case.axis else NOTHING,) if any(c.axis for c in cases) else ()
    return (words(case.phase), *varied, ", ".join((case.name, *more)))


def _suite_tables(result: Result, suite: str, cases: list[Case]) -> list[BenchTable]:
    bases = [_base(c, cases) for c in cases]
    equal = all(base is None or _work(base) == _work(c) for c, base in zip(cases, bases, strict=True))
    made = [_times(result, suite, cases, beside=equal)]
    made += [] if equal else [_ratios(result, suite, cases, bases)]
    made += [_counts(suite, cases)] if suite in WITH_COUNTS else []
    made += [_published(cases)] if suite == "paper" else []
    return [replace(t, notes=(*t.notes, *(note for note in result.scaled if note not in t.notes))) for t in made]


def _packing(result: Result, cases: list[Case]) -> BenchTable:
    table = tables_packing.packing(result, _measured(result, cases) if cases else ())
    return replace(table, notes=(*table.notes, *result.scaled))


def _work(case: Case) -> Work:
    return Work(case.steps_per_epoch, case.imagined_steps, case.imagined_tokens)


def _base(case: Case, cases: Sequence[Case]) -> Case | None:
    """What the case was compared to, at its own batch size and precision where there are several."""
    found = [
        c for c in cases if (c.name, c.phase, c.axis, c.value) == (case.baseline, case.phase, case.axis, case.value)
    ]
    alike = [c for c in found if (c.batch_size, c.precision) == (case.batch_size, case.precision)]
    return next(iter(alike or found), None)


def _times(result: Result, suite: str, cases: list[Case], beside: bool) -> BenchTable:
    """`beside`: with the ratios, which hold for every denominator alike."""
    columns = {
        "batch": [str(c.batch_size) for c in cases],
        "one run": [seconds_text(c.median, c.spread) for c in cases],
        "per epoch": [_scaled_seconds(c, _per_run(c)["epoch"]) for c in cases],
        "per step": [_scaled_seconds(c, _per_run(c)["step"]) for c in cases],
        "per token": [_scaled_seconds(c, _per_run(c)["token"]) for c in cases],
    }
    shown = {name: cells for name, cells in columns.items() if set(cells) != {NOTHING}}
    if beside and any(c.ratio for c in cases):
        shown[_against(cases)] = [_beside(c, cases) for c in cases]
    notes = _measured(result, cases) + ([PER] if "per step" in shown else [])
    notes += [SAME_WORK] if beside and "per step" in shown and any(c.ratio for c in cases) else []
    return _table(suite, f"{words(suite)}: times", cases, shown, notes)


def _per_run(case: Case) -> dict[str, float | None]:
    """What a run's seconds are multiplied by for each denominator."""
    return {
        "epoch": None if case.per_epoch_s is None else case.per_epoch_s / case.median,
        "step": 1 / case.imagined_steps if case.imagined_steps else None,
        "token": 1 / case.imagined_tokens if case.imagined_tokens else None,
    }


def _scaled_seconds(case: Case, factor: float | None) -> str:
    return NOTHING if factor is None else seconds_text(case.median * factor, _scaled(case.spread, factor))


def _scaled(interval: Spread, factor: float) -> Spread:
    return Spread(low=interval.low * factor, high=interval.high * factor, coverage=interval.coverage)


def _against(cases: Sequence[Case]) -> str:
    names = {c.ratio.to for c in cases if c.ratio}
    return f"against {names.pop()}" if len(names) == 1 else "against"


def _beside(case: Case, cases: Sequence[Case]) -> str:
    if case.ratio is None:
        is_base = any(c.ratio and _base(c, cases) is case for c in cases)
        return "baseline" if is_base else NOTHING
    several = len({c.ratio.to for c in cases if c.ratio}) > 1
    return ratio_text(case.ratio) + (f" than {case.ratio.to}" if several else "")


def _ratios(result: Result, suite: str, cases: list[Case], bases: Sequence[Case | None]) -> BenchTable:
    """A row per denominator: what is much slower per epoch may have done more."""
    rows = [
        (*left(case, cases), per, ratio_text(ratio))
        for case, base in zip(cases, bases, strict=True)
        if base is not None
        for per, ratio in denominators(case, base).items()
    ]
    header = (*left_header(cases), "per", _against(cases))
    return BenchTable(f"{suite}_ratios", f"{words(suite)}: ratios", header, tuple(rows), (PER,), len(header) - 1)


def denominators(case: Case, base: Case) -> dict[str, Ratio]:
    """The measured ratio per epoch (per run where an epoch is not known), per imagined step and per imagined token.

    How much work there is, is exact: median and interval are scaled, and judged anew.
    """
    assert case.ratio is not None, f"{case.name} was compared to nothing"
    ours, theirs = _per_run(case), _per_run(base)
    factors = {per: x / y for per in ours if (x := ours[per]) is not None and (y := theirs[per]) is not None}
    factors = factors if "epoch" in factors else {"run": 1.0} | factors
    made = {}
    for per, factor in factors.items():
        interval = _scaled(case.ratio.spread, factor)
        made[per] = Ratio(to=base.name, median=case.ratio.median * factor, spread=interval, verdict=verdict(interval))
    return made


def _measured(result: Result, cases: Sequence[Case]) -> list[str]:
    """How, on what, and with which code: the notes below every table of times."""
    rounds = sorted({len(c.seconds) for c in cases})
    least = min(c.spread.coverage for c in cases)
    count = "-".join(map(str, dict.fromkeys((rounds[0], rounds[-1]))))
    made = [
        f"Median of {count} rounds [interval that holds the true median with {100 * least:.3g}% or more].",
        f"{result.device.name}, {', '.join(sorted({c.precision for c in cases}))}; {result.code}.",
    ]
    made += ["Too few rounds to claim any difference: measure 6 or more."] if least < CONFIDENCE else []
    made += ["Cut off before all was measured."] if not result.complete else []
    return made


def _counts(suite: str, cases: list[Case]) -> BenchTable:
    """Measured / predicted, where the cost model says something."""
    whole = [c.counts for c in cases]
    measured = [c.counts if c.counts and c.counts.model_calls else None for c in cases]
    predicted = [c.predicted for c in cases]
    columns = {
        "M calls": _pairs(measured, predicted, "model_calls", exact),
        "M operations": _pairs(measured, predicted, "model_operations", exact),
        "M copies": _texts(measured, "model_copies", exact),
        "M FLOPs": _pairs(measured, predicted, "model_flops", counted),
        "M bytes": _texts(predicted, "model_bytes", bytes_text),
        "floor": _texts(predicted, "floor_s", plain),
        "operations": _texts(whole, "operations", exact),
        "copies": _texts(whole, "copies", exact),
        "FLOPs": _texts(whole, "flops", counted),
        "kernels": _texts(whole, "kernels", exact),
        "of peak": [of_peak(c.share_of_peak) for c in cases],
        "memory": [bytes_text(None if c.peak_memory_mb is None else c.peak_memory_mb * 1e6) for c in cases],
    }
    shown = {name: cells for name, cells in columns.items() if set(cells) != {NOTHING}}
    notes = (
        "Of one run. M calls, operations and FLOPs: measured / predicted by the cost model.",
        "M bytes: parameters once per call, layers' inputs and outputs, states. floor: M's calls one after the other, each "
        "only as long as its FLOPs, or its bytes from memory, take here.",
        "of peak: share of the matmul rate measured here; memory: taken at the peak, beyond what was held before.",
    )
    return _table(f"{suite}_counts", f"{words(suite)}: what was executed", cases, shown, notes)


def _texts(records: Sequence[Counts | Predicted | None], field: str, text: Callable[[Any], str]) -> list[str]:
    return [text(getattr(record, field, None)) for record in records]


def _pairs(
    measured: Sequence[Counts | None], predicted: Sequence[Predicted | None], field: str, text: Callable[[Any], str]
) -> list[str]:
    both = zip(_texts(measured, field, text), _texts(predicted, field, text), strict=True)
    return [NOTHING if a == b == NOTHING else f"{a} / {b}" for a, b in both]


def _table(name: str, title: str, cases: list[Case], columns: dict[str, list[str]], notes: Sequence[str]) -> BenchTable:
    lefts = [left(c, cases) for c in cases]
    rows = tuple((*lefts[i], *(cells[i] for cells in columns.values())) for i in range(len(cases)))
    header = left_header(cases)
    return BenchTable(name, title, (*header, *columns), rows, tuple(notes), len(header))


def _published(cases: list[Case]) -> BenchTable:
    """The paper's seconds of an epoch, one number each, and what follows from them; ours beside where it was measured."""
    text = (files("remctl") / "data" / "epoch_times.csv").read_text(encoding="utf-8")
    table = {(row["agent"], row["configuration"]): row for row in csv.DictReader(text.splitlines())}
    hardware = sorted({row["hardware"] for row in table.values()})
    works = {key: _imagined_per_epoch(PUBLISHED[key][1]) for key in PUBLISHED}
    rows = []
    for column, phase in PUBLISHED_PHASES.items():
        for key, (name, _) in PUBLISHED.items():
            ours = next((c for c in cases if (c.name, c.phase) == (name, phase)), None)
            for per in ("epoch", "step", "token") if phase == "controller" else ("epoch",):
                printed = {k: float(table[k][column]) / works[k][per] for k in PUBLISHED}
                times = (
                    NOTHING
                    if key == ("REM", "as published")
                    else times_text(printed[key] / printed["REM", "as published"])
                )
                measured = NOTHING if ours is None else _scaled_seconds(ours, _per_run(ours)[per])
                paper = f"{table[key][column]} s" if per == "epoch" else plain(printed[key])
                rows.append((words(phase), name, per, paper, times, measured))
    header = ("phase", "case", "per", "paper", "over REM", "here")
    done = [f"{key[0]} {key[1]}: {works[key]['step']:,} steps, {works[key]['token']:,} tokens" for key in PUBLISHED]
    notes = (
        f"paper: {', '.join(hardware)}, one number without a spread; over REM: that over its number for REM.",
        f"An epoch imagines {'; '.join(done)}. {PER}",
    )
    return BenchTable("published", "published epoch times beside ours", header, tuple(rows), notes, 3)


def _imagined_per_epoch(preset: str) -> dict[str, int]:
    config = resolve("Pong", preset)
    training = config.controller.training
    steps = training.steps_per_epoch * training.batch_size * config.num_imagined_steps
    return {"epoch": 1, "step": steps, "token": steps * config.tokenizer.tokens_per_obs}
