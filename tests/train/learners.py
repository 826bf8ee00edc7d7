"""Tiny learners on random replays, and what their steps take."""

from __future__ import annotations

import torch
from torch import Tensor

from remctl.config import RunConfig, resolve
from remctl.rem.perceptual import LPIPS, PerceptualLoss
from remctl.replay.synthetic import random_buffer
from remctl.train.build import build_agent, lpips_options
from remctl.train.learner import Learner
from remctl.weights import lpips_shapes
from tests.tiny import TINY, TINY_IRIS

CPU = torch.device("cpu")
COMPONENTS = ("tokenizer", "world_model", "controller")
VARIANTS = ("rem", "no_pop", "no_latent_space", "iris")


def make_config(variant: str = "rem", *sets: str) -> RunConfig:
    tiny = TINY_IRIS if variant == "iris" else TINY
    return resolve("Catch", "quick", variant=variant, sets=(*tiny, "world_model.num_layers=3", *sets))


def make_learner(config: RunConfig, device: torch.device = CPU, lpips: bool = False) -> Learner:
    of_lpips = LPIPS(random_lpips_weights(), **lpips_options(config)).to(device) if lpips else None
    loss = PerceptualLoss("lpips" if lpips else "pixel", of_lpips).train()
    agent = build_agent(config, 3, device)
    trained = Learner(agent, loss, random_buffer(config, 3, device, 64))
    agent.tokenizer.train()
    agent.world_model.train()
    return trained


def random_lpips_weights() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) * 0.05 for name, shape in lpips_shapes().items()}


def inputs_of(trained: Learner, component: str, offset: int = 0) -> tuple[Tensor, ...]:
    config, buffer = trained.agent.config, trained.buffer
    at = torch.arange(4).numpy() * 3 + 8 + offset
    if component == "tokenizer":
        return (torch.from_numpy(at).to(buffer.device),)
    if component == "world_model":
        return buffer.after(at, config.world_model.sequence_blocks)
    return buffer.before(at, config.imagination.burn_in_frames)
