"""The tables of the HTML page: those of `tables`, with links to where numbers come from, origins and values to sort by."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from remctl.bench.numbers import LARGE_UNITS
from remctl.drawing import COLORS
from remctl.report.benchmarks import bench_tables
from remctl.report.cells import NOTHING, Cell, Table
from remctl.report.results import Results
from remctl.report.tables import display_tables
from remctl.report.tables_comparisons import ORIGIN

UNKNOWN = "unknown"
_WITH_UNIT = re.compile(
    r"(?:no difference \()?(-?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?) ?(x|%|h|s|ms|us|ns|[kMGTP]?B?)(?![\w.])"
)
_SPREAD = re.compile(r" [\[(]")
_UNITS = {"": 1.0, "B": 1.0, "x": 1.0, "%": 0.01, "h": 3600.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9} | {
    letter + byte: size for size, letter in LARGE_UNITS for byte in ("", "B")
}
_NUMBER = re.compile(r"[-+]?\d+(\.\d+)?(e[-+]?\d+)?")


@dataclass(frozen=True)
class PageCell:
    """A cell as the template shows it; nothing in it is escaped yet.

    `kind` is a class of the style sheet, `value` what the column sorts by (empty: unknown, None: the text), `href` the
    identifier of the place where the number comes from, `swatch` the colour index of an algorithm.
    """

    text: str
    tail: str = ""
    kind: str = ""
    value: str | None = None
    href: str | None = None
    bold: bool = False
    underline: bool = False
    origin: str = ""
    swatch: int | None = None


Row = tuple[PageCell, ...]


@dataclass(frozen=True)
class PageTable:
    """`name` ends the identifiers of the table on the page."""

    name: str
    title: str
    header: Row
    rows: tuple[Row, ...]
    foot: tuple[Row, ...] = ()
    notes: tuple[str, ...] = ()


def algorithm_id(results: Results, name: str) -> str | None:
    """Identifier of an algorithm's part of the provenance; None for a name that is not among them."""
    names = [a.name for a in results.algorithms]
    return f"algorithm-{names.index(name)}" if name in names else None


def games_of(results: Results, name: str) -> tuple[str, ...]:
    """Games with runs of the algorithm, in the order of the provenance."""
    return tuple(dict.fromkeys(run.game for run in results.algorithm(name).runs))


def runs_id(results: Results, name: str, game: str | None) -> str | None:
    """Identifier of the runs behind an algorithm's number on a game; of all its runs where there is no such game."""
    whole = algorithm_id(results, name)
    if whole is None or game is None or game not in games_of(results, name):
        return whole
    return f"{whole}-game-{games_of(results, name).index(game)}"


def page_tables(results: Results) -> dict[str, PageTable]:
    """All tables with rows, by name, in the order of `tables.display_tables`."""
    tables = {name: table for name, table in display_tables(results).items() if table.rows}
    measured = {name for benchmark in results.benchmarks for name in bench_tables(benchmark)}
    pages = {}
    for name, table in tables.items():
        if name in ("aggregates", "per_game"):
            page = _by_algorithm(results, table, turned=name == "aggregates")
        elif name == "performance_profile":
            page = _profile(results, table)
        elif name in measured:
            page = _measured(table)
        else:
            page = _by_row(results, table if name == "timing" else _without_origin(table))
        pages[name] = replace(page, notes=tuple(note for note in table.notes if note not in results.notes))
    return pages


def _cell(cell: Cell, *, is_text: bool, href: str | None = None) -> PageCell:
    if is_text:
        return PageCell(cell.text, kind="text", href=href)
    text, tail = cell.parts
    number = _NUMBER.match(text)
    value = number[0] if number else None if text and text != NOTHING else ""
    return PageCell(text, tail, "", value, href if text != NOTHING else None, cell.bold, cell.underline)


def _head(results: Results, name: str) -> PageCell:
    algorithm = results.algorithm(name)
    return PageCell(algorithm.label, origin=algorithm.origin_label, swatch=algorithm.color % len(COLORS))


def _by_algorithm(results: Results, table: Table, *, turned: bool) -> PageTable:
    """Tables with a column per algorithm: row one is their origin, the first rule ends it, the second begins the foot."""
    names = [a.name for a in results.algorithms]
    first = len(table.header) - len(names)  # columns before those of the algorithms
    body_end = table.rules[1] if len(table.rules) > 1 else len(table.rows)

    def row(cells: Sequence[Cell], game: str | None) -> Row:
        links = [runs_id(results, name, game) for name in names]
        before = [_cell(cell, is_text=i < table.num_left) for i, cell in enumerate(cells[:first])]
        return (*before, *(_cell(c, is_text=False, href=to) for c, to in zip(cells[first:], links, strict=True)))

    head = (*_header(table.header[:first], table.num_left), *(_head(results, name) for name in names))
    body = tuple(row(cells, cells[0].text) for cells in table.rows[table.rules[0] : body_end])
    foot = tuple(row(cells, None) for cells in table.rows[body_end:])
    if not turned:
        return PageTable(table.name, table.title, head, body, foot)
    return _turn(table, head, (*body, *foot))


def _turn(table: Table, head: Row, rows: tuple[Row, ...]) -> PageTable:
    """Algorithms as rows, so that a metric can be sorted by."""
    header = (PageCell("Algorithm", kind="text"), *(PageCell(row[0].text) for row in rows))
    turned = tuple(
        (replace(name, kind="text"), *(row[column] for row in rows)) for column, name in enumerate(head) if column > 0
    )
    return PageTable(table.name, table.title, header, turned)


def _header(texts: Sequence[str], num_left: int) -> Row:
    return tuple(PageCell(text, kind="text" if i < num_left else "") for i, text in enumerate(texts))


def _profile(results: Results, table: Table) -> PageTable:
    names = [p.algorithm for p in results.profiles]
    links = [algorithm_id(results, name) for name in names]
    rows = tuple(
        (
            _cell(cells[0], is_text=True),
            *(_cell(c, is_text=False, href=to) for c, to in zip(cells[1:], links, strict=True)),
        )
        for cells in table.rows[table.rules[0] :]
    )
    header = (*_header(table.header[:1], 1), *(_head(results, name) for name in names))
    return PageTable(table.name, table.title, header, rows)


def _without_origin(table: Table) -> Table:
    """Without its column of origins, which the page shows below the names."""
    if ORIGIN not in table.header:
        return table
    column = table.header.index(ORIGIN)
    header = (*table.header[:column], *table.header[column + 1 :])
    rows = tuple((*row[:column], *row[column + 1 :]) for row in table.rows)
    return replace(table, header=header, rows=rows, num_left=table.num_left - 1)


def _by_row(results: Results, table: Table) -> PageTable:
    """Tables with a row per value: algorithms are named in the first columns, with their origin."""
    named: dict[str, list[tuple[tuple[str, ...], str | None]]] = {
        "probability_of_improvement": [((i.better, i.than), i.game) for i in results.improvements],
        "differences": [((d.algorithm,), d.game) for d in results.differences],
        "learning_curves": [((c.algorithm,), c.game) for c in results.curves],
        "timing": [((t.algorithm,), None) for t in results.timings],
    }
    rows = []
    for cells, (names, game) in zip(table.rows, named[table.name], strict=True):
        link = runs_id(results, names[0], game)
        row = [_cell(c, is_text=i < table.num_left, href=link) for i, c in enumerate(cells)]
        for i, name in enumerate(names):
            row[i] = _named(results, name, row[i])
        row[len(names) : table.num_left] = [replace(c, href=None) for c in row[len(names) : table.num_left]]
        rows.append(tuple(row))
    wordy = [i for i, column in enumerate(zip(*rows, strict=True)) if not any(c.value for c in column)]
    left = [[replace(c, kind=c.kind or "text") if i in wordy else c for i, c in enumerate(row)] for row in rows]
    header = [PageCell(text, kind="text" if i in wordy else "") for i, text in enumerate(table.header)]
    return PageTable(table.name, table.title, tuple(header), tuple(map(tuple, left)))


def _measured(table: Table) -> PageTable:
    """Tables of a benchmark: values with units and spreads, sorted by what they mean."""
    rows = [[_value(c, is_text=i < table.num_left) for i, c in enumerate(row)] for row in table.rows]
    wordy = [not any(c.value for c in column) for column in zip(*rows, strict=True)]
    rows = [
        [replace(c, kind="text") if is_wordy else c for c, is_wordy in zip(row, wordy, strict=True)] for row in rows
    ]
    header = tuple(PageCell(text, kind="text" * wordy[i]) for i, text in enumerate(table.header))
    return PageTable(table.name, table.title, header, tuple(map(tuple, rows)))


def _value(cell: Cell, *, is_text: bool) -> PageCell:
    if is_text:
        return PageCell(cell.text, kind="text")
    found = _WITH_UNIT.match(cell.text)
    start = _SPREAD.search(cell.text)
    at = start.start() if start else len(cell.text)
    text, tail = cell.text[:at], cell.text[at:]
    if not found:
        return PageCell(text, tail, value="" if cell.text in ("", NOTHING) else None)
    value = float(found[1].replace(",", "")) * _UNITS[found[2] or ""]
    return PageCell(text, tail, value=f"{1 / value if cell.text.endswith(' faster') and value else value:.6g}")


def _named(results: Results, name: str, cell: PageCell) -> PageCell:
    known = {a.name: a for a in results.algorithms}
    if name not in known:
        return cell
    algorithm = known[name]
    href = algorithm_id(results, name)
    return replace(cell, kind="text brief", origin=algorithm.origin, swatch=algorithm.color % len(COLORS), href=href)


def missing_table(results: Results) -> PageTable:
    """Runs without a score."""
    header = (*_header(("Algorithm", "Game", "Seed", "Reason", "Path"), 5),)
    rows = tuple(
        (
            _named(results, m.algorithm, PageCell(results.label(m.algorithm), kind="text")),
            PageCell(m.game, kind="text"),
            PageCell(seed := "" if m.seed is None else str(m.seed), kind="text", value=seed),
            PageCell(m.reason, kind="text path"),
            PageCell(m.path, kind="text path"),
        )
        for m in results.missing
    )
    return PageTable("missing", "Runs that were expected or begun and have no score", header, rows)
