"""While others need the cores, torch's threads sleep when they wait for each other, instead of spinning.

A thread that spins for microseconds gets its next piece of work at once, on an idle machine. Where it shares its core, it
spends its share of time on that, and the others wait for it: a training step takes up to four times as long. GNU OpenMP,
which torch's Linux builds compute with, spins hardly at all while it has more threads than there are cores, as its manual
says of GOMP_SPINCOUNT. So as long as others are busy, a thread of ours keeps a team of OpenMP threads, all asleep. Who
computes what, and so every result, stays the same.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from remctl.runs.cores import Load, cores_here

LOOK_EVERY_S = 0.5
NOTICED = 0.25  # cores of others' work, beyond the ones that this process leaves free


@contextmanager
def yielding() -> Iterator[None]:
    """Inside, look at the load twice a second. Does nothing where one thread computes or OpenMP is not GNU's."""
    num_threads = torch.get_num_threads()
    if num_threads == 1 or not has_gnu_openmp():
        yield
        return
    over = threading.Event()
    watch = threading.Thread(target=_watch, args=(over, num_threads), daemon=True, name="load")
    watch.start()
    try:
        yield
    finally:
        over.set()
        watch.join()


def has_gnu_openmp() -> bool:
    """Whether the OpenMP that torch has loaded is GNU's."""
    library = ctypes.CDLL(None)
    return hasattr(library, "GOMP_parallel") and not hasattr(library, "__kmpc_fork_call")  # LLVM's has both


def _watch(over: threading.Event, num_threads: int) -> None:
    load, team = Load(), None
    while not over.wait(LOOK_EVERY_S):
        crowded = is_crowded(load.others(0.0), num_threads, cores_here().affinity)
        if crowded and team is None:
            team = IdleTeam()
        elif team is not None and not crowded:
            team.end()
            team = None
    if team is not None:
        team.end()


def is_crowded(busy: float | None, num_threads: int, num_cores: int) -> bool:
    """Whether `num_threads` threads have to share cores with others, who keep `busy` of `num_cores` busy."""
    return (busy or 0.0) > num_cores - num_threads + NOTICED


class IdleTeam:
    """A thread with an OpenMP team of its own, large enough that there are more threads than cores."""

    def __init__(self) -> None:
        self._over, started = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._live, args=(started,), daemon=True, name="idle team")
        self._thread.start()
        started.wait()

    def _live(self, started: threading.Event) -> None:
        openmp = ctypes.CDLL(None)
        nothing = ctypes.cast(openmp.omp_get_thread_num, ctypes.c_void_p)
        openmp.GOMP_parallel(nothing, None, ctypes.c_uint(cores_here().affinity + 1), ctypes.c_uint(0))
        started.set()
        self._over.wait()

    def end(self) -> None:
        """Let the threads go; those of torch spin again."""
        self._over.set()
        self._thread.join()
