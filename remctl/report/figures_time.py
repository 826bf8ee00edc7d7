"""Figures of what training costs: time per epoch (the paper's Figures 1, left, and 11) and score against hours.

Times of different hardware are never merged. Call within `drawing.styled`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from remctl.drawing import COLUMN, FAINT, PAGE, PAPER, Drawing, LeftOut, legend_above, panels, shown, x_label
from remctl.report.figure_marks import panel_height
from remctl.report.figure_style import label, look
from remctl.report.results import Results, Timing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PHASES = {"tokenizer": "Tokenizer", "world_model": "World model", "controller": "Controller", "epoch": "Whole epoch"}
DEVICES = "os^Dv<>"  # one marker per kind of hardware


def epoch_time(results: Results) -> Drawing | LeftOut:
    """Figures 1 (left) and 11: seconds per epoch of each component, by algorithm and hardware."""
    from matplotlib.ticker import MaxNLocator

    stem, title = "epoch_time", "Time per epoch"
    rows = [t for t in results.timings if t.phase in PHASES and t.epoch_s is not None]
    if not any(t.origin != "published" for t in rows):
        return LeftOut(stem, title, "No run of ours has timings.")
    names = list(dict.fromkeys((t.algorithm, t.hardware, t.origin) for t in rows))
    phases = [phase for phase in PHASES if any(t.phase == phase for t in rows)]
    figure, all_axes = panels(len(phases), 4, PAGE, panel_height(len(names)) + 0.12 * len(names), sharey=True)
    for axes, phase in zip(all_axes, phases, strict=True):
        for t in (t for t in rows if t.phase == phase):
            _time_bar(axes, results, names.index((t.algorithm, t.hardware, t.origin)), t)
        axes.set(title=PHASES[phase], ylim=(len(names) - 0.45, -0.55))
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        axes.margins(x=0.25)
        axes.xaxis.set_major_locator(MaxNLocator(3))
    all_axes[0].set_yticks(range(len(names)), [_time_label(results, *row) for row in names])
    x_label(figure, "seconds per epoch (median)")
    alt = ", ".join(
        f"{_time_label(results, t.algorithm, t.hardware, t.origin)} {t.phase} {t.epoch_s:.3g} s" for t in rows
    )
    explanation = "Medians over epochs and runs. Hollow: as published. Compare bars of the same hardware only."
    return Drawing(stem, title, explanation, f"Seconds per epoch: {alt}", figure)


def _time_label(results: Results, name: str, hardware: str, origin: str) -> str:
    text = label(results, name)
    published = ", published" if origin == "published" and "published" not in text else ""
    return f"{text}{published}\n{shown(hardware)}"


def _time_bar(axes: Axes, results: Results, row: int, timing: Timing) -> None:
    color = look(results, timing.algorithm).color
    seconds = timing.epoch_s or 0.0
    axes.barh(row, seconds, 0.6, fc=PAPER if timing.origin == "published" else color, ec=color, lw=1.1)
    axes.annotate(f"{seconds:.3g}", (seconds, row), (3, 0), textcoords="offset points", va="center", fontsize=7)


def score_against_time(results: Results) -> Drawing | LeftOut:
    """What a score costs: IQM (single games outside Atari 100K: raw means) against the hours of a run on one device."""
    from matplotlib.ticker import MaxNLocator

    stem, title = "score_against_time", "Score against time"
    hours = [t for t in results.timings if t.phase == "run" and t.total_s and t.origin != "published"]
    scores = _scores_to_buy(results)
    scores = {k: v for k, v in scores.items() if any(t.algorithm in v for t in hours)}
    if not scores:
        return LeftOut(stem, title, "No run of ours has both a score and the time it took.")
    hardware = list(dict.fromkeys(t.hardware for t in hours))
    figure, all_axes = panels(len(scores), 3, PAGE if len(scores) > 1 else 1.2 * COLUMN, 2.5)
    for axes, (unit, values) in zip(all_axes, scores.items(), strict=True):
        for t in (t for t in hours if t.algorithm in values):
            _cost_point(axes, results, t, values[t.algorithm], DEVICES[hardware.index(t.hardware) % len(DEVICES)])
        axes.set(xlabel="hours per run on one device", ylabel=unit)
        axes.margins(x=0.25, y=0.12)
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(5))
    legend_above(figure, _cost_handles(results, [t.algorithm for t in hours], hardware))
    alt = ", ".join(
        f"{label(results, t.algorithm)} {(t.total_s or 0) / 3600:.3g} h on {shown(t.hardware, 40)}" for t in hours
    )
    explanation = "Vertical bars: 95% intervals. Hours: mean wall-clock time of a whole run, tests included."
    return Drawing(stem, title, explanation, f"Hours per run: {alt}", figure)


Estimate = tuple[float, float | None, float | None]


def _scores_to_buy(results: Results) -> dict[str, dict[str, Estimate]]:
    """Axis label -> algorithm -> value, low, high."""
    scores: dict[str, dict[str, Estimate]] = {}
    for row in results.aggregates:
        if row.metric == "iqm":
            scores.setdefault(f"IQM, {results.normalized}", {})[row.algorithm] = (row.value, row.ci_low, row.ci_high)
    for game_score in results.game_scores:
        if game_score.game in results.raw_games:
            estimate = (game_score.mean, game_score.ci_low, game_score.ci_high)
            scores.setdefault(f"raw score on {shown(game_score.game)}", {})[game_score.algorithm] = estimate
    return scores


def _cost_point(axes: Axes, results: Results, timing: Timing, estimate: Estimate, marker: str) -> None:
    value, low, high = estimate
    x, color = (timing.total_s or 0) / 3600, look(results, timing.algorithm).color
    if low is not None and high is not None:
        axes.vlines(x, low, high, color=color, lw=1.4)
    axes.plot(x, value, marker=marker, color=color, ms=6, ls="none")


def _cost_handles(results: Results, names: Sequence[str], hardware: Sequence[str]) -> list[Any]:
    """Colours for algorithms, then markers for devices."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    style: dict[str, Any] = {"color": FAINT, "ls": "none", "ms": 6}
    colors = [Patch(color=look(results, name).color, label=label(results, name)) for name in dict.fromkeys(names)]
    devices = [
        Line2D([], [], marker=DEVICES[i % len(DEVICES)], label=shown(h, 40), **style) for i, h in enumerate(hardware)
    ]
    return [*colors, *devices]
