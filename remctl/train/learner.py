"""One optimisation step of each component, and what all steps of a run share."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from remctl.config import RunConfig
from remctl.interfaces import ImaginationStreams, Segment, Start
from remctl.rem.imagination import controller_loss, imagine
from remctl.rem.perceptual import PerceptualLoss
from remctl.rem.tokenizer import to_model_range
from remctl.replay.buffer import NONE, ReplayBuffer, Window
from remctl.train.build import Agent, build_optimizers
from remctl.train.seeding import imagination_streams

Scalars = dict[str, Tensor]  # on the device: reading one waits for it
Step = Callable[..., Scalars]
PART_SIZES = {"cpu": 16}  # segments whose gradient is taken at once; on other devices all of a batch


def part_size(config: RunConfig, device: torch.device) -> int:
    """Segments of M's batch whose gradient is taken at once."""
    return PART_SIZES.get(device.type, config.world_model.training.batch_size)


class Learner:
    """An agent with its optimisers, and a replay that it is trained on.

    `steps`: by component, functions of indices into the replay, on its device: frames (B,) for the tokenizer, a window's
    `where` and `real` (B, n) for the other two. Whatever else a step reads or changes stays where it is in memory, so
    that a step can be captured (`remctl.train.captured`). Imagination draws from `streams`.
    """

    def __init__(self, agent: Agent, image_loss: PerceptualLoss, buffer: ReplayBuffer) -> None:
        self.agent, self.image_loss, self.buffer = agent, image_loss, buffer
        self.optimizers = build_optimizers(agent)
        self.streams = imagination_streams(agent.device)
        self.tokenizer_loss = agent.tokenizer.loss
        self.form = "plain"  # of the steps: or compiled, captured, or both
        self.steps: dict[str, Step] = {
            "tokenizer": self._tokenizer_step,
            "world_model": self._world_model_step,
            "controller": self._controller_step,
        }

    def autoencoder_step(self, index: Tensor) -> Scalars:
        """V without quantisation on the frames at index (B,): its warm-up."""
        frames = self.buffer.frames_at(index)
        return tokenizer_step(self.agent, self.optimizers["tokenizer"], self.image_loss, frames, autoencoder=True)

    def _tokenizer_step(self, index: Tensor) -> Scalars:
        frames, optimizer, present = self.buffer.frames_at(index), self.optimizers["tokenizer"], self._present(index)
        return tokenizer_step(
            self.agent, optimizer, self.image_loss, frames, loss_of=self.tokenizer_loss, present=present
        )

    def _world_model_step(self, where: Tensor, real: Tensor) -> Scalars:
        segment = self.buffer.segment(Window(where, real))
        return world_model_step(self.agent, self.optimizers["world_model"], segment)

    def _controller_step(self, where: Tensor, real: Tensor) -> Scalars:
        start, present = self.buffer.start(Window(where, real)), self._present(real[:, -1].long() - 1)
        return controller_step(self.agent, self.optimizers["controller"], start, self.streams, present)

    def _present(self, index: Tensor) -> Tensor | None:
        """Rows (B,) of a batch that are not NONE; None where all batches are full."""
        return index != NONE if self.agent.config.training.sampling == "passes" else None


def tokenizer_step(
    agent: Agent,
    optimizer: torch.optim.Optimizer,
    image_loss: PerceptualLoss,
    frames: Tensor,
    autoencoder: bool = False,
    loss_of: Callable[..., tuple[Tensor, Scalars]] | None = None,
    present: Tensor | None = None,
) -> Scalars:
    """One step on frames (B, H, W, 3) uint8; scalars. `loss_of`: V's own `loss`, or that compiled.

    `present` (B,) bool: rows that count, where some only fill the batch up; so in `controller_step`.
    """
    with agent.autocast():
        loss, terms = (loss_of or agent.tokenizer.loss)(to_model_range(frames), image_loss, autoencoder, present)
    norms = optimize(loss, agent.tokenizer, optimizer, agent.config.tokenizer.training.gradient_clip)
    return _detached({"loss": loss} | terms) | norms


def world_model_step(agent: Agent, optimizer: torch.optim.Optimizer, segment: Segment) -> Scalars:
    """One step on a batch of segments; scalars. M is in training mode.

    The gradient is summed over parts of the batch that fit into a processor's memory better: same sums, other order.
    """
    optimizer.zero_grad(set_to_none=True)
    found: list[Scalars] = []
    parts = segment.parts(part_size(agent.config, agent.device))
    whole = segment if len(parts) > 1 else None
    for part in parts:
        with agent.autocast():
            loss, terms = agent.world_model.loss(part, agent.tokenizer.code_vectors, whole)
        loss.backward()
        found.append(_detached({"loss": loss} | terms))
    norms = clipped_step(agent.world_model, optimizer, agent.config.world_model.training.gradient_clip)
    return {name: torch.stack([each[name] for each in found]).sum() for name in found[0]} | norms


def controller_step(
    agent: Agent,
    optimizer: torch.optim.Optimizer,
    start: Start,
    streams: ImaginationStreams,
    present: Tensor | None = None,
) -> Scalars:
    """One step on a batch of imagined rollouts; scalars."""
    config = agent.config
    with agent.autocast():
        codes = agent.tokenizer.code_vectors
        trajectory = imagine(agent.world_model, agent.controller, agent.view, start, codes, config, streams)
        loss, terms = controller_loss(trajectory, config, present)
    norms = optimize(loss, agent.controller, optimizer, config.controller.training.gradient_clip)
    return _detached({"loss": loss} | terms) | norms


def optimize(loss: Tensor, module: nn.Module, optimizer: torch.optim.Optimizer, clip: float) -> Scalars:
    """One step on a scalar loss; returns the gradient's norm before clipping, and whether it was clipped (0 or 1)."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    return clipped_step(module, optimizer, clip)


def clipped_step(module: nn.Module, optimizer: torch.optim.Optimizer, clip: float) -> Scalars:
    """One step with the gradients that are there; their norm before clipping, and whether it was clipped (0 or 1), scalars."""
    norm = nn.utils.clip_grad_norm_(module.parameters(), clip)
    optimizer.step()
    return {"gradient_norm": norm, "gradient_clipped_fraction": (norm > clip).float()}


def _detached(scalars: Scalars) -> Scalars:
    """Without the graph of their gradients, which would otherwise live as long as they do."""
    return {name: x.detach() for name, x in scalars.items()}
