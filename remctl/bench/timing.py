"""Timing that can be trusted: warm-up, cases taking turns (A B A B), the device synchronised around every measurement."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import torch

MIN_ROUND_S = 0.1  # shorter work is repeated within a round: clocks and schedulers have their grain
MAX_REPEATS = 200
Work = Callable[[], object]
K = TypeVar("K")
MB = 1e6


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(work: Work, device: torch.device, repeats: int = 1) -> float:
    """Seconds of one run of `work`, as the mean of `repeats` in a row."""
    synchronize(device)
    begin = time.perf_counter()
    for _ in range(repeats):
        work()
    synchronize(device)
    return (time.perf_counter() - begin) / repeats


def repeats_for(warm_s: float) -> int:
    """How often work that takes `warm_s` is repeated within a round."""
    return max(1, min(MAX_REPEATS, round(MIN_ROUND_S / max(warm_s, 1e-9))))


def interleaved(
    works: Mapping[K, Work],
    repeats: Mapping[K, int],
    rounds: int,
    device: torch.device,
    check: Callable[[], None],
    seconds: dict[K, list[float]],
) -> None:
    """Adds to `seconds` those of each work in each round; every other round in reverse order, so that none always follows
    the same one.

    `check` is called before each measurement, and may raise to leave.
    """
    seconds.update({name: [] for name in works})
    for turn in range(rounds):
        for name in list(works)[:: -1 if turn % 2 else 1]:
            check()
            seconds[name].append(seconds_of(works[name], device, repeats[name]))


def peak_memory_mb(work: Work, device: torch.device) -> float | None:
    """Memory, 10^6 bytes, that `work` takes at its peak beyond what was held before; None where nobody tells.

    Allocated on the GPU, resident on the host. `work` has run before.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return (torch.cuda.max_memory_allocated(device) - before) / MB
    try:
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark below
    except (OSError, AttributeError):
        return None
    held = status_mb("VmRSS")
    work()
    peak = status_mb("VmHWM")
    return None if held is None or peak is None else peak - held


def status_mb(name: str) -> float | None:
    """A line of /proc/self/status, such as VmHWM, in 10^6 bytes; None where there is none."""
    lines = Path("/proc/self/status").read_text().splitlines()
    values = [line.split()[1] for line in lines if line.startswith(f"{name}:")]
    return int(values[0]) * 1024 / MB if values else None
