"""Figures of scores: aggregates, performance profiles, probability of improvement, games.

The paper's Figures 1 (right), 7, 8 and 12 for the 26 games; 9, 13 and 14 for the ablations. Every function takes the
results and returns a drawing, or why there is none. Call within `drawing.styled`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from remctl.drawing import COLUMN, FAINT, GRID, INK, PAGE, Drawing, LeftOut, legend_above, panels, shown, x_label
from remctl.games import reference_name
from remctl.report.figure_marks import (
    BARS,
    MANY_GAMES,
    SHOWN_METRICS,
    Mark,
    description,
    dotted,
    draw_marks,
    legend_handles,
    name_rows,
    over,
    panel_height,
    reference_line,
    separate_groups,
    small_panel,
    thousands,
)
from remctl.report.figure_style import label, look
from remctl.report.results import LOWER_IS_BETTER, METRIC_LABELS, Improvement, Profile, Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ONE_PANEL = 1.35 * COLUMN
ENOUGH_OF_A_PROFILE = 0.005  # the score axis ends where no curve is above it


def _metric_title(metric: str) -> str:
    return METRIC_LABELS[metric] + (" (lower is better)" if metric in LOWER_IS_BETTER else "")


def _marks(results: Results, metric: str) -> dict[str, Mark]:
    """Value of a metric by algorithm; what only the paper can know is taken as it prints it."""
    published = {a.name for a in results.algorithms if a.origin == "published"}
    marks = {
        p.algorithm: Mark(p.value, None, None, look(results, p.algorithm), is_published=True)
        for p in results.printed
        if p.metric == metric
    }
    for row in results.aggregates:
        if row.metric == metric:
            is_published = row.algorithm in published
            marks[row.algorithm] = Mark(row.value, row.ci_low, row.ci_high, look(results, row.algorithm), is_published)
    return {a.name: marks[a.name] for a in results.algorithms if a.name in marks}


def _by_row(names: Sequence[str], marks: Mapping[str, Mark]) -> dict[int, Mark]:
    return {names.index(name): mark for name, mark in marks.items()}


# --- aggregates ---


def aggregates(results: Results) -> Drawing | LeftOut:
    """Figures 7 and 13: median, IQM, mean and optimality gap with intervals."""
    stem, title = "aggregates", "Aggregate metrics"
    by_metric = {m: marks for m in SHOWN_METRICS if (marks := _marks(results, m))}
    if not by_metric:
        return LeftOut(stem, title, "There is no game with reference scores that all algorithms have.")
    names = [a.name for a in results.algorithms if any(a.name in marks for marks in by_metric.values())]
    figure, all_axes = panels(len(by_metric), 4, PAGE, panel_height(len(names)), sharey=True)
    for axes, (metric, marks) in zip(all_axes, by_metric.items(), strict=True):
        draw_marks(axes, _by_row(names, marks), len(names))
        separate_groups(axes, results, names)
        axes.set_title(_metric_title(metric) if metric not in LOWER_IS_BETTER else f"{METRIC_LABELS[metric]} ↓")
    name_rows(all_axes[0], results, names)
    x_label(figure, f"{results.normalized} score")
    legend_above(figure, legend_handles([m for marks in by_metric.values() for m in marks.values()]))
    alt = "; ".join(f"{METRIC_LABELS[m]}: {description(results, marks)}" for m, marks in by_metric.items())
    return Drawing(stem, title, f"{over(results)} {BARS} Lower is better for the optimality gap.", alt, figure)


def iqm(results: Results) -> Drawing | LeftOut:
    """Figure 1, right: the interquartile mean alone, with its numbers."""
    stem, title = "iqm", "Interquartile mean"
    marks = _marks(results, "iqm")
    if not marks:
        return LeftOut(stem, title, "No algorithm has scores of single runs on the games of this report.")
    names = list(marks)
    figure, (axes,) = panels(1, 1, COLUMN, panel_height(len(names)))
    draw_marks(axes, _by_row(names, marks), len(names))
    name_rows(axes, results, names)
    separate_groups(axes, results, names)
    for row, mark in enumerate(marks.values()):
        x = mark.value if mark.high is None else mark.high
        axes.annotate(f"{mark.value:.3f}", (x, row), (5, 0), textcoords="offset points", va="center", fontsize=7.5)
    axes.margins(x=0.16)
    x_label(figure, f"IQM of the {results.normalized} score")
    legend_above(figure, legend_handles(list(marks.values())))
    return Drawing(stem, title, f"{over(results)} {BARS}", f"IQM: {description(results, marks)}", figure)


# --- performance profiles ---


def performance_profile(results: Results) -> Drawing | LeftOut:
    """Figures 8 and 14: fraction of runs above every score, with bands."""
    from matplotlib.ticker import PercentFormatter

    stem, title = "performance_profile", "Performance profiles"
    if not results.profiles:
        return LeftOut(stem, title, "No algorithm has scores of single runs on the games of this report.")
    figure, (axes,) = panels(1, 1, ONE_PANEL, 2.7)
    for profile in results.profiles:
        style = look(results, profile.algorithm)
        if profile.ci_low and profile.ci_high:
            axes.fill_between(profile.taus, profile.ci_low, profile.ci_high, color=style.color, alpha=0.17, lw=0)
        axes.plot(profile.taus, profile.fractions, color=style.color, ls=style.line, label=_name(results, profile))
    axes.axvline(1, color=FAINT, lw=0.8, ls=":")
    one = reference_name(results.games)
    axes.annotate(f" {one}", (1, 1.0), xycoords=("data", "axes fraction"), fontsize=7, color=FAINT, va="top")
    axes.set(xlim=(results.profiles[0].taus[0], _end_of_profiles(results.profiles)), ylim=(0, 1.01))
    axes.set(xlabel=f"{results.normalized} score τ", ylabel="runs with a score above τ")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    legend_above(figure, axes.get_legend_handles_labels()[0])
    how = f"{over(results)} Bands: pointwise 95% intervals of a stratified bootstrap. Dotted: the {one} score."
    return Drawing(stem, title, how, _profile_alt(results), figure)


def _name(results: Results, profile: Profile) -> str:
    return label(results, profile.algorithm)


def _end_of_profiles(profiles: Sequence[Profile]) -> float:
    ends = [t for p in profiles for t, f in zip(p.taus, p.fractions, strict=True) if f > ENOUGH_OF_A_PROFILE]
    return max([*ends, 1.05])


def _profile_alt(results: Results) -> str:
    def above_reference(profile: Profile) -> float:
        below = [f for t, f in zip(profile.taus, profile.fractions, strict=True) if t <= 1]
        return below[-1] if below else profile.fractions[0]

    parts = [f"{_name(results, p)} {above_reference(p):.0%}" for p in results.profiles]
    one = reference_name(results.games)
    return f"Curves that fall from left to right. Runs above the {one} score: {', '.join(parts)}"


# --- probability of improvement ---


def probability_of_improvement(results: Results) -> Drawing | LeftOut:
    """Figures 9 and 12: how likely one algorithm beats another; beside it, with a control, the IQM (Figure 9, right)."""
    stem, title = "probability_of_improvement", "Probability of improvement"
    if not results.improvements:
        return LeftOut(stem, title, "No two algorithms have scores of single runs on the same games.")
    by_game: dict[str | None, list[Improvement]] = {}
    for row in results.improvements:
        by_game.setdefault(row.game, []).append(row)
    marks = _marks(results, "iqm") if results.control else {}
    rows = _improvement_rows(results, with_control=bool(marks))
    num = len(by_game) + bool(marks)
    figure, all_axes = panels(num, 3, PAGE if num > 1 else ONE_PANEL, panel_height(len(rows)), sharey=True)
    drawn = list(marks.values())
    for axes, (game, pairs) in zip(all_axes, by_game.items(), strict=False):
        drawn += _improvement_panel(axes, results, rows, pairs)
        axes.set_title(over(results).rstrip(".") if game is None else shown(game))
    if marks:
        draw_marks(all_axes[-1], _by_row([than for _, than in rows], marks), len(rows))
        all_axes[-1].set(title="IQM", xlabel=f"{results.normalized} score")
    _name_improvement_rows(all_axes[0], results, rows)
    legend_above(figure, legend_handles(drawn))
    explanation = f"{over(results)} {BARS} Dashed: as often better as worse.".lstrip()
    return Drawing(stem, title, explanation, _improvement_alt(results), figure)


def _improvement_rows(results: Results, *, with_control: bool) -> list[tuple[str, str]]:
    """Pairs (better, than) in the order of the report; with an IQM beside them the control has a row of its own."""
    pairs = list(dict.fromkeys((row.better, row.than) for row in results.improvements))
    if not with_control or results.control is None:
        return pairs
    with_iqm = _marks(results, "iqm")
    return [(results.control, name) for name in with_iqm]


def _improvement_panel(
    axes: Axes, results: Results, rows: Sequence[tuple[str, str]], pairs: Sequence[Improvement]
) -> list[Mark]:
    marks = {}
    for pair in pairs:
        style = look(results, pair.than if results.control else pair.better)
        marks[rows.index((pair.better, pair.than))] = Mark(pair.probability, pair.ci_low, pair.ci_high, style)
    draw_marks(axes, marks, len(rows))
    axes.axvline(0.5, color=INK, lw=0.8, ls="--")
    axes.set(xlim=(-0.02, 1.02), xticks=[0, 0.25, 0.5, 0.75, 1], xticklabels=["0", "0.25", "0.5", "0.75", "1"])
    control = results.control and label(results, results.control, 14)
    axes.set_xlabel(f"P({control} > row)" if control else "P(first > second)")
    return list(marks.values())


def _name_improvement_rows(axes: Axes, results: Results, rows: Sequence[tuple[str, str]]) -> None:
    if results.control:
        name_rows(axes, results, [than for _, than in rows])
    else:
        short = 16
        axes.set_yticks(range(len(rows)), [f"{label(results, a, short)} > {label(results, b, short)}" for a, b in rows])


def _improvement_alt(results: Results) -> str:
    parts = []
    for row in results.improvements:
        mark = Mark(row.probability, row.ci_low, row.ci_high, look(results, row.better))
        where = "" if row.game is None else f" on {shown(row.game)}"
        parts.append(f"{label(results, row.better)} over {label(results, row.than)}{where} {mark}")
    return "Probability of improvement: " + ", ".join(parts)


# --- games ---


def per_game(results: Results) -> Drawing | LeftOut:
    """Raw scores of every game: all runs, their mean and its interval."""
    stem, title = "per_game", "Scores per game"
    games = list(dict.fromkeys(row.game for row in results.game_scores))
    if not games:
        return LeftOut(stem, title, "There is no score.")
    names = [a.name for a in results.algorithms]
    num_columns = 5 if len(games) > MANY_GAMES else 4
    height = small_panel(len(names)) if len(games) > MANY_GAMES else 0.48 + 0.18 * len(names)
    figure, all_axes = panels(len(games), num_columns, PAGE if len(games) > 1 else ONE_PANEL, height, sharey=True)
    marks: list[Mark] = []
    for axes, game in zip(all_axes, games, strict=True):
        marks += _game_panel(axes, results, names, game)
    for axes in all_axes[:: min(num_columns, len(games))]:
        name_rows(axes, results, names, lambda name: label(results, name, 24))
    x_label(figure, "raw score")
    legend_above(figure, legend_handles(marks))
    explanation = f"{BARS} Dots: single runs. {dotted(results, games)}"
    alt = f"Raw scores of {len(names)} algorithms on {len(games)} games; the table of scores has the numbers"
    return Drawing(stem, title, explanation, alt, figure)


def _game_panel(axes: Axes, results: Results, names: Sequence[str], game: str) -> list[Mark]:
    published = {a.name for a in results.algorithms if a.origin == "published"}
    rows = [row for row in results.game_scores if row.game == game]
    marks = {
        names.index(r.algorithm): Mark(
            r.mean, r.ci_low, r.ci_high, look(results, r.algorithm), is_published=r.algorithm in published
        )
        for r in rows
    }
    draw_marks(axes, marks, len(names))
    for row in rows:
        dots: dict[str, Any] = {"s": 7, "color": INK, "edgecolors": GRID, "linewidths": 0.4, "zorder": 3}
        if row.ci_low is not None:
            axes.scatter(row.scores, [names.index(row.algorithm)] * len(row.scores), **dots)
    axes.set_title(shown(game), fontsize=8)
    axes.tick_params(labelsize=6.5)
    reference_line(axes, results, game)
    axes.xaxis.set_major_formatter(thousands)
    return list(marks.values())
