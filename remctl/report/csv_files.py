"""The CSV files: bare values to the last digit, one row per value, empty where there is none."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

from remctl.bench.result import Counts, Predicted, Ratio
from remctl.report.results import Benchmark, Results

Rows = Iterable[Sequence[Any]]

AGGREGATES = ("algorithm", "metric", "value", "ci_low", "ci_high", "num_games", "num_runs", "reps", "seed")
PER_GAME = (
    *("algorithm", "origin", "game", "mean", "ci_low", "ci_high", "normalized", "superhuman", "num_runs", "num_used"),
    *("seeds", "scores"),
)
RUNS = (
    *("algorithm", "origin", "game", "seed", "score", "num_episodes", "config_hash", "remctl_version", "preset"),
    *("hardware", "path"),
)
PROFILE = ("algorithm", "tau", "fraction", "ci_low", "ci_high", "reps", "seed")
IMPROVEMENT = (
    *("better", "than", "game", "probability", "ci_low", "ci_high", "num_games", "num_runs_better", "num_runs_than"),
    *("reps", "seed"),
)
DIFFERENCES = (
    *("algorithm", "control", "metric", "game", "value", "ci_low", "ci_high", "pairing", "separated", "more_seeds"),
    *("is_better", "num_games", "num_runs", "reps", "seed"),
)
CURVES = ("algorithm", "game", "metric", "epoch", "env_steps", "mean", "std", "num_runs")
TIMING = ("algorithm", "origin", "hardware", "phase", "epoch_s", "total_s", "num_runs")
CASE = (
    *("suite", "axis", "value", "name", "phase", "batch_size", "precision", "config_hash", "median", "runs_per_round"),
    *("steps_per_epoch", "imagined_steps", "imagined_tokens", "per_epoch_s", "per_imagined_step_s"),
    *("per_imagined_token_s", "flops_per_s", "share_of_peak", "peak_memory_mb"),
)
SPREAD = ("low", "high", "coverage")
EXPONENT = ("name", "phase", "axis", "exponent")
CHECK = ("name", "error", "tolerance")
PACKING = ("name", "label", "num_processes", "num_threads", "window_s", "memory_mb", "memory_in_all_mb", "failure")
MISSING = ("algorithm", "game", "seed", "path", "reason")


def csv_files(results: Results) -> dict[str, str]:
    """Content of every CSV file by its stem. Without an algorithm only files with rows."""
    texts = {
        "aggregates": _text(AGGREGATES, ([getattr(row, c) for c in AGGREGATES] for row in results.aggregates)),
        "per_game": _text(PER_GAME, _per_game(results)),
        "runs": _text(RUNS, _runs(results)),
        "performance_profile": _text(PROFILE, _profile(results)),
        "probability_of_improvement": _text(IMPROVEMENT, _with_bootstrap(results, results.improvements, IMPROVEMENT)),
        "differences": _text(DIFFERENCES, _with_bootstrap(results, results.differences, DIFFERENCES)),
        "learning_curves": _text(CURVES, _curves(results)),
        "timing": _text(TIMING, ([getattr(row, c) for c in TIMING] for row in results.timings)),
        "missing": _text(MISSING, ([getattr(row, c) for c in MISSING] for row in results.missing)),
    }
    if not results.algorithms:
        texts = {stem: text for stem, text in texts.items() if text.count("\n") > 1}
    return texts | {stem: text for b in results.benchmarks for stem, text in _benchmark(b).items()}


def _text(columns: Sequence[str], rows: Rows) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_cell(value) for value in row] for row in rows)
    return text.getvalue()


def _cell(value: Any) -> str:
    if value is None or value != value:  # noqa: PLR0124 - not a number is not measured
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value) if isinstance(value, float) else str(value)


def _list(values: Iterable[Any]) -> str:
    return ";".join(_cell(value) for value in values)


def _per_game(results: Results) -> Rows:
    origins = {a.name: a.origin for a in results.algorithms}
    for s in results.game_scores:
        about = (s.algorithm, origins[s.algorithm], s.game, s.mean, s.ci_low, s.ci_high, s.normalized, s.is_superhuman)
        yield *about, s.num_runs, s.num_used, _list(s.seeds), _list(s.scores)


def _runs(results: Results) -> Rows:
    for algorithm in results.algorithms:
        for run in algorithm.runs:
            yield algorithm.name, algorithm.origin, *(getattr(run, column) for column in RUNS[2:])


def _profile(results: Results) -> Rows:
    for p in results.profiles:
        for i, tau in enumerate(p.taus):
            yield p.algorithm, tau, p.fractions[i], *p.interval_at(i), *_bootstrap(results, p.ci_low is not None)


def _with_bootstrap(results: Results, rows: Iterable[Any], columns: Sequence[str]) -> Rows:
    for row in rows:
        yield *(getattr(row, column) for column in columns[:-2]), *_bootstrap(results, row.ci_low is not None)


def _bootstrap(results: Results, has_interval: bool) -> tuple[int, int]:
    return results.reps if has_interval else 0, results.seed


def _curves(results: Results) -> Rows:
    for c in results.curves:
        yield from (
            (c.algorithm, c.game, c.metric, *point)
            for point in zip(c.epochs, c.env_steps, c.mean, c.std, c.num_runs, strict=True)
        )


def _benchmark(benchmark: Benchmark) -> dict[str, str]:
    """A file for each kind of value, each row with the machine it is of."""
    result, on = benchmark.result, ("hardware", "num_threads", "scale", "code")
    about = (result.device.name, result.device.num_threads, result.scale, result.code)
    counts, predicted = tuple(Counts.model_fields), tuple(Predicted.model_fields)
    ratio = ("ratio_to", "ratio", *(f"ratio_{end}" for end in SPREAD), "verdict")
    columns = (*CASE, *SPREAD, *ratio, *counts, *(f"predicted_{name}" for name in predicted), *on, "seconds")
    cases = (
        (
            *_fields(c, CASE),
            *_fields(c.spread, SPREAD),
            *_ratio(c.ratio),
            *_fields(c.counts, counts),
            *_fields(c.predicted, predicted),
            *about,
            _list(c.seconds),
        )
        for c in result.cases
    )
    exponents = ((*_fields(e, EXPONENT), *_fields(e.spread, SPREAD), *about) for e in result.exponents)
    hours = (
        (p.label, p.config_hash, p.num_epochs, phase, value, *about)
        for p in result.predictions
        for phase, value in (*p.phase_hours.items(), ("run", p.hours))
    )
    packing = (
        (*_fields(p, PACKING), _list(s for each in p.process_seconds for s in each), *about) for p in result.packing
    )
    precision = (
        (effect.label, effect.config_hash, component, seed, fp32, bf16, *about)
        for effect in result.precision
        for component, loss in effect.losses.items()
        for seed, fp32, bf16 in zip(effect.seeds, loss.fp32, loss.bf16, strict=True)
    )
    texts = {
        "cases": _text(columns, cases),
        "exponents": _text((*EXPONENT, *SPREAD, *on), exponents),
        "predictions": _text(("label", "config_hash", "num_epochs", "phase", "hours", *on), hours),
        "packing": _text((*PACKING, "process_seconds", *on), packing),
        "precision": _text(("label", "config_hash", "component", "seed", "fp32", "bf16", *on), precision),
        "checks": _text((*CHECK, *on), ((*_fields(c, CHECK), *about) for c in result.checks)),
    }
    return {f"{benchmark.name}_{stem}": text for stem, text in texts.items() if text.count("\n") > 1}


def _fields(record: Any, names: Sequence[str]) -> tuple[Any, ...]:
    return tuple(None if record is None else getattr(record, name) for name in names)


def _ratio(ratio: Ratio | None) -> tuple[Any, ...]:
    if ratio is None:
        return (None,) * 6
    return (ratio.to, ratio.median, *_fields(ratio.spread, SPREAD), ratio.verdict)
