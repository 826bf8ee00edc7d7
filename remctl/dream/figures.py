"""A diagnosis and a run's training as figures: PNG, colours of Okabe and Ito, axes with units.

Matplotlib is imported when a figure is drawn, through its object interface: no backend, no global state.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from remctl.runs.files import make_folder, write_atomic
from remctl.runs.metrics import epoch_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Diagnosis = dict[str, Any]
Entries = Sequence[Mapping[str, Any]]

BLUE, VERMILLION, GREEN, ORANGE, SKY, PURPLE, BLACK, GREY = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#E69F00",
    "#56B4E9",
    "#CC79A7",
    "#000000",
    "#8A8A8A",
)
COMPONENTS = {"tokenizer": ("V", BLUE), "world_model": ("M", VERMILLION), "controller": ("C", GREEN)}
PHASES = {
    "collect": ORANGE,
    "tokenizer": BLUE,
    "encode": SKY,
    "world_model": VERMILLION,
    "controller": GREEN,
    "test": PURPLE,
}
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.framealpha": 0.8,
    "legend.edgecolor": "none",
    "legend.fontsize": 8,
    "lines.linewidth": 1.6,
    "lines.markersize": 4,
}
DPI = 200
NORMAL_95 = 1.96


def diagnosis_figures(diagnosis: Diagnosis, metrics_entries: Entries, folder: Path) -> list[Path]:
    """`imagination_accuracy.png`, `imagination_events.png` and, where there are entries, `training_curves.png`.

    diagnosis: as `train.diagnosis.diagnose` returns it; metrics_entries: the lines of `metrics.jsonl`. Raises
    MachineError where the disk refuses.
    """
    make_folder(folder)
    with _style():
        figures = {
            "imagination_accuracy": _accuracy_figure(diagnosis),
            "imagination_events": _events_figure(diagnosis),
        }
        if metrics_entries:
            figures["training_curves"] = _training_figure(diagnosis, metrics_entries)
        return [_write(figure, folder / f"{name}.png") for name, figure in figures.items()]


@contextmanager
def _style() -> Iterator[None]:
    import matplotlib

    with matplotlib.rc_context(STYLE):
        yield


def _axes(num_rows: int, num_columns: int, height: float, width: float) -> tuple[Figure, list[Axes]]:
    """Panels of the given size in inches, in reading order."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * num_columns, height * num_rows), layout="constrained")
    return figure, list(figure.subplots(num_rows, num_columns, squeeze=False).flat)


def _write(figure: Figure, path: Path) -> Path:
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=DPI)
    write_atomic(path, data.getvalue())
    return path


# Imagination


def _accuracy_figure(diagnosis: Diagnosis) -> Figure:
    steps = diagnosis["imagination"]["per_step"]
    x = [s["step"] for s in steps]
    figure, (tokens, pixels) = _axes(1, 2, 2.9, 3.6)
    _line(tokens, x, _column(steps, "token_accuracy"), "all tokens", BLUE, "o")
    _line(tokens, x, _column(steps, "token_accuracy_changed"), "tokens that changed", VERMILLION, "s")
    _line(tokens, x, _column(steps, "token_accuracy_no_change"), "all tokens, if nothing changed", GREY, None, "--")
    tokens.set(title="Tokens imagined right", ylabel="fraction of tokens", ylim=(-0.02, 1.02))
    _line(pixels, x, _column(steps, "moving_pixel_error"), "M", BLUE, "o")
    _line(pixels, x, _column(steps, "moving_pixel_error_no_change"), "if nothing changed", GREY, None, "--")
    pixels.set(title="Error on pixels that move", ylabel="mean squared error, in [-1, 1]")
    _from_zero(pixels)
    for axes in (tokens, pixels):
        axes.set_xlabel("imagined step")
        axes.set_xticks(_ticks(x))
        axes.legend(loc="best")
    figure.suptitle(
        f"Imagination against reality, same actions ({diagnosis['num_starts']} starts)", fontsize=9.5, x=0.01, ha="left"
    )
    return figure


def _events_figure(diagnosis: Diagnosis) -> Figure:
    steps = diagnosis["imagination"]["per_step"]
    figure, panels = _axes(1, 3, 2.9, 2.9)
    events = {
        "Reward +1": [s["reward"]["+1"] for s in steps],
        "Reward -1": [s["reward"]["-1"] for s in steps],
        "End": [s["end"] for s in steps],
    }
    for axes, (title, parts) in zip(panels, events.items(), strict=True):
        _event_panel(axes, [s["step"] for s in steps], parts)
        counts = f"{sum(p['num_imagined'] for p in parts)} imagined, {sum(p['num_real'] for p in parts)} real"
        axes.set_title(f"{title} ({counts})")
    panels[0].set_ylabel("fraction (bars: 95% Wilson)")
    panels[0].legend(*panels[-1].get_legend_handles_labels(), loc="lower left")
    return figure


def _event_panel(axes: Axes, x: list[int], parts: list[Diagnosis]) -> None:
    """Precision and recall per step, side by side, with intervals; nothing where nothing was imagined or real."""
    series = (("precision", "num_imagined", BLUE, "o", -0.09), ("recall", "num_real", VERMILLION, "s", 0.09))
    for name, count, color, marker, shift in series:
        seen = [(step, p["num_right"], p[count]) for step, p in zip(x, parts, strict=True) if p[count]]
        y = [right / total for _, right, total in seen]
        low, high = zip(*(wilson(right, total) for _, right, total in seen), strict=True) if seen else ((), ())
        axes.errorbar(
            [step + shift for step, _, _ in seen],
            y,
            yerr=[
                [max(0.0, b - a) for a, b in zip(low, y, strict=True)],
                [max(0.0, a - b) for a, b in zip(high, y, strict=True)],
            ],
            fmt=marker,
            color=color,
            label=name,
            elinewidth=0.9,
            capsize=1.5,
        )
    if not any(p["num_imagined"] or p["num_real"] for p in parts):
        axes.text(0.5, 0.5, "none, imagined or real", transform=axes.transAxes, ha="center", color=GREY)
    axes.set(xlabel="imagined step", ylim=(-0.03, 1.05), xlim=(min(x) - 0.5, max(x) + 0.5))
    axes.set_xticks(_ticks(x))


def wilson(num_right: int, num: int) -> tuple[float, float]:
    """95% interval of a fraction (Wilson 1927), num > 0."""
    p, z2 = num_right / num, NORMAL_95**2
    centre = (p + z2 / (2 * num)) / (1 + z2 / num)
    half = NORMAL_95 * math.sqrt(p * (1 - p) / num + z2 / (4 * num**2)) / (1 + z2 / num)
    return max(0.0, centre - half), min(1.0, centre + half)


# Training


def _training_figure(diagnosis: Diagnosis, entries: Entries) -> Figure:
    figure, panels = _axes(3, 3, 2.5, 3.4)
    v, m, c, returns, entropy, value, gradients, clipped, seconds = panels
    _loss_panel(v, entries, "tokenizer", "V: losses", ("reconstruction_loss", "perceptual_loss", "codebook_loss"))
    _loss_panel(m, entries, "world_model", "M: losses", ("observation_loss", "reward_loss", "end_loss"))
    _loss_panel(c, entries, "controller", "C: losses", ("value_loss", "policy_loss"))
    names = {
        "test/return_mean": ("test", BLACK, "D"),
        "collect/return_mean": ("collected", ORANGE, None),
        "controller/imagined_return": ("imagined (signs)", GREEN, None),
    }
    _panel(returns, entries, "Returns", "sum of rewards", names)
    for axes, quantity, unit in ((entropy, "policy_entropy", "nats"), (value, "value", "discounted return of signs")):
        trained = "controller/" + ("imagined_value" if quantity == "value" else quantity)
        both = {trained: ("training", GREEN, None), f"test/{quantity}": ("test", BLACK, "D")}
        _panel(axes, entries, f"C: {quantity.replace('_', ' ')}, in imagination", unit, both)
    _from_zero(entropy)
    _gradient_panel(gradients, entries, diagnosis.get("gradient_clips", {}))
    fractions = {
        f"{name}/gradient_clipped_fraction": (label, color, None) for name, (label, color) in COMPONENTS.items()
    }
    _panel(clipped, entries, "Steps whose gradient was clipped", "fraction", fractions)
    clipped.set_ylim(-0.03, 1.03)
    _seconds_panel(seconds, entries)
    _epoch_axes(panels, [entry["epoch"] for entry in entries])
    return figure


def _epoch_axes(panels: Sequence[Axes], epochs: Sequence[int]) -> None:
    from matplotlib.ticker import MaxNLocator

    for axes in panels:
        axes.set(xlabel="epoch", xlim=(min(epochs) - 0.7, max(epochs) + 0.7))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def _loss_panel(axes: Axes, entries: Entries, component: str, title: str, losses: Sequence[str]) -> None:
    """Training (lines) and test (diamonds) on a logarithmic axis."""
    for loss, color in zip(losses, (BLUE, VERMILLION, GREEN), strict=False):
        _line(axes, *_series(entries, f"{component}/{loss}"), loss.removesuffix("_loss"), color, None)
        tested = _series(entries, f"test/{component}_{loss}")
        _line(axes, *tested, None, color, "D", "none")
        title += " (diamonds: test)" if tested[0] and "test" not in title else ""
    axes.set(title=title, ylabel="loss")
    _log_scale(axes)
    _legend_above(axes)


def _panel(
    axes: Axes, entries: Entries, title: str, unit: str, names: Mapping[str, tuple[str, str, str | None]]
) -> None:
    for name, (label, color, marker) in names.items():
        x, y = _series(entries, name)
        _line(axes, x, y, label if len(names) > 1 and y else None, color, marker)
    axes.set(title=title, ylabel=unit)
    _legend_above(axes)


def _gradient_panel(axes: Axes, entries: Entries, clips: Mapping[str, float]) -> None:
    for name, (label, color) in COMPONENTS.items():
        x, y = _series(entries, f"{name}/gradient_norm")
        _line(axes, x, y, label, color, None)
        if y and name in clips:
            axes.axhline(clips[name], color=color, linestyle=":", linewidth=1)
    axes.set(title="Gradient norm (dotted: clip)", ylabel="norm")
    _log_scale(axes)
    _legend_above(axes)


def _seconds_panel(axes: Axes, entries: Entries) -> None:
    """Stacked bars per epoch."""
    epochs = [entry["epoch"] for entry in entries]
    bottom = [0.0] * len(entries)
    for phase, color in PHASES.items():
        height = [float(entry.get(f"{phase}/wall_s") or 0.0) for entry in entries]
        if any(height):
            axes.bar(epochs, height, 0.9, bottom, color=color, label=phase.replace("_", " "))
            bottom = [a + b for a, b in zip(bottom, height, strict=True)]
    axes.set(title="Time per phase", ylabel="seconds")
    axes.grid(visible=False, axis="x")
    axes.legend(loc="best")


# Helpers


def _series(entries: Entries, name: str) -> tuple[list[int], list[float]]:
    """Epochs (of a test those that were tested) and values where the metric was logged and is finite."""
    points = [(epoch_of(entry, name), entry[name]) for entry in entries if isinstance(entry.get(name), int | float)]
    return [epoch for epoch, _ in points], [float(value) for _, value in points]


def _column(steps: Sequence[Diagnosis], name: str) -> list[float]:
    return [math.nan if s[name] is None else float(s[name]) for s in steps]


def _line(
    axes: Axes,
    x: Sequence[float],
    y: Sequence[float],
    label: str | None,
    color: str,
    marker: str | None,
    line: str = "-",
) -> None:
    """One that has a single point shows it."""
    marker = marker or ("o" if len(y) == 1 else None)
    axes.plot(x, y, label=label, color=color, marker=marker, linestyle=line)


def _legend_above(axes: Axes) -> None:
    """Between title and panel, where it hides nothing."""
    if axes.get_legend_handles_labels()[0]:
        place: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (-0.02, 0.99), "borderaxespad": 0.0}
        axes.legend(**place, ncols=3, handlelength=1.4, columnspacing=1.0)
        axes.set_title(axes.get_title(loc="left"), pad=18)


def _log_scale(axes: Axes) -> None:
    """Logarithmic where all that is drawn is positive."""
    values = _drawn(axes)
    if values and min(values) > 0:
        axes.set_yscale("log")


def _from_zero(axes: Axes) -> None:
    axes.set_ylim(0, 1.1 * max(_drawn(axes), default=0.0) or 1)


def _drawn(axes: Axes) -> list[float]:
    """Every finite y of the lines."""
    values = [float(y) for line in axes.lines for y in np.atleast_1d(line.get_ydata())]
    return [y for y in values if math.isfinite(y)]


def _ticks(x: Sequence[int]) -> list[int]:
    return list(x)[:: max(1, math.ceil(len(x) / 10))]
