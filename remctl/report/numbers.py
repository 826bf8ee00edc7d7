"""What counts as a number in a file that somebody else may have written."""

from __future__ import annotations

from typing import Any, TypeGuard

MAX_NUMBER = 1e12  # no score and no time is that far from 0; sums and squares of such numbers stay finite
MAX_COUNT = 2**63 - 1


def is_number(value: Any) -> TypeGuard[int | float]:
    """A number within MAX_NUMBER; True, NaN, infinity and integers of a thousand digits are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < MAX_NUMBER


def is_count(value: Any) -> TypeGuard[int]:
    """A whole number from 0, such as a seed or an epoch."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_COUNT
