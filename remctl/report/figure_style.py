"""The look of an algorithm in the report's figures, and how these become files; the rest of their look is in `drawing`.

An algorithm has one colour, marker and line style in every figure (`Algorithm.color` is the index, see `colors`); marker and
line tell ours from the published of the same agent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from remctl.drawing import COLORS, FAINT, LINES, MARKERS, MAX_LABEL, Drawing, pictures, shown, shown_apart
from remctl.report.colors import agent_of
from remctl.report.results import FigureName, Results
from remctl.runs.files import write_atomic


@dataclass(frozen=True)
class Look:
    """How an algorithm looks, everywhere."""

    color: str
    marker: str
    line: Any


@dataclass(frozen=True)
class WrittenFigure:
    """A figure on disk. `svg` is its picture as text, whether or not that was written to `paths`.

    `name`: what the report asked for; None for a figure of a benchmark.
    """

    name: FigureName | None
    stem: str
    title: str
    caption: str
    explanation: str
    alt: str
    paths: tuple[Path, ...]
    svg: str


def look(results: Results, name: str) -> Look:
    """The look of an algorithm; of a name not among the report's (published timings) its agent's, else grey."""
    known = {a.name: a.color for a in results.algorithms}
    if name not in known:
        agent = agent_of(name)
        same = [other for other in known if agent is not None and agent_of(other) == agent]
        return look(results, same[0]) if same else Look(FAINT, "d", "-")
    index, cycle = known[name] % len(COLORS), known[name] // len(COLORS)
    before = list(known.values())[: list(known).index(name)].count(known[name])  # of the same agent
    return Look(COLORS[index], MARKERS[(index + cycle + before) % len(MARKERS)], LINES[(cycle + before) % len(LINES)])


def label(results: Results, name: str, max_length: int = MAX_LABEL) -> str:
    """The label of an algorithm as it can stand in a figure, unlike any other's; with its origin if the labels are the same."""
    text, labels = results.label(name), [a.label for a in results.algorithms]
    if labels.count(text) > 1:
        origin = f", {results.algorithm(name).origin}"
        return shown(text, max_length - len(origin)) + origin
    apart = dict(zip(labels, shown_apart(labels, max_length), strict=True))
    return apart.get(text) or shown(text, max_length)


def write(
    drawing: Drawing, name: FigureName | None, caption: str, folder: Path, formats: Sequence[str]
) -> WrittenFigure:
    """Writes the figure in every format under `folder`, which must exist. Raises MachineError."""
    encoded = pictures(drawing.figure, ("svg", *(f for f in formats if f != "svg")))
    paths = []
    for file_format in formats:
        path = folder / f"{drawing.stem}.{file_format}"
        write_atomic(path, encoded[file_format])
        paths.append(path)
    about = (drawing.stem, drawing.title, caption, drawing.explanation, drawing.alt)
    return WrittenFigure(name, *about, tuple(paths), encoded["svg"].decode())
