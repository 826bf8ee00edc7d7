"""Views that make up a tensor, and whose gradients are written to one place.

The gradient of `split` is a `cat`, and that of the permutations after it a copy: passes over memory that add nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

View = Callable[[Tensor], Sequence[Tensor]]


def partition(x: Tensor, view: View) -> Sequence[Tensor]:
    """Return `view(x)`, views of x (any shape) that hold each of its elements once and that nobody writes to.

    Compiled code gets plain views: its loops write gradients to their place anyway.
    """
    if torch.compiler.is_compiling() or not (x.requires_grad and torch.is_grad_enabled()):
        return view(x)
    views: tuple[Tensor, ...] = _Partition.apply(x, view)
    return views


class _Partition(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, view: View) -> tuple[Tensor, ...]:
        ctx.view, ctx.shape = view, x.shape
        return tuple(view(x))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        whole = gradients[0].new_empty(ctx.shape)
        for place, gradient in zip(ctx.view(whole), gradients, strict=True):
            place.copy_(gradient)
        return whole, None
