"""Tests beside training: one more process on the same device, which plays the test of an epoch while the next ones train.

It is spawned with the first test, so that it holds nothing of this process, and built as the trainer is: the same agent, the
same settings of torch, so that a test finds the same to the bit wherever it is played. It reads the weights of an epoch from
that epoch's checkpoint, which is kept for as long as a test may need it; only numbers come back.

It ends with the trainer, also where that is killed: a thread of its own waits for the end of its parent.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from typing import Any

import torch

from remctl.config import RunConfig
from remctl.errors import MachineError, one_line
from remctl.runs.layout import RunFolder
from remctl.train import checkpoint
from remctl.train.build import build_agent, build_image_loss
from remctl.train.testing import Findings, run_test

WALL = "test/background_wall_s"
LOOK_EVERY_S = 0.2
END_WITHIN_S = 10.0
# The trainer decides what a signal means; one to the whole process group must not end a test with a traceback.
LEFT_TO_THE_TRAINER = (signal.SIGINT, signal.SIGUSR2)
REMEDY = "run the same command again; with --set runtime.overlap_tests=off tests are played by the training process"


@dataclass(frozen=True)
class Settings:
    """What the other process needs to be as this one: plain values, and torch's settings that change roundings."""

    config: RunConfig
    run: RunFolder
    num_actions: int
    device: str
    num_threads: int
    matmul_precision: str
    cudnn_tf32: bool

    @classmethod
    def of_this_process(cls, config: RunConfig, run: RunFolder, num_actions: int, device: torch.device) -> Settings:
        """As they are now."""
        threads, tf32 = torch.get_num_threads(), torch.backends.cudnn.allow_tf32
        return cls(config, run, num_actions, str(device), threads, torch.get_float32_matmul_precision(), tf32)

    def apply(self) -> None:
        """Make this process so."""
        torch.set_num_threads(self.num_threads)
        torch.set_float32_matmul_precision(self.matmul_precision)
        torch.backends.cudnn.allow_tf32 = self.cudnn_tf32


class BackgroundTests:
    """The trainer's side: hand in an epoch, collect its result later; one at a time."""

    def __init__(self, config: RunConfig, run: RunFolder, num_actions: int, device: torch.device) -> None:
        self._arguments = (config, run, num_actions, device)
        self._process: Any = None
        self._connection: Connection | None = None

    def hand_in(self, epoch: int) -> None:
        """Begin the test of `epoch`, whose checkpoint must be complete and kept. Raises MachineError.

        A process that died with nothing to do is started again.
        """
        if self._process is not None and not self._process.is_alive():
            self.close()
        if self._process is None:
            self._start()
        assert self._connection is not None
        try:
            self._connection.send(epoch)
        except OSError:
            raise self._death(epoch) from None

    def collect(self, epoch: int, check: Callable[[], None]) -> Findings:
        """The result of the test of `epoch`, the one handed in last; waits for it, with a look at `check` meanwhile.

        Raises MachineError where the test failed or its process is gone.
        """
        assert self._connection is not None, f"the test of epoch {epoch} was not handed in"
        try:
            while not self._connection.poll(LOOK_EVERY_S):
                check()
            result = self._connection.recv()
        except (EOFError, OSError):
            error = self._death(epoch)
            check()  # a signal to both is no failure
            raise error from None
        if isinstance(result, str):
            raise MachineError(f"the test of epoch {epoch} failed in its process ({result}): {REMEDY}")
        assert isinstance(result, Findings)
        return result

    def close(self) -> None:
        """End the process; what it was playing is played again at the next start."""
        if self._process is not None:
            self._process.kill()
            self._process.join(END_WITHIN_S)
        if self._connection is not None:
            self._connection.close()
        self._process = self._connection = None

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        settings = Settings.of_this_process(*self._arguments)
        self._process = context.Process(target=serve, args=(theirs, settings), daemon=True, name="test")
        try:
            resource_tracker.ensure_running()  # it lets signals through again when it starts
            with _held_back():
                self._process.start()
        except OSError as error:
            self._process = None
            raise MachineError(f"cannot start the process that plays tests ({error.strerror}): {REMEDY}") from error
        finally:
            theirs.close()

    def _death(self, epoch: int) -> MachineError:
        self._process.join(END_WITHIN_S)
        code = self._process.exitcode
        how = f"signal {-code}" if code is not None and code < 0 else f"exit status {code}"
        memory = ", probably for want of memory" if code == -signal.SIGKILL else ""
        return MachineError(f"the process that played the test of epoch {epoch} was ended by {how}{memory}: {REMEDY}")


@contextmanager
def _held_back() -> Iterator[None]:
    """A process started inside gets no signal that is the trainer's before it has said that it ignores them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, LEFT_TO_THE_TRAINER)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# --- the other process


def serve(connection: Connection, settings: Settings) -> None:
    """Its whole life: test the epochs that come through `connection`, until the first failure or its end.

    Sends a Findings for each, or one line that says what failed.
    """
    for signum in LEFT_TO_THE_TRAINER:
        signal.signal(signum, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, LEFT_TO_THE_TRAINER)
    threading.Thread(target=_end_with_the_trainer, daemon=True).start()
    try:
        test = _tester(settings)
        while True:
            connection.send(test(connection.recv()))
    except (EOFError, BrokenPipeError):
        return  # closed at the other end
    except Exception as error:  # whatever it is, the trainer is to say it
        with suppress(OSError):
            connection.send(one_line(error))


def _end_with_the_trainer() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _tester(settings: Settings) -> Callable[[int], Findings]:
    """A function from epoch to the result of its test."""
    settings.apply()
    config, device = settings.config, torch.device(settings.device)
    agent = build_agent(config, settings.num_actions, device)
    image_loss = build_image_loss(config, device, lambda line: None)  # the trainer has said it
    for module in agent.components.values():
        module.eval()

    def test(epoch: int) -> Findings:
        begin = time.perf_counter()
        agent.load_state_dict(checkpoint.load_agent(settings.run, epoch).agent)
        tested = run_test(agent, image_loss, epoch, lambda num_done: None, lambda: None)
        tested.metrics[WALL] = time.perf_counter() - begin
        return tested

    return test
