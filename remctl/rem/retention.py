"""Retention (Sun et al. 2023; paper Sections 2.2 and A.3): its tables, and one function that serves every form.

Shapes: B batch, H heads, T blocks or chunks, n tokens of one, D head dimension. A chunk starts at an absolute
position p with a state S (B, H, D, D) that summarises everything before it:

    q, k rotated by angles (p .. p+n-1) x theta;  k / sqrt(D)
    out = (q k^T * decay^(i-j), causal) v + decay^(i+1) (q S)                                        (Eq. 4)
    S'  = decay^n S + sum_i decay^(n-1-i) k_i^T v_i                                                  (Eq. 5)

Parallel is one chunk without a state, recurrent is chunks of one token, chunkwise anything between. Every table is
computed in float64 and rounded once (to float32, or kept for float64 models): decays and angles computed in bfloat16
break retention silently.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

THETA_BASE = 10_000.0


def decay_rates(kind: str, num_heads: int) -> Tensor:
    """Per-head decay (H,), float64: `log_linear` 1 - exp(linspace(log 1/32, log 1/512)) or `power_of_two` 1 - 2^(-5-i)."""
    if kind == "power_of_two":
        return 1 - 2.0 ** (-5 - torch.arange(num_heads, dtype=torch.float64))
    return 1 - torch.linspace(math.log(1 / 32), math.log(1 / 512), num_heads, dtype=torch.float64).exp()


class Decays(NamedTuple):
    """For chunks of n tokens: `causal` (H, n, n) is decay^(i-j) for i >= j, else 0; `read` (H, n, 1) decay^(i+1), what is
    left of the state at token i.
    """

    causal: Tensor
    read: Tensor


class Writing(NamedTuple):
    """For T blocks of n tokens, of whose states those at `reads` (R of 0 .. T, in any order) are wanted.

    `decay` (H, n, 1) is decay^(n-1-i), what is left of token i at the end of its block; `block` (H, 1, 1) decay^n;
    `carry` (H, R, T+1) the weights of (S_0, S~_1 .. S~_T) in the wanted ones of (S_0 .. S_T) (Eq. 7).
    """

    reads: tuple[int, ...]
    decay: Tensor
    block: Tensor
    carry: Tensor


class Layout(NamedTuple):
    """Which rows of the (B, rows, E) stream are what, and the tables of their retention."""

    blocks_per_chunk: int  # c
    num_blocks: int  # T
    block_len: int  # n
    num_predicted: int  # P
    num_chunks: tuple[int, int]  # whole ones, and the rest's
    rows: tuple[int, int]  # real ones, and those of u
    real_turns: Tensor  # T real blocks' rotation (2, T, n, D/2, 2), or in halves (2, T, n, 2, D/2)
    predicted_turns: Tensor  # P predicted blocks' rotation, likewise (2, P, K, D/2, 2)
    writing: Writing  # reads the states before chunks, before predicted blocks, and last the one behind everything
    pruned_writing: Writing  # of the last layer: reads those before predicted blocks, and behind each block
    chunk: Decays  # of c blocks
    rest: Decays  # of the blocks behind the last whole chunk
    predicted: Decays  # of a predicted block


class RetentionTables:
    """Rotation and decay tables of one model, built once per shape, device and dtype, and shared by its layers.

    `num_heads` H, `head_dim` D (even), `decay` as in `decay_rates`. Tables are float64 for float64 models, else float32.
    """

    def __init__(self, num_heads: int, head_dim: int, decay: str = "log_linear") -> None:
        self.rates_H = decay_rates(decay, num_heads)
        self.head_dim = head_dim
        self.thetas = THETA_BASE ** -torch.linspace(0, 1, head_dim // 2, dtype=torch.float64)
        self._cache: dict[tuple, Tensor] = {}

    def rotation(self, begins: range, n: int, like: Tensor, in_halves: bool = False) -> Tensor:
        """Cosines and sines of blocks of n tokens, whose first tokens are at `begins`.

        (2, blocks, n, D/2, 2) for `rotate`, or (2, blocks, n, 2, D/2) for `rotate_halves`: the first for queries, the second
        over sqrt(D) for keys.
        """

        def build() -> Tensor:
            positions = torch.tensor(begins, dtype=torch.float64)[:, None] + torch.arange(n)
            angles = positions[..., None] * self.thetas
            turns = torch.stack([angles.cos(), angles.sin()], dim=-2 if in_halves else -1)
            return torch.stack([turns, turns / self.head_dim**0.5])

        return self._get(("rotation", begins, n, in_halves), like, build)

    def decays(self, n: int, like: Tensor) -> Decays:
        """Of chunks of `n` tokens, for a model of tensors like `like` (any shape)."""
        return Decays(
            self._get(("causal", n), like, lambda: self._powers((_index(n)[:, None] - _index(n)).clamp(min=0)).tril()),
            self._get(("read", n), like, lambda: self._powers(_index(n)[:, None] + 1)),
        )

    def writing(self, num_blocks: int, n: int, reads: tuple[int, ...], like: Tensor) -> Writing:
        """Of `num_blocks` blocks of `n` tokens, of whose states those at `reads` are wanted; `like` (any shape)."""

        def carry() -> Tensor:
            j = _index(num_blocks + 1)
            return self._powers(n * (j[:, None] - j).clamp(min=0)).tril()[:, list(reads)]

        return Writing(
            reads,
            self._get(("write", n), like, lambda: self._powers(n - 1 - _index(n)[:, None])),
            self._get(("block", n), like, lambda: self._powers(n * torch.ones(1, 1))),
            self._get(("carry", num_blocks, n, reads), like, carry),
        )

    def _powers(self, exponents: Tensor) -> Tensor:
        return self.rates_H.view(-1, *[1] * exponents.ndim) ** exponents

    def _get(self, key: tuple, like: Tensor, build: Callable[[], Tensor]) -> Tensor:
        dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
        full_key = (*key, like.device, dtype)
        if full_key not in self._cache:
            with torch.inference_mode(False):
                self._cache[full_key] = build().to(like.device, dtype)
        return self._cache[full_key]


def _index(n: int) -> Tensor:
    return torch.arange(n, dtype=torch.float64)


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Turn neighbouring pairs of x (..., n, D) by rotation (..., n, D/2, 2), cosine and sine; float32 or better.

    One complex product: the fewest passes where operations run one by one.
    """
    pairs = x.to(rotation.dtype, memory_format=torch.contiguous_format).contiguous().unflatten(-1, (-1, 2))
    return torch.view_as_real(torch.view_as_complex(pairs) * torch.view_as_complex(rotation)).flatten(-2)


def rotate_halves(x: Tensor, rotation: Tensor) -> Tensor:
    """`rotate` for x (..., n, D) whose `pairs_in_halves`, by rotation (..., n, 2, D/2).

    In real numbers: a compiler fuses it with what stands around, in loops over neighbours.
    """
    (a, b), (cosine, sine) = x.to(rotation.dtype).unflatten(-1, (2, -1)).unbind(-2), rotation.unbind(-2)
    return torch.stack([a * cosine - b * sine, a * sine + b * cosine], dim=-2).flatten(-2)


def pairs_in_halves(rows: Tensor, head_dim: int) -> Tensor:
    """Rows (H D, ...) of a projection, reordered: each head's pairs (0, 1), (2, 3), .. come to (0, D/2), (1, D/2 + 1), ..

    Of queries and keys alike this changes no product of theirs; a state written so is to be read so.
    """
    return rows.unflatten(0, (-1, head_dim // 2, 2)).transpose(1, 2).flatten(0, 2)


class QKV(NamedTuple):
    """Queries, keys and values of blocks, each (B, H, T, n, D); q and k rotated, k scaled by 1/sqrt(D)."""

    q: Tensor
    k: Tensor
    v: Tensor


def retain(x: QKV, states: Tensor, decays: Decays) -> Tensor:
    """Eq. 4 for T chunks of n tokens, each from its own state; `decays` of that n.

    x (B, H, T, n, D); states (B, H, T, D, D). Returns (B, H, T, n, D).
    """
    v = x.v
    q, k = x.q.to(v.dtype), x.k.to(v.dtype)
    scores = (q @ k.transpose(-1, -2)) * decays.causal[:, None]
    return scores.to(v.dtype) @ v + (q @ states.to(v.dtype)) * decays.read[:, None]


def block_states(k: Tensor, v: Tensor, state: Tensor, writing: Writing) -> Tensor:
    """The wanted states between T blocks, in parallel (Eqs. 6 and 7).

    k, v (B, H, T, n, D); state (B, H, D, D) before the first block. Returns (B, H, R, D, D): those of S_0 .. S_T at
    `writing.reads`, float32 or better.
    """
    with torch.autocast(k.device.type, enabled=False):
        k = k.to(state.dtype) * writing.decay[:, None]
        partial = k.transpose(-1, -2) @ v.to(state.dtype)
        all_partial = torch.cat([state.unsqueeze(2), partial], dim=2).flatten(-2)
        return (writing.carry @ all_partial).unflatten(-1, state.shape[-2:])


def block_states_in_turn(k: Tensor, v: Tensor, state: Tensor, writing: Writing) -> Tensor:
    """What `block_states` gives, (B, H, R, D, D), each state from the one before it (Eq. 5): the schedule without POP."""
    states = [state]
    with torch.autocast(k.device.type, enabled=False):
        k = k.to(state.dtype) * writing.decay[:, None]
        for j in range(k.shape[2]):
            states.append(writing.block * states[-1] + k[:, :, j].transpose(-1, -2) @ v[:, :, j].to(state.dtype))
    return torch.stack([states[j] for j in writing.reads], dim=2)
