"""What tables are made of: cells with their marks.

Marks: without `Results.bold_among` the best of a row is bold and the second best underlined; with it, as in the paper's
Table 1, the best among those is bold and the best of all underlined. Equal as printed is marked alike. A mark is about the
printed value only; whether two differ is what the intervals say.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from remctl.report.results import Results

NOTHING = "-"


@dataclass(frozen=True)
class Cell:
    """Text as it is shown, not escaped. The marks are about its value, not about an interval or a dagger behind it."""

    text: str
    bold: bool = False
    underline: bool = False

    @property
    def parts(self) -> tuple[str, str]:
        """A number and what follows it: ("0.673", " [0.61, 0.73]"); (text, "") where nothing does."""
        found = re.fullmatch(r"(-?[\d.]+)((?: \[.*\])?(?: \(\d+\))?|†)", self.text)
        return (found[1], found[2]) if found else (self.text, "")


@dataclass(frozen=True)
class Table:
    """`name` is the file's stem. `header` names the columns; the first `num_left` columns are text, aligned left.

    `rules` are the numbers of the rows before which a line is drawn. `notes` stand below.
    """

    name: str
    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    num_left: int = 1
    rules: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()


def marked(
    results: Results, values: Mapping[str, float], texts: Mapping[str, str], tails: Mapping[str, str], lower: bool
) -> list[Cell]:
    """A cell per algorithm; `values` rank, `texts` show and tell what is equal as printed, `tails` follow unmarked."""
    bold, underlined = best(results.bold_among, values, texts, lower)
    return [
        Cell(texts[a.name] + tails.get(a.name, ""), a.name in bold, a.name in underlined)
        if a.name in texts
        else Cell(NOTHING)
        for a in results.algorithms
    ]


def best(
    bold_among: Sequence[str], values: Mapping[str, float], texts: Mapping[str, str], lower: bool
) -> tuple[set[str], set[str]]:
    """Names to be bold and names to be underlined."""
    ranked = sorted(values, key=lambda name: values[name] if lower else -values[name])
    if len(ranked) < 2:
        return set(), set()
    steps = list(dict.fromkeys(texts[name] for name in ranked))
    at = [{name for name in ranked if texts[name] == step} for step in steps[:2]]
    if not bold_among:
        return at[0], at[1] if len(at) > 1 else set()
    among = [name for name in ranked if name in bold_among]
    return {name for name in among if texts[name] == texts[among[0]]}, at[0]  # none of them there: none is bold


def span(counts: Iterable[int]) -> str:
    """`5`, `4-5`; `-` for none."""
    ordered = sorted(set(counts))
    return NOTHING if not ordered else "-".join(map(str, dict.fromkeys((ordered[0], ordered[-1]))))


def runs_per_game(results: Results, name: str, game: str | None = None) -> str:
    """How many runs of each game are in an algorithm's aggregates, or in a comparison on one game without reference scores."""
    rows = [s for s in results.game_scores if s.algorithm == name]
    if game is not None:
        return span(s.num_runs for s in rows if s.game == game)
    return span(s.num_used for s in rows if s.game in results.games)


def count(number: int, noun: str) -> str:
    """`1 game`, `8 games`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """`3.2 s`, `4.1 min`, `12.3 h`."""
    for unit, size in (("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.3g} s"
