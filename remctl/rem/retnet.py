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
from remctl.dropout import dropout
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
    def rows(self) -> list[int]:
        """Real ones, and those of u."""
        return [self.real_rows, self.num_predicted * self.num_prediction_tokens]

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
        last_tokens_only: bool = False,
    ) -> RetNetOutput:
        """Algorithm 1, for any number of blocks.

        real (B, T, n, E), first token at absolute position `start`, read from `state`.
        prediction (B, P, K, E): u for the blocks first_predicted .. first_predicted+P-1 counted from the first real one;
        T itself is allowed: the block after the last, as imagination needs it.
        keep (B, T) bool: blocks that are False have no influence on anything behind them.
        last_tokens_only: `real` of the output is (B, T, 1, E), each block's last token, and the last layer computes of the
        other real tokens only what they leave in the state.
        """
        B, T, n, E = real.shape
        assert prediction is None or first_predicted + prediction.shape[1] <= T + 1, (prediction.shape, real.shape)
        P, K = (0, 0) if prediction is None else prediction.shape[1:3]
        layout = Layout(T, n, P, K, first_predicted, start)
        x = real.reshape(B, T * n, E)
        if prediction is not None:
            x = torch.cat([x, prediction.reshape(B, P * K, E)], dim=1)
        states: State = []
        for layer, layer_state in zip(self.decoder.layers, state, strict=True):
            is_pruned = last_tokens_only and len(states) + 1 == len(state)
            x, new_state = (self._pruned_layer if is_pruned else self._layer)(layer, x, layer_state, layout, keep)
            states.append(new_state)
        predicted = x[:, x.shape[1] - P * K :].reshape(B, P, K, E) if P else None
        return RetNetOutput(
            x[:, : x.shape[1] - P * K].reshape(B, T, 1 if last_tokens_only else n, E), predicted, states
        )

    def _layer(
        self, layer: RetNetDecoderLayer, x: Tensor, state: Tensor, layout: Layout, keep: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Eqs. 9 and 10, Algorithm 2: (B, rows, E) and the state after the last real block."""
        projected, gate = self._project(layer, "qkvg", layer.norm1(x))
        written, predicting = projected.split(layout.rows, dim=1)
        real = self._heads("qkv", written, layout.positions[:1], layout.num_blocks)
        real["v"] = _kept(real["v"], keep)
        states = self.block_states(real["k"], real["v"], state, self.tables)
        retained = self._chunkwise(QKV(**real), states)
        if layout.num_predicted:
            retained.append(self._predict(predicting, states, layout))
        return self._mix(layer, x, retained, gate), states[:, :, -1]

    def _pruned_layer(
        self, layer: RetNetDecoderLayer, x: Tensor, state: Tensor, layout: Layout, keep: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """`_layer` for who reads only each block's last token and the predictions: (B, T + P*K, E).

        What a block's last token reads is the state behind the block.
        """
        last = slice(layout.block_len - 1, layout.real_rows, layout.block_len)
        (x_real, x_u), (h_real, h_u) = x.split(layout.rows, dim=1), layer.norm1(x).split(layout.rows, dim=1)
        written = self._project(layer, "kv", h_real)[0]
        real = self._heads("kv", written, layout.positions[:1], layout.num_blocks)
        states = self.block_states(real["k"], _kept(real["v"], keep), state, self.tables)
        reading, gate = self._project(layer, "qg", h_real[:, last])
        ends = tuple(range(position, position + 1) for position in layout.positions[0][last])
        q = self._heads("q", reading, ends, layout.num_blocks)["q"].to(reading.dtype)
        retained, gates, rows = [q @ states[:, :, 1:].to(q.dtype)], [gate], [x_real[:, last]]
        if layout.num_predicted:
            projected, gate = self._project(layer, "qkvg", h_u)
            retained.append(self._predict(projected, states, layout))
            gates.append(gate)
            rows.append(x_u)
        return self._mix(layer, torch.cat(rows, 1), retained, torch.cat(gates, 1)), states[:, :, -1]

    def _project(self, layer: RetNetDecoderLayer, names: str, x: Tensor) -> tuple[Tensor, Tensor]:
        """What `names` says of q, k and v side by side (B, rows, .. E), and the gate g (B, rows, E), in one matmul."""
        parts = [getattr(layer.retention, f"{name}_proj") for name in names]
        weight, bias = torch.cat([p.weight for p in parts]), torch.cat([p.bias for p in parts])
        projected = F.linear(x.flatten(0, 1), weight, bias).unflatten(0, x.shape[:2])
        width = len(names.rstrip("g")) * x.shape[-1]
        return projected.split([width, projected.shape[-1] - width], dim=-1)

    def _heads(self, names: str, projected: Tensor, positions: tuple[range, ...], num_blocks: int) -> dict[str, Tensor]:
        """Each of `names` as (B, H, T, n, D), contiguous; q and k rotated, k scaled by 1/sqrt(D), both float32 or better."""
        parts = projected.unflatten(-1, (len(names), self.num_heads, self.head_dim)).unflatten(1, (num_blocks, -1))
        parts = parts.permute(3, 0, 4, 1, 2, 5)
        num_rotated = len(names.rstrip("v"))
        rotating, values = parts.split([num_rotated, len(names) - num_rotated])
        rotation = self.tables.rotation(positions, projected).unflatten(0, (num_blocks, -1))
        found = dict(zip(names, rotate(rotating, rotation).unbind(0), strict=False))
        if "k" in found:
            found["k"] = found["k"] / self.head_dim**0.5
        if "v" in names:
            found["v"] = values[0].contiguous()
        return found

    def _chunkwise(self, real: QKV, states: Tensor) -> list[Tensor]:
        """Real blocks (B, H, T, n, D) in chunks of c blocks: all full chunks (B, H, T/c, c*n, D), and what is left over."""
        T = real.q.shape[2]
        c = min(self.blocks_per_chunk, T)
        whole = T - T % c
        chunks = real.map(lambda t: t[:, :, :whole].unflatten(2, (-1, c)).flatten(3, 4))
        pieces = [retain(chunks, states[:, :, 0:whole:c], self.tables)]
        if whole < T:
            rest = real.map(lambda t: t[:, :, whole:].flatten(2, 3).unsqueeze(2))
            pieces.append(retain(rest, states[:, :, whole : whole + 1], self.tables))
        return pieces

    def _predict(self, projected: Tensor, states: Tensor, layout: Layout) -> Tensor:
        """Prediction tokens (B, P*K, 3 E), each copy from the state before its block: (B, H, P, K, D)."""
        u = self._heads("qkv", projected, layout.positions[1:], layout.num_predicted)
        before = states[:, :, layout.first_predicted : layout.first_predicted + layout.num_predicted]
        return retain(QKV(**u), before, self.tables)

    def _mix(self, layer: RetNetDecoderLayer, x: Tensor, pieces: list[Tensor], gate: Tensor) -> Tensor:
        """A layer behind its retention, of which `pieces` (B, H, C, m, D) make up the rows of x (B, rows, E).

        Dropout where the package has it: before the group norm, on both sub-layers, in the FFN.
        """
        retained = self._drop(torch.cat([piece.flatten(2, 3).to(gate.dtype) for piece in pieces], dim=2))
        retained = F.layer_norm(retained, (self.head_dim,), eps=layer.retention.group_norm.eps)
        retained = retained.to(gate.dtype).transpose(1, 2).flatten(2)
        x = x + self._drop(layer.retention.out_proj(F.silu(gate) * retained))
        hidden = self._drop(self.ffn_activation(layer.linear1(layer.norm2(x))))
        return x + self._drop(layer.linear2(hidden))

    def _drop(self, x: Tensor) -> Tensor:
        return dropout(x, self.dropout, self.training)


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


def _kept(v: Tensor, keep: Tensor | None) -> Tensor:
    """Values (B, H, T, n, D) without those of blocks that are not kept (B, T): nothing of them enters a state."""
    return v if keep is None else v * keep[:, None, :, None, None]
