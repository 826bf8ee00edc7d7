"""What a user sees while a run goes on: progress bars on a terminal, dated lines anywhere else; and signals.

A signal only sets a flag. The loops look at it between steps and leave by raising Interrupted: nothing is finished,
nothing half-written counts, the last complete epoch stands.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from remctl.errors import Interrupted

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT)


class StopFlag:
    """Set by a signal, looked at between steps."""

    def __init__(self) -> None:
        self.signum = 0

    def check(self) -> None:
        """Raise Interrupted once a signal has come."""
        if self.signum:
            raise Interrupted(self.signum)

    def _set(self, signum: int, frame: FrameType | None) -> None:
        self.signum = signum

    @contextmanager
    def listening(self) -> Iterator[StopFlag]:
        """Handle SIGTERM, SIGUSR2 and SIGINT while inside."""
        before = {s: signal.signal(s, self._set) for s in STOP_SIGNALS}
        try:
            yield self
        finally:
            for s, handler in before.items():
                signal.signal(s, handler)


class RateColumn(ProgressColumn):
    """Steps per second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.1f}/s" if task.speed else "", style="progress.data.speed")


class Reporter:
    """Bars and lines. `log_file` receives every line too."""

    def __init__(self, stop: StopFlag, log_file: Path | None = None, quiet: bool = False) -> None:
        self.stop = stop
        self.log_file = log_file
        self.quiet = quiet
        self.console = Console()
        self.progress = Progress(
            TextColumn("{task.description:<18}"),
            BarColumn(),
            MofNCompleteColumn(),
            RateColumn(),
            TimeRemainingColumn(),
            console=self.console,
            disable=quiet or not self.console.is_terminal,
            transient=True,
        )
        self.epochs: TaskID | None = None

    def __enter__(self) -> Reporter:
        self.progress.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.progress.stop()

    def log(self, text: str) -> None:
        """One line, dated where the output is no terminal."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        if self.log_file:
            with self.log_file.open("a", encoding="utf-8") as file:
                file.write(f"{stamp} {text}\n")
        if self.quiet:
            return
        if self.console.is_terminal:
            self.progress.console.print(text, markup=False, highlight=False)
        else:
            print(f"{stamp} {text}", file=sys.stdout, flush=True)

    def epoch_bar(self, total: int, done: int) -> None:
        """The bar of the whole run."""
        self.epochs = self.progress.add_task("epochs", total=total, completed=done)

    def epoch_done(self) -> None:
        """One more epoch is complete."""
        if self.epochs is not None:
            self.progress.advance(self.epochs)

    def track(self, steps: Iterable[int], name: str, total: int) -> Iterator[int]:
        """Yield from steps with a bar; leave by Interrupted once a signal has come."""
        task = self.progress.add_task(name, total=total)
        try:
            for step in steps:
                self.stop.check()
                yield step
                self.progress.advance(task)
        finally:
            self.progress.remove_task(task)

    @contextmanager
    def counting(self, name: str, total: int) -> Iterator[Counter]:
        """For loops that know how many of `total` are done rather than the next index."""
        task = self.progress.add_task(name, total=total)
        try:
            yield Counter(self, task)
        finally:
            self.progress.remove_task(task)


class Counter:
    """Sets a bar to `num_done`."""

    def __init__(self, reporter: Reporter, task: TaskID) -> None:
        self._reporter, self._task = reporter, task

    def __call__(self, num_done: int) -> None:
        self._reporter.stop.check()
        self._reporter.progress.update(self._task, completed=num_done)
