"""One epoch's training of V, M and C. Losses stay on the device until a phase is over: no synchronisation in a loop."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from scipy.cluster.vq import kmeans2
from torch import Tensor, nn

from remctl.config import TrainingPhase
from remctl.interfaces import Segment, Start
from remctl.rem.imagination import controller_loss, imagine
from remctl.rem.perceptual import PerceptualLoss
from remctl.rem.tokenizer import to_model_range
from remctl.replay.buffer import ReplayBuffer
from remctl.replay.sampling import sample_frames, sample_segments, sample_starts
from remctl.train.build import Agent
from remctl.train.seeding import Randomness

Metrics = dict[str, float]
WARMUP_CHECK_STEPS = 50
PROBE_FRAMES = 256
MEDIAN_FRAMES = 2000
PART_SIZES = {"cpu": 16}  # segments whose gradient is taken at once; on other devices all of a batch


class Track(Protocol):
    """Wraps a loop: shows progress and leaves it when a signal asks to."""

    def __call__(self, steps: Iterable[int], name: str, total: int) -> Iterable[int]: ...


@dataclass
class Means:
    """Running sums of scalar tensors on the device; one synchronisation when read."""

    sums: dict[str, Tensor] = field(default_factory=dict)
    count: int = 0

    def add(self, values: dict[str, Tensor]) -> None:
        for name, value in values.items():
            self.sums[name] = self.sums[name] + value.detach() if name in self.sums else value.detach().clone()
        self.count += 1

    def read(self, prefix: str) -> Metrics:
        return {f"{prefix}/{name}": (total / self.count).item() for name, total in self.sums.items()}


def num_steps(phase: TrainingPhase, epoch: int) -> int:
    """Optimisation steps of a component in `epoch` (from 1); 0 where it is not trained."""
    if epoch <= phase.start_after_epoch or (phase.stop_after_epoch is not None and epoch > phase.stop_after_epoch):
        return 0
    return phase.steps_per_epoch + phase.first_epoch_extra_steps * (epoch == phase.start_after_epoch + 1)


def optimize(loss: Tensor, module: nn.Module, optimizer: torch.optim.Optimizer, clip: float) -> dict[str, Tensor]:
    """One step on a scalar loss; returns the gradient's norm before clipping, and whether it was clipped (0 or 1)."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    return clipped_step(module, optimizer, clip)


def clipped_step(module: nn.Module, optimizer: torch.optim.Optimizer, clip: float) -> dict[str, Tensor]:
    """One step with the gradients that are there; their norm before clipping, and whether it was clipped (0 or 1), scalars."""
    norm = nn.utils.clip_grad_norm_(module.parameters(), clip)
    optimizer.step()
    return {"gradient_norm": norm, "gradient_clipped_fraction": (norm > clip).float()}


def train_tokenizer(
    agent: Agent,
    optimizer: torch.optim.Optimizer,
    image_loss: PerceptualLoss,
    buffer: ReplayBuffer,
    epoch: int,
    track: Track,
) -> Metrics:
    """Algorithm 5. In its first epoch after the warm-up and the codebook's initialisation, where configured."""
    phase = agent.config.tokenizer.training
    random = Randomness(agent.config.seed, epoch, "tokenizer")
    random.seed_global()
    agent.tokenizer.train()
    image_loss.train()
    metrics: Metrics = {}
    if epoch == phase.start_after_epoch + 1 and agent.config.tokenizer.warmup != "none":
        metrics["tokenizer/warmup_steps"] = warm_up(agent, optimizer, image_loss, buffer, random, track)
    if epoch == phase.start_after_epoch + 1 and agent.config.tokenizer.codebook_init == "kmeans":
        init_codebook(agent, buffer, random)
    steps, means = num_steps(phase, epoch), Means()
    index = _on_device(sample_frames(buffer.episodes, (steps, phase.batch_size), random.numpy("batches")), buffer)
    for i in track(range(steps), "tokenizer", steps):
        means.add(tokenizer_step(agent, optimizer, image_loss, buffer.frames_at(index[i])))
    agent.tokenizer.eval()
    image_loss.eval()
    buffer.forget_tokens()
    return metrics | means.read("tokenizer")


def tokenizer_step(
    agent: Agent,
    optimizer: torch.optim.Optimizer,
    image_loss: PerceptualLoss,
    frames: Tensor,
    autoencoder: bool = False,
) -> dict[str, Tensor]:
    """frames (B, H, W, 3) uint8."""
    with agent.autocast():
        loss, terms = agent.tokenizer.loss(to_model_range(frames), image_loss, autoencoder)
    norms = optimize(loss, agent.tokenizer, optimizer, agent.config.tokenizer.training.gradient_clip)
    return {"loss": loss} | terms | norms


def warm_up(
    agent: Agent,
    optimizer: torch.optim.Optimizer,
    image_loss: PerceptualLoss,
    buffer: ReplayBuffer,
    random: Randomness,
    track: Track,
) -> int:
    """Train V as a plain autoencoder for a fixed count, or until it beats the median image; returns the steps taken.

    A vector-quantised autoencoder that starts from nothing can paint the mean image for ever.
    """
    config, rng = agent.config.tokenizer, random.numpy("warmup")
    index = sample_frames(buffer.episodes, (config.warmup_steps, config.training.batch_size), rng)
    where = _on_device(index, buffer)
    probe = buffer.frames_at(_on_device(sample_frames(buffer.episodes, (1, PROBE_FRAMES), rng)[0], buffer))
    goal = config.warmup_margin * median_image_error(buffer, probe)
    for i in track(range(config.warmup_steps), "tokenizer warm-up", config.warmup_steps):
        tokenizer_step(agent, optimizer, image_loss, buffer.frames_at(where[i]), autoencoder=True)
        if (
            config.warmup == "beats_median"
            and (i + 1) % WARMUP_CHECK_STEPS == 0
            and autoencoder_error(agent, probe) < goal
        ):
            return i + 1
    return config.warmup_steps


@torch.no_grad()
def autoencoder_error(agent: Agent, frames: Tensor) -> float:
    """Mean squared error in [-1, 1] of V without quantisation on frames (B, H, W, 3) uint8."""
    with agent.autocast():
        x = to_model_range(frames)
        output = agent.tokenizer.decode(agent.tokenizer.latents(x))
    return (output.float() - x).square().mean().item()


def median_image_error(buffer: ReplayBuffer, frames: Tensor) -> float:
    """Mean squared error, in [-1, 1], of painting the replay's per-pixel median image for frames (B, H, W, 3) uint8."""
    every = max(1, buffer.size // MEDIAN_FRAMES)
    median = np.median(buffer.frames[: buffer.size : every].cpu().numpy(), axis=0).astype(np.uint8)
    image = to_model_range(torch.from_numpy(median)).to(frames.device)
    return (to_model_range(frames) - image).square().mean().item()


@torch.no_grad()
def init_codebook(agent: Agent, buffer: ReplayBuffer, random: Randomness) -> None:
    """Set the codebook to k-means++ centres of the encoder's outputs on real frames."""
    rng = random.numpy("kmeans")
    index = _on_device(sample_frames(buffer.episodes, (1, PROBE_FRAMES), rng)[0], buffer)
    with agent.autocast():
        latents = agent.tokenizer.latents(to_model_range(buffer.frames_at(index)))
    points = latents.float().permute(0, 2, 3, 1).flatten(0, 2).cpu().numpy()
    with warnings.catch_warnings():  # fewer different points than codes leave some codes without any: harmless
        warnings.simplefilter("ignore")
        centres, _ = kmeans2(points, agent.config.tokenizer.num_codes, minit="++", seed=rng, missing="warn")
    agent.tokenizer.codebook.weight.copy_(torch.from_numpy(centres))


def train_world_model(
    agent: Agent, optimizer: torch.optim.Optimizer, buffer: ReplayBuffer, epoch: int, track: Track
) -> Metrics:
    """Algorithm 6, on tokens cached in the buffer."""
    config, phase = agent.config.world_model, agent.config.world_model.training
    random = Randomness(agent.config.seed, epoch, "world_model")
    random.seed_global()
    steps, means = num_steps(phase, epoch), Means()
    shape = (steps, phase.batch_size)
    starts = sample_segments(buffer.episodes, shape, agent.config.min_segment_blocks, random.numpy("batches"))
    windows = buffer.after(starts, config.sequence_blocks)
    agent.world_model.train()
    for i in track(range(steps), "world model", steps):
        means.add(world_model_step(agent, optimizer, buffer.segment(windows.at(i))))
    agent.world_model.eval()
    return means.read("world_model")


def world_model_step(agent: Agent, optimizer: torch.optim.Optimizer, segment: Segment) -> dict[str, Tensor]:
    """One step on a batch of segments; scalars. M is in training mode.

    The gradient is summed over parts of the batch that fit into a processor's memory better: same sums, other order.
    """
    optimizer.zero_grad(set_to_none=True)
    found: list[dict[str, Tensor]] = []
    parts = segment.parts(PART_SIZES.get(agent.device.type, len(segment.real)))
    whole = segment if len(parts) > 1 else None
    for part in parts:
        with agent.autocast():
            loss, terms = agent.world_model.loss(part, agent.tokenizer.code_vectors, whole)
        loss.backward()
        found.append({"loss": loss.detach()} | {name: term.detach() for name, term in terms.items()})
    norms = clipped_step(agent.world_model, optimizer, agent.config.world_model.training.gradient_clip)
    return {name: torch.stack([each[name] for each in found]).sum() for name in found[0]} | norms


def train_controller(
    agent: Agent, optimizer: torch.optim.Optimizer, buffer: ReplayBuffer, epoch: int, track: Track
) -> Metrics:
    """Algorithm 7: rollouts in imagination from real starting points."""
    config, phase = agent.config, agent.config.controller.training
    random = Randomness(config.seed, epoch, "controller")
    generator = random.torch(agent.device, "imagination")
    steps, means = num_steps(phase, epoch), Means()
    min_before = 2 if config.imagination.imagine_from == "third_frame" else 0
    current = sample_starts(buffer.episodes, (steps, phase.batch_size), min_before, random.numpy("batches"))
    windows = buffer.before(current, config.imagination.burn_in_frames)
    for i in track(range(steps), "controller", steps):
        means.add(controller_step(agent, optimizer, buffer.start(windows.at(i)), generator))
    return means.read("controller")


def controller_step(
    agent: Agent, optimizer: torch.optim.Optimizer, start: Start, generator: torch.Generator
) -> dict[str, Tensor]:
    """One step on a batch of imagined rollouts; scalars."""
    config = agent.config
    with agent.autocast():
        codes = agent.tokenizer.code_vectors
        trajectory = imagine(agent.world_model, agent.controller, agent.view, start, codes, config, generator)
        loss, terms = controller_loss(trajectory, config)
    norms = optimize(loss, agent.controller, optimizer, config.controller.training.gradient_clip)
    return {"loss": loss} | terms | norms


def _on_device(index: np.ndarray, buffer: ReplayBuffer) -> Tensor:
    return torch.from_numpy(index).to(buffer.device)
