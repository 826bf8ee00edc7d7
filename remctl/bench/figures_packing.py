"""Throughput against the number of processes that share a device. Call within `drawing.styled`."""

from __future__ import annotations

from remctl.bench.marks import is_drawn, measured_on, whiskers
from remctl.bench.numbers import HOUR_S, digits
from remctl.bench.result import Case, Result
from remctl.drawing import COLORS, COLUMN, INK, Drawing, LeftOut, panels, shown

MAX_POINTS, MAX_PROCESSES = 12, 1024
PANEL_HEIGHT = 2.4  # inches
HEADROOM = 1.25  # of the highest point


def bench_packing(result: Result) -> Drawing | LeftOut:
    """Epochs' training steps per hour of all processes together; dashed: as if none slowed another."""
    stem, title = "bench_packing", "Processes side by side on one device"
    cases = {c.name: c for c in result.of("packing") if is_drawn(c)}
    numbers = {p.num_processes: cases[p.name] for p in result.packing if p.name in cases and not p.failure}
    points = sorted((n, case) for n, case in numbers.items() if n <= MAX_PROCESSES)[:MAX_POINTS]
    if not points:
        return LeftOut(stem, title, "Nothing of the suite packing was measured.")
    figure, (axes,) = panels(1, 1, COLUMN, PANEL_HEIGHT)
    first, base = points[0][0], HOUR_S / points[0][1].median
    x, y = [n for n, _ in points], [HOUR_S / case.median for _, case in points]
    low, high = ([HOUR_S / getattr(c.spread, end) for _, c in points] for end in ("high", "low"))
    errors = [
        [max(0.0, a - b) for a, b in zip(y, low, strict=True)],
        [max(0.0, b - a) for a, b in zip(y, high, strict=True)],
    ]
    axes.plot([0, x[-1]], [0, base * x[-1] / first], color=INK, lw=0.8, ls=(0, (4, 3)), alpha=0.6)
    axes.errorbar(x, y, yerr=errors, color=COLORS[0], marker="o", elinewidth=1.0, capsize=2, capthick=1.0)
    words = []
    for (n, case), rate, bottom in zip(points, y, low, strict=True):
        times = _times(case)
        axes.annotate(times, (n, bottom), (0, -4), textcoords="offset points", ha="center", va="top", fontsize=7)
        words.append(f"{n}: {digits(rate)} {times}".rstrip())
    axes.set_xticks(x, [str(n) for n in x])
    axes.set_xlim(0, x[-1] * 1.08)
    axes.set_ylim(0, HEADROOM * max(high))
    axes.set(title=shown(result.packing[0].label, 40), xlabel="processes", ylabel="epochs per hour")
    failed = [f"{shown(p.name)}: {shown(p.failure.partition(':')[0])}. " for p in result.packing if p.failure]
    explanation = (
        "Training steps of so many epochs per hour, of all processes together; dashed: as if none slowed another; "
        f"n×: over that of {shown(points[0][1].name)} in the same rounds, ≈ where its interval holds 1. "
        f"{''.join(failed[:MAX_POINTS])}{whiskers([case for _, case in points])} {measured_on(result)}"
    )
    return Drawing(stem, title, explanation, f"Epochs per hour by processes. {'; '.join(words)}.", figure)


def _times(case: Case) -> str:
    """How much more is done, as the rounds say; "" for what was compared to nothing."""
    if case.ratio is None or not 1e-6 < case.ratio.median < 1e6:
        return ""
    return f"{'≈ ' if case.ratio.verdict == 'no difference' else ''}{digits(1 / case.ratio.median)}×"
