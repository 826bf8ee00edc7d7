"""Means over a batch of which some rows may only fill it up."""

from __future__ import annotations

from torch import Tensor


def mean_of(x: Tensor, present: Tensor | None) -> Tensor:
    """Mean of x (B,), over the rows that are `present` (B,) bool where given; the others leave no trace, be they NaN."""
    return x.mean() if present is None else x.masked_fill(~present, 0.0).sum() / present.sum()
