"""The tables that compare: performance profiles, probability of improvement, differences to the control."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from remctl.games import ATARI_100K
from remctl.report.cells import NOTHING, Cell, Table, best, count, runs_per_game
from remctl.report.results import LOWER_IS_BETTER, METRIC_LABELS, Difference, Improvement, Profile, Results

SHOWN_TAUS = (0, 0.25, 0.5, 0.75, 1, 1.5, 2, 3, 4, 6, 8, 10)
ORIGIN = "Origin"


def profile_table(results: Results) -> Table:
    """The profile at a few scores; all of it is in the CSV file."""
    names = [p.algorithm for p in results.profiles]
    taus = results.profiles[0].taus if names else ()
    shown = [i for i, tau in enumerate(taus) if any(math.isclose(tau, some, abs_tol=1e-9) for some in SHOWN_TAUS)]
    origins = (Cell(ORIGIN), *(Cell(results.algorithm(name).origin_label) for name in names))
    return Table(
        "performance_profile",
        f"Fraction of runs with a {results.normalized} score above tau",
        ("tau", *(results.label(name) for name in names)),
        (origins, *(_profile_row(results, i) for i in shown)) if names else (),
        rules=(1,),
        notes=(*_resampling_notes(results, results.profiles), *_mark_notes(names), *results.notes) if names else (),
    )


def _profile_row(results: Results, index: int) -> tuple[Cell, ...]:
    values = {p.algorithm: p.fractions[index] for p in results.profiles}
    texts = {name: f"{value:.3f}" for name, value in values.items()}
    bold, underlined = best((), values, texts, lower=False) if len(set(texts.values())) > 1 else (set(), set())
    cells = [
        _with_interval(
            p.fractions[index], *p.interval_at(index), bold=p.algorithm in bold, underline=p.algorithm in underlined
        )
        for p in results.profiles
    ]
    return (Cell(f"{results.profiles[0].taus[index]:.2f}"), *cells)


def _with_interval(
    value: float, low: float | None, high: float | None, digits: int = 3, *, bold: bool = False, underline: bool = False
) -> Cell:
    tail = "" if low is None or high is None else f" [{low:.{digits}f}, {high:.{digits}f}]"
    return Cell(f"{value:.{digits}f}{tail}", bold, underline)


def _resampling_notes(results: Results, rows: Sequence[Profile | Improvement | Difference]) -> Iterator[str]:
    if any(row.ci_low is not None for row in rows):
        yield f"[low, high]: 95% stratified bootstrap intervals, {results.reps} repetitions, seed {results.seed}."


def _comparison_notes(results: Results, rows: Sequence[Improvement | Difference]) -> Iterator[str]:
    yield from _resampling_notes(results, rows)
    if sum(row.ci_low is not None for row in rows) > 1:
        yield (
            "Each interval stands for itself, not corrected for the number of comparisons: of many without any difference "
            "about one in twenty is separated all the same."
        )


def _mark_notes(ranked: Sequence[str]) -> Iterator[str]:
    if len(ranked) > 1:
        yield "Bold: best. Underlined: second best."


def _origins(results: Results, names: Sequence[str]) -> str:
    """`ours (runs/smoke)`; of two that differ `ours (runs/smoke) / file (a.json)`."""
    return " / ".join(dict.fromkeys(results.algorithm(name).origin_label for name in names))


def improvement_table(results: Results) -> Table:
    """P(X > Y) on a game drawn at random."""
    rows = [
        (
            Cell(results.label(row.better)),
            Cell(results.label(row.than)),
            Cell(_origins(results, (row.better, row.than))),
            Cell(row.game or count(row.num_games, "game")),
            _with_interval(row.probability, row.ci_low, row.ci_high),
            Cell(" / ".join(runs_per_game(results, name, row.game) for name in (row.better, row.than))),
        )
        for row in results.improvements
    ]
    return Table(
        "probability_of_improvement",
        "Probability of improvement",
        ("X", "Y", ORIGIN, "Over", "P(X > Y)", "Runs per game"),
        tuple(rows),
        num_left=4,
        notes=(*_comparison_notes(results, results.improvements), *results.notes) if rows else (),
    )


def differences_table(results: Results) -> Table:
    """Each algorithm minus the control, and how many more seeds would separate the two."""
    rows = [
        (
            Cell(results.label(row.algorithm)),
            Cell(_origins(results, (row.algorithm,))),
            Cell(METRIC_LABELS.get(row.metric, "Raw score")),
            Cell(row.game or count(row.num_games, "game")),
            _difference_cell(results, row),
            Cell({True: "yes", False: "no", None: NOTHING}[row.separated]),
            Cell(_more_seeds_text(row)),
            Cell(row.pairing),
        )
        for row in results.differences
    ]
    control = results.label(results.control) if results.control else "the control"
    explained = (
        "More seeds: further runs per game for both, to separate them with a probability of 80% if the true difference is "
        "the one seen here."
    )
    notes = (
        *_comparison_notes(results, results.differences),
        *_mark_notes(list({row.algorithm: None for row in results.differences})),
        explained,
        *results.notes,
    )
    return Table(
        "differences",
        "Differences to the control",
        ("Algorithm", ORIGIN, "Metric", "Over", f"Minus {control}", "Separated", "More seeds", "Paired by"),
        tuple(rows),
        num_left=4,
        notes=notes if rows else (),
    )


def _difference_cell(results: Results, row: Difference) -> Cell:
    """Marked among the differences of the same metric on the same games."""
    digits = 3 if row.game not in ATARI_100K else 1
    values = {r.algorithm: r.value for r in results.differences if (r.metric, r.game) == (row.metric, row.game)}
    texts = {name: f"{value:.{digits}f}" for name, value in values.items()}
    bold, underlined = best((), values, texts, lower=row.metric in LOWER_IS_BETTER)
    marks = {"bold": row.algorithm in bold, "underline": row.algorithm in underlined}
    return _with_interval(row.value, row.ci_low, row.ci_high, digits, **marks)


def _more_seeds_text(row: Difference) -> str:
    if row.separated is None:
        return "no interval"
    if row.value == 0:
        return NOTHING  # no number of seeds separates what does not differ
    return "over 1000" if row.more_seeds is None else str(row.more_seeds)
