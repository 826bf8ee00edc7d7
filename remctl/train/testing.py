"""The test of an epoch's agent: when it is due, what it measures, and by which epoch its results are in the log.

In turn: the test of epoch N is played at the end of N and logged with it. Overlapped (`runtime.overlap_tests`): it is played
by another process (`remctl.train.background`) while training goes on, and logged with the epoch in which the next test is
due, or with the last one. Either way `test/of_epoch` says N, and every other value is the same. The epoch in which a test is
logged is a function of the configuration, never of how long anything took.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import torch

from remctl.config import RunConfig
from remctl.rem.perceptual import PerceptualLoss
from remctl.runs.metrics import OF_EPOCH, epoch_of
from remctl.train.build import Agent
from remctl.train.collector import Record
from remctl.train.diagnosis import diagnose, flat
from remctl.train.evaluate import Advance, Episode, as_steps, play
from remctl.train.phases import Metrics
from remctl.train.schedule import controller_trained, is_due
from remctl.train.seeding import Randomness

RETURN_MEAN = "test/return_mean"


class Findings(NamedTuple):
    """What the test of one epoch's agent found: entries of metrics.jsonl and lines of episodes.jsonl."""

    metrics: Metrics
    episodes: list[Record]


def run_test(
    agent: Agent, image_loss: PerceptualLoss, epoch: int, advance: Advance, check: Callable[[], None]
) -> Findings:
    """Play the test episodes of `epoch` and diagnose the agent on them; `advance` and `check` may raise to leave."""
    config = agent.config
    count, starts = config.evaluation.num_episodes, config.evaluation.diagnosis_starts
    random, chance = Randomness(config.seed, epoch, "test"), Randomness(config.seed, epoch, "diagnosis")
    episodes = play(agent, count, random, advance, controller_trained(config, epoch), num_kept=count)
    metrics: Metrics = {OF_EPOCH: epoch, RETURN_MEAN: sum(e.total_return for e in episodes) / len(episodes)}
    metrics |= flat(diagnose(agent, as_steps(episodes), image_loss, chance, starts, check))
    return Findings(metrics, [{**episode_record("test", e), "of_epoch": epoch} for e in episodes])


def episode_record(kind: str, episode: Episode) -> Record:
    """A line of episodes.jsonl."""
    return {"kind": kind, "index": episode.index, "return": episode.total_return, "length_steps": episode.num_steps}


# --- when


def overlaps(config: RunConfig, device: torch.device) -> bool:
    """Whether tests are played while training goes on; `auto`: on GPUs, as the cores of a CPU are all busy training."""
    wanted = config.runtime.overlap_tests
    return wanted == "on" or (wanted == "auto" and device.type == "cuda")


def logged_with(config: RunConfig, epoch: int) -> int:
    """The epoch with which an overlapped test of `epoch` is logged; never before it, at most one is then under way."""
    return min(epoch + config.evaluation.every_epochs, config.training.num_epochs)


def untested(config: RunConfig, epoch: int, entries: Iterable[Mapping[str, Any]]) -> int | None:
    """The last epoch until `epoch` whose test was due and is not in the log, if there will be another epoch to log it."""
    last = epoch - epoch % config.evaluation.every_epochs
    tested = {epoch_of(entry, RETURN_MEAN) for entry in entries if RETURN_MEAN in entry}
    missing = is_due(config, last) and last not in tested and epoch < config.training.num_epochs
    return last if missing else None
