"""What a user sees during a run: progress bars on a terminal, dated lines anywhere else.

Without a terminal a line comes at least every 30 s, also while one step takes minutes: a thread of its own writes it, which
ends with the reporter. `train.log` gets the same lines, whatever the output is.
"""

from __future__ import annotations

import select
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID
from rich.text import Text

from remctl.pace import Loop, Pace, line, span
from remctl.stopping import StopFlag

LINE_EVERY_S = 20.0  # 30 s are promised, and a busy machine may wake a thread late
NARROW_COLUMNS = 60  # a terminal of fewer columns has no room for bars and rates


class Column(ProgressColumn):
    """A column of text about a task."""

    def __init__(self, text: Callable[[Task], str], style: str = "") -> None:
        super().__init__()
        self._text, self._style = text, style

    def render(self, task: Task) -> Text:
        return Text(self._text(task), style=self._style, no_wrap=True)


class Reporter:
    """Bars and lines. `log_file` gets every line too, also when the output is `quiet`.

    `to_stderr`: for commands whose result is printed to stdout. `bars` False: lines on a terminal too; bars are drawn ten
    times a second, which a benchmark would feel. `every_s`: seconds without any other line after which one says what is
    going on.
    """

    def __init__(
        self,
        stop: StopFlag,
        log_file: Path | None = None,
        quiet: bool = False,
        *,
        to_stderr: bool = False,
        bars: bool = True,
        every_s: float = LINE_EVERY_S,
    ) -> None:
        self.stop, self.log_file, self.quiet = stop, log_file, quiet
        self.console = Console(stderr=to_stderr)
        # Colours may be forced on what is no terminal, and a dumb one cannot move its cursor.
        self.is_live = bars and self.console.is_interactive and self.console.file.isatty()
        self.progress = Progress(
            *self._columns(), console=self.console, disable=quiet or not self.is_live, transient=True
        )
        self.pace = Pace()
        self._loops: list[tuple[Loop, TaskID]] = []
        self._epochs: TaskID | None = None
        self._num_epochs = (0, 0)  # done, all
        self._every_s, self._last_line = every_s, time.monotonic()
        self._lock, self._closing = threading.RLock(), threading.Event()
        self._thread = threading.Thread(target=self._give_signs_of_life, daemon=True, name="signs of life")

    def _columns(self) -> list[ProgressColumn]:
        name, count = Column(lambda task: f"{task.description:<17}"), Column(self._count, "progress.download")
        left = Column(self._left, "progress.remaining")
        if self.console.width < NARROW_COLUMNS:
            return [name, count, left]
        return [name, BarColumn(), count, Column(self._rate, "progress.data.speed"), left]

    def __enter__(self) -> Reporter:
        self.progress.start()
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        with self._lock:
            self._closing.set()
        self._thread.join()
        self.progress.stop()

    # --- lines

    def log(self, text: str) -> None:
        """Write one line, dated unless the output is a terminal."""
        with self._lock:
            dated = self._to_log_file(text)
            if self.quiet:
                return
            if self.is_live:
                self.progress.console.print(text, markup=False, highlight=False)
            else:
                self._to_output(dated)

    def _to_log_file(self, text: str) -> str:
        self._last_line = time.monotonic()
        dated = f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {text}\n"
        if self.log_file:
            with self.log_file.open("a", encoding="utf-8") as file:
                file.write(dated)
        return dated

    def _to_output(self, dated: str) -> None:
        self.console.file.write(dated)
        self.console.file.flush()

    def _give_signs_of_life(self) -> None:
        """The thread: no operation of the main thread keeps it from writing, and it never waits for a reader."""
        while not self._closing.wait(max(0.0, self._last_line + self._every_s - time.monotonic())):
            with self._lock, suppress(OSError):  # the next line of the main thread meets the same error, and says it
                if self._closing.is_set() or time.monotonic() < self._last_line + self._every_s:
                    continue
                dated = self._to_log_file(self.sign_of_life() or "starting")
                if not (self.quiet or self.is_live) and _takes_a_line(self.console):
                    self._to_output(dated)

    def sign_of_life(self) -> str:
        """Return what is going on, in one line; empty where nothing is."""
        done, total = self._num_epochs
        return line(f"epoch {done + 1}/{total}" if done < total else "", self._under_way(), self.pace, time.monotonic())

    # --- what is going on

    def epoch_bar(self, total: int, done: int) -> None:
        """Begin the bar of the whole run."""
        self._num_epochs = (done, total)
        self._epochs = self.progress.add_task("epochs", total=total, completed=done)

    def epoch_done(self) -> None:
        """Count one more complete epoch."""
        done, total = self._num_epochs
        self._num_epochs = (done + 1, total)
        if self._epochs is not None:
            self.progress.advance(self._epochs)

    def track(self, steps: Iterable[int], name: str, total: int) -> Iterator[int]:
        """Yield from steps with a bar; leave by Interrupted once a signal has come."""
        with self._running(name, total, skip_first=True) as advance:
            for done, step in enumerate(steps, start=1):
                self.stop.check()
                yield step
                advance(done)

    @contextmanager
    def counting(self, name: str, total: int) -> Iterator[Callable[[int], None]]:
        """Give a function of how many of `total` are done, for loops that know that rather than the next index.

        It raises Interrupted once a signal has come.
        """
        with self._running(name, total) as advance:

            def checked(num_done: int) -> None:
                self.stop.check()
                advance(num_done)

            yield checked

    @contextmanager
    def doing(self, name: str) -> Iterator[None]:
        """Say `name` for as long as the work inside takes, unless a loop in it says more."""
        with self._running(name, None):
            yield

    @contextmanager
    def _running(self, name: str, total: int | None, skip_first: bool = False) -> Iterator[Callable[[int], None]]:
        """One bar at a time: the innermost."""
        loop = Loop(name, total, time.monotonic(), skip_first)
        task = self.progress.add_task(name, total=total, loop=loop)
        around = self._loops[-1][1] if self._loops else None
        if around is not None:
            self.progress.update(around, visible=False)
        self._loops.append((loop, task))

        def advance(num_done: int) -> None:
            loop.advance(num_done, time.monotonic())
            self.progress.update(task, completed=num_done)

        try:
            yield advance
            loop.end(time.monotonic())
        finally:
            self._loops.pop()
            self.pace.finished(loop)
            self.progress.remove_task(task)
            if around is not None:
                self.progress.update(around, visible=True)

    # --- the columns

    def _under_way(self) -> list[Loop]:
        return [loop for loop, _ in tuple(self._loops)]

    def _count(self, task: Task) -> str:
        loop = task.fields.get("loop")
        return loop.count if loop else f"{task.completed:.0f}/{task.total:.0f}"

    def _rate(self, task: Task) -> str:
        loop = task.fields.get("loop")
        return loop.rate if loop else ""

    def _left(self, task: Task) -> str:
        """Of a loop, or of the whole run; of what is not counted, how long it has taken."""
        loop = task.fields.get("loop")
        if loop is None:
            left_of_run = self.pace.left(self._under_way())
            return left_of_run.sign if left_of_run else ""
        left = loop.left(self.pace.step_s(loop.name))
        return span(time.monotonic() - loop.begin) if left is None else span(left)


def _takes_a_line(console: Console) -> bool:
    """Whether the output takes a line at once; a pipe that nobody reads does not, and writing to it would wait."""
    try:
        return bool(select.select([], [console.file], [], 0)[1])
    except ValueError:  # not a file of the operating system
        return True


@contextmanager
def alive(what: str) -> Iterator[None]:
    """Say `what` on stderr while the work inside takes long."""
    with Reporter(StopFlag(), to_stderr=True, bars=False) as reporter, reporter.doing(what):
        yield
