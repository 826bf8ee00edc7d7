"""Dropout (Srivastava et al. 2014) whose random numbers do not take a fifth of a training step on a CPU.

torch draws a CPU's masks one number per element, in one thread. Here one 64-bit number gives four elements 15 bits each, all
threads draw, from generators that torch's own one has seeded, and a dropped element is masked out by an integer AND. Same
distribution (p to 1 part in 32,768, scaled by the exact share that is kept), same seed same masks, other masks than
`torch.nn.functional.dropout`, which every other device uses.

Compiled code draws nothing and keeps no masks: it computes them, in the loops of what stands around, from an element's
index and a key, once more for the gradient (a counter-based generator: Salmon et al. 2011, "Parallel Random Numbers: As
Easy as 1, 2, 3").
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from torch.autograd.function import once_differentiable

LEVELS = 1 << 15
LANES = 4  # 16-bit lanes of a 64-bit number
PIECE = 1 << 19  # numbers that one thread draws from one seed: masks do not depend on how many threads there are
MASK_TYPES = {torch.bfloat16: torch.int16, torch.float16: torch.int16, torch.float32: torch.int32}


def dropout(x: Tensor, p: float, training: bool, key: Tensor | None = None) -> Tensor:
    """x (any shape) with each element zero with probability `p`, the others scaled so that the mean stays.

    `key` (2,) int32, one of `dropout_keys`: the mask is a function of it and of nothing else. For compiled code.
    """
    if not training or p == 0:
        return x
    if key is not None:
        threshold = min(round(p * 2**31), 2**31 - 1)
        return (x * (2**31 / (2**31 - threshold))).masked_fill(hashed_bits(x.shape, key) < threshold, 0.0)
    if x.device.type != "cpu" or x.dtype not in MASK_TYPES:
        return F.dropout(x, p, training)
    dropped = min(round(p * LEVELS), LEVELS - 1)
    result: Tensor = _MaskedScale.apply(x, keep_mask(x.shape, dropped), LEVELS / (LEVELS - dropped))
    return result


def keep_mask(shape: Sequence[int], dropped: int) -> Tensor:
    """All bits set where an element is kept, none in `dropped` of LEVELS elements: int16 of `shape` (any shape)."""
    # 15 bits b; dropped - 1 - b is negative where the element is kept, and its sign fills all bits
    return _lanes(shape).neg_().add_(dropped - 1).bitwise_right_shift_(15)


def dropout_keys(shape: Sequence[int], device: torch.device) -> Tensor:
    """Keys (.., 2) int32, `shape` of them, drawn from torch's own generator of `device`."""
    return torch.randint(-(2**31), 2**31, (*shape, 2), dtype=torch.int32, device=device)


def hashed_bits(shape: Sequence[int], key: Tensor) -> Tensor:
    """31 bits of each element's index, mixed: int32 of `shape` (fewer than 2^31 elements), for a key (2,) int32.

    Wellons' integer hash lowbias32 (2018) with one half of the key before each of its two rounds, so that of two keys
    neither mask is the other one shifted. `>> 16 & 0xFFFF` is the shift of an unsigned number.
    """
    x = torch.arange(math.prod(shape), dtype=torch.int32, device=key.device) ^ key[0]
    x = (x ^ (x >> 16 & 0xFFFF)) * 0x7FEB352D
    x = x ^ key[1]
    x = (x ^ (x >> 15 & 0x1FFFF)) * -0x7B935975
    return ((x ^ (x >> 16 & 0xFFFF)) & 0x7FFFFFFF).view(shape)


def _lanes(shape: Sequence[int]) -> Tensor:
    """Random numbers of 15 bits: int16 of `shape`, the same for a seed however many threads there are."""
    num_elements = math.prod(shape)
    numbers = torch.empty(-(-num_elements // LANES), dtype=torch.int64)
    pieces = numbers.split(PIECE)
    seeds = torch.randint(2**62, (len(pieces),)).tolist()
    run = map if len(pieces) == 1 else _pool(torch.get_num_threads()).map
    for _ in run(_fill, pieces, seeds):
        pass
    return numbers.view(torch.int16)[:num_elements].bitwise_and_(LEVELS - 1).view(shape)


def _fill(numbers: Tensor, seed: int) -> None:
    numbers.random_(generator=torch.Generator().manual_seed(seed))  # 63 bits; the highest of a lane is not used


@cache
def _pool(num_threads: int) -> ThreadPoolExecutor:
    """torch draws in one thread, and lets others run meanwhile."""
    return ThreadPoolExecutor(num_threads)


class _MaskedScale(torch.autograd.Function):
    """(x AND mask) * scale, and the same of the gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, mask: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(mask)
        ctx.scale = scale
        return _masked(x, mask, scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (mask,) = ctx.saved_tensors
        return _masked(gradients[0], mask, ctx.scale), None, None


def _masked(x: Tensor, mask: Tensor, scale: float) -> Tensor:
    bits = x.contiguous().view(MASK_TYPES[x.dtype])
    # An int16 of all or no bits widens to an int32 of all or no bits: first, since an AND of two types takes twice as long.
    wide = mask.to(bits.dtype)
    result = wide.bitwise_and_(bits) if wide is not mask else mask & bits
    return result.view(x.dtype).mul_(scale)
