"""How time grows with tokens, horizon, batch and layers: one panel per axis and phase. Call within `drawing.styled`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from remctl.bench.marks import PHASES, colors, is_drawn, measured_on, phase_name, whiskers
from remctl.bench.numbers import unit_of
from remctl.bench.result import Case, Exponent, Result
from remctl.drawing import INK, LINES, MARKERS, PAGE, Drawing, LeftOut, legend_above, panels, shown, shown_apart

if TYPE_CHECKING:
    from matplotlib.axes import Axes

AXES = {
    "tokens_per_obs": "tokens per observation",
    "imagined_steps": "imagined steps",
    "batch_size": "batch size",
    "num_layers": "layers",
}
MAX_PANELS, MAX_LINES = 24, 8
MAX_VALUE, MAX_EXPONENT = 10**9, 100
PANEL_HEIGHT = 2.05  # inches
TEXT_SHARE = 0.085  # of a panel's height: what a line of text takes
TEXT_ROOM = 0.2  # of a panel's width: for the exponents beside the lines
HEADROOM = 0.06  # of a panel's height, above and below the lines


def bench_scaling(result: Result) -> Drawing | LeftOut:
    """Time against the value of one axis, both logarithmic, one line per model, with the exponent fitted to it."""
    stem, title = "bench_scaling", "How time grows"
    cases = [c for c in result.of("scaling") if c.axis and 0 < (c.value or 0) < MAX_VALUE and is_drawn(c)]
    if not cases:
        return LeftOut(stem, title, "Nothing of the suite scaling was measured.")
    names = list(dict.fromkeys(c.name for c in cases))[:MAX_LINES]
    cases = [c for c in cases if c.name in names]
    groups = sorted(dict.fromkeys((c.axis or "", c.phase) for c in cases), key=_rank)[:MAX_PANELS]
    looks = _looks(result, names)
    figure, all_axes = panels(len(groups), 3, PAGE, PANEL_HEIGHT)
    fitted = {(e.axis, e.phase, e.name): e for e in result.exponents if abs(e.exponent) < MAX_EXPONENT}
    said = []
    for panel, (axis, phase) in zip(all_axes, groups, strict=True):
        lines = {n: _line(cases, axis, phase, n) for n in names}
        lines = {n: line for n, line in lines.items() if line}
        exponents = {n: fitted[axis, phase, n] for n in lines if (axis, phase, n) in fitted}
        _draw_panel(panel, lines, looks, exponents)
        panel.set(title=phase_name(phase), xlabel=AXES.get(axis, shown(axis)))
        words = ", ".join(f"{shown(n)} {e.exponent:.2f}" for n, e in exponents.items())
        said.append(f"{phase_name(phase)} against {AXES.get(axis, shown(axis))}: {words or 'no exponents'}")
    legend_above(figure, [_handle(looks[n], text) for n, text in zip(names, shown_apart(names), strict=True)])
    explanation = (
        "Time of one run of the work; both axes are logarithmic. At the lines: fitted exponents, 1 where time grows in "
        f"proportion, 0 where it does not grow. {whiskers(cases)} {measured_on(result)}"
    )
    return Drawing(stem, title, explanation, f"Exponents. {'; '.join(said)}.", figure)


def _rank(group: tuple[str, str]) -> tuple[int, int]:
    axis, phase = group
    return _place(list(AXES), axis), _place(list(PHASES), phase)


def _place(known: Sequence[str], name: str) -> int:
    return known.index(name) if name in known else len(known)


def _looks(result: Result, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    palette = colors(result)
    return {
        name: {"color": palette[name], "marker": MARKERS[i % len(MARKERS)], "ls": LINES[i % len(LINES)]}
        for i, name in enumerate(names)
    }


def _handle(style: Mapping[str, Any], label: str) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], label=label, **style)


def _line(cases: Sequence[Case], axis: str, phase: str, name: str) -> list[Case]:
    """Points of one line, by value; of several at one value the last."""
    points = {c.value or 0: c for c in cases if (c.axis, c.phase, c.name) == (axis, phase, name)}
    return [points[value] for value in sorted(points)]


def _draw_panel(
    axes: Axes,
    lines: Mapping[str, Sequence[Case]],
    looks: Mapping[str, Mapping[str, Any]],
    exponents: Mapping[str, Exponent],
) -> None:
    axes.set(xscale="log", yscale="log", autoscale_on=False)
    for name, points in lines.items():
        x, y = [c.value or 0 for c in points], [c.median for c in points]
        low, high = [c.median - c.spread.low for c in points], [c.spread.high - c.median for c in points]
        axes.errorbar(x, y, yerr=[low, high], elinewidth=1.0, capsize=2, capthick=1.0, **looks[name])
    values = sorted({c.value or 0 for points in lines.values() for c in points})
    seconds = [s for points in lines.values() for c in points for s in (c.spread.low, c.spread.high)]
    _limits(axes, values, min(seconds), max(seconds))
    _ticks(axes, values, max(seconds) / min(seconds))
    _write_exponents(axes, lines, exponents)


def _limits(axes: Axes, values: Sequence[int], low: float, high: float) -> None:
    width = math.log(values[-1] / values[0]) or 1.0
    axes.set_xlim(values[0] * math.exp(-0.06 * width), values[-1] * math.exp(TEXT_ROOM * width / (1 - TEXT_ROOM)))
    height = max(math.log(high / low), math.log(2))
    middle = (math.log(low) + math.log(high)) / 2
    room = (0.5 + HEADROOM) * height
    axes.set_ylim(math.exp(middle - room), math.exp(middle + room))


def _ticks(axes: Axes, values: Sequence[int], times: float) -> None:
    """The values that were measured, at most six; times in round numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

    step = math.ceil(len(values) / 6)
    some = values[::-step][::-1]
    axes.set_xticks(some, [f"{value / 1000:g}k" if value >= 10_000 else str(value) for value in some])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    subs = (1.0,) if times > 30 else (1.0, 2.0, 5.0) if times > 4 else (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)
    axes.yaxis.set_major_locator(LogLocator(10, subs=subs, numticks=12))
    axes.yaxis.set_major_formatter(FuncFormatter(_seconds))
    axes.yaxis.set_minor_locator(NullLocator())


def _seconds(value: float, _position: float | None = None) -> str:
    """A tick: `20 ms`."""
    unit, size = unit_of(value)
    return f"{value / size:.3g} {unit}"


def _write_exponents(axes: Axes, lines: Mapping[str, Sequence[Case]], exponents: Mapping[str, Exponent]) -> None:
    """Beside the last points, moved apart where they would lie over each other."""
    if not exponents:
        return
    low, high = (math.log(y) for y in axes.get_ylim())
    ends = sorted((math.log(lines[name][-1].median), name) for name in exponents)
    gap = TEXT_SHARE * (high - low)
    places: list[float] = []
    for place, _ in ends:
        places.append(max(place, places[-1] + gap) if places else place)
    over = max(0.0, places[-1] - (high - gap / 2))
    for (_, name), place in zip(ends, places, strict=True):
        at = (lines[name][-1].value or 0, math.exp(place - over))
        text = f"{exponents[name].exponent:.2f}".replace("-", "\N{MINUS SIGN}")
        axes.annotate(text, at, (6, 0), textcoords="offset points", va="center", fontsize=7, color=INK)
