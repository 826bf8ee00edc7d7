"""RetNet with parallel observation prediction, POP (paper Sections 2.3, 2.4, A.3; Algorithms 1 and 2).

Shapes: B batch, T blocks, n tokens per block (K observation tokens and the action: n = K+1), P predicted blocks,
K prediction tokens each, E embedding, H heads, D = E/H.

One forward serves training, imagination and plain language modelling. Real blocks go through the layers from a state;
copies of the prediction tokens u go beside them, each reading the state before the block it predicts, at the positions
that the block's own tokens occupy. u never enters a state. `rem/reference.py` has the same thing as an obvious loop.

Parameters live in yet-another-retnet's modules, so that names and initialisation are those of published checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from yet_another_retnet.retnet import RetNetDecoder, RetNetDecoderLayer

from remctl.config import WorldModelConfig
from remctl.dropout import dropout, dropout_keys
from remctl.rem.retention import (
    QKV,
    Layout,
    RetentionTables,
    block_states,
    block_states_in_turn,
    pairs_in_halves,
    retain,
    rotate,
    rotate_halves,
)
from remctl.rem.views import partition

State = list[Tensor]  # one (B, H, D, D) per layer
NUM_DROPOUTS = 4  # in a layer
RunLayer = Callable[..., tuple[Tensor, Tensor]]


class RetNetOutput(NamedTuple):
    """`real` (B, T, n, E), `predicted` (B, P, K, E) or None, `state` after the last real block."""

    real: Tensor
    predicted: Tensor | None
    state: State


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
        self.has_equal_layers = config.layer_init == "copies"
        self.decoder = _decoder(config)
        self.reset_parameters()
        self.tables = RetentionTables(config.num_heads, self.head_dim, config.decay)
        self._compiled: tuple[RunLayer, RunLayer] | None = None

    def reset_parameters(self) -> None:
        """Make all layers copies of the first, if so configured; else leave each as it has drawn its own weights."""
        for layer in self.decoder.layers if self.has_equal_layers else ():
            layer.load_state_dict(self.decoder.layers[0].state_dict())

    @property
    def is_compiled(self) -> bool:
        """Whether layers run compiled at present: pairs of queries, keys and states then stand in halves."""
        return self._compiled is not None

    def initial_state(self, batch_size: int, like: Tensor) -> State:
        """Zeros, one (B, H, D, D) per layer, float32 (float64 for a float64 model)."""
        dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
        shape = (batch_size, self.num_heads, self.head_dim, self.head_dim)
        return [torch.zeros(shape, device=like.device, dtype=dtype) for _ in self.decoder.layers]

    def compiled(self, **options: Any) -> Callable[[], AbstractContextManager[None]]:
        """A context in which layers run compiled; `options` are torch.compile's.

        States made in it are to be read in it only: pairs of q and k, and so of states, stand in halves.

        A layer is compiled, not the stack: equal ones share the code, so that it takes seconds.
        """
        layer, pruned = torch.compile(self._layer, **options), torch.compile(self._pruned_layer, **options)

        @contextmanager
        def context() -> Iterator[None]:
            self._compiled = layer, pruned
            try:
                yield
            finally:
                self._compiled = None

        return context

    def forward(
        self,
        real: Tensor,
        state: State,
        start: int = 0,
        prediction: Tensor | None = None,
        first_predicted: int = 0,
        keep: Tensor | None = None,
        last_tokens_only: bool = False,
        projected: Tensor | None = None,
    ) -> RetNetOutput:
        """Algorithm 1, for any number of blocks.

        real (B, T, n, E), first token at absolute position `start`, read from `state`.
        prediction (B, P, K, E): u for the blocks first_predicted .. first_predicted+P-1 counted from the first real one;
        T itself is allowed: the block after the last, as imagination needs it.
        keep (B, T) bool: blocks that are False have no influence on anything behind them.
        last_tokens_only: `real` of the output is (B, T, 1, E), each block's last token, and the last layer computes of the
        other real tokens only what they leave in the state.
        projected (B, T*n + P*K, 4 E): `first_projections` of the real tokens and u, if they are known already.
        """
        B, T, n, E = real.shape
        assert prediction is None or first_predicted + prediction.shape[1] <= T + 1, (prediction.shape, real.shape)
        P, K = (0, 0) if prediction is None else prediction.shape[1:3]
        layout = self._layout((T, n), (P, K), first_predicted, start, real)
        x = real.reshape(B, T * n, E)
        if prediction is not None:
            x = torch.cat([x, prediction.reshape(B, P * K, E)], dim=1)
        states: State = []
        run_layer, run_pruned_layer = self._compiled or (self._layer, self._pruned_layer)
        keys = self._dropout_keys(real.device)
        for i, (layer, layer_state) in enumerate(zip(self.decoder.layers, state, strict=True)):
            is_pruned = last_tokens_only and i == len(state) - 1
            run = run_pruned_layer if is_pruned else run_layer
            known = (projected,) if i == 0 and projected is not None and not is_pruned else ()
            x, new_state = run(layer, x, layer_state, layout, keep, keys[i], *known)
            states.append(new_state)
        predicted = x[:, x.shape[1] - P * K :].reshape(B, P, K, E) if P else None
        return RetNetOutput(
            x[:, : x.shape[1] - P * K].reshape(B, T, 1 if last_tokens_only else n, E), predicted, states
        )

    def _dropout_keys(self, device: torch.device) -> Sequence[Tensor | None]:
        """Of each layer, for its masks: (NUM_DROPOUTS, 2); None where dropout draws for itself, or there is none."""
        if not self.is_compiled or not self.training or self.dropout == 0:
            return [None] * len(self.decoder.layers)
        return dropout_keys((len(self.decoder.layers), NUM_DROPOUTS), device).unbind(0)

    def _layout(
        self, real: tuple[int, int], predicted: tuple[int, int], first: int, start: int, like: Tensor
    ) -> Layout:
        """Of `real` (T, n) and `predicted` (P, K) blocks and tokens; a predicted block stands where its own tokens do."""
        (T, n), (P, K), c = real, predicted, min(self.blocks_per_chunk, real[0])
        ahead, tables, before = start + first * n, self.tables, tuple(range(first, first + P))
        return Layout(
            c,
            T,
            n,
            P,
            (T // c, int(T % c > 0)),
            (T * n, P * K),
            tables.rotation(range(start, start + T * n, n), n, like, self.is_compiled),
            tables.rotation(range(ahead, ahead + P * n, n), K, like, self.is_compiled),
            tables.writing(T, n, (*range(0, T, c), *before, *(() if T in before else (T,))), like),
            tables.writing(T, n, (*before, *range(1, T + 1)), like),
            tables.decays(c * n, like),
            tables.decays(T % c * n, like),
            tables.decays(K, like),
        )

    def _layer(
        self,
        layer: RetNetDecoderLayer,
        x: Tensor,
        state: Tensor,
        layout: Layout,
        keep: Tensor | None,
        keys: Tensor | None,
        projected: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Eqs. 9 and 10, Algorithm 2: (B, rows, E) and the state after the last real block.

        projected (B, rows, 4 E): q, k, v and gate, if they are known already.
        """
        if projected is None:
            projected = self._project(layer, "qkvg", layer.norm1(x))
        turns = layout.real_turns, layout.predicted_turns
        gate, written, values, *predicting = partition(projected, partial(self._gate_and_parts, turns))
        real = self._heads("qkv", layout.real_turns, written, values)
        real["v"] = _kept(real["v"], keep)
        states = self.block_states(real["k"], real["v"], state, layout.writing)
        sizes = [*layout.num_chunks, layout.num_predicted]
        *before_chunks, before, _ = states.split([*sizes, states.shape[2] - sum(sizes)], dim=2)
        retained = _chunkwise(QKV(**real), before_chunks, layout)
        if layout.num_predicted:
            retained.append(self._predict(before, layout, *predicting))
        return self._mix(layer, x, retained, gate, keys), states[:, :, -1]

    def _pruned_layer(
        self,
        layer: RetNetDecoderLayer,
        x: Tensor,
        state: Tensor,
        layout: Layout,
        keep: Tensor | None,
        keys: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """`_layer` for who reads only each block's last token and the predictions: (B, T + P*K, E).

        What a block's last token reads is the state behind the block.
        """
        last = slice(layout.block_len - 1, layout.rows[0], layout.block_len)
        (x_real, x_u), (h_real, h_u) = x.split(layout.rows, dim=1), layer.norm1(x).split(layout.rows, dim=1)
        written = partition(self._project(layer, "kv", h_real), partial(self._parts, "kv", layout.real_turns))
        real = self._heads("kv", layout.real_turns, *written)
        states = self.block_states(real["k"], _kept(real["v"], keep), state, layout.pruned_writing)
        reading, gate = self._project(layer, "qg", h_real[:, last]).chunk(2, dim=-1)
        turns = layout.real_turns[:, :, -1:]
        q = self._heads("q", turns, *self._parts("q", turns, reading))["q"].to(reading.dtype)
        before, behind = states.split([layout.num_predicted, layout.num_blocks], dim=2)
        retained, gates, rows = [q @ behind.to(q.dtype)], [gate], [x_real[:, last]]
        if layout.num_predicted:
            view = partial(self._gate_and_parts, (layout.predicted_turns,))
            gate, *predicting = partition(self._project(layer, "qkvg", h_u), view)
            retained.append(self._predict(before, layout, *predicting))
            gates.append(gate)
            rows.append(x_u)
        return self._mix(layer, torch.cat(rows, 1), retained, torch.cat(gates, 1), keys), states[:, :, -1]

    def first_projections(self, x: Tensor) -> Tensor:
        """The first layer's q, k, v and gate (R, 4 E) of rows x (R, E): functions of what a token is, not of where it is."""
        layer = self.decoder.layers[0]
        return self._project(layer, "qkvg", layer.norm1(x)[None])[0]

    def _project(self, layer: RetNetDecoderLayer, names: str, x: Tensor) -> Tensor:
        """What `names` says of q, k, v and the gate g side by side (B, rows, .. E), in one matmul."""
        weight, bias = (
            torch.cat([self._projection(layer, name, kind) for name in names]) for kind in ("weight", "bias")
        )
        return _affine(x.flatten(0, 1), weight, bias).unflatten(0, x.shape[:2])

    def _projection(self, layer: RetNetDecoderLayer, name: str, kind: str) -> Tensor:
        """The weight (E, E) or bias (E,) of q, k, v or g: pairs of q and k in halves where layers are compiled."""
        rows: Tensor = getattr(getattr(layer.retention, f"{name}_proj"), kind)
        return pairs_in_halves(rows, self.head_dim) if self.is_compiled and name in "qk" else rows

    def _gate_and_parts(self, turns: Sequence[Tensor], projected: Tensor) -> list[Tensor]:
        """Views of (B, rows, 4 E): the gate, and the `_parts` of real rows and of u, as far as `turns` are theirs."""
        width = projected.shape[-1] // 4
        qkv, gate = projected.split([3 * width, width], dim=-1)
        of_turns = zip(turns, qkv.split([t.shape[1] * t.shape[2] for t in turns], dim=1), strict=True)
        return [gate, *(part for t, rows in of_turns for part in self._parts("qkv", t, rows))]

    def _parts(self, names: str, turns: Tensor, projected: Tensor) -> list[Tensor]:
        """Views of (B, T*n, .. E), per head: q and k as far as they are there (.., B, H, T, n, D), and likewise v."""
        parts = projected.unflatten(-1, (len(names), self.num_heads, self.head_dim)).unflatten(1, turns.shape[1:3])
        num_rotated = len(names.rstrip("v"))
        return list(parts.permute(3, 0, 4, 1, 2, 5).split([num_rotated, len(names) - num_rotated]))

    def _heads(self, names: str, turns: Tensor, rotating: Tensor, values: Tensor) -> dict[str, Tensor]:
        """Each of `names` as (B, H, T, n, D), contiguous; q and k turned by `turns` (2, T, n, ..), float32 or better."""
        rotated = names.rstrip("v")
        turns = turns["qk".index(rotated[0]) :][: len(rotated), None, None]
        turn = rotate_halves if self.is_compiled else rotate
        found = dict(zip(rotated, turn(rotating, turns).unbind(0), strict=True))
        if "v" in names:
            found["v"] = values[0].contiguous()
        return found

    def _predict(self, before: Tensor, layout: Layout, rotating: Tensor, values: Tensor) -> Tensor:
        """The P*K prediction tokens' `_parts`, each copy from the state before its block (B, H, P, D, D): (B, H, P, K, D)."""
        u = self._heads("qkv", layout.predicted_turns, rotating, values)
        return retain(QKV(**u), before, layout.predicted)

    def _mix(
        self, layer: RetNetDecoderLayer, x: Tensor, pieces: list[Tensor], gate: Tensor, keys: Tensor | None
    ) -> Tensor:
        """A layer behind its retention, of which `pieces` (B, H, C, m, D) make up the rows of x (B, rows, E).

        Dropout where the package has it: before the group norm, on both sub-layers, in the FFN.
        """
        of_retained, of_out, of_hidden, of_ffn = [None] * NUM_DROPOUTS if keys is None else keys.unbind(0)
        retained = self._drop(torch.cat([piece.flatten(2, 3).to(gate.dtype) for piece in pieces], dim=2), of_retained)
        # layer_norm accumulates in float32 whatever it is given: nothing need be converted for it.
        with torch.autocast(x.device.type, enabled=False):
            retained = F.layer_norm(retained, (self.head_dim,), eps=layer.retention.group_norm.eps)
        retained = F.silu(gate) * retained.transpose(1, 2).flatten(2)
        x = x + self._drop(_linear(layer.retention.out_proj, retained), of_out)
        hidden = self._drop(self.ffn_activation(_linear(layer.linear1, layer.norm2(x))), of_hidden)
        return x + self._drop(_linear(layer.linear2, hidden), of_ffn)

    def _drop(self, x: Tensor, key: Tensor | None) -> Tensor:
        return dropout(x, self.dropout, self.training, key)


def _linear(layer: nn.Linear, x: Tensor) -> Tensor:
    return _affine(x, layer.weight, layer.bias)


def _affine(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x W^T + b. In compiled code b goes into the loop of what follows, not into a pass of its own.

    Not where there is a gradient: more would be kept for it.
    """
    if not torch.compiler.is_compiling() or torch.is_grad_enabled():
        return F.linear(x, weight, bias)
    product = F.linear(x, weight)
    return (product + bias).to(product.dtype)


def _decoder(config: WorldModelConfig) -> RetNetDecoder:
    def layer() -> RetNetDecoderLayer:
        return RetNetDecoderLayer(
            config.embed_dim,
            config.num_heads,
            dim_feedforward=config.ffn_dim,
            dropout=config.dropout,
            layer_norm_eps=config.layer_norm_eps,
        )

    decoder = RetNetDecoder(layer(), 0)
    decoder.layers.extend(layer() for _ in range(config.num_layers))
    return decoder


def _chunkwise(real: QKV, before: list[Tensor], layout: Layout) -> list[Tensor]:
    """Real blocks (B, H, T, n, D) in chunks of c blocks: all full chunks (B, H, T/c, c*n, D), and what is left over.

    `before`: the states (B, H, .., D, D) before the full chunks, and before the rest.
    """
    c, left = layout.blocks_per_chunk, layout.num_blocks % layout.blocks_per_chunk
    parts = [t.split([layout.num_blocks - left, left], dim=2) for t in real]
    whole = QKV(*(t[0].unflatten(2, (-1, c)).flatten(3, 4) for t in parts))
    pieces = [retain(whole, before[0], layout.chunk)]
    if left:
        rest = QKV(*(t[1].flatten(2, 3).unsqueeze(2) for t in parts))
        pieces.append(retain(rest, before[1], layout.rest))
    return pieces


def _kept(v: Tensor, keep: Tensor | None) -> Tensor:
    """Values (B, H, T, n, D) without those of blocks that are not kept (B, T): nothing of them enters a state."""
    return v if keep is None else v * keep[:, None, :, None, None]
