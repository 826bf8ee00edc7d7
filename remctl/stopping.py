"""Signals that ask a command to leave: it does so between two steps, or within seconds in the middle of one.

A signal only sets a flag. The loops look at it between steps and leave by raising Interrupted: nothing is finished, nothing
half-written counts, the last complete epoch stands. Python runs its signal handlers between operations, and one operation
(a training step, a compilation) may take minutes. A thread therefore hears signals too, and ends the process if the loops
have not left in time: every write is atomic, so that this loses no more than leaving by the loops does.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from remctl.errors import Interrupted

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT)
GRACE_S = 5.0  # for a step under way and for what is written after it


class StopFlag:
    """Set by a signal, looked at between steps."""

    def __init__(self, grace_s: float = GRACE_S) -> None:
        self.signum = 0
        self._grace_s = grace_s

    def check(self) -> None:
        """Raise Interrupted once a signal has come."""
        if self.signum:
            raise Interrupted(self.signum)

    def _set(self, signum: int, frame: FrameType | None) -> None:
        self.signum = signum

    @contextmanager
    def listening(self) -> Iterator[StopFlag]:
        """Handle SIGTERM, SIGUSR2 and SIGINT while inside; in the main thread only."""
        before = {s: signal.signal(s, self._set) for s in STOP_SIGNALS}
        try:
            with _heard_in_the_middle_of_a_step(self._grace_s):
                yield self
        finally:
            for s, handler in before.items():
                signal.signal(s, handler)


@contextmanager
def _heard_in_the_middle_of_a_step(grace_s: float) -> Iterator[None]:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)  # a signal's number is written there at once
    listener = threading.Thread(target=_listen, args=(reader, grace_s), name="signals", daemon=True)
    listener.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(writer)
        listener.join()
        os.close(reader)


def _listen(reader: int, grace_s: float) -> None:
    """Until the other end is closed; `grace_s` after a signal, or at a second Ctrl-C, end the process."""
    first: int | None = None
    deadline = 0.0
    while True:
        timeout = None if first is None else max(0.0, deadline - time.monotonic())
        heard = os.read(reader, 1) if select.select([reader], [], [], timeout)[0] else None
        if heard == b"":
            return
        signum = heard[0] if heard else None
        if first is not None and signum in (None, signal.SIGINT):
            _leave(first)
        if first is None and signum in STOP_SIGNALS:
            first, deadline = signum, time.monotonic() + grace_s


def _leave(signum: int) -> None:
    show_cursor = "\x1b[?25h" if sys.stderr.isatty() else ""  # a progress bar hides it
    text = f"remctl: stopped by {signal.Signals(signum).name} in the middle of a step; run the same command again\n"
    os.write(2, f"{show_cursor}{text}".encode())
    os._exit(128 + signum)
