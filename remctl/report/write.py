"""A report from beginning to end: read, compute, write. `remctl report` calls `make_report`."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from remctl.bench.result import Result
from remctl.drawing import FORMATS as FIGURE_FORMATS
from remctl.errors import MachineError, UserError
from remctl.games import ABLATION_SUBSET, ATARI_100K
from remctl.report import stats
from remctl.report.benchmarks import bench_tables, notes_on_benchmarks, read_benchmarks
from remctl.report.collect import Collected, collect
from remctl.report.csv_files import csv_files
from remctl.report.curves import read_training
from remctl.report.notes import common_games, notes_on, refuse_missing
from remctl.report.published import epoch_times, printed
from remctl.report.render import latex, markdown
from remctl.report.results import Benchmark, Curve, Results, Timing
from remctl.report.spec import ReportSpec
from remctl.report.tables import display_tables
from remctl.runs.code import this_code
from remctl.runs.files import make_folder, read_json, remove, write_atomic, write_json

TABLE_FORMATS = ("csv", "md", "tex")
FORMATS = (*TABLE_FORMATS, *FIGURE_FORMATS, "html")
_OWN_NAME = re.compile(r"[a-z0-9_]+\.(csv|md|tex)|figures/[a-z0-9_]+\.(png|pdf|svg)|index\.html")


def make_report(spec: ReportSpec, out: Path, formats: Collection[str], command: str) -> Results:
    """Write the report of `spec` into `out` in the given formats and return what it shows.

    Raises UserError for bad input, MachineError where files cannot be read or written. The same input and seed give the
    same files to the byte.
    """
    results = compute(spec, command)
    write_results(results, out, formats)
    return results


def compute(spec: ReportSpec, command: str) -> Results:
    """Everything that the report shows. Raises UserError for bad input, MachineError for unreadable files."""
    benchmarks = read_benchmarks(spec.bench)
    found = collect(spec)
    games = common_games(found.algorithms, found.games)
    if spec.missing == "fail":
        refuse_missing(found.algorithms, (*found.games, *found.raw_games), found.missing)
    how = stats.Bootstrap(spec.reps, spec.seed, spec.ragged)
    curves, timings = _training(spec, found)
    every_game = (*found.games, *found.raw_games)
    about = (found.algorithms, found.games, games, found.raw_games, found.missing, spec.ragged)
    return Results(
        title=spec.title,
        question=found.question,
        command=command,
        remctl_version=this_code().version,
        games=games,
        raw_games=found.raw_games,
        game_set=game_set(games),
        control=found.control,
        reps=spec.reps,
        seed=spec.seed,
        missing_policy=spec.missing,
        ragged=spec.ragged,
        bold_among=tuple(n for n in spec.bold_among if n in {a.name for a in found.algorithms}),
        figures=spec.wanted_figures if found.algorithms else (),
        algorithms=found.algorithms,
        game_scores=tuple(
            s for a in found.algorithms for s in stats.game_scores(a, every_game, games, how, found.raw_games)
        ),
        aggregates=tuple(row for a in found.algorithms for row in stats.aggregates(a, games, how)),
        printed=tuple(
            p for a in found.algorithms if not a.runs for p in printed(a, a.name.removeprefix("paper/"), games)
        ),
        profiles=tuple(stats.profiles(found.algorithms, games, how)),
        improvements=tuple(stats.improvements(found.algorithms, found.control, games, found.raw_games, how)),
        differences=tuple(stats.differences(found.algorithms, found.control, games, every_game, how)),
        curves=curves,
        timings=timings,
        benchmarks=benchmarks,
        missing=found.missing,
        notes=(*notes_on(*about), *found.notes, *notes_on_benchmarks(benchmarks)),
    )


def game_set(games: tuple[str, ...]) -> str:
    """`atari_100k`, `ablation_subset` or `other`."""
    return {ATARI_100K: "atari_100k", ABLATION_SUBSET: "ablation_subset"}.get(games, "other")


def _training(spec: ReportSpec, found: Collected) -> tuple[tuple[Curve, ...], tuple[Timing, ...]]:
    curves: list[Curve] = []
    timings: list[Timing] = []
    for algorithm in found.algorithms:
        of_it, times = read_training(algorithm, spec.curves)
        curves += of_it
        timings += times
    return tuple(curves), (*timings, *(epoch_times() if spec.epoch_times else ()))


# --- files


def write_results(results: Results, out: Path, formats: Collection[str]) -> None:
    """Tables, figures and page, each atomically, in the place of an earlier report's; other files stay.

    report.json names them before they are written, so that the next report also removes what an interrupted one left.
    Raises MachineError.
    """
    from remctl.report.figures import stems, write_figures

    texts = _texts(results, formats)
    wanted = tuple(f for f in FIGURE_FORMATS if f in formats)
    has_page = "html" in formats
    planned = [*texts, *(f"figures/{stem}.{f}" for stem in stems(results) for f in wanted), *["index.html"] * has_page]
    make_folder(out)
    earlier = _earlier_files(out)
    write_json(out / "report.json", _about(results) | {"files": list(dict.fromkeys([*planned, *earlier]))})
    for name in earlier:
        remove(out / name)
    for name, text in texts.items():
        write_atomic(out / name, text)
    if wanted or has_page:
        figures = write_figures(results, out, wanted)
        if has_page:
            from remctl.report.html import write_page

            write_page(results, figures, out)
    write_json(out / "report.json", _about(results) | {"files": [name for name in planned if (out / name).exists()]})


def _earlier_files(out: Path) -> list[str]:
    """What the report.json of an earlier report names, as far as it is a name of ours."""
    try:
        about = read_json(out / "report.json")
    except MachineError:
        return []
    names = about.get("files") if isinstance(about, dict) else None
    return [n for n in names if isinstance(n, str) and _OWN_NAME.fullmatch(n)] if isinstance(names, list) else []


def _texts(results: Results, formats: Collection[str]) -> dict[str, str]:
    texts = {f"{stem}.csv": text for stem, text in csv_files(results).items()} if "csv" in formats else {}
    for stem, table in display_tables(results).items():
        if "md" in formats:
            texts[f"{stem}.md"] = markdown(table)
        if "tex" in formats:
            texts[f"{stem}.tex"] = latex(table)
    return texts


def _about(results: Results) -> dict[str, Any]:
    """What the numbers rest on, for machines."""
    names = (
        *(
            "title",
            "question",
            "command",
            "remctl_version",
            "games",
            "raw_games",
            "game_set",
            "control",
            "reps",
            "seed",
        ),
        *("missing_policy", "ragged", "notes"),
    )
    algorithms = [
        {"name": a.name, "label": a.label, "origin": a.origin, "source": a.source, "num_runs": len(a.runs)}
        for a in results.algorithms
    ]
    benchmarks = [
        {"name": b.name, "path": b.path, "code": b.result.code, "scale": b.result.scale, "complete": b.result.complete}
        | {"hardware": b.result.device.name, "num_threads": b.result.device.num_threads}
        for b in results.benchmarks
    ]
    return {name: getattr(results, name) for name in names} | {"algorithms": algorithms, "benchmarks": benchmarks}


def parse_formats(text: str) -> tuple[str, ...]:
    """`all`, or some of FORMATS separated by commas. Raises UserError for others."""
    words = [word.strip() for word in text.split(",")]
    unknown = [word for word in words if word not in (*FORMATS, "all")]
    if unknown:
        raise UserError(f"--format: given {unknown[0]!r}; allowed: all, or some of {', '.join(FORMATS)}")
    return FORMATS if "all" in words else tuple(f for f in FORMATS if f in words)


def write_bench_tables(result: Result, out: Path) -> Path:
    """All tables of one benchmark as `out`/tables.md, atomically; its path. Raises MachineError."""
    path = out / "tables.md"
    made = bench_tables(Benchmark("bench", str(out), result)).values()
    write_atomic(path, "\n".join(markdown(table) for table in made))
    return path
