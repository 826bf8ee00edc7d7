"""The figure of differences to the control. Call within `drawing.styled`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from remctl.drawing import INK, MAX_LABEL, PAGE, Drawing, LeftOut, panels, shown, x_label
from remctl.report.figure_marks import (
    BARS,
    MANY_GAMES,
    SHOWN_METRICS,
    Mark,
    draw_marks,
    name_rows,
    over,
    panel_height,
    small_panel,
    thousands,
)
from remctl.report.figure_style import label, look
from remctl.report.results import LOWER_IS_BETTER, METRIC_LABELS, Difference, Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def differences(results: Results) -> Drawing | LeftOut:
    """Every algorithm minus the control, with intervals and a line at zero."""
    stem, title = "differences", "Differences from the control"
    groups: dict[tuple[str, str | None], list[Difference]] = {}
    for row in sorted((r for r in results.differences if _is_shown(r)), key=_metric_order):
        groups.setdefault((row.metric, row.game), []).append(row)
    if not groups or results.control is None:
        reason = "There is no control to compare with." if results.control is None else "Nothing shares its games."
        return LeftOut(stem, title, reason)
    names = list(dict.fromkeys(row.algorithm for rows in groups.values() for row in rows))
    is_small = len(groups) > MANY_GAMES
    num_columns = 5 if is_small else 4
    height = small_panel(len(names)) if is_small else panel_height(len(names))
    figure, all_axes = panels(len(groups), num_columns, PAGE, height, sharey=True)
    for axes, ((metric, game), rows) in zip(all_axes, groups.items(), strict=True):
        _difference_panel(axes, results, names, rows, is_small=is_small)
        title_of = shown(str(game)) if game else f"{METRIC_LABELS[metric]}{' ↓' * (metric in LOWER_IS_BETTER)}"
        axes.set_title(title_of, fontsize=7 if is_small else None)
    for axes in all_axes[:: min(num_columns, len(groups))]:
        name_rows(axes, results, names, lambda name: label(results, name, 20 if is_small else MAX_LABEL))
    control = label(results, results.control)
    units = f"{results.normalized} score" + (", single games: raw score" if any(game for _, game in groups) else "")
    x_label(figure, f"difference from {control} ({units})")
    explanation = f"{over(results)} {BARS} Pale: the interval includes no difference.".lstrip()
    alt = [
        f"{label(results, r.algorithm)} {r.metric} {_difference_mark(results, r)}"
        for rows in groups.values()
        for r in rows
    ]
    return Drawing(stem, title, explanation, f"Differences from {control}: {', '.join(alt)}", figure)


def _is_shown(row: Difference) -> bool:
    return row.game is not None or row.metric in SHOWN_METRICS


def _metric_order(row: Difference) -> int:
    return len(SHOWN_METRICS) if row.game is not None else SHOWN_METRICS.index(row.metric)


def _difference_mark(results: Results, row: Difference) -> Mark:
    return Mark(row.value, row.ci_low, row.ci_high, look(results, row.algorithm), is_faded=row.separated is False)


def _difference_panel(
    axes: Axes, results: Results, names: Sequence[str], rows: Sequence[Difference], *, is_small: bool
) -> None:
    from matplotlib.ticker import MaxNLocator

    draw_marks(axes, {names.index(row.algorithm): _difference_mark(results, row) for row in rows}, len(names))
    axes.axvline(0, color=INK, lw=0.8, ls="--")
    axes.xaxis.set_major_locator(MaxNLocator(2 if is_small else 3, min_n_ticks=2))
    if is_small:
        axes.tick_params(labelsize=6.5)
    axes.xaxis.set_major_formatter(thousands)
