"""What every table of a benchmark is."""

from __future__ import annotations

from dataclasses import dataclass

PER = "step: one imagined step of one rollout; token: one token of an imagined observation."


@dataclass(frozen=True)
class BenchTable:
    """`name` is its key; the first `num_left` columns are text, aligned left, and say what a row is about."""

    name: str
    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    num_left: int = 1


def words(name: str) -> str:
    """`world_model` as people write it."""
    return name.replace("_", " ")
