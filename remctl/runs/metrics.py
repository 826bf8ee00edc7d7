"""Metrics of a run, one JSON line per epoch, and the optional trackers that show them elsewhere.

The naming law: names that end in `_s` (seconds), `_per_s` (rates) and `_mb` (memory) tell about the machine and differ
from one repetition to the next. Every other value is a function of configuration and seed, and on one machine with the same
settings of `runtime` must not. `time/unix_s` is the clock when an epoch ended (seconds since 1970), `time/training_s` the
seconds that the run has spent in its phases by then, over all its starts.

What `test/` names tell is about the agent of the epoch `test/of_epoch`, which may be earlier than the entry's: a test may be
played while the next epochs train. Where two tests end with one epoch, the earlier one has an entry of its own before it.

Order within an epoch: append, then save the checkpoint. A kill between the two leaves an entry too many, which
`rewind` drops at the next start; the other order would leave one too few, for ever.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from remctl.runs.files import append_line, append_lines, read_jsonl, truncate_jsonl
from remctl.runs.layout import RunFolder
from remctl.runs.trackers import Tracker, Value, open_trackers

__all__ = [
    "OF_EPOCH",
    "MetricsLog",
    "Tracker",
    "Value",
    "comparable",
    "epoch_of",
    "is_timing",
    "open_trackers",
    "why_no_checkpoint",
]

TIMING_SUFFIXES = ("_s", "_per_s", "_mb")
OF_EPOCH = "test/of_epoch"


def is_timing(name: str) -> bool:
    """Whether the name says time, rate or memory."""
    return name.endswith(TIMING_SUFFIXES)


def epoch_of(entry: Mapping[str, Any], name: str) -> Any:
    """The epoch that the value of `name` is of: the entry's, but of a test the one whose agent was tested."""
    of_a_test = name.startswith("test/") and not is_timing(name)
    return entry.get(OF_EPOCH, entry.get("epoch")) if of_a_test else entry.get("epoch")


def comparable(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The entry without times, rates and memory, also in nested mappings: equal for equal configuration and seed."""
    return {
        name: comparable(value) if isinstance(value, Mapping) else value
        for name, value in entry.items()
        if not is_timing(name)
    }


class MetricsLog:
    """`metrics.jsonl` and `episodes.jsonl` of one run. Entries are durable when a method returns."""

    def __init__(self, run: RunFolder, trackers: Sequence[Tracker] = ()) -> None:
        self.run = run
        self.trackers = tuple(trackers)

    def append(self, epoch: int, values: Mapping[str, Value]) -> None:
        """Writes one entry {epoch, **values}; floats that are not finite become null. Raises `MachineError`."""
        entry = _entry(epoch, values)
        append_line(self.run.metrics, entry)
        tested = {name: value for name, value in values.items() if epoch_of(entry, name) != epoch}
        for tracker in self.trackers:
            tracker.log(epoch, {name: value for name, value in values.items() if name not in tested})
            if tested:
                tracker.log(entry[OF_EPOCH], tested)

    def append_episodes(self, epoch: int, episodes: Sequence[Mapping[str, Value]]) -> None:
        """Writes one entry per finished episode, each with the epoch it ended in. Raises `MachineError`."""
        if episodes:
            append_lines(self.run.episodes, [_entry(epoch, episode) for episode in episodes])

    def entries(self) -> list[dict[str, Any]]:
        """All entries of `metrics.jsonl`, in order. Raises `MachineError`."""
        return read_jsonl(self.run.metrics)

    def rewind(self, epoch: int) -> int:
        """Drops every entry of both files after `epoch`, the last complete one (0: all); returns how many.

        Raises `MachineError`.
        """
        files = (self.run.metrics, self.run.episodes)
        return sum(truncate_jsonl(path, lambda entry: _is_until(entry, epoch)) for path in files)

    def close(self) -> None:
        """Closes the trackers."""
        for tracker in self.trackers:
            tracker.close()


def _is_until(entry: Mapping[str, Any], epoch: int) -> bool:
    """Entries that do not say their epoch were not written here, and stay."""
    return not isinstance(entry.get("epoch"), int) or entry["epoch"] <= epoch


def _entry(epoch: int, values: Mapping[str, Value]) -> dict[str, Any]:
    if "epoch" in values:
        raise ValueError("'epoch' is given by position, not among the values")
    return {"epoch": epoch, **values}


def why_no_checkpoint(run: RunFolder) -> str:
    """Return why a run has no checkpoint, and what helps: it has not got so far, or they are gone. Raises MachineError."""
    logged = {entry.get("epoch") for entry in read_jsonl(run.metrics)}
    if not run.is_done and len(logged) <= 1:  # an epoch is logged just before its checkpoint
        return "has no checkpoint yet: train it for at least one epoch"
    return f"has lost its checkpoints: restore {run.checkpoints} from a copy, or train it again under another --name"
