"""Device-hours: what runs have used and will still need, from measured epochs, else from published ones."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Iterable, Mapping
from importlib.resources import files
from typing import NamedTuple

from remctl.sweep.observe import Progress, RunState
from remctl.sweep.records import RunRef

SECONDS_PER_HOUR = 3600.0


class Hours(NamedTuple):
    """`used` so far and `left` until all is done, in hours of a device; `basis` says where `left` is from."""

    used: float
    left: float | None
    basis: str


def estimate(runs: Iterable[tuple[RunRef, RunState]], preset: str, packing: Mapping[str, int]) -> Hours:
    """Hours of these runs. `left` is None where nothing is known about some of them.

    `packing`: runs that share a GPU, by submission; a measured epoch counts for its share of the GPU. Epochs are timed by
    the other runs of the variant, else by any run of the experiment, else by the publication (Section 3, one RTX 4090,
    one run on it), which says nothing about the preset `quick`. One configuration counts once.
    """
    distinct = {ref.config_hash: (ref, state) for ref, state in runs}.values()
    used = sum(state.progress.wall_s / packing.get(state.submission, 1) for _, state in distinct)
    by_variant: dict[str, list[float]] = {}
    for ref, state in distinct:
        seconds = epoch_s(state.progress)
        if seconds:
            by_variant.setdefault(ref.variant, []).append(seconds / packing.get(state.submission, 1))
    measured = [s for seconds in by_variant.values() for s in seconds]
    left, sources = 0.0, set[str]()
    for ref, state in distinct:
        if state.status == "done":
            continue
        own = by_variant.get(ref.variant, measured)
        if not own and preset == "quick":
            return Hours(used / SECONDS_PER_HOUR, None, "no epoch has been measured yet")
        seconds_per_epoch = statistics.median(own) if own else published_epoch_s(ref.variant)
        left += (ref.num_epochs - state.progress.epoch) * seconds_per_epoch
        sources.add("measured epochs" if own else f"the published {seconds_per_epoch:.0f} s per epoch on an RTX 4090")
    basis = " and ".join(sorted(sources)) or "nothing is left"
    return Hours(used / SECONDS_PER_HOUR, left / SECONDS_PER_HOUR, basis)


def published_epoch_s(variant: str) -> float:
    """Seconds per epoch of the published agent (Section 3): tokenizer, world model and actor-critic, of IRIS or REM."""
    text = (files("remctl") / "data" / "epoch_times.csv").read_text(encoding="utf-8")
    agent = "IRIS" if variant.startswith("iris") else "REM"
    row = next(row for row in csv.DictReader(text.splitlines()) if row["agent"] == agent)
    return sum(float(row[column]) for column in ("tokenizer_s", "world_model_s", "actor_critic_s"))


def epoch_s(progress: Progress) -> float | None:
    """Seconds per epoch of a run that has any."""
    return progress.epoch_s or (progress.wall_s / progress.epoch if progress.epoch else None)
