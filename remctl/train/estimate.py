"""How long a run will take on a CPU, from one measured step of each component, said before it starts."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable

from remctl.rem.perceptual import PerceptualLoss
from remctl.train.build import Agent
from remctl.train.phases import steps_left
from remctl.train.workload import Workload

LONG_S = 3600.0
SMALL_PARAMETERS = 2_000_000  # `quick` has a fifth of that and takes minutes
ENV_STEP_S = 2e-3  # emulator, two resizes and one batch of one through V and C; a small share of any long run


def announce(
    agent: Agent, image_loss: PerceptualLoss, epochs_done: int, log: Callable[[str], None], check: Callable[[], None]
) -> None:
    """On a CPU: measure a step of each component and say how long the rest of the run takes, if it is long.

    `check` is called between the steps, and may raise to leave.
    """
    if agent.device.type != "cpu" or is_small(agent):
        return
    log("measuring one training step of each component")
    seconds = measure(agent, image_loss, check)
    total = sum(seconds[name] * steps_left(agent.config, name, epochs_done) for name in seconds)
    total += ENV_STEP_S * agent.config.collection.steps_per_epoch * agent.config.training.num_epochs
    parts = ", ".join(f"{name} {s:.2g} s" for name, s in seconds.items())
    if total > LONG_S:
        log(
            f"this run takes about {duration(total)} on this CPU (one step, uncompiled: {parts}); a GPU is meant for it. "
            "`--preset quick` takes minutes here."
        )


def is_small(agent: Agent) -> bool:
    """Whether a step takes a fraction of a second on a CPU."""
    num_parameters = sum(p.numel() for module in agent.components.values() for p in module.parameters())
    return num_parameters < SMALL_PARAMETERS


def measure(agent: Agent, image_loss: PerceptualLoss, check: Callable[[], None]) -> dict[str, float]:
    """Seconds of one training step of each component, on copies of them and on random data; uncompiled."""
    workload, seconds = Workload(copy.deepcopy(agent), image_loss), {}
    for name in agent.components:
        check()
        begin = time.perf_counter()
        workload.step(name)()
        seconds[name] = time.perf_counter() - begin
    return seconds


def duration(seconds: float) -> str:
    """In the largest sensible unit."""
    for unit, size in (("days", 86_400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} seconds"
