"""Device-hours: what runs have used and will still need.

The estimate uses the first of these that exists: measured epochs of the same variant in the experiment; finished runs of the
same variant on the same device in other experiments; measured epochs of other variants, scaled by operations; operations alone
(remctl/bench/expected.py). An hour of a CPU is one of the whole machine: a run with half of the threads counts half.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Container, Iterable, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from remctl.bench import expected
from remctl.config import RunConfig, from_yaml
from remctl.config.hashing import digest, identity
from remctl.errors import UserError
from remctl.games import kind
from remctl.runs.files import read_json
from remctl.runs.layout import RunFolder, find_runs
from remctl.runs.provenance import starts
from remctl.sweep.device import Device
from remctl.sweep.observe import Progress, RunState
from remctl.sweep.records import RunRef

SECONDS_PER_HOUR = 3600.0
ConfigOf = Callable[[RunRef], RunConfig | None]
Evidence = Mapping[str, list[float]]  # seconds per epoch of finished runs, by `key_of` their configuration


class Hours(NamedTuple):
    """`used` so far and `left` until all runs are done, in device-hours. `basis` says what `left` is based on."""

    used: float
    left: float | None
    basis: str


def estimate(
    runs: Iterable[tuple[RunRef, RunState]],
    packing: Mapping[str, int],
    config_of: ConfigOf,
    device: Device,
    finished: Callable[[], Evidence] = dict,
    counted: Container[str] | None = None,
) -> Hours:
    """Return the hours of these runs, or of those `counted` by their configurations' hashes; the others are evidence.

    `left` is None if nothing is known about one of them. A configuration counts once.

    `packing`: how many runs share a GPU, by submission; an epoch counts for its share. `finished` is called only if a variant
    was not measured in these runs.
    """
    distinct = {ref.config_hash: (ref, state) for ref, state in runs}.values()
    wanted = [(ref, state) for ref, state in distinct if counted is None or ref.config_hash in counted]
    used = sum(state.progress.wall_s / packing.get(state.submission, 1) for _, state in wanted)
    measured: dict[str, list[tuple[RunRef, float]]] = {}
    for ref, state in distinct:
        seconds = epoch_s(state.progress)
        share = _share(state.folder, device) if seconds else None
        if seconds and share is not None:
            measured.setdefault(ref.variant, []).append((ref, seconds * share / packing.get(state.submission, 1)))
    left, sources = 0.0, dict[str, None]()
    alike: dict[tuple[str, str, int], tuple[float, str] | None] = {}
    for ref, state in wanted:
        if state.status == "done":
            continue
        what = (ref.variant, kind(ref.game), state.progress.epoch)
        if what not in alike:
            alike[what] = _left_s(ref, state, measured, config_of, device, finished)
        found = alike[what]
        if found is None:
            return Hours(used / SECONDS_PER_HOUR, None, f"the configuration of {ref.path} cannot be read")
        left += found[0]
        sources[found[1]] = None
    return Hours(used / SECONDS_PER_HOUR, left / SECONDS_PER_HOUR, " and ".join(sources) or "nothing is left")


def _left_s(
    ref: RunRef,
    state: RunState,
    measured: Mapping[str, list[tuple[RunRef, float]]],
    config_of: ConfigOf,
    device: Device,
    finished: Callable[[], Evidence],
) -> tuple[float, str] | None:
    """Return the seconds left, and what they are based on; None if the configuration cannot be read."""
    epochs = ref.num_epochs - state.progress.epoch
    own = [seconds for _, seconds in measured.get(ref.variant, ())]
    if own:
        return epochs * statistics.median(own), "measured epochs"
    config = config_of(ref)
    if config is None:
        return None
    same = finished().get(key_of(config))
    if same:
        return epochs * statistics.median(same), "finished runs of the same variant on this device"
    alone = expected.run_s(config, device.rates(config), state.progress.epoch)
    factors = []
    for other, seconds in (found for runs in measured.values() for found in runs):
        about = config_of(other)
        if about is not None:
            factors.append(seconds * other.num_epochs / expected.run_s(about, device.rates(about)))
    if factors:
        return alone * statistics.median(factors), "measured epochs of other variants, scaled by operations"
    return alone, f"operations, by {device.rates(config).source}"


def evidence(out: Path, device: Device) -> Evidence:
    """Return the seconds per epoch of every finished run under `out` on `device`, by configuration."""
    found: dict[str, list[float]] = {}
    for run in find_runs(out) if device.name else ():
        if not run.is_done or run.is_imported:
            continue
        share = _share(run.path, device, named=True)
        config = read_config(run) if share is not None else None
        seconds = _finished_s(run)
        if share is not None and config is not None and seconds:
            found.setdefault(key_of(config), []).append(seconds * share / config.training.num_epochs)
    return found


def _finished_s(run: RunFolder) -> float | None:
    try:
        return float(sum(read_json(run.result)["wall_s"].values()))
    except (UserError, AttributeError, KeyError, TypeError, ValueError):
        return None


def _share(folder: Path, device: Device, named: bool = False) -> float | None:
    """Return the share of the device that a run had at its last start; None if that was on another device.

    `named`: a run that does not name its device counts as one on another device.
    """
    about: Any = None
    with suppress(UserError):
        about = next((entry.get("device") for entry in reversed(starts(RunFolder(folder)))), None)
    if not isinstance(about, dict) or not about.get("name"):
        return None if named else 1.0
    if device.name is None:
        return 1.0 if about.get("type") == device.kind else None
    if (about.get("type"), about["name"]) != (device.kind, device.name):
        return None
    threads = about.get("threads")
    return min(1.0, threads / device.cores) if device.kind == "cpu" and isinstance(threads, int) else 1.0


def key_of(config: RunConfig) -> str:
    """Return a key that is equal for runs that take equally long: those that differ only in seed and game of one kind."""
    flat = {key: value for key, value in identity(config).items() if key not in ("game", "seed")}
    return digest(flat | {"kind": kind(config.game)})


def read_config(run: RunFolder) -> RunConfig | None:
    """Return a run's configuration; None if it cannot be read."""
    return config_at(run.config)


def config_at(path: Path) -> RunConfig | None:
    """Return the configuration in a config.yaml; None if it cannot be read."""
    try:
        return _read_config(path, path.stat().st_mtime_ns)
    except (OSError, UserError):
        return None


@lru_cache(maxsize=4096)
def _read_config(path: Path, mtime_ns: int) -> RunConfig:
    """Read a file; the second argument only invalidates the cache."""
    return from_yaml(path)


def epoch_s(progress: Progress) -> float | None:
    """Return the seconds per epoch of a run; None if it has no epoch yet."""
    return progress.epoch_s or (progress.wall_s / progress.epoch if progress.epoch else None)
