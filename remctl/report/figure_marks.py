"""Rows of estimates with intervals: the panel that most of the report's figures are made of.

A bar spans the 95% interval, a stroke in it is the estimate. Without an interval: a marker; hollow where the value was
published and not computed here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from remctl.drawing import FAINT, INK, PAPER
from remctl.games import HUMAN, find_reference, reference_name
from remctl.report.figure_style import Look, label
from remctl.report.results import Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHOWN_METRICS = ("median", "iqm", "mean", "optimality_gap")
BARS = "Bars: 95% intervals of a stratified bootstrap; strokes in them: estimates."
MANY_GAMES = 12  # from here on panels are smaller
BAR = 0.56  # of a row
ROW_HEIGHT, FRAME_HEIGHT = 0.235, 0.62  # inches: of a row, of title and axis


@dataclass(frozen=True)
class Mark:
    """One estimate. `is_faded`: drawn lighter, for an interval that says nothing clear."""

    value: float
    low: float | None
    high: float | None
    look: Look
    is_published: bool = False
    is_faded: bool = False

    def __str__(self) -> str:
        return number(self.value) + ("" if self.low is None else f" ({number(self.low)} to {number(self.high)})")


def number(value: float | None) -> str:
    """Three digits that matter, for text: 0.673, 1.22, 17500."""
    if value is None:
        return "unknown"
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:.{digits}f}".replace("-", "\N{MINUS SIGN}")


def panel_height(num_rows: int) -> float:
    """Inches of a panel with this many rows."""
    return FRAME_HEIGHT + ROW_HEIGHT * num_rows


def small_panel(num_rows: int) -> float:
    """Inches, so that 26 of them stand on a page."""
    return 0.48 + 0.145 * num_rows


def over(results: Results) -> str:
    """`Over 8 games.`; nothing where there is no aggregate."""
    num = len(results.games)
    return f"Over {num} game{'s' if num != 1 else ''}." if num else ""


def thousands(value: float, _position: float | None = None) -> str:
    """A tick's label, as short as it can be."""
    text = f"{value / 1000:g}k" if abs(value) >= 10_000 else f"{value:g}"
    return text.replace("-", "\N{MINUS SIGN}")


def reference_line(axes: Axes, results: Results, game: str, *, across: bool = False) -> None:
    """A dotted line at a game's reference score, if that is in reach; what it is stands below unless it is human.

    Upright, or `across` if scores are on the vertical axis. Limits of the axes stay.
    """
    found = None if game in results.raw_games else find_reference(game)
    low, high = axes.get_ylim() if across else axes.get_xlim()
    if found is None or not low <= found.score <= high:
        return
    draw, keep = (axes.axhline, axes.set_ylim) if across else (axes.axvline, axes.set_xlim)
    draw(found.score, color=FAINT, lw=0.9, ls=":")
    keep(low, high)
    if found.name != HUMAN:
        axes.set_xlabel(f"dotted: {found.label}", fontsize=6, color=FAINT)


def dotted(results: Results, games: Sequence[str]) -> str:
    """What the lines of `reference_line` are, for panels of `games`."""
    return f"Dotted line: the {reference_name(set(games) - set(results.raw_games))} score, where it is in reach."


def draw_marks(axes: Axes, marks: Mapping[int, Mark], num_rows: int) -> None:
    """Marks by row, counted from the top. The axis of values is left to the caller."""
    from matplotlib.ticker import MaxNLocator

    for row, mark in marks.items():
        _draw(axes, row, mark)
    axes.use_sticky_edges = False  # bars do not touch the frame
    axes.set_ylim(num_rows - 0.45, -0.55)
    axes.set_yticks(range(num_rows))
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))


def _draw(axes: Axes, row: int, mark: Mark) -> None:
    color = mark.look.color
    if mark.low is not None and mark.high is not None:
        axes.barh(row, mark.high - mark.low, BAR, mark.low, color=color, alpha=0.4 if mark.is_faded else 0.85, lw=0)
        axes.vlines(mark.value, row - BAR / 2, row + BAR / 2, color=INK, lw=1.5)
    else:
        face = PAPER if mark.is_published else color
        axes.plot(mark.value, row, marker=mark.look.marker, mfc=face, mec=color, mew=1.1, ms=5.5, ls="none")


def name_rows(axes: Axes, results: Results, names: Sequence[str], text: Callable[[str], str] | None = None) -> None:
    """Labels of the algorithms at the rows of a panel; `text` maps a name to another label."""
    axes.set_yticks(range(len(names)), [text(n) if text else label(results, n) for n in names])


def separate_groups(axes: Axes, results: Results, names: Sequence[str]) -> None:
    """A line where token-based algorithms meet the others, as in the paper's figures."""
    among = [name in results.bold_among for name in names]
    changes = [row for row in range(1, len(among)) if among[row] != among[row - 1]]
    if len(changes) == 1:
        axes.axhline(changes[0] - 0.5, color=FAINT, lw=0.8)


def legend_handles(marks: Sequence[Mark]) -> list[Any]:
    """What a bar, a filled and a hollow marker mean, as far as they are there; nothing where all are bars."""
    from matplotlib.lines import Line2D

    published = any(m.is_published for m in marks)
    single = any(m.low is None and not m.is_published for m in marks)
    kinds = ((published, PAPER, "as published, no interval"), (single, FAINT, "no interval: too few runs"))
    style: dict[str, Any] = {"marker": "o", "mec": FAINT, "ls": "none", "mew": 1.3, "ms": 5}
    return [Line2D([], [], mfc=face, label=text, **style) for there, face, text in kinds if there]


def description(results: Results, marks: Mapping[str, Mark]) -> str:
    """The marks in words, by algorithm: `REM 0.673 (0.58 to 0.76), IRIS 0.501`."""
    return ", ".join(f"{label(results, name)} {mark}" for name, mark in marks.items())
