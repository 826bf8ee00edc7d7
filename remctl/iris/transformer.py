"""IRIS' causal Transformer with a KV cache (Micheli et al. 2023; GPT: Radford et al. 2019), the baseline's sequence model.

Shapes: B batch, T blocks, n tokens per block, R = T*n rows of a call, P tokens held before it, E embedding, H heads,
D = E/H. Learned absolute positions; pre-norm layers and a final norm; dropout on the embeddings, the attention weights
and both sub-layers. The window is as long as a training segment: no token stands outside it.

One forward serves training (from an empty state, all tokens at once) and imagination (a token at a time on what is
held). What is held is a value: no call changes a state that it was given.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from remctl.config import WorldModelConfig
from remctl.dropout import dropout


class KeysValues:
    """Keys and values (2, B, H, P, D) of one layer's tokens so far, a value.

    `memory` has room behind what is held. The newest holder of a memory is extended in place, which changes nothing that
    is held; `tip` is where the memory's newest content ends, so that an older holder knows to take a copy.
    """

    def __init__(self, memory: Tensor, length: int, tip: list[int]) -> None:
        self.memory = memory
        self.length = length
        self.tip = tip

    @property
    def held(self) -> Tensor:
        """(2, B, H, P, D)."""
        return self.memory[..., : self.length, :]

    def extended(self, new: Tensor, room: int) -> KeysValues:
        """With `new` (2, B, H, R, D) behind. A memory that must be taken is taken for `room` tokens."""
        end = self.length + new.shape[-2]
        if self.length == 0:
            return KeysValues(new, end, [end])
        if torch.is_grad_enabled() and (new.requires_grad or self.memory.requires_grad):
            return KeysValues(torch.cat([self.held, new], dim=-2), end, [end])
        memory, tip = self.memory, self.tip
        if tip[0] != self.length or end > memory.shape[-2]:
            memory, tip = new.new_empty((*new.shape[:-2], max(room, end), new.shape[-1])), [end]
            memory[..., : self.length, :] = self.held
        memory[..., self.length : end, :] = new
        tip[0] = end
        return KeysValues(memory, end, tip)


class TransformerState(NamedTuple):
    """What each layer holds; `visible` (B, P) bool where some tokens are hidden from all others, None where none is."""

    layers: list[KeysValues]
    visible: Tensor | None

    @property
    def length(self) -> int:
        """Tokens held."""
        return self.layers[0].length


class TransformerOutput(NamedTuple):
    """`real` (B, T, n, E), `state` after the last block."""

    real: Tensor
    state: TransformerState


class Transformer(nn.Module):
    """Positions, layers, final norm; no token embeddings, no heads."""

    name = "transformer"

    def __init__(self, config: WorldModelConfig, tokens_per_obs: int) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.head_dim = config.embed_dim // config.num_heads
        self.dropout = config.dropout
        self.max_positions = config.sequence_blocks * (tokens_per_obs + 1)
        self.position_embedding = nn.Embedding(self.max_positions, config.embed_dim)
        self.layers = nn.ModuleList([TransformerLayer(config) for _ in range(config.num_layers)])
        self.norm = nn.LayerNorm(config.embed_dim, config.layer_norm_eps)

    def initial_state(self, batch_size: int, like: Tensor) -> TransformerState:
        """Nothing held; in the type and on the device of `like` (any shape)."""
        shape = (2, batch_size, self.num_heads, 0, self.head_dim)
        return TransformerState([KeysValues(like.new_empty(shape), 0, [0]) for _ in self.layers], None)

    def compiled(self, **options: Any) -> Callable[[], AbstractContextManager[None]]:
        """A context without effect: the window grows with every token, and a layer would be compiled for each length."""
        return nullcontext

    def forward(
        self, real: Tensor, state: TransformerState, start: int = 0, keep: Tensor | None = None
    ) -> TransformerOutput:
        """Blocks real (B, T, n, E) behind what `state` holds, the first token at position `start`.

        keep (B, T) bool: blocks that are False have no influence on anything behind them.
        """
        B, T, n, E = real.shape
        assert start == state.length, f"tokens stand at {start}, but {state.length} tokens are held before them"
        assert start + T * n <= self.max_positions, f"{start + T * n} positions in a window of {self.max_positions}"
        visible = _visible(state, keep, B, T * n, n, real.device)
        mask = _mask(start, T * n, visible, real.device)
        position = torch.arange(start, start + T * n, device=real.device)
        x = self._drop(real.reshape(B, T * n, E) + self.position_embedding(position))
        held = []
        for layer, before in zip(self.layers, state.layers, strict=True):
            x, new = layer(x, before, mask, self.max_positions)
            held.append(new)
        return TransformerOutput(self.norm(x).reshape(B, T, n, E), TransformerState(held, visible))

    def _drop(self, x: Tensor) -> Tensor:
        return dropout(x, self.dropout, self.training)


class TransformerLayer(nn.Module):
    """Causal self-attention and feed-forward network, each behind a norm and beside a residual connection."""

    def __init__(self, config: WorldModelConfig) -> None:
        super().__init__()
        E = config.embed_dim
        self.num_heads = config.num_heads
        self.dropout = config.dropout
        self.ffn_activation = F.gelu if config.ffn_activation == "gelu" else F.silu
        self.norm1 = nn.LayerNorm(E, config.layer_norm_eps)
        self.qkv = nn.Linear(E, 3 * E)
        self.projection = nn.Linear(E, E)
        self.norm2 = nn.LayerNorm(E, config.layer_norm_eps)
        self.linear1 = nn.Linear(E, config.ffn_dim)
        self.linear2 = nn.Linear(config.ffn_dim, E)

    def forward(self, x: Tensor, before: KeysValues, mask: Tensor | None, room: int) -> tuple[Tensor, KeysValues]:
        """x (B, R, E) behind what is held; mask (B or 1, 1, R, P+R) bool or None. Also what is held afterwards."""
        q_k_v = self.qkv(self.norm1(x)).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        after = before.extended(q_k_v[1:], room)
        k, v = after.held
        attended = F.scaled_dot_product_attention(
            q_k_v[0],
            k,
            v,
            attn_mask=mask,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=mask is None and x.shape[1] > 1,
        )
        x = x + self._drop(self.projection(attended.transpose(1, 2).flatten(2)))
        return x + self._drop(self.linear2(self.ffn_activation(self.linear1(self.norm2(x))))), after

    def _drop(self, x: Tensor) -> Tensor:
        return dropout(x, self.dropout, self.training)


def _visible(
    state: TransformerState, keep: Tensor | None, batch_size: int, rows: int, block_len: int, device: torch.device
) -> Tensor | None:
    """(B, P+R) bool, or None where every token is visible to those behind it."""
    if keep is None and state.visible is None:
        return None
    before, now = (torch.ones(batch_size, n, dtype=torch.bool, device=device) for n in (state.length, rows))
    before = before if state.visible is None else state.visible
    now = now if keep is None else keep.repeat_interleave(block_len, dim=1)
    return torch.cat([before, now], dim=1)


def _mask(length: int, rows: int, visible: Tensor | None, device: torch.device) -> Tensor | None:
    """What each of `rows` new tokens may look at: (B or 1, 1, R, P+R) bool; None where the causal rule says it all."""
    if visible is None and (length == 0 or rows == 1):
        return None
    index = torch.arange(length + rows, device=device)
    row = index[length:, None]
    if visible is None:
        return (index <= row)[None, None]
    # A hidden token still looks at itself: a softmax over nothing is not a number.
    return ((index <= row) & visible[:, None, :] | (index == row))[:, None]
