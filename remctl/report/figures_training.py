"""Figures of training: learning curves and the world model's loss, the paper's Figure 15.

Bands around means over seeds are 95% intervals of Student's t, from three runs
on: two would make them six times as wide. Call within `drawing.styled`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from remctl.drawing import COLUMN, INK, PAGE, Drawing, LeftOut, legend_above, panels, shown, x_label
from remctl.games import reference_scores
from remctl.report.figure_marks import dotted, number, reference_line
from remctl.report.figure_style import label, look
from remctl.report.results import Curve, Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RETURNS = {"test/return_mean": "test return", "collect/return_mean": "return while collecting"}
LOSSES = {
    "world_model/observation_loss": ("training", "-"),
    "test/world_model_observation_loss": ("test", "--"),
}
MIN_RUNS = 3
BANDS = f"Lines: means over runs; bands: 95% intervals (Student's t), where there are {MIN_RUNS} runs or more."


@dataclass(frozen=True)
class Line:
    """Means over training and the half width of their interval (NaN: none)."""

    x: tuple[float, ...]
    mean: tuple[float, ...]
    half: tuple[float, ...]


def t_quantile(degrees: float) -> float:
    """97.5% quantile of Student's t."""
    from scipy.stats import t

    return float(t.ppf(0.975, degrees))


def _line(curve: Curve, *, by_steps: bool) -> Line:
    halves = [
        t_quantile(n - 1) * std / math.sqrt(n) if n >= MIN_RUNS else math.nan
        for std, n in zip(curve.std, curve.num_runs, strict=True)
    ]
    return Line(curve.env_steps if by_steps else curve.epochs, curve.mean, tuple(halves))


def _know_steps(curves: Iterable[Curve]) -> bool:
    return all(math.isfinite(step) for curve in curves for step in curve.env_steps)


def _draw_line(axes: Axes, line: Line, color: str, dash: Any, marker: str | None = None, text: str = "") -> None:
    low = [m - h for m, h in zip(line.mean, line.half, strict=True)]
    high = [m + h for m, h in zip(line.mean, line.half, strict=True)]
    axes.fill_between(line.x, low, high, color=color, alpha=0.17, lw=0)
    marker = "o" if len(line.x) == 1 else marker
    axes.plot(line.x, line.mean, color=color, ls=dash, marker=marker, ms=2.5, lw=1.3, label=text)


def _grid(num: int) -> tuple[Figure, list[Axes]]:
    """A panel per game: large for one, small for many, at most a printed page."""
    if num == 1:
        return panels(num, 1, 1.35 * COLUMN, 2.5)
    return panels(num, 5 if num > 12 else 4, PAGE, 1.3 if num > 12 else 1.5 if num > 4 else 1.9)


def _x_axis(all_axes: Sequence[Axes], *, by_steps: bool) -> str:
    from matplotlib.ticker import MaxNLocator

    for axes in all_axes:
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=not by_steps))
        axes.xaxis.set_major_formatter(_count)
        axes.yaxis.set_major_locator(MaxNLocator(4))
    return "environment steps" if by_steps else "epoch"


def _count(value: float, _position: float | None = None) -> str:
    text = f"{value / 1000:g}k" if abs(value) >= 1000 else f"{value:g}"
    return text.replace("-", "\N{MINUS SIGN}")


def _handles(results: Results, names: Sequence[str]) -> list[Any]:
    from matplotlib.lines import Line2D

    looks = {name: look(results, name) for name in names}
    return [Line2D([], [], color=looks[n].color, ls=looks[n].line, label=label(results, n)) for n in names]


def _in_order(results: Results, names: Iterable[str]) -> list[str]:
    there = set(names)
    return [a.name for a in results.algorithms if a.name in there]


# --- learning curves ---


def learning_curves(results: Results) -> Drawing | LeftOut:
    """Normalized return over training, averaged over the report's games: tested, and while collecting."""
    stem, title = "learning_curves", "Learning curves over all games"
    by_metric = {metric: _normalized_lines(results, metric) for metric in RETURNS}
    by_metric = {metric: lines for metric, lines in by_metric.items() if lines}
    if not by_metric:
        reason = "No algorithm was measured at two or more common points of training on all games of this report."
        return LeftOut(stem, title, reason)
    by_steps = _know_steps(c for c in results.curves if c.metric in by_metric)
    figure, all_axes = panels(len(by_metric), 2, COLUMN * len(by_metric), 2.5, sharey=True)
    for axes, (metric, lines) in zip(all_axes, by_metric.items(), strict=True):
        for name, line in lines.items():
            style = look(results, name)
            _draw_line(axes, line, style.color, style.line, style.marker if metric.startswith("test") else None)
        axes.set_title(RETURNS[metric][0].upper() + RETURNS[metric][1:])
        axes.set_xlabel(_x_axis([axes], by_steps=by_steps))
    all_axes[0].set_ylabel(f"mean {results.normalized} return")
    names = _in_order(results, (n for lines in by_metric.values() for n in lines))
    legend_above(figure, _handles(results, names))
    explanation = f"Mean over {len(results.games)} games. {BANDS} The variance within games is pooled."
    return Drawing(stem, title, explanation, _curves_alt(results, by_metric), figure)


def _curves_alt(results: Results, by_metric: dict[str, dict[str, Line]]) -> str:
    def words(metric: str, lines: dict[str, Line]) -> str:
        parts = [f"{label(results, n)} from {number(x.mean[0])} to {number(x.mean[-1])}" for n, x in lines.items()]
        return f"{RETURNS[metric]}: {', '.join(parts)}"

    return f"Mean {results.normalized} return from first to last measurement; " + "; ".join(
        words(metric, lines) for metric, lines in by_metric.items()
    )


def _normalized_lines(results: Results, metric: str) -> dict[str, Line]:
    """Per algorithm that has the metric on every game of the report, at two or more epochs common to the games."""
    curves = {(c.algorithm, c.game): c for c in results.curves if c.metric == metric}
    by_steps = _know_steps(curves.values())
    lines = {}
    for algorithm in results.algorithms:
        own = [curves[algorithm.name, game] for game in results.games if (algorithm.name, game) in curves]
        epochs = sorted(set.intersection(*(set(c.epochs) for c in own))) if own else []
        if len(own) == len(results.games) and len(epochs) > 1:
            points = [_pooled([(c, c.epochs.index(epoch)) for c in own], by_steps=by_steps) for epoch in epochs]
            x, mean, half = zip(*points, strict=True)
            lines[algorithm.name] = Line(x, mean, half)
    return lines


def _pooled(points: Sequence[tuple[Curve, int]], *, by_steps: bool) -> tuple[float, float, float]:
    """x, mean over games and half its interval (Welch and Satterthwaite's degrees of freedom) at one epoch."""
    values, variances, degrees = [], [], []
    for curve, i in points:
        reference = reference_scores(curve.game)
        values.append(reference.normalized(curve.mean[i]))
        variances.append((curve.std[i] / reference.span) ** 2 / curve.num_runs[i])
        degrees.append(curve.num_runs[i] - 1)
    x = sum((c.env_steps if by_steps else c.epochs)[i] for c, i in points) / len(points)
    mean, variance = sum(values) / len(points), sum(variances)
    if min(degrees) + 1 < MIN_RUNS:
        return x, mean, math.nan
    if variance == 0:
        return x, mean, 0.0
    pooled = variance**2 / sum(v**2 / d for v, d in zip(variances, degrees, strict=True))
    return x, mean, t_quantile(pooled) * math.sqrt(variance) / len(points)


def learning_curves_per_game(results: Results) -> Drawing | LeftOut:
    """Raw returns over training, one panel per game: tested where that was done more than once, else collected."""
    stem, title = "learning_curves_per_game", "Learning curves per game"
    for metric, text in RETURNS.items():
        curves = [c for c in results.curves if c.metric == metric]
        if any(len(c.epochs) > 1 for c in curves):
            return _curve_grid(results, curves, text, stem, title)
    return LeftOut(stem, title, "No run of ours was measured at more than one point of its training.")


def _curve_grid(results: Results, curves: Sequence[Curve], text: str, stem: str, title: str) -> Drawing:
    games = [g for g in (*results.games, *results.raw_games) if any(c.game == g for c in curves)]
    games += sorted({c.game for c in curves} - set(games))
    by_steps = _know_steps(curves)
    figure, all_axes = _grid(len(games))
    for axes, game in zip(all_axes, games, strict=True):
        for curve in (c for c in curves if c.game == game):
            style = look(results, curve.algorithm)
            _draw_line(axes, _line(curve, by_steps=by_steps), style.color, style.line)
        axes.set_title(shown(game), fontsize=8)
        axes.yaxis.set_major_formatter(_count)
        axes.tick_params(labelsize=6.5)
    x_label(figure, _x_axis(all_axes, by_steps=by_steps))
    for axes, game in zip(all_axes, games, strict=True):
        axes.yaxis.set_major_formatter(_count)
        reference_line(axes, results, game, across=True)
    figure.supylabel(text, fontsize=8)
    names = _in_order(results, (c.algorithm for c in curves))
    legend_above(figure, _handles(results, names))
    alt = f"One panel per game ({len(games)}), raw {text} against {'steps' if by_steps else 'epochs'}, "
    explanation = f"{BANDS} {dotted(results, games)}"
    return Drawing(stem, title, explanation, alt + f"for {', '.join(label(results, n) for n in names)}", figure)


# --- world model loss ---


def observation_loss(results: Results) -> Drawing | LeftOut:
    """Figure 15: the world model's observation loss in training and in test, per game."""
    from matplotlib.lines import Line2D

    stem, title = "observation_loss", "Observation loss of the world model"
    curves = [c for c in results.curves if c.metric in LOSSES and len(c.epochs) > 1]
    if not curves:
        return LeftOut(stem, title, "No run of ours logged the world model's observation loss at two epochs.")
    games = list(dict.fromkeys(c.game for c in curves))
    figure, all_axes = _grid(len(games))
    for axes, game in zip(all_axes, games, strict=True):
        for curve in (c for c in curves if c.game == game):
            _, dash = LOSSES[curve.metric]
            _draw_line(axes, _spread(curve), look(results, curve.algorithm).color, dash)
        axes.set_title(shown(game), fontsize=8)
        axes.tick_params(labelsize=6.5)
    x_label(figure, _x_axis(all_axes, by_steps=False))
    figure.supylabel("cross-entropy per token (nats)", fontsize=8)
    names = _in_order(results, (c.algorithm for c in curves))
    there = [kind for metric, kind in LOSSES.items() if any(c.metric == metric for c in curves)]
    kinds = [Line2D([], [], color=INK, ls=dash, label=text) for text, dash in there]
    colors = [Line2D([], [], color=look(results, n).color, label=label(results, n)) for n in names]
    legend_above(figure, [*colors, *kinds])
    alt = f"Loss against epochs on {len(games)} games for {', '.join(label(results, n) for n in names)}"
    explanation = "Lines: means over runs; bands: plus and minus a standard deviation, as in the paper."
    return Drawing(stem, title, explanation, alt, figure)


def _spread(curve: Curve) -> Line:
    return Line(
        curve.epochs,
        curve.mean,
        tuple(s if n > 1 else math.nan for s, n in zip(curve.std, curve.num_runs, strict=True)),
    )
