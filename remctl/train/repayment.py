"""Whether compiling the layers of M repays itself on a CPU: one layer is compiled and timed before all others are.

What compiling gains there depends on the processor: a fifth of a step where products are fast (bf16), next to nothing where
they take all the time, and minutes of compiling in either case.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from remctl.rem.retnet import RetNet
from remctl.train.build import Agent
from remctl.train.learner import part_size
from remctl.train.phases import steps_left

# Of one layer, in a whole run: with and without a gradient before it, pruned; in a rollout its context, first and later steps.
COMPILATIONS = 11
REPEATS = 3
LEAST_GAIN = 0.05  # of a layer's time: less is within what two measurements of the same differ by


@dataclass(frozen=True)
class Trial:
    """Seconds of one layer of M, forward and backward, on what a training step computes at once; and of compiling it.

    `passes`: how often the run still does that.
    """

    plain_s: float
    compiled_s: float
    compile_s: float
    passes: int

    @property
    def saved_s(self) -> float:
        """By compiled layers in the rest of the run, in M's training alone."""
        return (self.plain_s - self.compiled_s) * self.passes

    @property
    def price_s(self) -> float:
        """Of the compilations that are still to come."""
        return self.compile_s * (COMPILATIONS - 1)

    @property
    def is_faster(self) -> bool:
        return self.compiled_s < (1 - LEAST_GAIN) * self.plain_s

    @property
    def is_repaid(self) -> bool:
        """Whether to go on compiling: it saves more than it costs."""
        return self.is_faster and self.saved_s > self.price_s

    def __str__(self) -> str:
        decision = "layers are compiled" if self.is_repaid else "layers run uncompiled"
        return (
            f"{decision}: the first took {self.compile_s:.1f} s to compile and runs in {self.compiled_s * 1e3:.3g} ms instead "
            f"of {self.plain_s * 1e3:.3g}; all would take {self.price_s:.0f} s and save {self.saved_s:.0f} s of this run"
            + ("" if self.is_faster else f" (a gain under {LEAST_GAIN:.0%} is not counted on)")
        )


def try_compiled_layer(agent: Agent, epochs_done: int, check: Callable[[], None], **options: Any) -> Trial:
    """Compile one layer of the shapes that `agent` trains M on, and time it; `options` are torch.compile's.

    `check` is called between measurements, and may raise to leave. Raises what the compiler raises.
    """
    config = agent.config.world_model
    size, batch_size = part_size(agent.config, agent.device), config.training.batch_size
    with torch.random.fork_rng(devices=[]):
        model, work = _one_layer(agent, min(size, batch_size))
        compiled = model.compiled(**options)

        def work_compiled() -> None:
            with compiled():
                work()

        work()  # builds the tables
        compile_s = _seconds(work_compiled, check)
        pairs = [(_seconds(work, check), _seconds(work_compiled, check)) for _ in range(REPEATS)]
    plain_s, compiled_s = map(min, zip(*pairs, strict=True))
    passes = steps_left(agent.config, "world_model", epochs_done) * math.ceil(batch_size / size) * config.num_layers
    return Trial(plain_s, compiled_s, compile_s, passes)


def _one_layer(agent: Agent, num_segments: int) -> tuple[RetNet, Callable[[], None]]:
    """A RetNet of one layer, and its forward and backward pass on random numbers."""
    config, K = agent.config.world_model, agent.config.tokenizer.tokens_per_obs
    T, first, E = config.sequence_blocks, config.first_predicted_block, config.embed_dim
    model = RetNet(config.model_copy(update={"num_layers": 1})).to(agent.device).train()
    real = torch.randn(num_segments, T, K + 1, E, device=agent.device, requires_grad=True)
    pop = config.observation_prediction == "pop"
    u = torch.randn(num_segments, T - first, K, E, device=agent.device) if pop else None
    return model, partial(_forward_backward, agent, model, real, u, first)


def _forward_backward(agent: Agent, model: RetNet, real: Tensor, u: Tensor | None, first: int) -> None:
    with agent.autocast():
        out = model(real, model.initial_state(real.shape[0], real), prediction=u, first_predicted=first)
    outputs = [out.real] if out.predicted is None else [out.real, out.predicted]
    torch.autograd.backward(outputs, [torch.ones_like(x) for x in outputs])


def _seconds(work: Callable[[], None], check: Callable[[], None]) -> float:
    check()
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin
