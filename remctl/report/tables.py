"""The tables that people read, the same for Markdown, LaTeX and HTML. CSV holds the bare values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from remctl.games import ATARI_100K, find_reference, reference_name
from remctl.report.benchmarks import bench_tables
from remctl.report.cells import NOTHING, Cell, Table, count, duration, marked, runs_per_game, span
from remctl.report.results import LOWER_IS_BETTER, METRIC_LABELS, METRICS, GameScore, Results
from remctl.report.tables_comparisons import differences_table, improvement_table, profile_table


def display_tables(results: Results) -> dict[str, Table]:
    """All tables by name, in the order to be shown; those with nothing to show have no rows.

    Names: aggregates, per_game, performance_profile, probability_of_improvement, differences, learning_curves, timing,
    then those of the benchmarks. Without an algorithm only tables with rows.
    """
    makers: tuple[Callable[[Results], Table], ...] = (
        aggregates_table,
        per_game_table,
        profile_table,
        improvement_table,
        differences_table,
        curves_table,
        timing_table,
    )
    tables = {table.name: table for table in (make(results) for make in makers)}
    if not results.algorithms:
        tables = {name: table for name, table in tables.items() if table.rows}
    return tables | {name: table for b in results.benchmarks for name, table in bench_tables(b).items()}


# --- aggregates


def aggregates_table(results: Results) -> Table:
    """A row per metric, a column per algorithm, with intervals."""
    rows = tuple(_metric_row(results, metric, (), with_interval=True) for metric in _metrics(results))
    return Table(
        "aggregates",
        f"{results.normalized.capitalize()} aggregates over {count(len(results.games), 'game')}",
        ("", *(a.label for a in results.algorithms)),
        (_origin_row(results, ()), *rows, _runs_row(results)) if rows else (),
        rules=(1, 1 + len(rows)),
        notes=(*_interval_notes(results), *results.notes),
    )


def _metrics(results: Results) -> list[str]:
    """The metrics that some algorithm has a value of."""
    there = {row.metric for row in results.aggregates} | {row.metric for row in results.printed}
    return [metric for metric in METRICS if metric in there]


def _metric_row(results: Results, metric: str, before: Sequence[str], with_interval: bool) -> tuple[Cell, ...]:
    found = {a.algorithm: a for a in results.aggregates if a.metric == metric}
    printed = {p.algorithm: p for p in results.printed if p.metric == metric}
    texts: dict[str, str] = {}
    tails: dict[str, str] = {}
    for name, row in found.items():
        texts[name] = _metric_text(metric, row.value)
        if with_interval and row.ci_low is not None and row.ci_high is not None:
            tails[name] = f" [{_metric_text(metric, row.ci_low)}, {_metric_text(metric, row.ci_high)}]"
    for name, as_printed in printed.items():
        texts[name] = _metric_text(metric, as_printed.value)
        tails[name] = "†"
    values = {name: row.value for name, row in (found | printed).items()}
    cells = marked(results, values, texts, tails, lower=metric in LOWER_IS_BETTER)
    arrow = "↓" if metric in LOWER_IS_BETTER else "↑"
    return (Cell(f"{METRIC_LABELS[metric]} ({arrow})"), *(Cell(text) for text in before), *cells)


def _metric_text(metric: str, value: float) -> str:
    return f"{value:.0f}" if metric == "superhuman" else f"{value:.3f}"


def _origin_row(results: Results, before: Sequence[str]) -> tuple[Cell, ...]:
    return (Cell("Origin"), *(Cell(text) for text in before), *(Cell(a.origin_label) for a in results.algorithms))


def _runs_row(results: Results) -> tuple[Cell, ...]:
    return (Cell("Runs per game"), *(Cell(runs_per_game(results, a.name)) for a in results.algorithms))


def _interval_notes(results: Results) -> tuple[str, ...]:
    notes = []
    if any(a.ci_low is not None for a in results.aggregates):
        notes.append(
            f"[low, high]: 95% stratified bootstrap intervals, {results.reps} repetitions, seed {results.seed}."
        )
    if results.printed:
        notes.append("†: as printed in the paper; it cannot be computed from published means.")
    return (*notes, _mark_note(results), *_gap_notes(results))


def _gap_notes(results: Results) -> tuple[str, ...]:
    """Which metrics some algorithm has no value of: its column cannot be the best there."""
    values = [(a.metric, a.algorithm) for a in results.aggregates] + [(p.metric, p.algorithm) for p in results.printed]
    have = {metric: {name for of, name in values if of == metric} for metric in METRICS}
    gaps = [METRIC_LABELS[m] for m in METRICS if 0 < len(have[m]) < len(results.algorithms)]
    return (f"{', '.join(gaps)}: marked among the columns that have a value.",) if gaps else ()


def _mark_note(results: Results) -> str:
    if results.bold_among:
        return f"Bold: best of {', '.join(results.label(n) for n in results.bold_among)}. Underlined: best of all."
    return "Bold: best. Underlined: second best."


# --- per game


def per_game_table(results: Results) -> Table:
    """As the paper's Table 1: a row per game with random and human (or reference) scores, then the metrics."""
    scores = {(s.algorithm, s.game): s for s in results.game_scores}
    games = tuple(dict.fromkeys(s.game for s in sorted(results.game_scores, key=lambda s: _game_rank(s.game))))
    rows = tuple(_game_row(results, game, scores) for game in games)
    one = reference_name(set(games) - set(results.raw_games))
    metrics = tuple(_metric_row(results, m, _trivial(m), with_interval=False) for m in _table1_order(results))
    return Table(
        "per_game",
        "Mean scores per game",
        ("Game", "Random", one.capitalize(), *(a.label for a in results.algorithms)),
        (_origin_row(results, ("", "")), *rows, *metrics, _all_runs_row(results)) if rows else (),
        rules=(1, 1 + len(rows)),
        notes=(*_spread_notes(results), *_interval_notes(results), *results.notes),
    )


def _game_rank(game: str) -> tuple[int, str]:
    return (ATARI_100K.index(game), "") if game in ATARI_100K else (len(ATARI_100K), game)


def _game_row(results: Results, game: str, scores: Mapping[tuple[str, str], GameScore]) -> tuple[Cell, ...]:
    found = {a.name: scores[a.name, game] for a in results.algorithms if (a.name, game) in scores}
    digits = 1 if game in ATARI_100K else 3
    texts = {name: f"{score.mean:.{digits}f}" for name, score in found.items()}
    uneven = {name for name in found if len(_run_counts(results, name)) > 1}
    tails = {
        name: (_interval_text(s, digits) if game not in ATARI_100K else "") + f" ({s.num_runs})" * (name in uneven)
        for name, s in found.items()
    }
    norm = None if game in results.raw_games else find_reference(game)
    norms = [Cell(f"{score:.{digits}f}") for score in (norm.random, norm.score)] if norm else [Cell(NOTHING)] * 2
    return (Cell(game), *norms, *marked(results, {n: s.mean for n, s in found.items()}, texts, tails, lower=False))


def _run_counts(results: Results, name: str) -> set[int]:
    return {s.num_runs for s in results.game_scores if s.algorithm == name}


def _all_runs_row(results: Results) -> tuple[Cell, ...]:
    counts = (span(_run_counts(results, a.name)) for a in results.algorithms)
    return (Cell("Runs per game"), Cell(NOTHING), Cell(NOTHING), *map(Cell, counts))


def _interval_text(score: GameScore, digits: int) -> str:
    if score.ci_low is None or score.ci_high is None:
        return ""
    return f" [{score.ci_low:.{digits}f}, {score.ci_high:.{digits}f}]"


def _table1_order(results: Results) -> list[str]:
    return sorted(_metrics(results), key=lambda metric: metric != "superhuman")


def _trivial(metric: str) -> tuple[str, str]:
    """What random play and the reference have in a metric, by definition."""
    return {"superhuman": ("0", "N/A"), "optimality_gap": ("1.000", "0.000")}.get(metric, ("0.000", "1.000"))


def _spread_notes(results: Results) -> tuple[str, ...]:
    notes = []
    if results.raw_games and any(s.ci_low is not None for s in results.game_scores if s.game in results.raw_games):
        notes.append("[low, high] of a game: 95% bootstrap interval of the mean over seeds.")
    if any(len(_run_counts(results, a.name)) > 1 for a in results.algorithms):
        notes.append("(n): runs of that game, where an algorithm has not equally many of all.")
    return tuple(notes)


# --- training


def curves_table(results: Results) -> Table:
    """The last value of every curve."""
    rows = [
        (
            Cell(results.label(c.algorithm)),
            Cell(c.game),
            Cell(c.metric),
            Cell(str(c.epochs[-1])),
            Cell(f"{c.mean[-1]:.4g}"),
            Cell(f"{c.std[-1]:.3g}"),
            Cell(str(c.num_runs[-1])),
        )
        for c in results.curves
    ]
    header = ("Algorithm", "Game", "Metric", "Last epoch", "Mean", "Std", "Runs")
    return Table("learning_curves", "Last values of the learning curves", header, tuple(rows), num_left=3)


def timing_table(results: Results) -> Table:
    """Seconds per epoch and time per run, by hardware."""
    rows = [
        (
            Cell(results.label(t.algorithm)),
            Cell(t.origin),
            Cell(t.hardware),
            Cell(t.phase),
            Cell(NOTHING if t.epoch_s is None else f"{t.epoch_s:.3g}"),
            Cell(NOTHING if t.total_s is None else duration(t.total_s)),
            Cell(str(t.num_runs) if t.num_runs else NOTHING),
        )
        for t in results.timings
    ]
    header = ("Algorithm", "Origin", "Hardware", "Phase", "s per epoch", "Per run", "Runs")
    return Table("timing", "Times by phase", header, tuple(rows), num_left=4)
