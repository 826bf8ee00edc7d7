"""Medians and their spreads. Nothing here assumes that timings are normal: they are skewed, and few.

The interval between the k-th smallest and the k-th largest of n independent values holds the median of their
distribution with probability 1 - 2 P(X < k), X ~ Binomial(n, 1/2) (the sign test's interval).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from remctl.bench.result import Ratio, Spread, Verdict

CONFIDENCE = 0.95


def spread(values: Sequence[float]) -> Spread:
    """The narrowest such interval of at least 95%; below 6 values the whole range, with what that covers."""
    ordered, n = sorted(values), len(values)
    assert n, "no value has no spread"
    k = max((k for k in range(1, n // 2 + 1) if _coverage(n, k) >= CONFIDENCE), default=1)
    return Spread(low=ordered[k - 1], high=ordered[n - k], coverage=_coverage(n, k))


def _coverage(n: int, k: int) -> float:
    below = sum(math.comb(n, i) for i in range(k)) / 2**n
    return max(0.0, 1 - 2 * below)


def ratio(seconds: Sequence[float], base: Sequence[float], to: str) -> Ratio:
    """Times over those of the baseline, round by round: what slows a whole round cancels out."""
    assert len(seconds) == len(base), (len(seconds), len(base))
    ratios = [a / b for a, b in zip(seconds, base, strict=True)]
    interval = spread(ratios)
    return Ratio(to=to, median=statistics.median(ratios), spread=interval, verdict=verdict(interval))


def verdict(interval: Spread) -> Verdict:
    """Of a ratio of times with this interval: a difference inside the spread is none, nor is one of too few rounds."""
    if interval.coverage < CONFIDENCE:
        return "no difference"
    if interval.low > 1:
        return "slower"
    return "faster" if interval.high < 1 else "no difference"
