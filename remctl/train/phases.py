"""One epoch's training of V, M and C. Losses stay on the device until a phase is over: no synchronisation in a loop."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from scipy.cluster.vq import kmeans2
from torch import Tensor

from remctl.config import RunConfig
from remctl.rem.tokenizer import to_model_range
from remctl.replay.buffer import ReplayBuffer
from remctl.replay.sampling import sample_frames, sample_segments, sample_starts
from remctl.train.build import Agent
from remctl.train.learner import Learner
from remctl.train.schedule import num_steps
from remctl.train.seeding import Randomness

Metrics = dict[str, float]
WARMUP_CHECK_STEPS = 50
PROBE_FRAMES = 256
MEDIAN_FRAMES = 2000


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


def steps_left(config: RunConfig, component: str, epochs_done: int) -> int:
    """Optimisation steps that a component still has to take."""
    phase = getattr(config, component).training
    return sum(num_steps(phase, epoch) for epoch in range(epochs_done + 1, config.training.num_epochs + 1))


def train_tokenizer(learner: Learner, epoch: int, track: Track) -> Metrics:
    """Algorithm 5. In its first epoch after the warm-up and the codebook's initialisation, where configured."""
    agent, buffer, config = learner.agent, learner.buffer, learner.agent.config.tokenizer
    phase = config.training
    random = Randomness(agent.config.seed, epoch, "tokenizer")
    agent.tokenizer.train()
    learner.image_loss.train()
    metrics: Metrics = {}
    if epoch == phase.start_after_epoch + 1 and config.warmup != "none":
        metrics["tokenizer/warmup_steps"] = warm_up(learner, random, track)
    if epoch == phase.start_after_epoch + 1 and config.codebook_init == "kmeans":
        init_codebook(agent, buffer, random)
    random.seed_global("masks")
    steps, means = num_steps(phase, epoch), Means()
    shape, by = (steps, phase.batch_size), agent.config.training.sampling
    index = _on_device(sample_frames(buffer.episodes, shape, random.numpy("batches"), by), buffer)
    for i in track(range(steps), "tokenizer", steps):
        means.add(learner.steps["tokenizer"](index[i]))
    agent.tokenizer.eval()
    learner.image_loss.eval()
    buffer.forget_tokens()
    return metrics | means.read("tokenizer")


def warm_up(learner: Learner, random: Randomness, track: Track) -> int:
    """Train V as a plain autoencoder for a fixed count, or until it beats the median image; returns the steps taken.

    A vector-quantised autoencoder that starts from nothing can paint the mean image for ever.
    """
    buffer, config = learner.buffer, learner.agent.config.tokenizer
    random.seed_global("warm-up masks")
    shape = config.warmup_steps, config.training.batch_size
    where = _on_device(sample_frames(buffer.episodes, shape, random.numpy("warm-up batches")), buffer)
    probe = buffer.frames_at(_on_device(_some_frames(buffer, random.numpy("probe")), buffer))
    goal = config.warmup_margin * median_image_error(buffer, probe)
    for i in track(range(config.warmup_steps), "tokenizer warm-up", config.warmup_steps):
        learner.autoencoder_step(where[i])
        if (
            config.warmup == "beats_median"
            and (i + 1) % WARMUP_CHECK_STEPS == 0
            and autoencoder_error(learner.agent, probe) < goal
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
    rng = random.numpy("codebook")
    index = _on_device(_some_frames(buffer, rng), buffer)
    with agent.autocast():
        latents = agent.tokenizer.latents(to_model_range(buffer.frames_at(index)))
    points = latents.float().permute(0, 2, 3, 1).flatten(0, 2).cpu().numpy()
    with warnings.catch_warnings():  # fewer different points than codes leave some codes without any: harmless
        warnings.simplefilter("ignore")
        centres, _ = kmeans2(points, agent.config.tokenizer.num_codes, minit="++", seed=rng, missing="warn")
    agent.tokenizer.codebook.weight.copy_(torch.from_numpy(centres))


def train_world_model(learner: Learner, epoch: int, track: Track) -> Metrics:
    """Algorithm 6, on tokens cached in the buffer."""
    config, buffer, world_model = learner.agent.config, learner.buffer, learner.agent.world_model
    phase = config.world_model.training
    random = Randomness(config.seed, epoch, "world_model")
    random.seed_global("masks")
    steps, means = num_steps(phase, epoch), Means()
    shape, by = (steps, phase.batch_size), config.training.sampling
    starts = sample_segments(buffer.episodes, shape, config.min_segment_blocks, random.numpy("batches"), by)
    windows = buffer.after(starts, config.world_model.sequence_blocks)
    world_model.train()
    for i in track(range(steps), "world model", steps):
        means.add(learner.steps["world_model"](*windows.at(i)))
    world_model.eval()
    return means.read("world_model")


def train_controller(learner: Learner, epoch: int, track: Track) -> Metrics:
    """Algorithm 7: rollouts in imagination from real starting points."""
    config, buffer = learner.agent.config, learner.buffer
    phase = config.controller.training
    random = Randomness(config.seed, epoch, "controller")
    random.seed_imagination(learner.streams)
    steps, means = num_steps(phase, epoch), Means()
    min_before = 2 if config.imagination.imagine_from == "third_frame" else 0
    shape, by = (steps, phase.batch_size), config.training.sampling
    current = sample_starts(buffer.episodes, shape, min_before, random.numpy("batches"), by)
    windows = buffer.before(current, config.imagination.burn_in_frames)
    for i in track(range(steps), "controller", steps):
        means.add(learner.steps["controller"](*windows.at(i)))
    return means.read("controller")


def _some_frames(buffer: ReplayBuffer, rng: np.random.Generator) -> np.ndarray:
    return sample_frames(buffer.episodes, (1, PROBE_FRAMES), rng)[0]


def _on_device(index: np.ndarray, buffer: ReplayBuffer) -> Tensor:
    return torch.from_numpy(index).to(buffer.device)
