"""How long counted work takes: the pace of a loop under way, and the time left of a whole run.

Nothing here reads a clock: times are given, in seconds from any origin.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple


def span(seconds: float) -> str:
    """Return a duration as m:ss, h:mm:ss or, from two days on, days and hours."""
    minutes, s = divmod(round(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 48:
        return f"{hours // 24} d {hours % 24} h"
    return f"{hours}:{minutes:02d}:{s:02d}" if hours else f"{minutes}:{s:02d}"


class Left(NamedTuple):
    """Time left of a run; `complete` is False while some of its work has no known pace: then it takes longer."""

    seconds: float
    complete: bool

    @property
    def words(self) -> str:
        """Return `about 8:20` or `at least 3:20`."""
        return f"{'about' if self.complete else 'at least'} {span(self.seconds)}"

    @property
    def sign(self) -> str:
        """Return the same for a narrow column: `~8:20` or `>3:20`."""
        return f"{'~' if self.complete else '>'}{span(self.seconds)}"


class Loop:
    """A loop under way, or work that is not counted (`total` None).

    `skip_first`: the first step is not timed, since it may compile, load or allocate for minutes.
    """

    def __init__(self, name: str, total: int | None, now: float, skip_first: bool = False) -> None:
        self.name, self.total, self.begin = name, total, now
        self.done = 0
        self._timed_from: tuple[int, float] | None = None if skip_first else (0, now)
        self._latest = (0, now)

    def advance(self, done: int, now: float) -> None:
        """Record that `done` steps are done."""
        if done > self.done:
            self.done, self._latest = done, (done, now)
            self._timed_from = self._timed_from or self._latest

    def end(self, now: float) -> None:
        """Record that the loop is over: what came after its last step belongs to its steps."""
        self._latest = (self.done, now)

    @property
    def step_s(self) -> float | None:
        """Return the seconds of a step so far; None before one was timed."""
        if self._timed_from is None or self.done == self._timed_from[0]:
            return None
        (count, begin), (done, now) = self._timed_from, self._latest
        return (now - begin) / (done - count)

    def left(self, step_s: float | None) -> float | None:
        """Return the seconds left at its own pace, or at `step_s` while that is not known."""
        known = self.step_s or step_s
        return None if self.total is None or known is None else known * (self.total - self.done)

    @property
    def count(self) -> str:
        """Return `132/520`; empty where nothing is counted."""
        return "" if self.total is None else f"{self.done}/{self.total}"

    @property
    def rate(self) -> str:
        """Return steps per second, or seconds per step where a step takes longer than a second."""
        seconds = self.step_s
        if not seconds:
            return ""
        return f"{1 / seconds:.1f}/s" if seconds < 1 else f"{seconds:.1f} s each"


@dataclass
class Pace:
    """What a run still has to do, as numbers of steps by the name of the loop, and the seconds a step is known to take.

    `work` includes all of a loop until it is over. `guessed` holds while nothing was measured.
    """

    work: Mapping[str, float] = field(default_factory=dict)
    measured: dict[str, float] = field(default_factory=dict)
    guessed: dict[str, float] = field(default_factory=dict)

    def step_s(self, name: str) -> float | None:
        """Return the seconds of a step of the loop `name`; None where unknown."""
        return self.measured.get(name, self.guessed.get(name))

    def finished(self, loop: Loop) -> None:
        """Take a loop that is over off the work, and keep its pace."""
        if loop.name in self.work:
            self.work = {**self.work, loop.name: max(0.0, self.work[loop.name] - (loop.total or 0))}
        if loop.step_s is not None:
            self.measured[loop.name] = loop.step_s

    def unknown(self) -> list[str]:
        """Return the names of what is still to be done at an unknown pace."""
        return [name for name, count in self.work.items() if count and self.step_s(name) is None]

    def left(self, loops: Iterable[Loop] = ()) -> Left | None:
        """Return the time left, with `loops` under way; None where no work was ever given, or so little of it has a known pace
        that `at least 0:00` would be all there is to say.
        """
        work = self.work
        if not work:
            return None
        under_way = {loop.name: loop for loop in loops if loop.name in work}
        seconds, complete = 0.0, True
        for name, count in work.items():
            loop = under_way.get(name)
            step_s = (loop and loop.step_s) or self.step_s(name)
            steps = max(0.0, count - (loop.done if loop else 0))
            seconds += steps * (step_s or 0.0)
            complete &= not steps or step_s is not None
        return Left(seconds, complete) if complete or round(seconds) else None


def line(epoch: str, loops: list[Loop], pace: Pace, now: float) -> str:
    """Return what a run is doing, in one line: epoch, loop, step of steps, rate, time left of the loop and of the run."""
    parts = [epoch] if epoch else []
    if loops:
        loop = loops[-1]
        parts += [f"{loop.name} {loop.count}".strip(), loop.rate]
        left = loop.left(pace.step_s(loop.name))
        parts.append(f"{span(now - loop.begin)} so far" if left is None else f"{span(left)} left")
    left_of_run = pace.left(loops)
    if left_of_run is not None and left_of_run != (0.0, True):
        parts.append(f"run: {left_of_run.words} left")
    return "  ".join(part for part in parts if part)
