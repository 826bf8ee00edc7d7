"""Printing: tables that fit the terminal, JSON, plain text. Nothing a user gave is read as rich's markup."""

from __future__ import annotations

import os
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from typing import Any

from rich import box
from rich.cells import cell_len, chop_cells
from rich.console import Console, RenderableType
from rich.measure import Measurement
from rich.table import Column, Table
from rich.text import Text

from remctl.explain import as_json
from remctl.runs.files import finite

LEAST = 20  # columns: no terminal is narrower
NO_LIMIT = 100_000  # columns: nothing is folded for a pipe or a file
LAST_FLOOR, FLOOR = 20, 12  # columns of text are not made narrower than this many characters
SECTIONS = re.compile(r"(?<=\+)(?:\w+\.)+(?=\w+=)")  # of the keys in the name of a grid's point
PIECES = (re.compile(r"[^\s/,+]*[\s/,+]?"), re.compile(r"[^_=.:-]*[_=.:-]?"))  # where a cell is folded, if it must be


def show(renderable: RenderableType) -> None:
    """Print a table or text.

    A line for a terminal is as wide as that is, or as $COLUMNS says; into a pipe or a file lines are as long as they need
    to be. Nothing is cut: a table that is too wide has its cells folded, or its rows written one below the other.
    """
    console = Console(markup=False, highlight=False, emoji=False)
    console.width = limit = width()
    if isinstance(renderable, Table):
        renderable = _fitted(renderable, console, limit)
        console.width = max(limit, _natural(renderable, console))
    if console.is_terminal:
        console.print(renderable)
        return
    with console.capture() as captured:
        console.print(renderable)
    print("\n".join(line.rstrip() for line in captured.get().splitlines()))


def width() -> int:
    """Return how many columns output may take: of the terminal, of $COLUMNS, else no end of them."""
    console = Console()
    is_limited = console.is_terminal or os.environ.get("COLUMNS", "").isdigit()
    return max(LEAST, console.width) if is_limited else NO_LIMIT


# --- tables that do not fit


def _natural(table: RenderableType, console: Console) -> int:
    return Measurement.get(console, console.options.update(max_width=NO_LIMIT), table).maximum


def _fitted(table: Table, console: Console, limit: int) -> Table | Text:
    if _natural(table, console) <= limit or not table.columns:
        return table
    table = _with(table, list(zip(*(_briefly(list(map(str, column.cells))) for column in table.columns), strict=True)))
    needed = [_widest(column) for column in table.columns]
    too_much = _natural(table, console) - limit
    widths, last = list(needed), len(needed) - 1
    for i in sorted(range(len(needed)), key=lambda i: (i != last, -needed[i])):
        if table.columns[i].justify != "right":
            widths[i] = max(min(needed[i], LAST_FLOOR if i == last else FLOOR), needed[i] - max(0, too_much))
            too_much -= needed[i] - widths[i]
    return _stacked(table, limit) if too_much > 0 else _folded(table, widths)


def _widest(column: Column) -> int:
    return max(cell_len(line) for cell in (column.header, *column.cells) for line in [*str(cell).splitlines(), ""])


def _briefly(cells: list[str]) -> list[str]:
    """Keys without their sections, where that leaves different cells different."""
    brief = [SECTIONS.sub("", cell) for cell in cells]
    return brief if len(set(brief)) == len(set(cells)) else cells


def _folded(table: Table, widths: Sequence[int]) -> Table:
    rows = [[_fold(cell, most) for cell, most in zip(row, widths, strict=True)] for row in _rows(table)]
    made = _with(table, rows)
    for column, most in zip(made.columns, widths, strict=True):
        column.header, column.no_wrap = _fold(str(column.header), most), True
    return made


def _with(table: Table, rows: Iterable[Sequence[str]]) -> Table:
    """The same table with other cells."""
    made = copy(table)
    made.columns, made.rows = [column.copy() for column in table.columns], []
    for row, cells in zip(table.rows, rows, strict=True):
        made.add_row(*cells, style=row.style)
    return made


def _rows(table: Table) -> list[tuple[str, ...]]:
    return [tuple(map(str, row)) for row in zip(*(column.cells for column in table.columns), strict=True)]


def _fold(cell: str, most: int) -> str:
    """The cell in lines of at most `most` characters, broken between words or behind a mark if that is possible."""
    return "\n".join(line.rstrip() for given in cell.splitlines() for line in _lines(given, most, PIECES))


def _lines(text: str, most: int, kinds: Sequence[re.Pattern[str]]) -> list[str]:
    """Text in lines; a piece of one kind that is too long is broken into those of the next, at last anywhere."""
    if cell_len(text.rstrip()) <= most:
        return [text]
    if not kinds:
        return chop_cells(text, most)
    lines = [""]
    for piece in kinds[0].findall(text):
        if cell_len(f"{lines[-1]}{piece}".rstrip()) <= most:
            lines[-1] += piece
        else:
            lines += _lines(piece, most, kinds[1:])
    return [line for line in lines if line.strip()]


def _stacked(table: Table, limit: int) -> Text:
    """Each row by itself: its first cell, and below it the others with their names, as many on a line as it takes."""
    lines = _fold(str(table.title or ""), limit).splitlines()
    names = [str(column.header) for column in table.columns]
    for first, *others in _rows(table):
        lines += _fold(first, limit).splitlines() or ["-"]
        line = ""
        for name, cell in zip(names[1:], others, strict=True):
            for part in f"{name} {cell}".strip().splitlines() if cell else ():
                if line and cell_len(f"  {line}  {part}") > limit:
                    lines.append(f"  {line}")
                    line = ""
                line = f"{line}  {part}".strip()
                *whole, line = _fold(line, limit - 2).splitlines() or [""]
                lines += [f"  {one}" for one in whole]
        lines += [f"  {line}"] if line else []
    lines += _fold(str(table.caption or ""), limit).splitlines()
    return Text("\n".join(lines))


def show_json(value: Any) -> None:
    """Print strict JSON: what is not finite becomes null."""
    print(as_json(finite(value)))


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[str] = ()) -> Table:
    """A table without a frame; the columns in `right` are aligned right; the last column is folded first."""
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left")
    for row in rows:
        made.add_row(*row)
    return made


def facts(values: Mapping[str, str]) -> Table:
    """Two columns, name and value."""
    made = Table.grid(padding=(0, 2))
    made.add_column()
    made.add_column()
    for name, value in values.items():
        made.add_row(name, value)
    return made


def summary(result: Mapping[str, Any]) -> dict[str, str]:
    """One short line for each entry of a result; a long list as its spread."""
    return {name.replace("_", " "): _short(value) for name, value in result.items()}


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list) and len(value) > 4 and all(isinstance(x, int | float) for x in value):
        low, middle, high = min(value), statistics.median(value), max(value)
        return f"{len(value)} values: least {low:.4g}, median {middle:.4g}, most {high:.4g}"
    if isinstance(value, list):
        return ", ".join(_short(x) for x in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_short(x)}" for name, x in value.items())
    return str(value)
