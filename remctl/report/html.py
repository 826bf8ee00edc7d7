"""The report as one HTML page: complete in itself, for screens, phones and paper.

`page.html.j2` is the page, `page.css` and `page.js` go into it. Its content security policy allows these two and pictures
within the page, nothing else: no name from a file can become code, nothing is asked of the network.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from remctl.drawing import COLORS, LeftOut, on_dark
from remctl.report.benchmarks import bench_facts, bench_stems, bench_tables, is_long
from remctl.report.figure_style import WrittenFigure
from remctl.report.page_tables import (
    UNKNOWN,
    PageCell,
    PageTable,
    algorithm_id,
    games_of,
    missing_table,
    page_tables,
    runs_id,
)
from remctl.report.results import Algorithm, Benchmark, GameScore, Results, RunScore
from remctl.runs.files import make_folder, write_atomic

SECTIONS = (  # identifier, title, tables, tables that are long and start closed, figures
    ("aggregates", "Aggregates", ("aggregates",), ("performance_profile",), ("aggregates", "performance_profile")),
    (
        "comparisons",
        "Comparisons",
        ("probability_of_improvement", "differences"),
        (),
        ("probability_of_improvement", "differences"),
    ),
    ("games", "Games", ("per_game",), (), ("per_game",)),
    ("training", "Training", (), ("learning_curves",), ("learning_curves", "observation_loss")),
    ("time", "Time", (), ("timing",), ("timing",)),
)
RUN_COLUMNS: tuple[tuple[str, str, Callable[[RunScore], Any]], ...] = (  # title, class, value
    ("Episodes", "", lambda run: run.num_episodes),
    ("Configuration", "text", lambda run: run.config_hash),
    ("remctl", "text", lambda run: run.remctl_version),
    ("Preset", "text", lambda run: run.preset),
    ("Hardware", "text", lambda run: run.hardware),
    ("Path", "text path", lambda run: run.path),
)
PIXELS_PER_POINT = 1.55
_SIZE = re.compile(r'viewBox="0 0 ([\d.]+) ([\d.]+)"')


@dataclass(frozen=True)
class PageFigure:
    """A figure within the page: pictures on light and dark paper as data addresses, size in CSS pixels."""

    stem: str
    title: str
    caption: str
    explanation: str
    alt: str
    light: str
    dark: str
    width: int
    height: int


@dataclass(frozen=True)
class Section:
    """One part of the page; `facts` say where its numbers come from, `notes` what is missing in it, `parts` follow."""

    id: str
    title: str
    tables: tuple[PageTable, ...]
    long_tables: tuple[PageTable, ...]
    figures: tuple[PageFigure, ...]
    facts: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    parts: tuple[Section, ...] = ()


@dataclass(frozen=True)
class Note:
    """A sentence that must not be missed, and where there is more."""

    text: str
    href: str = ""
    link: str = ""


def write_page(results: Results, figures: Sequence[WrittenFigure | LeftOut], out: Path) -> Path:
    """Writes `out`/index.html and returns its path; `figures` as `write_figures` returned them.

    Raises MachineError where the disk refuses.
    """
    make_folder(out)
    path = out / "index.html"
    write_atomic(path, page(results, figures).encode("utf-8", "xmlcharrefreplace"))
    return path


def page(results: Results, figures: Sequence[WrittenFigure | LeftOut]) -> str:
    """The page as text."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("remctl", "report"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    css, js = _part("page.css") + _swatches(), _part("page.js")
    return environment.get_template("page.html.j2").render(
        r=results,
        css=_verbatim(css),
        js=_verbatim(js),
        css_hash=_hash(css),
        js_hash=_hash(js),
        facts=_facts(results),
        notes=_notes(results, figures),
        sections=_sections(results, figures),
        missing=missing_table(results),
        run_header=_run_header(),
        algorithms=[_provenance(results, a) for a in results.algorithms],
    )


# --- parts of our own, which need no escaping ---


def _part(name: str) -> str:
    return (files("remctl.report") / name).read_text(encoding="utf-8")


def _verbatim(text: str) -> Any:
    import markupsafe

    return markupsafe.Markup(text)  # noqa: S704 - a file of this package


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _swatches() -> str:
    return "".join(f".c{i} {{ color: {color}; }}\n" for i, color in enumerate(COLORS))


# --- figures ---


def _page_figure(figure: WrittenFigure) -> PageFigure:
    size = _SIZE.search(figure.svg)
    assert size, f"{figure.stem} has no viewBox"
    width, height = (round(float(points) * PIXELS_PER_POINT) for points in size.groups())
    caption = figure.caption.rstrip(".")
    caption = f"{caption}." if caption.casefold() not in ("", figure.title.casefold()) else ""  # not the title again
    about = (figure.stem, figure.title, caption, figure.explanation, figure.alt)
    return PageFigure(*about, _address(figure.svg), _address(on_dark(figure.svg)), width, height)


def _address(svg: str) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()


# --- text ---


def _count(num: int, noun: str) -> str:
    return f"{num} {noun}{'s' if num != 1 else ''}"


def _facts(results: Results) -> list[tuple[str, str]]:
    num_runs = sum(len(a.runs) for a in results.algorithms)
    if results.benchmarks and not results.algorithms:
        return [("Benchmarks", ", ".join(f"{b.path}: {b.result.device.name}" for b in results.benchmarks))]
    facts = [("Algorithms", ", ".join(f"{a.label}: {a.origin_label}" for a in results.algorithms))]
    facts.append(("Runs", f"{num_runs} with scores, {len(results.missing)} without"))
    if results.games:
        facts.append(("Games", f"{len(results.games)}: {', '.join(results.games)}"))
    if results.raw_games:
        facts.append(("Games in raw scores", ", ".join(results.raw_games)))
    if results.control is not None:
        facts.append(("Control", results.label(results.control)))
    bootstrap = f"95%, stratified bootstrap, {results.reps} repetitions, generator seed {results.seed}"
    facts.append(("Intervals", bootstrap))
    facts.append(("Missing data", f"games: {results.missing_policy}; uneven numbers of runs: {results.ragged}"))
    return facts


def _notes(results: Results, figures: Sequence[WrittenFigure | LeftOut]) -> list[Note]:
    notes = [Note(text) for text in results.notes]
    if results.missing:
        num = len(results.missing)
        notes.append(Note(f"{_count(num, 'run')} without a score.", "missing", "Which, and why"))
    of_benchmarks = {stem for b in results.benchmarks for stem in bench_stems(b)}  # said there
    left_out = [f for f in figures if isinstance(f, LeftOut) and f.stem not in of_benchmarks]
    return notes + [Note(f"Figure left out: {f.title}. {f.reason}") for f in left_out]


def _sections(results: Results, figures: Sequence[WrittenFigure | LeftOut]) -> list[Section]:
    tables = page_tables(results)
    sections = []
    for identifier, title, names, long_names, figure_names in SECTIONS:
        section = Section(
            identifier,
            title,
            tuple(tables[name] for name in names if name in tables),
            tuple(tables[name] for name in long_names if name in tables),
            tuple(_page_figure(f) for f in figures if isinstance(f, WrittenFigure) and f.name in figure_names),
        )
        if section.tables or section.long_tables or section.figures:
            sections.append(section)
    return sections + [_speed(results, tables, figures)] * bool(results.benchmarks)


def _speed(results: Results, tables: Mapping[str, PageTable], figures: Sequence[WrittenFigure | LeftOut]) -> Section:
    blocks = tuple(_benchmark(results, b, tables, figures) for b in results.benchmarks)
    return Section("speed", "Speed", (), (), (), parts=blocks)


def _benchmark(
    results: Results,
    benchmark: Benchmark,
    tables: Mapping[str, PageTable],
    figures: Sequence[WrittenFigure | LeftOut],
) -> Section:
    device = benchmark.result.device.name
    names = [name for name in bench_tables(benchmark) if name in tables]
    own = [f for f in figures if f.stem in bench_stems(benchmark)]
    return Section(
        f"speed-{benchmark.name}",
        f"{device} ({benchmark.path})" if len(results.benchmarks) > 1 else device,
        tuple(tables[name] for name in names if not is_long(benchmark, name)),
        tuple(tables[name] for name in names if is_long(benchmark, name)),
        tuple(_page_figure(f) for f in own if isinstance(f, WrittenFigure)),
        bench_facts(benchmark),
        tuple(f"Figure left out: {f.title}. {f.reason}" for f in own if isinstance(f, LeftOut)),
    )


# --- provenance ---


def _run_header() -> list[PageCell]:
    first = [PageCell("Game", kind="text"), PageCell("Seed"), PageCell("Score"), PageCell("In aggregates", kind="text")]
    return first + [PageCell(title, kind=kind) for title, kind, _ in RUN_COLUMNS]


def _provenance(results: Results, algorithm: Algorithm) -> dict[str, Any]:
    games = [
        {"id": runs_id(results, algorithm.name, game), "rows": _run_rows(results, algorithm, game)}
        for game in games_of(results, algorithm.name)
    ]
    return {
        "id": algorithm_id(results, algorithm.name),
        "name": algorithm.name,
        "label": algorithm.label,
        "color": algorithm.color % len(COLORS),
        "origin": algorithm.origin_label,
        "games": games,
        "num_runs": f"{_count(len(algorithm.runs), 'run')} on {_count(len(games), 'game')}",
        "without_runs": f"Means as printed: {algorithm.source}. Scores of single runs were not published.",
    }


def _run_rows(results: Results, algorithm: Algorithm, game: str) -> list[list[PageCell]]:
    score = next((s for s in results.game_scores if (s.algorithm, s.game) == (algorithm.name, game)), None)
    runs = [run for run in algorithm.runs if run.game == game]
    return [_run_row(run, _use(score, len(runs))) for run in runs]


def _use(score: GameScore | None, num_runs: int) -> str:
    """How far the runs of a game are in the aggregates."""
    if score is None or score.num_used == 0:
        return "no"
    return "yes" if score.num_used == num_runs else f"{score.num_used} of {num_runs}"


def _run_row(run: RunScore, use: str) -> list[PageCell]:
    values = [(getter(run), kind) for _, kind, getter in RUN_COLUMNS]
    return [
        PageCell(run.game, kind="text"),
        PageCell(UNKNOWN if run.seed is None else str(run.seed)),
        PageCell(f"{run.score:.6g}"),
        PageCell(use, kind="text"),
        *(PageCell(UNKNOWN if value is None else str(value), kind=kind) for value, kind in values),
    ]
