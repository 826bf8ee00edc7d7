"""Measured numbers as text: three significant digits, units that suit them, and never a time or a ratio without its spread."""

from __future__ import annotations

import math

from remctl.bench.result import Ratio, Spread

NOTHING = "-"
TIME_UNITS = (("s", 1.0), ("ms", 1e-3), ("us", 1e-6), ("ns", 1e-9))
LARGE_UNITS = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
MAX_DECIMALS = 6
HOUR_S = 3600.0


def seconds_text(median: float, interval: Spread) -> str:
    """`2.31 s [2.28, 2.40]`: the interval in the unit of the median."""
    unit, size = unit_of(median)
    return f"{digits(median / size)} {unit} [{digits(interval.low / size)}, {digits(interval.high / size)}]"


def rate_text(median_s: float, interval: Spread, factor: float) -> str:
    """What happens `factor` times in a duration, as `factor` over it: `12.3 [12.1, 12.5]`."""
    return f"{digits(factor / median_s)} [{digits(factor / interval.high)}, {digits(factor / interval.low)}]"


def plain(seconds: float | None) -> str:
    """A duration that has no spread, because it was computed or printed by others: `309 s`; `-` for none."""
    if seconds is None:
        return NOTHING
    unit, size = unit_of(seconds)
    return f"{digits(seconds / size)} {unit}"


def ratio_text(ratio: Ratio) -> str:
    """Never bare: `10.3x [10.1, 10.6] slower`, `2.50x [2.41, 2.58] faster`, `no difference (0.98x [0.93, 1.04])`.

    Slower and faster both say how many times, hence a number above 1.
    """
    low, middle, high = ratio.spread.low, ratio.median, ratio.spread.high
    if ratio.verdict == "no difference":
        return f"no difference ({_interval(low, middle, high, 2)})"
    if ratio.verdict == "faster":
        low, middle, high = 1 / high, 1 / middle, 1 / low
    decimals = 2
    while decimals < MAX_DECIMALS and float(f"{low:.{decimals}f}") <= 1:  # 1.002 must not read 1.00
        decimals += 1
    return f"{_interval(low, middle, high, decimals)} {ratio.verdict}"


def gain_text(ratio: Ratio) -> str:
    """Of times, read as one of throughputs: `1.80x [1.75, 1.84]`, below 1 where less is done; or no difference."""
    text = _interval(1 / ratio.spread.high, 1 / ratio.median, 1 / ratio.spread.low, 2)
    return f"no difference ({text})" if ratio.verdict == "no difference" else text


def times_text(number: float) -> str:
    """A ratio that has no spread: `15.4x`."""
    return f"{_decimals(number, 2)}x"


def counted(number: float | None) -> str:
    """`161 G`, `12`; `-` for none."""
    if number is None:
        return NOTHING
    for size, letter in LARGE_UNITS:
        if abs(number) >= size:
            return f"{digits(number / size)} {letter}"
    return f"{number:g}"


def bytes_text(number: float | None) -> str:
    """`1.68 GB`, of 10^9 bytes; `-` for none."""
    return NOTHING if number is None else f"{counted(number)}B" if number >= 1e3 else f"{number:g} B"


def exact(number: int | None) -> str:
    """`2,802`; `-` for none."""
    return NOTHING if number is None else f"{number:,}"


def of_peak(share: float | None) -> str:
    """`0.26%`; `-` for none."""
    return NOTHING if share is None else f"{digits(100 * share)}%"


def digits(number: float) -> str:
    """Three significant digits, and no digit of the integer part dropped: 2.40, 24.0, 2400; 0.00240."""
    if not number:
        return "0"
    if not 1e-15 < abs(number) < 1e15:  # nothing that was measured
        return f"{number:.2e}"
    rounded = float(f"{number:.2e}")
    decimals = 2 - math.floor(math.log10(abs(rounded)))
    return f"{number:.{max(0, decimals)}f}"


def unit_of(seconds: float) -> tuple[str, float]:
    """Name, and size in seconds, of the unit in which so long a time is a number from 1 on."""
    return next((unit for unit in TIME_UNITS if seconds >= 0.9999 * unit[1]), TIME_UNITS[-1])


def _interval(low: float, middle: float, high: float, decimals: int) -> str:
    return f"{_decimals(middle, decimals)}x [{_decimals(low, decimals)}, {_decimals(high, decimals)}]"


def _decimals(number: float, decimals: int) -> str:
    """`decimals` of them below 10, fewer above, more for what would vanish."""
    if decimals == 2 and (number >= 10 or number < 0.1):
        return digits(number)
    return f"{number:.{decimals}f}"
