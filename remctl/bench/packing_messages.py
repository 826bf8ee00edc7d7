"""What the processes of the suite packing and their parent tell each other, over a pipe that both trust."""

from __future__ import annotations

from dataclasses import dataclass

from remctl.config import RunConfig


@dataclass(frozen=True)
class Job:
    """Which agent, where; `mix`: steps of each component in one turn of the work, begun `first` steps further on."""

    config: RunConfig
    device: str
    mix: dict[str, int]
    first: int


@dataclass(frozen=True)
class Begin:
    """Take steps; measure the turns until `window_s` has passed, and go on until told to rest."""

    threads: int
    window_s: float


@dataclass(frozen=True)
class Rest:
    """Stop."""


@dataclass(frozen=True)
class Ready:
    """The agent is there and has done one turn."""


@dataclass(frozen=True)
class Worked:
    """So many turns in so many seconds; `memory_mb`: the most that this process held so far, 10^6 bytes."""

    mixes: int
    seconds: float
    memory_mb: float | None


@dataclass(frozen=True)
class Rested:
    """The device has done what this process gave it."""


@dataclass(frozen=True)
class Failed:
    """An error, and whether it says that memory was short; the process ends."""

    error: str
    out_of_memory: bool
