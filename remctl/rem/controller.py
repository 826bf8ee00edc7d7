"""The controller C: an actor-critic with an LSTM that is told what it did (paper Section A.1.2, Table 6).

Shapes: B batch, E h w code grid or 3 H W frames, A actions. The recurrent state is a value (h, c), each (B, hidden).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from remctl.config import ControllerConfig
from remctl.interfaces import Convolved, PolicyValue

if TYPE_CHECKING:
    from remctl.interfaces import View

LEAST_SAVED = 5e8  # multiplications, of the first convolution, that are worth a look-up in their place
LOOK_UP_COST = 40  # multiplications that take as long as adding one number of a table, with its gradient


class ControllerState(NamedTuple):
    """LSTM state: h and c, each (B, hidden_dim), float32."""

    h: Tensor
    c: Tensor

    def where(self, mask: Tensor, other: ControllerState) -> ControllerState:
        """Rows of self where mask (B,) bool, else of `other`."""
        return ControllerState(*(torch.where(mask[:, None], a, b) for a, b in zip(self, other, strict=True)))

    def rows(self, keep: np.ndarray) -> ControllerState:
        """Only the rows where keep (B,) bool."""
        index = torch.from_numpy(np.flatnonzero(keep)).to(self.h.device)
        return ControllerState(self.h[index], self.c[index])


class Controller(nn.Module):
    """`observes` codes: two 3x3 convolutions and a linear layer; frames: IRIS' CNN on decoded frames."""

    def __init__(
        self, config: ControllerConfig, num_actions: int, embed_dim: int, grid_size: int, frame_size: int
    ) -> None:
        super().__init__()
        self.config = config
        self.num_actions = num_actions
        self.grid_size = grid_size
        if config.observes == "codes":
            self.encoder, width = _code_encoder(config, embed_dim, grid_size)
        else:
            self.encoder, width = _frame_encoder(frame_size)
        if config.action_inputs:
            self.action_embedding = nn.Embedding(num_actions, width)
        self.lstm = nn.LSTMCell(width, config.hidden_dim)
        self.actor = nn.Linear(config.hidden_dim, num_actions)
        self.critic = nn.Linear(config.hidden_dim, 1)

    def initial_state(self, batch_size: int) -> ControllerState:
        """Zeros."""
        zeros = self.actor.weight.new_zeros(batch_size, self.config.hidden_dim)
        return ControllerState(zeros, zeros)

    def view_by_table(self, code_vectors: Tensor, num_tokens: int) -> View | None:
        """Tokens (..., h w) to the first convolution of their codes, for steps that see `num_tokens`; None to multiply.

        What a code adds to the output at its place and the 8 around it depends on that code alone, so all of it fits in a
        table for code_vectors (N, E). Gradients reach the convolution, not the codes. Not on GPUs, where multiplying is
        faster than gathering; not in bfloat16, in which the table's gradient would be summed.
        """
        device, first = code_vectors.device.type, self.encoder[0]
        if self.config.observes != "codes" or not isinstance(first, nn.Conv2d):
            return None
        N, E = code_vectors.shape
        multiplied, looked_up = num_tokens * E, N * E + num_tokens * LOOK_UP_COST
        saved = (multiplied - looked_up) * 9 * first.out_channels
        if device != "cpu" or torch.is_autocast_enabled(device) or saved < LEAST_SAVED:
            return None
        return partial(_look_up, _products(first, code_vectors), self.grid_size)

    def observe(self, state: ControllerState, observation: Tensor | Convolved) -> tuple[ControllerState, PolicyValue]:
        """(B, E, h, w) codes or (B, 3, H, W) frames in [-1, 1] to the new state, and policy and value."""
        state = self._advance(state, self._encode(observation))
        return state, self.decide(state)

    def decide(self, state: ControllerState) -> PolicyValue:
        """Policy and value of a state that has just observed."""
        # Not in bfloat16: it would round values, which the baseline and the returns are made of, to 8 bits.
        with torch.autocast(state.h.device.type, enabled=False):
            return PolicyValue(self.actor(state.h), self.critic(state.h).squeeze(-1))

    def record_action(self, state: ControllerState, action: Tensor) -> ControllerState:
        """Tell C the action (B,) int64 it took, through the same LSTM; without action inputs nothing changes."""
        if not self.config.action_inputs:
            return state
        return self._advance(state, self.action_embedding(action))

    def burn_in(
        self,
        observations: Tensor | Convolved,
        actions: Tensor,
        real: Tensor,
        feed_action: list[bool],
        action_gradient: bool = False,
    ) -> ControllerState:
        """Run over real frames padded left, without a gradient: observations (B, F, ...), actions and real (B, F).

        Padded frames leave the state untouched. feed_action[f]: whether C is told the action of frame f; `action_gradient`:
        these steps alone are trained, as the published code does.
        """
        B, num_frames = real.shape
        state = self.initial_state(B)
        if num_frames == 0:
            return state
        with torch.no_grad():
            features = self._encode(observations)
        trains = action_gradient and torch.is_grad_enabled()
        for f in range(num_frames):
            new = self._advance(state, features[:, f], frozen=True)
            if feed_action[f]:
                with torch.set_grad_enabled(trains):
                    new = self.record_action(new, actions[:, f])
            state = new.where(real[:, f], state)
        return state

    def _encode(self, observation: Tensor | Convolved) -> Tensor:
        """(..., C, H, W) to (..., width)."""
        layers: nn.Module = self.encoder
        if isinstance(observation, Convolved):
            observation, layers = observation.output, self.encoder[1:]
        features: Tensor = layers(observation.flatten(0, -4)).unflatten(0, observation.shape[:-3])
        return features

    def _advance(self, state: ControllerState, features: Tensor, frozen: bool = False) -> ControllerState:
        """One step of the LSTM; `frozen`: a gradient passes through the state, none reaches the weights."""
        weights = [getattr(self.lstm, f"{kind}_{side}") for kind in ("weight", "bias") for side in ("ih", "hh")]
        weights = [w.detach() for w in weights] if frozen else weights
        with torch.autocast(features.device.type, enabled=False):
            return ControllerState(*torch.lstm_cell(features.to(state.h.dtype), state, *weights))


def _code_encoder(config: ControllerConfig, embed_dim: int, grid_size: int) -> tuple[nn.Sequential, int]:
    widths = (embed_dim, *config.conv_channels)
    layers: list[nn.Module] = []
    for a, b in zip(widths, widths[1:], strict=False):
        layers += [nn.Conv2d(a, b, 3, padding=1), nn.SiLU()]
    layers += [nn.Flatten(), nn.Linear(widths[-1] * grid_size**2, config.hidden_dim), nn.SiLU()]
    return nn.Sequential(*layers), config.hidden_dim


def _products(convolution: nn.Conv2d, code_vectors: Tensor) -> Tensor:
    """Each code (N, E) with each of the kernel's 9 parts, the first of which adds the bias: (9 (N + 1), O).

    Code N, of zeros, stands for the padding.
    """
    assert convolution.bias is not None
    parts, width = convolution.weight.permute(2, 3, 0, 1).flatten(0, 2), convolution.out_channels  # (9 O, E)
    codes, bias = F.pad(code_vectors, (0, 0, 0, 1)), F.pad(convolution.bias, (0, 8 * width))
    return F.linear(codes, parts, bias).view(-1, width)


def _look_up(products: Tensor, side: int, tokens: Tensor) -> Convolved:
    """The convolution (..., O, side, side) of tokens (..., side^2), as sums of nine `products`."""
    grids = F.pad(tokens.reshape(-1, side, side), (1, 1, 1, 1), value=len(products) // 9 - 1)
    around = grids.unfold(1, 3, 1).unfold(2, 3, 1).reshape(-1, 9)
    out = F.embedding_bag(around * 9 + torch.arange(9, device=tokens.device), products, mode="sum")
    return Convolved(out.view(*tokens.shape[:-1], side, side, -1).movedim(-1, -3))


def _frame_encoder(frame_size: int) -> tuple[nn.Sequential, int]:
    """IRIS' CNN (Micheli et al. 2023, Appendix A): four 3x3 convolutions, each with 2x2 max pooling and ReLU."""
    widths = (3, 32, 32, 64, 64)
    layers: list[nn.Module] = []
    for a, b in zip(widths, widths[1:], strict=False):
        layers += [nn.Conv2d(a, b, 3, padding=1), nn.MaxPool2d(2), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten()), widths[-1] * (frame_size // 16) ** 2
