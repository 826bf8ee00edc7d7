"""The figures of a benchmark: bars per phase (the paper's Figures 1 left, 10 and 11), growth along one axis, hours of a run,
throughput of processes side by side.

A bar or point is the median of the rounds, its whisker the interval of `remctl.bench.spread`. Numbers that no clock gives
(less than MIN_SECONDS, more than MAX_SECONDS) are not drawn: a bench.json may be somebody else's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from remctl.bench.figures_packing import bench_packing
from remctl.bench.figures_scaling import bench_scaling
from remctl.bench.marks import (
    MAX_ROWS,
    MAX_SECONDS,
    PHASES,
    colors,
    is_drawn,
    measured_on,
    phase_name,
    whiskers,
)
from remctl.bench.numbers import HOUR_S, digits, unit_of
from remctl.bench.result import Case, Prediction, Result, Spread
from remctl.bench.spread import verdict
from remctl.drawing import (
    COLORS,
    FORMATS,
    INK,
    LINE,
    PAGE,
    Drawing,
    LeftOut,
    footnote,
    legend_above,
    panels,
    pictures,
    shown,
    shown_apart,
    styled,
)
from remctl.errors import UserError
from remctl.runs.files import make_folder, remove, write_atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BAR, ROW_HEIGHT, FRAME_HEIGHT = 0.6, 0.3, 0.72  # of a row; inches: of a row, of title and axis
TEXT_ROOM = 1.55  # the axis ends at so many times the longest bar, so that numbers stand beside all
INSIDE = 0.09  # of the axis: narrower segments bear no number
MAX_PANELS = 12
MAX_RATIO = 1e6
WHISKER: dict[str, Any] = {"fmt": "none", "ecolor": INK, "elinewidth": 1.0, "capsize": 2, "capthick": 1.0}
ROUND = (1, 2, 2.5, 5, 10)  # steps of an axis


@dataclass(frozen=True)
class Bar:
    """One row of one panel, in seconds. `times`: over the case `to`; `is_clear`: its interval excludes 1."""

    name: str
    value: float
    low: float
    high: float
    times: float | None
    is_clear: bool
    to: str


def draw(result: Result) -> list[Drawing | LeftOut]:
    """All figures, or why one is left out. Call within `drawing.styled`."""
    return [make(result) for make in FIGURES]


def write_figures(result: Result, out: Path, formats: Sequence[str] = FORMATS) -> list[Path]:
    """Writes `out`/figures/<stem>.<format> of every figure that the result bears, each atomically; the same bytes each time.

    Raises UserError for a format that is not of FORMATS, MachineError where the disk refuses.
    """
    for unknown in sorted(set(formats) - set(FORMATS)):
        raise UserError(f"a figure cannot be written as {unknown!r}: choose among {', '.join(FORMATS)}")
    folder = out / "figures"
    make_folder(folder)
    paths = []
    with styled():
        for drawing in draw(result):
            if isinstance(drawing, Drawing):
                footnote(drawing.figure, drawing.explanation)
                for file_format, data in pictures(drawing.figure, formats).items():
                    paths.append(folder / f"{drawing.stem}.{file_format}")
                    write_atomic(paths[-1], data)
    for stem in STEMS:  # of an earlier benchmark
        for stale in {folder / f"{stem}.{file_format}" for file_format in FORMATS} - set(paths):
            if stale.exists():
                remove(stale)
    return paths


# --- bars per phase


def bench_paper(result: Result) -> Drawing | LeftOut:
    """Figures 1 (left) and 11: seconds per epoch of each component, for REM, IRIS and IRIS with REM's configuration."""
    return _bars(result, "paper", "Time per epoch: REM and IRIS")


def bench_ablations(result: Result) -> Drawing | LeftOut:
    """Figure 10: the same for REM without POP and without the latent-space controller."""
    return _bars(result, "ablations", "Time per epoch without parts of REM")


def bench_components(result: Result) -> Drawing | LeftOut:
    """What each part of POP gives."""
    return _bars(result, "components", "What each part of POP gives")


def _bars(result: Result, suite: str, title: str) -> Drawing | LeftOut:
    stem = f"bench_{suite}"
    cases = [c for c in result.of(suite) if is_drawn(c)]
    if not cases:
        return LeftOut(stem, title, f"Nothing of the suite {suite} was measured.")
    labels = _labels(cases)
    names = list(dict.fromkeys(labels[c.key] for c in cases))[:MAX_ROWS]
    phases = _in_order(c.phase for c in cases)[:MAX_PANELS]
    figure, all_axes = panels(len(phases), 2, PAGE, FRAME_HEIGHT + ROW_HEIGHT * len(names), sharey=True)
    look, said, bases = colors(result), [], []
    for axes, phase in zip(all_axes, phases, strict=True):
        of_phase = [c for c in cases if c.phase == phase and labels[c.key] in names]
        per_epoch = all(0 < (c.per_epoch_s or 0) < MAX_SECONDS for c in of_phase)
        bars = {labels[c.key]: _bar(c, of_phase, per_epoch) for c in of_phase}
        unit, words = _draw_bars(axes, names, bars, look)
        axes.set(title=phase_name(phase), xlabel=f"{unit} per {'epoch' if per_epoch else 'run of the work'}")
        said.append(f"{phase_name(phase)}: {', '.join(words)} {unit}")
        bases += [bar.to for bar in bars.values() if bar.times]
    all_axes[0].set_yticks(range(len(names)), shown_apart(names, 40))
    explanation = f"{_ratio_words(bases)}{whiskers(cases)} {measured_on(result)}"
    return Drawing(stem, title, explanation, "; ".join(said) + ".", figure)


def _ratio_words(bases: Sequence[str]) -> str:
    if not bases:
        return ""
    to = " and ".join(shown(name) for name in dict.fromkeys(bases))
    return f"Bars: medians; n×: time over that of {to} in the same rounds, ≈ where its interval holds 1. "


def _labels(cases: Sequence[Case]) -> dict[tuple[str | int, ...], str]:
    """Row of every case by its key: the name, and what else tells apart two cases of a name in one phase."""
    alike: dict[tuple[str, str], list[Case]] = {}
    for c in cases:
        alike.setdefault((c.name, c.phase), []).append(c)
    labels: dict[tuple[str | int, ...], str] = {}
    for same in alike.values():
        parts: tuple[Callable[[Case], str], ...] = (
            lambda c: c.precision,
            lambda c: f"batch {c.batch_size}",
            lambda c: c.config_hash[:8],
        )
        telling = [part for part in parts if len({part(c) for c in same}) > 1]
        labels |= {c.key: ", ".join((c.name, *(part(c) for part in telling))) for c in same}
    return labels


def _in_order(phases: Iterable[str]) -> list[str]:
    """Those known in the order of training, then others as they come."""
    there = list(dict.fromkeys(phases))
    return [p for p in PHASES if p in there] + [p for p in there if p not in PHASES]


def _bar(case: Case, cases: Sequence[Case], per_epoch: bool) -> Bar:
    """In seconds per epoch or per run of the work; the ratio is of the same."""
    runs = (case.per_epoch_s or 0.0) / case.median if per_epoch else 1.0
    interval = (runs * case.spread.low, runs * case.spread.high)
    bases = [c for c in cases if c.name == case.baseline and c.precision == case.precision]
    of = min(bases, key=lambda c: c.batch_size != case.batch_size, default=None)
    if case.ratio is None or of is None or not 0 < case.ratio.median < MAX_RATIO:
        return Bar(case.name, runs * case.median, *interval, None, False, "")
    more = runs / ((of.per_epoch_s or 0.0) / of.median) if per_epoch else 1.0  # runs of the work for one of the base's
    times = case.ratio.spread
    is_clear = verdict(Spread(low=more * times.low, high=more * times.high, coverage=times.coverage)) != "no difference"
    return Bar(case.name, runs * case.median, *interval, more * case.ratio.median, is_clear, case.ratio.to)


def _draw_bars(axes: Axes, names: Sequence[str], bars: dict[str, Bar], look: dict[str, str]) -> tuple[str, list[str]]:
    """Bars in their rows, with numbers beside them; the unit, and what they say in words."""
    from matplotlib.ticker import MaxNLocator

    unit, size = unit_of(max(bar.value for bar in bars.values()))
    words = []
    for row, bar in ((names.index(name), bar) for name, bar in bars.items()):
        value, low, high = (seconds / size for seconds in (bar.value, bar.low, bar.high))
        axes.barh(row, value, BAR, color=look[bar.name], alpha=0.85, lw=0)
        axes.errorbar(value, row, xerr=[[max(0.0, value - low)], [max(0.0, high - value)]], **WHISKER)
        text = digits(value) + ("" if bar.times is None else f"   {'' if bar.is_clear else '≈ '}{digits(bar.times)}×")
        axes.annotate(text, (max(value, high), row), (4, 0), textcoords="offset points", va="center", fontsize=7.5)
        words.append(f"{shown(names[row], 40)} {' '.join(text.split())}")
    axes.set_xlim(0, TEXT_ROOM * max(max(bar.value, bar.high) for bar in bars.values()) / size)
    _rows(axes, len(names))
    axes.xaxis.set_major_locator(MaxNLocator(4, steps=ROUND))
    return unit, words


def _rows(axes: Axes, num_rows: int) -> None:
    axes.set_ylim(num_rows - 0.45, -0.55)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


# --- hours of a run


def bench_phases(result: Result) -> Drawing | LeftOut:
    """Hours of a whole run, phase by phase, as predicted from the phases of an epoch."""
    from matplotlib.patches import Patch
    from matplotlib.ticker import MaxNLocator

    stem, title = "bench_phases", "Predicted hours of a whole run"
    runs = [p for p in result.predictions if 0 < p.hours * HOUR_S < MAX_SECONDS][:MAX_ROWS]
    if not runs:
        return LeftOut(stem, title, "The time of no whole run was predicted.")
    phases = _in_order(phase for run in runs for phase in run.phase_hours)[:MAX_PANELS]
    palette = {phase: COLORS[i % len(COLORS)] for i, phase in enumerate(phases)}
    figure, (axes,) = panels(1, 1, PAGE, 0.5 + 0.42 * len(runs))
    longest = max(max(run.hours, sum(_hours(run, p) for p in phases)) for run in runs)
    for row, run in enumerate(runs):
        start = 0.0
        for phase in (p for p in phases if _hours(run, p)):
            hours = _hours(run, phase)
            axes.barh(row, hours, BAR, start, color=palette[phase], lw=0)
            if hours > INSIDE * longest:
                axes.text(
                    start + hours / 2, row, f"{digits(hours)}", ha="center", va="center", color=_on(palette[phase])
                )
            start += hours
        axes.annotate(f"{digits(run.hours)} h", (start, row), (4, 0), textcoords="offset points", va="center")
    axes.set(xlim=(0, 1.13 * longest), xlabel="hours")
    _rows(axes, len(runs))
    axes.set_yticks(range(len(runs)), shown_apart([run.label for run in runs], 40))
    axes.xaxis.set_major_locator(MaxNLocator(8, steps=ROUND))
    figure.set_figheight(figure.get_figheight() + LINE)
    legend_above(figure, [Patch(color=palette[p], label=phase_name(p)) for p in phases])
    said = (
        f"{shown(run.label, 40)} {digits(run.hours)} h ("
        + ", ".join(f"{phase_name(p)} {digits(run.phase_hours[p])}" for p in phases if p in run.phase_hours)
        + ")"
        for run in runs
    )
    explanation = (
        f"From the measured phases of an epoch; imagination is part of the controller's. {measured_on(result)}"
    )
    return Drawing(stem, title, explanation, f"Hours: {', '.join(said)}.", figure)


def _hours(run: Prediction, phase: str) -> float:
    """0 where the phase does not run, or no such time is possible."""
    hours = run.phase_hours.get(phase, 0.0)
    return hours if 0 < hours < MAX_SECONDS else 0.0


def _on(color: str) -> str:
    """Black or white, whichever can be read on a colour."""
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return "#000000" if 0.299 * red + 0.587 * green + 0.114 * blue > 110 else "#fefefe"


FIGURES: tuple[Callable[[Result], Drawing | LeftOut], ...] = (
    bench_paper,
    bench_ablations,
    bench_components,
    bench_scaling,
    bench_phases,
    bench_packing,
)
STEMS = tuple(make.__name__ for make in FIGURES)
