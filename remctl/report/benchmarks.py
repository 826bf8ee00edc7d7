"""Benchmarks in a report: a block for each bench.json with its tables and figures, so that hardware is never merged.

Names of tables and figures begin with that of the benchmark: `bench_paper`, `bench_2_paper` of the second file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from remctl.bench import figures
from remctl.bench import result as bench_result
from remctl.bench import tables as bench
from remctl.bench.result import Case, Result
from remctl.drawing import Drawing, LeftOut
from remctl.paths import user_path
from remctl.report.cells import NOTHING, Cell, Table, count, span
from remctl.report.results import Benchmark

CASES = "cases"
LONG = re.compile(rf".*_counts|scaling|checks|device|{CASES}")  # tables that the page shows closed
_NAME = re.compile(r"[a-z][a-z_]{0,39}")  # of a table: part of a file's name


def read_benchmarks(paths: Iterable[str]) -> tuple[Benchmark, ...]:
    """Each file once. Raises UserError for a file that is no benchmark, MachineError for one that cannot be read."""
    found = [(path, bench_result.read(user_path(path))) for path in dict.fromkeys(paths)]
    return tuple(
        Benchmark("bench" if i == 1 else f"bench_{i}", path, result) for i, (path, result) in enumerate(found, 1)
    )


def notes_on_benchmarks(benchmarks: Sequence[Benchmark]) -> tuple[str, ...]:
    """What must not be missed: cut off, of a reduced scale, unequal to the reference, of several machines."""
    notes = []
    for b in benchmarks:
        failed = [check.name for check in b.result.checks if check.error > check.tolerance]
        if not b.result.complete:
            notes.append(f"{b.path} was cut off before its end: what is missing was not measured.")
        if b.result.scaled:
            notes.append(f"{b.path} was measured at scale {b.result.scale}: {' '.join(b.result.scaled)}")
        if failed:
            notes.append(f"{b.path}: unequal to the reference, its times mean nothing: {', '.join(failed)}.")
    if len({b.result.device.name for b in benchmarks}) > 1:
        notes.append("The benchmarks are of different hardware: compare within one of them only.")
    return tuple(notes)


# --- tables


def bench_tables(benchmark: Benchmark) -> dict[str, Table]:
    """Its tables by name, in the order to be shown, the list of all cases last."""
    made = bench.tables(benchmark.result)
    tables = {
        f"{benchmark.name}_{key if _NAME.fullmatch(key) else f'table_{i}'}": _table(table)
        for i, (key, table) in enumerate(made.items())
    }
    tables[f"{benchmark.name}_{CASES}"] = _cases(benchmark.result)
    return {name: replace(table, name=name) for name, table in tables.items()}


def is_long(benchmark: Benchmark, name: str) -> bool:
    """Whether the page shows the table closed."""
    return LONG.fullmatch(name.removeprefix(f"{benchmark.name}_")) is not None


def _table(table: bench.BenchTable) -> Table:
    rows = tuple(tuple(Cell(text) for text in row) for row in table.rows)
    title = table.title[:1].upper() + table.title[1:]
    return Table(table.name, title, table.header, rows, num_left=table.num_left, notes=table.notes)


def _cases(result: Result) -> Table:
    header = (
        *("suite", "phase", "varied", "case", "precision", "configuration", "batch", "rounds", "runs per round"),
        *("median (s)", "low (s)", "high (s)", "coverage"),
    )
    notes = ("[low, high] holds the true median with the probability that coverage says.",)
    rows = tuple(_case(case) for case in result.cases)
    return Table(CASES, "Everything measured, with its configuration and rounds", header, rows, num_left=6, notes=notes)


def _case(case: Case) -> tuple[Cell, ...]:
    varied = f"{case.axis} {case.value}" if case.axis else NOTHING
    texts = (case.suite, case.phase, varied, case.name, case.precision, case.config_hash, str(case.batch_size))
    seconds = (f"{value:.4g}" for value in (case.median, case.spread.low, case.spread.high))
    about = (str(len(case.seconds)), str(case.runs_per_round), *seconds, f"{case.spread.coverage:.3f}")
    return tuple(Cell(text) for text in (*texts, *about))


# --- figures


def bench_stems(benchmark: Benchmark) -> tuple[str, ...]:
    """Names, without ending, of the figures that it may have."""
    return tuple(_own(benchmark, stem) for stem in figures.STEMS)


def bench_drawings(benchmark: Benchmark) -> list[Drawing | LeftOut]:
    """Its figures, or why one is left out. Call within `drawing.styled`."""
    return [replace(drawing, stem=_own(benchmark, drawing.stem)) for drawing in figures.draw(benchmark.result)]


def _own(benchmark: Benchmark, stem: str) -> str:
    return f"{benchmark.name}_{stem.removeprefix('bench_')}"


# --- where the numbers come from


def bench_facts(benchmark: Benchmark) -> tuple[tuple[str, str], ...]:
    """What was measured, on what and by which code, as titles and texts for people."""
    result, device = benchmark.result, benchmark.result.device
    rounds = span(len(case.seconds) for case in result.cases)
    machine, packages = (_mapping(result.provenance.get(key)) for key in ("machine", "packages"))
    facts = (
        ("Hardware", f"{device.name}, {count(device.num_threads, 'thread')}"),
        ("Processor", _text(machine.get("cpu"))),
        ("Code", result.code),
        ("Software", ", ".join(f"{k} {v}" for k, v in packages.items() if k in ("torch", "numpy") and _text(v))),
        ("Scale", result.scale),
        ("Scaled", " ".join(result.scaled)),
        ("Suites", ", ".join(result.suites) + ("" if result.complete else "; cut off before its end")),
        ("Rounds", rounds),
        ("Clocks", ", ".join(f"{name} {value:.6g} MHz" for name, value in device.clocks_mhz.items())),
        ("Measured", _text(result.provenance.get("time"))),
        ("By", _command(result.provenance.get("command"))),
        ("File", benchmark.path),
    )
    return tuple((title, text) for title, text in facts if text)


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _command(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else _text(value)
