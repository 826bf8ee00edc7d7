"""How tables of a benchmark are shown: split between columns rather than inside cells where the terminal is narrow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations, groupby

from rich.padding import Padding

from remctl.bench.numbers import NOTHING
from remctl.bench.table import BenchTable
from remctl.commands.output import show, table, width

GAP = 3  # between columns, as `table` draws them
INDENT = "  "


def show_tables(tables: Mapping[str, BenchTable]) -> None:
    """Title, the table in as many parts as the terminal needs, notes; a blank line between tables, and no note twice."""
    said: set[str] = set()
    for number, made in enumerate(tables.values()):
        if number:
            show("")
        show_table(replace(made, notes=tuple(note for note in made.notes if note not in said)))
        said |= set(made.notes)


def show_table(made: BenchTable) -> None:
    """One of them."""
    show(made.title)
    for number, part in enumerate(fitted(made, width())):
        if number:
            show("")
        show(table(part.header, part.rows, right=part.header[part.num_left :]))
    for note in made.notes:
        show(Padding(note, (0, 0, 0, len(INDENT))))


def fitted(made: BenchTable, width: int) -> list[BenchTable]:
    """The fewest parts that fit, each with the columns that say what a row is about, without rows that say nothing there.

    Where it saves parts, rows are grouped under their first column. What cannot fit stays whole.
    """
    if _width(made) <= width:
        return [made]
    choices = [parts for grouped in (False, True) if (parts := _split(made, width, grouped and made.num_left > 1))]
    return min(choices, key=len) if choices else [made]


def _width(made: BenchTable) -> int:
    widths = [max(len(row[i]) for row in (made.header, *made.rows)) for i in range(len(made.header))]
    return sum(widths) + GAP * (len(widths) - 1)


def _split(made: BenchTable, width: int, grouped: bool) -> list[BenchTable] | None:
    """As few parts, then rows, then characters across as can be; None where a column alone is too wide."""
    num_columns = len(made.header) - made.num_left
    for num_parts in range(1, num_columns + 1):
        ways = [
            _parts(made, (0, *cuts, num_columns), grouped)
            for cuts in combinations(range(1, num_columns), num_parts - 1)
        ]
        fitting = [parts for parts in ways if max(map(_width, parts)) <= width]
        if fitting:
            return min(fitting, key=lambda parts: (sum(len(part.rows) for part in parts), max(map(_width, parts))))
    return None


def _parts(made: BenchTable, cuts: Sequence[int], grouped: bool) -> list[BenchTable]:
    spans = zip(cuts[:-1], cuts[1:], strict=True)
    parts = [_columns(made, made.num_left + start, made.num_left + stop) for start, stop in spans]
    return [_grouped(part) for part in parts] if grouped else parts


def _columns(made: BenchTable, start: int, stop: int) -> BenchTable:
    header = (*made.header[: made.num_left], *made.header[start:stop])
    rows = [(*row[: made.num_left], *row[start:stop]) for row in made.rows if set(row[start:stop]) != {NOTHING}]
    return replace(made, header=header, rows=tuple(rows))


def _grouped(made: BenchTable) -> BenchTable:
    """The first column becomes a line above the rows that share it."""
    rows: list[tuple[str, ...]] = []
    for group, members in groupby(made.rows, key=lambda row: row[0]):
        rows.append((group, *[""] * (len(made.header) - 2)))
        rows += [(INDENT + row[1], *row[2:]) for row in members]
    return replace(made, header=made.header[1:], rows=tuple(rows), num_left=made.num_left - 1)
