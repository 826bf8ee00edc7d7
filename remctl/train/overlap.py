"""The tests of a run: which are played in turn, which in the background, and what a start after a kill still owes.

An overlapped test is handed in after the commit of its epoch, whose checkpoint it reads and which is kept for it. What is
still untested follows from the log and the configuration, so that nothing beside them has to be saved: a start after a kill
hands in the same test again, and one without overlapping plays it itself.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

from remctl.errors import UserError
from remctl.progress import Reporter
from remctl.rem.perceptual import PerceptualLoss
from remctl.runs.layout import RunFolder
from remctl.train import checkpoint
from remctl.train.background import BackgroundTests
from remctl.train.build import Agent
from remctl.train.testing import Findings, is_due, logged_with, overlaps, run_test, untested


class RunTests:
    """Of one run, in the order of its epochs: `resume`, `begin`, then `tested` and `committed` per epoch, `close`."""

    def __init__(
        self, agent: Agent, image_loss: PerceptualLoss, run: RunFolder, num_actions: int, reporter: Reporter
    ) -> None:
        self.agent, self.image_loss, self.folder, self.reporter = agent, image_loss, run, reporter
        self.config = agent.config
        self.overlapped = overlaps(self.config, agent.device)
        self.background = BackgroundTests(self.config, run, num_actions, agent.device)
        self.waiting: int | None = None  # the epoch before now whose test is to be logged with a later one

    def resume(self, epoch: int, entries: Iterable[Mapping[str, Any]]) -> None:
        """After `epoch` complete epochs with `entries` in the log: find the test that was under way."""
        self.waiting = untested(self.config, epoch, entries)
        if self.waiting is None:
            return
        try:
            checkpoint.load_agent(self.folder, self.waiting)
        except UserError as error:  # MachineError is one
            self.reporter.log(f"the test of epoch {self.waiting} stays missing: {error}")
            self.waiting = None

    def begin(self) -> None:
        """Hand that test in again."""
        if self.waiting is not None and self.overlapped:
            self.background.hand_in(self.waiting)

    def any_logged_with(self, epoch: int) -> bool:
        """Whether `tested` will have something."""
        return self._is_own(epoch) or self._is_waiting_for(epoch)

    def tested(self, epoch: int) -> list[Findings]:
        """What is logged with `epoch`, oldest first: the test of an earlier one, of itself, both or none.

        Raises MachineError where the background failed, Interrupted on a signal.
        """
        earlier = [self._of_earlier(self.waiting)] if self.waiting is not None and self._is_waiting_for(epoch) else []
        return earlier + ([self._now(epoch)] if self._is_own(epoch) else [])

    @property
    def needed(self) -> tuple[int, ...]:
        """Epochs whose checkpoints a test may still read, also after going back by one epoch."""
        return () if self.waiting is None else (self.waiting,)

    def committed(self, epoch: int) -> None:
        """The checkpoint of `epoch` is complete: hand its test in, if it has one that is logged later."""
        if self._is_waiting_for(epoch):
            self.waiting = None
        if is_due(self.config, epoch) and not self._is_own(epoch):
            self.waiting = epoch
            self.background.hand_in(epoch)

    def close(self) -> None:
        """End the process of the background."""
        self.background.close()

    def _is_own(self, epoch: int) -> bool:
        return is_due(self.config, epoch) and (not self.overlapped or logged_with(self.config, epoch) == epoch)

    def _is_waiting_for(self, epoch: int) -> bool:
        """Without overlapping, what a start with it has left waits for the next epoch, whichever that is."""
        return self.waiting is not None and (not self.overlapped or logged_with(self.config, self.waiting) == epoch)

    def _now(self, epoch: int) -> Findings:
        """Of the agent as it is."""
        with self.reporter.counting("test episodes", self.config.evaluation.num_episodes) as advance:
            return run_test(self.agent, self.image_loss, epoch, advance, self.reporter.stop.check)

    def _of_earlier(self, epoch: int) -> Findings:
        if self.overlapped:
            return self.background.collect(epoch, self.reporter.stop.check)
        now = copy.deepcopy(self.agent.state_dict())
        self.agent.load_state_dict(checkpoint.load_agent(self.folder, epoch).agent)
        tested = self._now(epoch)
        self.agent.load_state_dict(now)
        return tested
