"""Printing: tables that fit 80 columns, JSON, plain text. Nothing a user gave is read as rich's markup."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console, RenderableType
from rich.measure import Measurement
from rich.table import Table

from remctl.explain import as_json
from remctl.runs.files import finite

MAX_WIDTH = 80


def show(renderable: RenderableType) -> None:
    """Print a table or text; without rich's trailing blanks where no terminal needs them."""
    console = Console(markup=False, highlight=False, emoji=False)
    # On a narrower terminal the lines of a table that does not fit are wrapped rather than cut.
    needed = Measurement.get(console, console.options.update(max_width=MAX_WIDTH), renderable).minimum
    console.width = max(console.width, needed)
    if console.is_terminal:
        console.print(renderable)
        return
    with console.capture() as captured:
        console.print(renderable)
    print("\n".join(line.rstrip() for line in captured.get().splitlines()))


def show_json(value: Any) -> None:
    """Print strict JSON: what is not finite becomes null."""
    print(as_json(finite(value)))


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[str] = ()) -> Table:
    """A table without a frame; the columns in `right` are aligned right; the last column wraps first."""
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in columns:
        last = column == columns[-1]
        made.add_column(column, justify="right" if column in right else "left", no_wrap=not last, overflow="fold")
    for row in rows:
        made.add_row(*row)
    return made


def facts(values: Mapping[str, str]) -> Table:
    """Two columns, name and value."""
    made = Table.grid(padding=(0, 2))
    made.add_column(no_wrap=True)
    made.add_column(overflow="fold")
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
