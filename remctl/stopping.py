"""Signals that ask a command to leave: it does so between two steps, or within seconds in the middle of one.

A signal only sets a flag. The loops look at it between steps and leave by raising Interrupted: nothing is finished, nothing
half-written counts, the last complete epoch stands. Python runs its signal handlers between operations, and one operation
(a training step, a compilation) may take minutes. A thread therefore receives signals too, and ends the process if the loops
have not left in time. It waits for what is `finishing`; every write is atomic, so nothing is left half-written.
"""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from remctl.errors import Interrupted

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT)
GRACE_S = 5.0  # for a step under way and for what is written after it
LOOK_EVERY_S = 0.1


class StopFlag:
    """Set by a signal, looked at between steps."""

    def __init__(self, grace_s: float = GRACE_S) -> None:
        self.signum = 0
        self.is_finishing = False
        self._grace_s = grace_s

    def check(self) -> None:
        """Raise Interrupted once a signal has come."""
        if self.signum:
            raise Interrupted(self.signum)

    def _set(self, signum: int, frame: FrameType | None) -> None:
        self.signum = signum

    @contextmanager
    def finishing(self) -> Iterator[None]:
        """Inside, only a second Ctrl-C ends the process: what was computed is being written, and is worth waiting for."""
        self.is_finishing = True
        try:
            yield
        finally:
            self.is_finishing = False

    @contextmanager
    def listening(self) -> Iterator[StopFlag]:
        """Handle SIGTERM, SIGUSR2 and SIGINT while inside; in the main thread only."""
        before = {s: signal.signal(s, self._set) for s in STOP_SIGNALS}
        try:
            with self._heard_in_the_middle_of_a_step():
                yield self
        finally:
            for s, handler in before.items():
                signal.signal(s, handler)

    @contextmanager
    def _heard_in_the_middle_of_a_step(self) -> Iterator[None]:
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)  # a signal's number is written there at once
        listener = threading.Thread(target=self._listen, args=(reader,), name="signals", daemon=True)
        listener.start()
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            os.close(writer)
            listener.join()
            os.close(reader)

    def _listen(self, reader: int) -> None:
        """Until the other end is closed: end the process some time after a signal, or at a second Ctrl-C."""
        first, since = None, time.monotonic()
        while True:
            ready = select.select([reader], [], [], None if first is None else LOOK_EVERY_S)[0]
            heard = os.read(reader, 1) if ready else None
            if heard == b"":
                return
            signum = heard[0] if heard else None
            if first is None:
                first, since = signum if signum in STOP_SIGNALS else None, time.monotonic()
            elif signum == signal.SIGINT:
                _leave(first)
            elif self.is_finishing:
                since = time.monotonic()
            elif time.monotonic() - since > self._grace_s:
                _leave(first)


def _leave(signum: int) -> None:
    """End the process, whether or not anybody reads what it says."""
    text = f"remctl: stopped by {signal.Signals(signum).name} in the middle of a step; run the same command again\n"
    try:
        show_cursor = "\x1b[?25h" if os.isatty(2) else ""  # a progress bar hides it
        if select.select([], [2], [], 0)[1]:
            os.write(2, f"{show_cursor}{text}".encode())
    finally:
        os._exit(128 + signum)
