"""How many threads torch computes with: `runtime.threads`.

Sums are rounded differently with another number of threads, so a run keeps the number of its start. `auto` takes the cores
that are free when it starts; of small networks, which gain little from many threads, it times a few steps.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch

from remctl.runs.cores import Cores, Load, cores_here
from remctl.train.build import Agent
from remctl.train.phases import steps_left
from remctl.train.trainer import Trainer
from remctl.train.workload import Workload

Asked = int | Literal["auto"]
SMALL_PARAMETERS = 2_000_000  # `quick` has a fifth of that
ALWAYS_WORTH_IT = 2  # of `quick`, measured: the second thread makes steps 1.0 to 1.6 times as fast
WORTH_IT = 1.05  # what more threads must make a run faster by
REPEATS = 2


@dataclass(frozen=True)
class Choice:
    """A number of threads, and why."""

    number: int
    reason: str

    def __str__(self) -> str:
        return f"{self.number} thread{'s' * (self.number != 1)}: {self.reason}"


def prepare(asked: Asked) -> None:
    """As many threads as asked for; auto: one a core that this process may use, whatever others do there."""
    use(cores_here().most_threads if asked == "auto" else asked)


def use(number: int) -> None:
    """Have torch, and the libraries that it calls, compute with `number` threads."""
    if number != torch.get_num_threads():
        torch.set_num_threads(number)


def settle(trainer: Trainer, load: Load) -> None:
    """Choose the number of threads for this start of a run, which has read its checkpoint if it has one, and say why.

    `load` began a while ago. Raises Interrupted on a signal.
    """
    asked, before, cores = trainer.config.runtime.threads, trainer.num_threads_before, cores_here()
    is_free = asked == "auto" and before is None
    choice = choose(asked, before, cores, load.others() if is_free and cores.most_threads > 1 else None)
    if is_free and choice.number > ALWAYS_WORTH_IT and is_small(trainer.agent):
        with trainer.reporter.doing("timing steps"):
            choice = fewest(choice, time_steps(trainer, candidates(choice.number)))
    use(choice.number)
    trainer.reporter.log(str(choice))


def choose(asked: Asked, before: int | None, cores: Cores, busy: float | None) -> Choice:
    """The number from what was asked for, that of the run's last start (None: it begins), and what is free.

    `busy`: cores that others keep busy; None is unknown.
    """
    if asked != "auto":
        slow = (
            f" on {cores}: steps take far longer than with runtime.threads={cores.usable}"
            if asked > cores.usable
            else ""
        )
        return Choice(asked, f"runtime.threads={asked}{_unlike(asked, before)}{slow}")
    if before is not None:
        number = min(before, cores.most_threads)
        return Choice(number, "as before" if number == before else f"{available(cores)}{_unlike(number, before)}")
    number = max(1, min(cores.most_threads, cores.affinity - round(busy or 0.0)))
    reason = available(cores)
    if busy is not None:
        reason += f", others use {busy:.1f}"
    if number < cores.most_threads:
        reason += f" (runtime.threads={cores.most_threads} takes all)"
    return Choice(number, reason)


def is_small(agent: Agent) -> bool:
    """Whether a step is computed on the CPU, and takes a fraction of a second there."""
    num_parameters = sum(p.numel() for module in agent.components.values() for p in module.parameters())
    return agent.device.type == "cpu" and num_parameters < SMALL_PARAMETERS


def candidates(most: int) -> list[int]:
    """`most`, and the powers of two below it that need not be worth it, from the most on."""
    powers = (2**exponent for exponent in range(most.bit_length()))
    return [most, *sorted((n for n in powers if ALWAYS_WORTH_IT <= n < most), reverse=True)]


def time_steps(trainer: Trainer, numbers: Iterable[int]) -> dict[int, float]:
    """Seconds that all training steps of a run would take with each of `numbers` threads, from a few on random data.

    Raises Interrupted on a signal.
    """
    workload = Workload(copy.deepcopy(trainer.agent), trainer.image_loss)
    seconds: dict[int, float] = {}
    for number in numbers:
        use(number)
        for name in trainer.agent.components:
            step = workload.step(name)
            step()
            best = min(_seconds(step, trainer.reporter.stop.check) for _ in range(REPEATS))
            seconds[number] = seconds.get(number, 0.0) + best * steps_left(trainer.config, name, 0)
    return seconds


def _seconds(step: Callable[[], object], check: Callable[[], None]) -> float:
    check()
    begin = time.perf_counter()
    step()
    return time.perf_counter() - begin


def fewest(choice: Choice, seconds: Mapping[int, float]) -> Choice:
    """The least number of threads that is nearly as fast as any; `seconds` of each."""
    number = min(n for n in seconds if seconds[n] <= WORTH_IT * min(seconds.values()))
    return Choice(number, f"{choice.reason}; more are no faster" if number < choice.number else choice.reason)


def available(cores: Cores) -> str:
    """How many cores there are for a run."""
    return f"{cores}" if cores.most_threads == cores.usable else f"{cores}, {cores.allotted} allotted"


def _unlike(number: int, before: int | None) -> str:
    return (
        "" if before in (None, number) else f", {before} before: sums are rounded differently, not the same to the bit"
    )
