"""How long a run will take: what was never timed is, one step of each component, before it starts."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Collection

import torch

from remctl.progress import Reporter
from remctl.rem.perceptual import PerceptualLoss
from remctl.replay.buffer import ENCODE_BATCH
from remctl.train.build import Agent
from remctl.train.remaining import COLLECT, ENCODE, TRAINED, WARM_UP
from remctl.train.workload import Workload

LONG_S = 3600.0
SHORT_S = 1.0  # a first step allocates and fills caches; one that is this short is taken again
ENV_STEP_S = 2e-3  # emulator, two resizes and one batch of one through V and C; a small share of any long run


def announce(agent: Agent, image_loss: PerceptualLoss, reporter: Reporter) -> None:
    """On a CPU: time a step of what is still to be done and was never timed, and say so if the run will take long.

    Raises Interrupted between two steps once a signal has come.
    """
    if agent.device.type != "cpu":
        return
    pace = reporter.pace
    unknown = pace.unknown()
    names = [name for name, loop in TRAINED.items() if loop in unknown]
    if names:
        with reporter.doing("timing one step of each component"):
            pace.guessed |= measure(agent, image_loss, names, reporter.stop.check)
    pace.guessed.setdefault(COLLECT, ENV_STEP_S)
    left = pace.left()
    if left is not None and left.seconds > LONG_S:
        steps = ", ".join(f"{name} {pace.step_s(loop):.2g} s" for name, loop in TRAINED.items() if pace.step_s(loop))
        reporter.log(
            f"this run takes {left.words} on this CPU (a step of {steps}); a GPU is meant for it. "
            "`--preset quick` takes minutes here."
        )


def measure(
    agent: Agent, image_loss: PerceptualLoss, names: Collection[str], check: Callable[[], None]
) -> dict[str, float]:
    """Return seconds by loop: of a training step of each component of `names`, and of encoding one frame.

    Steps run uncompiled, on a copy of the agent and on random data. `check` is called before each and may raise to leave.
    """
    workload = Workload(copy.deepcopy(agent), image_loss)
    size = agent.config.environment.frame_size
    frames = torch.zeros((ENCODE_BATCH, size, size, 3), dtype=torch.uint8, device=agent.device)
    found = {}
    for name in names:
        check()
        found[TRAINED[name]] = _seconds_of(workload.step(name))
    if "tokenizer" in names:
        found[WARM_UP] = found[TRAINED["tokenizer"]]  # the same step, without quantisation
    check()
    found[ENCODE] = _seconds_of(lambda: agent.encode(frames)) / ENCODE_BATCH
    return found


def _seconds_of(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    seconds = time.perf_counter() - begin
    if seconds < SHORT_S:
        begin = time.perf_counter()
        work()
        seconds = time.perf_counter() - begin
    return seconds
