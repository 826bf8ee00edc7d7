"""From configuration to agent: the only place that reads the switches between components."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from remctl.config import RunConfig, TrainingPhase
from remctl.interfaces import SequenceModel
from remctl.iris.transformer import Transformer
from remctl.iris.vqgan import vqgan
from remctl.precision import settled
from remctl.rem.controller import Controller
from remctl.rem.perceptual import LPIPS, PerceptualLoss
from remctl.rem.retnet import RetNet
from remctl.rem.tokenizer import Tokenizer, to_model_range
from remctl.rem.world_model import WorldModel
from remctl.train.initial import draw_weights
from remctl.train.seeding import Randomness
from remctl.weights import require_lpips


@dataclass(frozen=True)
class Agent:
    """V, M and C of one run on one device. In `config` the precision is decided, never auto."""

    config: RunConfig
    device: torch.device
    tokenizer: Tokenizer
    world_model: WorldModel
    controller: Controller

    @property
    def components(self) -> dict[str, nn.Module]:
        """By the names of their configuration sections."""
        return {"tokenizer": self.tokenizer, "world_model": self.world_model, "controller": self.controller}

    def autocast(self) -> AbstractContextManager[None]:
        """bfloat16 linears and convolutions if that is the run's precision."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.runtime.precision == "bf16")

    @torch.no_grad()
    def encode(self, frames: Tensor) -> Tensor:
        """uint8 (B, H, W, 3) to tokens (B, K), in the run's precision."""
        with self.autocast():
            return self.tokenizer.encode(to_model_range(frames.to(self.device)))

    @torch.no_grad()
    def view(self, tokens: Tensor) -> Tensor:
        """What C observes of tokens (..., K): code vectors (..., E, h, w), or decoded frames (..., 3, H, W)."""
        codes = self.tokenizer.embed(tokens)
        if self.config.controller.observes == "codes":
            return codes
        with self.autocast():
            frames = self.tokenizer.decode(codes.flatten(0, -4)).float().clamp(-1, 1)
        return frames.unflatten(0, codes.shape[:-3])

    def state_dict(self) -> dict[str, dict[str, Tensor]]:
        """Weights of the three components: {component: {parameter: tensor}}."""
        return {name: module.state_dict() for name, module in self.components.items()}

    def load_state_dict(self, state: dict[str, dict[str, Tensor]]) -> None:
        """Takes {component: {parameter: tensor}}; raises RuntimeError where names or shapes differ."""
        for name, module in self.components.items():
            module.load_state_dict(state[name])


def build_agent(config: RunConfig, num_actions: int, device: torch.device) -> Agent:
    """The three components, initialised from the run's seed; a precision of auto is decided by the device."""
    config = settled(config, device)
    v, m, size = config.tokenizer, config.world_model, config.environment.frame_size
    tokenizer = Tokenizer(v, size, vqgan(v, size) if v.architecture == "vqgan" else None)
    sequence_model: SequenceModel = Transformer(m, v.tokens_per_obs) if m.architecture == "transformer" else RetNet(m)
    world_model = WorldModel(m, num_actions, v.tokens_per_obs, v.num_codes, sequence_model)
    controller = Controller(config.controller, num_actions, v.embed_dim, v.grid_size, size)
    agent = Agent(config, device, tokenizer, world_model.eval(), controller)
    for name, component in agent.components.items():
        draw_weights(component, Randomness(config.seed, 0, name))
        component.to(device)
    tokenizer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return agent


def build_image_loss(config: RunConfig, device: torch.device, log: Callable[[str], None]) -> PerceptualLoss:
    """The perceptual term of V's loss. LPIPS' weights are fetched now if they are missing, never replaced."""
    config = settled(config, device)
    v, lpips = config.tokenizer, None
    if v.perceptual == "lpips":
        lpips = LPIPS.load(require_lpips(log), **lpips_options(config)).to(device)
    return PerceptualLoss(v.perceptual, lpips)


def lpips_options(config: RunConfig) -> dict[str, Any]:
    """How LPIPS is built for a run whose precision is decided."""
    deep_type = torch.bfloat16 if config.runtime.precision == "bf16" else None
    return {"head_dropout": config.tokenizer.lpips_head_dropout, "deep_type": deep_type}


def build_optimizers(agent: Agent) -> dict[str, torch.optim.Optimizer]:
    """One per component."""
    phases = {name: getattr(agent.config, name).training for name in agent.components}
    return {
        name: build_optimizer(module, phases[name], name == "world_model") for name, module in agent.components.items()
    }


def build_optimizer(module: nn.Module, phase: TrainingPhase, spare_vectors: bool) -> torch.optim.Optimizer:
    """AdamW or Adam. `spare_vectors`: no weight decay on biases, norms and embeddings (M)."""
    plain = {id(p) for p in _undecayed(module)} if spare_vectors else set()
    groups = [
        {"params": [p for p in module.parameters() if id(p) not in plain], "weight_decay": phase.weight_decay},
        {"params": [p for p in module.parameters() if id(p) in plain], "weight_decay": 0.0},
    ]
    kind = torch.optim.AdamW if phase.optimizer == "adamw" else torch.optim.Adam
    return kind([g for g in groups if g["params"]], lr=phase.learning_rate, fused=True)


def _undecayed(module: nn.Module) -> Iterator[nn.Parameter]:
    for child in module.modules():
        if isinstance(child, nn.LayerNorm | nn.GroupNorm | nn.Embedding):
            yield from child.parameters(recurse=False)
        elif isinstance(bias := getattr(child, "bias", None), nn.Parameter):
            yield bias
