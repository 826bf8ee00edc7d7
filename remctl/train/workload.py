"""One optimisation step of each component on random data, as the trainer takes it, for timing.

Segments and starting points are without padding: nothing is cheaper than in the middle of a run.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from remctl.rem.imagination import Trajectory, imagine
from remctl.rem.perceptual import PerceptualLoss
from remctl.replay.synthetic import random_buffer
from remctl.train.build import Agent
from remctl.train.captured import WARM_UP_CALLS, accelerate, is_fast
from remctl.train.learner import Learner, controller_step, tokenizer_step, world_model_step
from remctl.train.seeding import Randomness

PHASES = ("tokenizer", "world_model", "imagination", "controller")


class Workload:
    """The work of `agent`, whose weights it changes, at the batch sizes of its configuration."""

    def __init__(self, agent: Agent, image_loss: PerceptualLoss) -> None:
        config = agent.config
        self.agent, self.image_loss = agent, image_loss
        longest = config.world_model.sequence_blocks + config.imagination.burn_in_frames
        buffer = random_buffer(config, agent.controller.num_actions, agent.device, max(256, 2 * longest))
        batches = {name: getattr(config, name).training.batch_size for name in agent.components}
        rng = np.random.default_rng(0)
        first = rng.integers(buffer.size - config.world_model.sequence_blocks, size=batches["world_model"])
        current = rng.integers(config.imagination.burn_in_frames, buffer.size, size=batches["controller"])
        segments = buffer.after(first, config.world_model.sequence_blocks)
        starts = buffer.before(current, config.imagination.burn_in_frames)
        self._inputs: dict[str, tuple[Tensor, ...]] = {
            "tokenizer": (torch.arange(batches["tokenizer"], device=agent.device) % buffer.size,),
            "world_model": segments,
            "controller": starts,
            "imagination": (),
        }
        self.frames = buffer.frames_at(*self._inputs["tokenizer"])
        self.segment, self.start = buffer.segment(segments), buffer.start(starts)
        self.learner = Learner(agent, image_loss, buffer)
        Randomness(0, 0, "workload").seed_imagination(self.learner.streams)
        self._fast: dict[str, Callable[..., object]] = {}

    def step(self, phase: str) -> Callable[[], object]:
        """What a step of `phase` does: one of PHASES; `imagination` is the rollout of a controller step, alone."""
        steps: dict[str, Callable[[], object]] = {
            "tokenizer": self._tokenizer,
            "world_model": self._world_model,
            "imagination": self.imagine,
            "controller": self._controller,
        }
        return partial(self._in_training, phase, steps[phase])

    def fast_step(self, phase: str) -> Callable[[], object]:
        """`step` as a run takes it: compiled and captured, before it is returned, if configuration and device say so."""
        if not is_fast(self.agent.config, self.agent.device):
            return self.step(phase)
        if not self._fast:
            fast = accelerate(self.learner, lambda _: None)
            self._fast = {**self.learner.steps, "imagination": fast(self.imagine)}
        work = partial(self._in_training, phase, partial(self._fast[phase], *self._inputs[phase]))
        for _ in range(WARM_UP_CALLS + 1 if self.agent.device.type == "cuda" else 1):  # until captured, or compiled
            work()
        return work

    def _in_training(self, phase: str, work: Callable[[], object]) -> object:
        """`work` as a run does it: M in training mode for its own step only, LPIPS for V's only."""
        world_model = self.learner.agent.world_model  # whatever stands for it while it is watched
        world_model.train(phase == "world_model")
        self.image_loss.train(phase == "tokenizer")
        try:
            return work()
        finally:
            world_model.eval()
            self.image_loss.eval()

    @torch.no_grad()
    def imagine(self) -> Trajectory:
        """A batch of rollouts without gradients."""
        agent = self.agent
        with agent.autocast():
            codes = agent.tokenizer.code_vectors
            return imagine(
                agent.world_model, agent.controller, agent.view, self.start, codes, agent.config, self.learner.streams
            )

    def _tokenizer(self) -> None:
        tokenizer_step(self.agent, self.learner.optimizers["tokenizer"], self.image_loss, self.frames)

    def _world_model(self) -> None:
        world_model_step(self.agent, self.learner.optimizers["world_model"], self.segment)

    def _controller(self) -> None:
        learner = self.learner
        controller_step(self.agent, learner.optimizers["controller"], self.start, learner.streams)
