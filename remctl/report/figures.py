"""The report's figures as files: which are drawn, which are left out and why.

Scores are in `figures_scores`, training in `figures_training`, time in `figures_time`; `figure_style` makes them
alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from remctl.drawing import FORMATS, Drawing, LeftOut, styled
from remctl.errors import UserError
from remctl.report import figures_scores as scores
from remctl.report import figures_time as time
from remctl.report import figures_training as training
from remctl.report.benchmarks import bench_drawings, bench_stems
from remctl.report.figure_style import WrittenFigure, write
from remctl.report.figures_differences import differences
from remctl.report.results import Figure, FigureName, Results
from remctl.runs.files import make_folder

Draw = Callable[[Results], Drawing | LeftOut]

DRAW: Mapping[FigureName, tuple[Draw, ...]] = {
    "aggregates": (scores.aggregates, scores.iqm),
    "performance_profile": (scores.performance_profile,),
    "probability_of_improvement": (scores.probability_of_improvement,),
    "differences": (differences,),
    "per_game": (scores.per_game,),
    "learning_curves": (training.learning_curves, training.learning_curves_per_game),
    "observation_loss": (training.observation_loss,),
    "timing": (time.epoch_time, time.score_against_time),
}


def stems(results: Results) -> list[str]:
    """Names, without ending, of all that `write_figures` may write."""
    own = [draw.__name__ for wanted in results.figures for draw in DRAW[wanted.name]]
    return own + [stem for benchmark in results.benchmarks for stem in bench_stems(benchmark)]


def write_figures(results: Results, out: Path, formats: Sequence[str] = FORMATS) -> list[WrittenFigure | LeftOut]:
    """Draws the figures that `results.figures` names, and those of benchmarks, into `out`/figures, as `<stem>.<format>`.

    Returns, in that order, what was written and what was left out with the reason: one name may stand for two figures.
    The same results give the same bytes. Raises UserError for a format that is not of FORMATS, MachineError where the disk
    refuses.
    """
    for unknown in sorted(set(formats) - set(FORMATS)):
        raise UserError(f"a figure cannot be written as {unknown!r}: choose among {', '.join(FORMATS)}")
    folder = out / "figures"
    if formats:
        make_folder(folder)
    outcomes: list[WrittenFigure | LeftOut] = []
    with styled():
        for wanted in results.figures:
            for draw in DRAW[wanted.name]:
                outcomes.append(_written(draw(results), wanted, folder, formats))
        for benchmark in results.benchmarks:
            outcomes += [_written(drawn, None, folder, formats) for drawn in bench_drawings(benchmark)]
    return outcomes


def _written(
    drawn: Drawing | LeftOut, wanted: Figure | None, folder: Path, formats: Sequence[str]
) -> WrittenFigure | LeftOut:
    if isinstance(drawn, LeftOut):
        return drawn
    name, caption = (wanted.name, wanted.caption) if wanted else (None, "")
    return write(drawn, name, caption, folder, formats)
