"""How long a run will take on a CPU, from one measured step of each component, said before it starts."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from remctl.config import RunConfig
from remctl.rem.perceptual import PerceptualLoss
from remctl.replay.buffer import ReplayBuffer, Steps
from remctl.train.build import Agent, build_optimizers
from remctl.train.phases import num_steps, tokenizer_step, train_controller, train_world_model

LONG_S = 3600.0
SMALL_PARAMETERS = 2_000_000  # `quick` has a fifth of that and takes minutes
ENV_STEP_S = 2e-3  # emulator, two resizes and one batch of one through V and C; a small share of any long run


def announce(
    agent: Agent, image_loss: PerceptualLoss, epochs_done: int, log: Callable[[str], None], check: Callable[[], None]
) -> None:
    """On a CPU: measure a step of each component and say how long the rest of the run takes, if it is long.

    `check` is called between the steps, and may raise to leave.
    """
    num_parameters = sum(p.numel() for module in agent.components.values() for p in module.parameters())
    if agent.device.type != "cpu" or num_parameters < SMALL_PARAMETERS:
        return
    log("measuring one training step of each component")
    seconds = measure(agent, image_loss, check)
    total = sum(seconds[name] * steps_left(agent.config, name, epochs_done) for name in seconds)
    total += ENV_STEP_S * agent.config.collection.steps_per_epoch * agent.config.training.num_epochs
    parts = ", ".join(f"{name} {s:.2g} s" for name, s in seconds.items())
    if total > LONG_S:
        log(
            f"this run takes about {duration(total)} on this CPU (one step: {parts}); a GPU is meant for it. "
            "`--preset quick` takes minutes here."
        )


def measure(agent: Agent, image_loss: PerceptualLoss, check: Callable[[], None]) -> dict[str, float]:
    """Seconds of one training step of each component, on copies of them and on random data."""
    config = agent.config
    scratch = copy.deepcopy(agent)
    optimizers = build_optimizers(scratch)
    buffer = _random_buffer(config, agent.controller.num_actions)
    frames = buffer.frames[torch.arange(config.tokenizer.training.batch_size) % buffer.size]
    steps: dict[str, Callable[[], object]] = {
        "tokenizer": lambda: tokenizer_step(scratch, optimizers["tokenizer"], image_loss, frames),
        "world_model": lambda: _one(train_world_model, scratch, optimizers["world_model"], buffer, "world_model"),
        "controller": lambda: _one(train_controller, scratch, optimizers["controller"], buffer, "controller"),
    }
    seconds = {}
    for name, step in steps.items():
        check()
        begin = time.perf_counter()
        step()
        seconds[name] = time.perf_counter() - begin
    return seconds


def steps_left(config: RunConfig, component: str, epochs_done: int) -> int:
    """Optimisation steps that a component still has to take."""
    phase = getattr(config, component).training
    return sum(num_steps(phase, epoch) for epoch in range(epochs_done + 1, config.training.num_epochs + 1))


def duration(seconds: float) -> str:
    """In the largest sensible unit."""
    for unit, size in (("days", 86_400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} seconds"


def _one(phase: Callable, agent: Agent, optimizer: torch.optim.Optimizer, buffer: ReplayBuffer, name: str) -> None:
    """The phase's first epoch, cut to one step."""
    training = getattr(agent.config, name).training
    once = training.model_copy(update={"start_after_epoch": 0, "steps_per_epoch": 1, "first_epoch_extra_steps": 0})
    section = getattr(agent.config, name).model_copy(update={"training": once})
    config = agent.config.model_copy(update={name: section})
    phase(replace(agent, config=config), optimizer, buffer, 1, lambda steps, *_: steps)


def _random_buffer(config: RunConfig, num_actions: int) -> ReplayBuffer:
    size, count, rng = config.environment.frame_size, 256, np.random.default_rng(0)
    buffer = ReplayBuffer(count, size, config.tokenizer.tokens_per_obs, torch.device("cpu"))
    buffer.append(
        Steps(
            frames=rng.integers(256, size=(count, size, size, 3), dtype=np.uint8),
            actions=rng.integers(num_actions, size=count),
            rewards=np.zeros(count, np.float32),
            ends=np.zeros(count, bool),
            first=np.arange(count) == 0,
        )
    )
    num_codes, num_tokens = config.tokenizer.num_codes, config.tokenizer.tokens_per_obs
    buffer.refresh_tokens(lambda frames: torch.randint(num_codes, (len(frames), num_tokens)))
    return buffer
