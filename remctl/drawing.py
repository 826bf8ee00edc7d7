"""The look of every figure, and how one becomes bytes: style, panels, legends, encodings. No matplotlib until one is drawn.

Colours are those of Okabe and Ito that stand out from white and from black paper; marker and line style tell lines apart in
black and white. Bytes are a function of what is drawn alone: no dates, fixed identifiers, matplotlib's own fonts.

Drawing needs matplotlib's global settings for a moment; `styled` lends them to one thread at a time.
"""

from __future__ import annotations

import io
import math
import re
import textwrap
import threading
import unicodedata
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from os.path import commonprefix
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORS = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#8C8C8C")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINES: tuple[Any, ...] = ("-", "--", ":", "-.")
INK, FAINT, GRID, PAPER = "#1b1f24", "#626a75", "#e4e6ea", "#ffffff"
ON_DARK = {INK: "#e7e9ec", FAINT: "#a3abb6", GRID: "#363b43", PAPER: "#16191d"}
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "text.color": INK,
    "text.parse_math": False,  # a name may contain a dollar sign
    "axes.titlesize": 8.5,
    "axes.titlelocation": "left",
    "axes.labelsize": 8,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.linewidth": 0.7,
    "axes.facecolor": PAPER,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "figure.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.5,
    "lines.markersize": 4,
    "pdf.fonttype": 42,  # journals refuse Type 3
    "svg.fonttype": "path",
    "svg.hashsalt": "remctl",
}
COLUMN, PAGE = 3.5, 7.0  # inches: one and two columns of a journal
LINE, LEGEND_ENTRY = 0.18, 1.55  # inches: height of a line of text, width of an entry of a legend
DPI = 300
FORMATS = ("png", "pdf", "svg")
MAX_DIFFERENCE = 60  # characters of what tells labels apart
MAX_LABEL = 32  # characters; the longest label of our own has 31
METADATA: dict[str, dict[str, None]] = {
    "svg": {"Date": None},
    "pdf": {"CreationDate": None},
    "png": {"Software": None},
}
_settings = threading.Lock()


@dataclass(frozen=True)
class Drawing:
    """A figure that was drawn. `explanation`: how to read it; `alt`: what it says, for who cannot see it."""

    stem: str
    title: str
    explanation: str
    alt: str
    figure: Figure


@dataclass(frozen=True)
class LeftOut:
    """A figure that the results cannot bear, and why, as a sentence."""

    stem: str
    title: str
    reason: str


@contextmanager
def styled() -> Iterator[None]:
    """Matplotlib's settings for these figures, for one thread at a time."""
    import matplotlib

    with _settings, warnings.catch_warnings(), matplotlib.rc_context(STYLE):
        warnings.filterwarnings("ignore", message="Glyph")  # a name in letters that the font lacks is shown as boxes
        yield


def shown(text: str, max_length: int = MAX_LABEL) -> str:
    """A name from a file as it can stand in a figure: one line, no control characters, not too long."""
    clean = "".join(" " if c.isspace() else c for c in text if c.isspace() or unicodedata.category(c)[0] != "C")
    return clean if len(clean) <= max_length else clean[: max_length - 1].rstrip() + "…"


def shown_apart(texts: Sequence[str], max_length: int = MAX_LABEL) -> list[str]:
    """Names that stand side by side in a figure, as `shown`; those that would look the same as another's are what differs.

    `REM, horizon=5, num_layers=3` becomes `…horizon=5` if it is there with horizons 5 and 10, longer than `max_length` if
    need be; what differs only in the middle of a very long word is numbered.
    """
    made = {text: shown(text, max_length) for text in texts}
    for look, count in Counter(made.values()).items():
        if count > 1:
            alike = [text for text in made if made[text] == look]
            made |= dict(zip(alike, _differences(alike), strict=True))
    counts = Counter(made.values())
    return [made[t] if counts[made[t]] == 1 else f"{shown(t, max_length - 4)} {i}" for i, t in enumerate(texts, 1)]


def _differences(texts: list[str]) -> list[str]:
    """Without what all have in common at their beginnings and ends."""
    parts = [re.split(r"(?<=[ ,+/])", text) for text in texts]
    first = len(commonprefix(parts))
    last = len(commonprefix([part[first:][::-1] for part in parts]))
    rest = ["".join(part[first : len(part) - last]).rstrip(" ,+/") for part in parts]
    return [shown(f"…{text}", MAX_DIFFERENCE) for text in (rest if all(rest) else texts)]


def panels(num: int, num_columns: int, width: float, height: float, **shared: Any) -> tuple[Figure, list[Axes]]:
    """A figure `width` inches wide of `num` panels, each `height` inches high, in reading order."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    num_columns = min(num, num_columns)
    num_rows = math.ceil(num / num_columns)
    figure = Figure(figsize=(width, height * num_rows), dpi=DPI, layout=ConstrainedLayoutEngine(h_pad=0.06, w_pad=0.06))
    axes = list(figure.subplots(num_rows, num_columns, squeeze=False, **shared).flat)
    for unused in axes[num:]:
        unused.remove()
    return figure, axes[:num]


def legend_above(figure: Figure, handles: Sequence[Any]) -> None:
    """One legend for all panels, over them, in rows of nearly the same length; the figure grows by it."""
    if handles:
        num_rows = math.ceil(len(handles) / max(1, int(figure.get_figwidth() / LEGEND_ENTRY)))
        num_columns = math.ceil(len(handles) / num_rows)
        figure.set_figheight(figure.get_figheight() + 0.08 + LINE * num_rows)
        figure.legend(handles=handles, loc="outside upper center", ncols=num_columns, handlelength=1.8)


def x_label(figure: Figure, text: str) -> None:
    """One label for the horizontal axes of all panels; the figure grows by it."""
    figure.supxlabel(text, fontsize=STYLE["axes.labelsize"])
    figure.set_figheight(figure.get_figheight() + LINE)


def footnote(figure: Figure, text: str) -> None:
    """Small print below everything, for a picture that stands alone; the figure grows by it."""
    lines = textwrap.wrap(text, int(figure.get_figwidth() * 19))
    figure.supxlabel("\n".join(lines), x=0.01, ha="left", fontsize=6.5, color=FAINT)
    figure.set_figheight(figure.get_figheight() + 0.06 + 0.11 * len(lines))


def encode(figure: Figure, file_format: str) -> bytes:
    """The figure as a file's bytes: `png`, `pdf` or `svg`. Within `styled` only."""
    data = io.BytesIO()
    figure.savefig(data, format=file_format, dpi=DPI, metadata=METADATA[file_format])
    return data.getvalue()


def pictures(figure: Figure, formats: Sequence[str]) -> dict[str, bytes]:
    """The figure in every format, laid out once, so that they agree. Within `styled` only."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # as laid out now, whatever is encoded first
    return {file_format: encode(figure, file_format) for file_format in formats}


def on_dark(svg: str) -> str:
    """The same picture on dark paper: the neutral colours change, those of the algorithms stay."""
    for light, dark in ON_DARK.items():
        svg = svg.replace(light, dark)
    return svg
