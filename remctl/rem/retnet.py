"""RetNet with parallel observation prediction, POP (paper Sections 2.3, 2.4, A.3; Algorithms 1 and 2).

Shapes: B batch, T blocks, n tokens per block (K observation tokens and the action: n = K+1), P predicted blocks,
K prediction tokens each, E embedding, H heads, D = E/H.

One forward serves training, imagination and plain language modelling. Real blocks go through the layers from a state;
copies of the prediction tokens u go beside them, each reading the state before the block it predicts, at the positions
that the block's own tokens occupy. u never enters a state. `rem/reference.py` has the same thing as an obvious loop.

Parameters live in yet-another-retnet's modules, so that names and initialisation are those of published checkpoints.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from yet_another_retnet.retnet import RetNetDecoder, RetNetDecoderLayer

from remctl.config import WorldModelConfig
from remctl.rem.retention import QKV, RetentionTables, block_states, block_states_in_turn, retain, rotate

State = list[Tensor]  # one (B, H, D, D) per layer


class RetNetOutput(NamedTuple):
    """`real` (B, T, n, E), `predicted` (B, P, K, E) or None, `state` after the last real block."""

    real: Tensor
    predicted: Tensor | None
    state: State


class Layout(NamedTuple):
    """Which rows of the (B, rows, E) stream are what. `start`: absolute position of the first real token."""

    num_blocks: int
    block_len: int
    num_predicted: int
    num_prediction_tokens: int
    first_predicted: int
    start: int

    @property
    def real_rows(self) -> int:
        return self.num_blocks * self.block_len

    @property
    def positions(self) -> tuple[range, ...]:
        begins = (self.start + (self.first_predicted + i) * self.block_len for i in range(self.num_predicted))
        return (
            range(self.start, self.start + self.real_rows),
            *(range(begin, begin + self.num_prediction_tokens) for begin in begins),
        )


class RetNet(nn.Module):
    """The stack of layers; no embeddings, no heads, no final norm."""

    name = "retnet"
    max_positions: int | None = None

    def __init__(self, config: WorldModelConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.head_dim = config.embed_dim // config.num_heads
        self.dropout = config.dropout
        self.blocks_per_chunk = config.blocks_per_chunk
        self.block_states = block_states if config.block_states == "parallel" else block_states_in_turn
        self.ffn_activation = F.gelu if config.ffn_activation == "gelu" else F.silu
        self.decoder = _decoder(config)
        self.tables = RetentionTables(config.num_heads, self.head_dim, config.decay)

    def initial_state(self, batch_size: int, like: Tensor) -> State:
        """Zeros, one (B, H, D, D) per layer, float32 (float64 for a float64 model)."""
        dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
        shape = (batch_size, self.num_heads, self.head_dim, self.head_dim)
        return [torch.zeros(shape, device=like.device, dtype=dtype) for _ in self.decoder.layers]

    def forward(
        self,
        real: Tensor,
        state: State,
        start: int = 0,
        prediction: Tensor | None = None,
        first_predicted: int = 0,
        keep: Tensor | None = None,
    ) -> RetNetOutput:
        """Algorithm 1, for any number of blocks.

        real (B, T, n, E), first token at absolute position `start`, read from `state`.
        prediction (B, P, K, E): u for the blocks first_predicted .. first_predicted+P-1 counted from the first real one;
        T itself is allowed: the block after the last, as imagination needs it.
        keep (B, T) bool: blocks that are False have no influence on anything behind them.
        """
        B, T, n, E = real.shape
        assert prediction is None or first_predicted + prediction.shape[1] <= T + 1, (prediction.shape, real.shape)
        P, K = (0, 0) if prediction is None else prediction.shape[1:3]
        layout = Layout(T, n, P, K, first_predicted, start)
        x = real.reshape(B, T * n, E)
        if prediction is not None:
            x = torch.cat([x, prediction.reshape(B, P * K, E)], dim=1)
        states = []
        for layer, layer_state in zip(self.decoder.layers, state, strict=True):
            x, new_state = self._layer(layer, x, layer_state, layout, keep)
            states.append(new_state)
        predicted = x[:, T * n :].reshape(B, P, K, E) if P else None
        return RetNetOutput(x[:, : T * n].reshape(B, T, n, E), predicted, states)

    def _layer(
        self, layer: RetNetDecoderLayer, x: Tensor, state: Tensor, layout: Layout, keep: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Eqs. 9 and 10; dropout where the package has it: before the group norm, on both sub-layers, in the FFN."""
        qkv, gate = self._project(layer, layer.norm1(x), layout)
        if keep is not None:
            real = keep.repeat_interleave(layout.block_len, dim=1)[..., None, None]
            v = torch.cat([qkv.v[:, : layout.real_rows] * real, qkv.v[:, layout.real_rows :]], dim=1)
            qkv = qkv._replace(v=v)
        retained, new_state = self._pop_retention(qkv, state, layout)
        retained = self._drop(retained)
        retained = F.layer_norm(retained, (self.head_dim,), eps=layer.retention.group_norm.eps).flatten(-2)
        x = x + self._drop(layer.retention.out_proj(F.silu(gate) * retained))
        hidden = self._drop(self.ffn_activation(layer.linear1(layer.norm2(x))))
        return x + self._drop(layer.linear2(hidden)), new_state

    def _project(self, layer: RetNetDecoderLayer, x: Tensor, layout: Layout) -> tuple[QKV, Tensor]:
        """Queries, keys, values (B, rows, H, D) and gate (B, rows, E) in one matmul."""
        parts = [getattr(layer.retention, f"{name}_proj") for name in "qkvg"]
        projected = F.linear(x, torch.cat([p.weight for p in parts]), torch.cat([p.bias for p in parts]))
        qk, v, gate = projected.split([2 * x.shape[-1], x.shape[-1], x.shape[-1]], dim=-1)
        rotation = self.tables.rotation(layout.positions, projected)
        q, k = rotate(qk.unflatten(-1, (2, self.num_heads, self.head_dim)), rotation).unbind(2)
        v = v.unflatten(-1, (self.num_heads, self.head_dim))
        return QKV(q, k / self.head_dim**0.5, v), gate

    def _pop_retention(self, qkv: QKV, state: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
        """Algorithm 2: (B, rows, H, D) and the state after the last real block."""
        real = qkv.map(lambda t: _blocks(t[:, : layout.real_rows], layout.num_blocks))
        states = self.block_states(real.k, real.v, state, self.tables)
        out = self._chunkwise(real, states)
        if layout.num_predicted:
            u = qkv.map(lambda t: _blocks(t[:, layout.real_rows :], layout.num_predicted))
            before = states[:, layout.first_predicted : layout.first_predicted + layout.num_predicted]
            out = torch.cat([out, _rows(retain(u, before, self.tables))], dim=1)
        return out, states[:, -1]

    def _chunkwise(self, qkv: QKV, states: Tensor) -> Tensor:
        """Real blocks (B, T, H, n, D) in chunks of c blocks, all full chunks at once: (B, T*n, H, D)."""
        T = qkv.q.shape[1]
        c = min(self.blocks_per_chunk, T)
        whole = T - T % c
        chunks = qkv.map(lambda t: _merge(t[:, :whole], c))
        pieces = [_rows(retain(chunks, states[:, 0:whole:c], self.tables))]
        if whole < T:
            rest = qkv.map(lambda t: _merge(t[:, whole:], T - whole))
            pieces.append(_rows(retain(rest, states[:, whole : whole + 1], self.tables)))
        return torch.cat(pieces, dim=1)

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)


def _decoder(config: WorldModelConfig) -> RetNetDecoder:
    def layer() -> RetNetDecoderLayer:
        return RetNetDecoderLayer(
            config.embed_dim,
            config.num_heads,
            dim_feedforward=config.ffn_dim,
            dropout=config.dropout,
            layer_norm_eps=config.layer_norm_eps,
        )

    decoder = RetNetDecoder(layer(), config.num_layers)
    if config.layer_init == "independent":
        decoder.layers = nn.ModuleList([layer() for _ in range(config.num_layers)])
    return decoder


def _blocks(x: Tensor, num_blocks: int) -> Tensor:
    """(B, T*n, H, D) as (B, T, H, n, D)."""
    return x.unflatten(1, (num_blocks, -1)).transpose(2, 3)


def _merge(x: Tensor, c: int) -> Tensor:
    """(B, T, H, n, D) as chunks of c blocks (B, T/c, H, c*n, D)."""
    return x.unflatten(1, (-1, c)).transpose(2, 3).flatten(3, 4)


def _rows(x: Tensor) -> Tensor:
    """(B, T, H, n, D) as (B, T*n, H, D)."""
    return x.transpose(2, 3).flatten(1, 2)
