"""One optimisation step of each component on random data, as the trainer takes it, for timing.

Segments and starting points are without padding: nothing is cheaper than in the middle of a run.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from remctl.rem.imagination import Trajectory, imagine
from remctl.rem.perceptual import PerceptualLoss
from remctl.replay.synthetic import random_buffer
from remctl.train.build import Agent, build_optimizers
from remctl.train.phases import controller_step, tokenizer_step, world_model_step

PHASES = ("tokenizer", "world_model", "imagination", "controller")


class Workload:
    """The work of `agent`, whose weights it changes, at the batch sizes of its configuration."""

    def __init__(self, agent: Agent, image_loss: PerceptualLoss) -> None:
        config = agent.config
        self.agent, self.image_loss = agent, image_loss
        self.optimizers = build_optimizers(agent)
        longest = config.world_model.sequence_blocks + config.imagination.burn_in_frames
        buffer = random_buffer(config, agent.controller.num_actions, agent.device, max(256, 2 * longest))
        batches = {name: getattr(config, name).training.batch_size for name in agent.components}
        rng = np.random.default_rng(0)
        self.frames = buffer.frames_at(torch.arange(batches["tokenizer"], device=agent.device) % buffer.size)
        first = rng.integers(buffer.size - config.world_model.sequence_blocks, size=batches["world_model"])
        self.segment = buffer.segments(first, config.world_model.sequence_blocks)
        current = rng.integers(config.imagination.burn_in_frames, buffer.size, size=batches["controller"])
        self.start = buffer.starts(current, config.imagination.burn_in_frames)
        self.generator = torch.Generator(agent.device).manual_seed(0)

    def step(self, phase: str) -> Callable[[], object]:
        """What a step of `phase` does: one of PHASES; `imagination` is the rollout of a controller step, alone."""
        steps: dict[str, Callable[[], object]] = {
            "tokenizer": self._tokenizer,
            "world_model": self._world_model,
            "imagination": self.imagine,
            "controller": self._controller,
        }
        return steps[phase]

    @torch.no_grad()
    def imagine(self) -> Trajectory:
        """A batch of rollouts without gradients."""
        agent = self.agent
        with agent.autocast():
            codes = agent.tokenizer.code_vectors
            return imagine(
                agent.world_model, agent.controller, agent.view, self.start, codes, agent.config, self.generator
            )

    def _tokenizer(self) -> None:
        tokenizer_step(self.agent, self.optimizers["tokenizer"], self.image_loss, self.frames)

    def _world_model(self) -> None:
        self.agent.world_model.train()
        world_model_step(self.agent, self.optimizers["world_model"], self.segment)
        self.agent.world_model.eval()

    def _controller(self) -> None:
        controller_step(self.agent, self.optimizers["controller"], self.start, self.generator)
