"""3x3 convolutions with fewer multiplications: Winograd's F(4x4, 3x3) (Lavin and Gray 2016, "Fast Algorithms for
Convolutional Neural Networks"), for kernels that do not change.

16 outputs of one channel pair take 36 multiplications instead of 144. Tiles of 6x6 inputs, which overlap by two, and the
kernel are carried to where a convolution is a product element by element; summed over channels that is one matrix product
for each of the 36. It pays where those are large, that is with many channels, and on processors whose products take most
of the time: what is carried there and back is 2.25 times the input, in a few passes.

Shapes: B images, C input and O output channels, H W height and width, both multiples of 4.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from torch.autograd.function import once_differentiable

TILE = 4  # outputs of a tile, in each direction
REACH = TILE + 2  # its inputs

# The matrices of F(4, 3), whose points are 0, 1, -1, 2, -2 and infinity: output = A^T [(G kernel) * (B^T input)].
_OF_INPUT = (
    (4.0, 0.0, -5.0, 0.0, 1.0, 0.0),
    (0.0, -4.0, -4.0, 1.0, 1.0, 0.0),
    (0.0, 4.0, -4.0, -1.0, 1.0, 0.0),
    (0.0, -2.0, -1.0, 2.0, 1.0, 0.0),
    (0.0, 2.0, -1.0, -2.0, 1.0, 0.0),
    (0.0, 4.0, 0.0, -5.0, 0.0, 1.0),
)
_OF_KERNEL = (
    (1 / 4, 0.0, 0.0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0.0, 0.0, 1.0),
)
_OF_OUTPUT = (
    (1.0, 1.0, 1.0, 1.0, 1.0, 0.0),
    (0.0, 1.0, -1.0, 2.0, -2.0, 0.0),
    (0.0, 1.0, 1.0, 4.0, 4.0, 0.0),
    (0.0, 1.0, -1.0, 8.0, -8.0, 1.0),
)


class WinogradConv:
    """A 3x3 convolution padded by one whose `weight` (O, C, 3, 3) is frozen; its gradient is another one."""

    def __init__(self, weight: Tensor) -> None:
        self._forward = _transformed(weight)
        self._backward = _transformed(weight.flip(2, 3).transpose(0, 1))

    def is_like(self, x: Tensor) -> bool:
        """Whether x (any shape) has the type and the device that it takes."""
        return self._forward.dtype == x.dtype and self._forward.device == x.device

    def __call__(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, O, H, W), channels_last."""
        result: Tensor = _Convolution.apply(x, self._forward, self._backward)
        return result


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, forward: Tensor, backward: Tensor) -> Tensor:
        ctx.kernel = backward
        return _convolve(x, forward)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return _convolve(gradients[0], ctx.kernel), None, None


def _transformed(weight: Tensor) -> Tensor:
    """A kernel (O, C, 3, 3) as 36 matrices (36, C, O), rounded once."""
    g = torch.tensor(_OF_KERNEL, dtype=torch.float64, device=weight.device)
    transformed = torch.einsum("ia,ocab,jb->ijco", g, weight.double(), g)
    return transformed.flatten(0, 1).to(weight.dtype).contiguous()


def _convolve(x: Tensor, kernel: Tensor) -> Tensor:
    """x (B, C, H, W) and a kernel of `_transformed` (36, C, O) to (B, O, H, W)."""
    B, C, H, W = x.shape
    assert H % TILE == 0 == W % TILE, f"{H} x {W} are no whole tiles of {TILE} x {TILE}"
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))
    tiles = padded.unfold(1, REACH, TILE).unfold(2, REACH, TILE).permute(4, 5, 0, 1, 2, 3)  # (6, 6, B, H/4, W/4, C)
    carried = _both_ways(_OF_INPUT, x) @ tiles.reshape(REACH**2, -1)
    products = carried.view(REACH**2, -1, C) @ kernel
    out = _both_ways(_OF_OUTPUT, x) @ products.flatten(1)
    out = out.view(TILE, TILE, B, H // TILE, W // TILE, -1).permute(2, 3, 0, 4, 1, 5)
    return out.reshape(B, H, W, -1).contiguous().permute(0, 3, 1, 2)


def _both_ways(matrix: tuple[tuple[float, ...], ...], like: Tensor) -> Tensor:
    """M X M^T for all X of one size, as one matrix on X's elements in row order."""
    m = like.new_tensor(matrix)
    return torch.kron(m, m)
