"""Image losses of the tokenizer: LPIPS, and the pixel loss that needs no pretrained weights.

LPIPS: Zhang et al. 2018, "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", with the features of
VGG16 (version 0.1 of the linear heads). Pixel loss: Delta-IRIS (Micheli et al. 2024).

Shapes: B images, C channels, H W height and width; images are in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from remctl.rem.winograd import TILE, WinogradConv
from remctl.weights import CONV_INDICES, read_lpips

Features = tuple[Tensor, ...]

# VGG16's convolutions per level; a level ends where LPIPS reads, and 2x2 max pooling leads to the next.
CONVS_PER_LEVEL = (2, 2, 3, 3, 3)
_EXACT_LEVELS = 2  # what these round, all others amplify
_WINOGRAD_CHANNELS = 256  # from the third level on: 1.6 to 3 times as fast; the second gains nothing, the first loses
# ImageNet's channel means and deviations, carried from [0, 1] to [-1, 1].
SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)
_EPS = 1e-10
_MIN_SIDE = 16  # four poolings leave one pixel


def pixel_loss(x: Tensor, y: Tensor) -> Tensor:
    """0.1 mean|x-y| + mean (x-y)^2 + 0.01 times the largest (x-y)^2, of each image: (B,).

    `x`, `y`: (B, C, H, W). The last term keeps small moving things (a ball is a few pixels) from being averaged away.
    """
    assert x.ndim == 4, f"images are {tuple(x.shape)}, not (B, C, H, W)"
    assert x.shape == y.shape, f"images are {tuple(x.shape)}, their targets {tuple(y.shape)}"
    difference = (x - y).flatten(1)
    squared = difference.square()
    return 0.1 * difference.abs().mean(1) + squared.mean(1) + 0.01 * squared.amax(1)


class _FrozenConv(nn.Module):
    """A 3x3 convolution and ReLU whose weights are no parameters: no optimiser and no checkpoint sees them."""

    weight: Tensor
    bias: Tensor
    _winograd: WinogradConv | None = None

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        # The kernel's layout decides the features' layout, whatever the images have.
        self.register_buffer("weight", weight.contiguous(memory_format=torch.channels_last), persistent=False)
        self.register_buffer("bias", bias, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if self._winograd_pays(x):
            return functional.relu_(self._by_winograd(x) + self.bias[:, None, None])
        weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
        return functional.relu_(functional.conv2d(x, weight, bias, padding=1))

    def _winograd_pays(self, x: Tensor) -> bool:
        """With many channels, on CPUs, where convolutions are bound by arithmetic; bf16, where native, is faster still."""
        is_large = self.weight.shape[0] >= _WINOGRAD_CHANNELS and x.dtype == self.weight.dtype
        is_last = self.weight.is_contiguous(memory_format=torch.channels_last)
        return is_large and is_last and x.device.type == "cpu" and all(side % TILE == 0 for side in x.shape[2:])

    def _by_winograd(self, x: Tensor) -> Tensor:
        if self._winograd is None or not self._winograd.is_like(x):
            self._winograd = WinogradConv(self.weight)
        return self._winograd(x)


class LPIPS(nn.Module):
    """Learned perceptual distance between images, frozen (Zhang et al. 2018).

    It owns no parameters and an empty `state_dict`: the weights come from `LPIPS.load`, never from a checkpoint.
    It computes in the type of its weights (float32) whatever the autocast around, and in channels_last whatever the layout of
    the images (a sixth faster on a CPU); `.to(memory_format=torch.contiguous_format)` undoes that.

    `deep_type`: but in training mode the convolutions behind the second level compute in it. With bfloat16 throughout, the
    gradient of V's decoder is off by 7 to 24%, more the nearer the two images are: signs before a ReLU and winners of a
    pooling flip. With two exact levels it is within 2%.

    `head_dropout`: dropout 0.5 on the input of the heads while the module is in training mode, as the published REM
    code has it; off by default. The module starts in evaluation mode; a parent's `train()` changes that. The masks
    come from torch's global generator.
    """

    shift: Tensor
    scale: Tensor

    def __init__(
        self, tensors: Mapping[str, Tensor], *, head_dropout: bool = False, deep_type: torch.dtype | None = None
    ) -> None:
        """`tensors`: named and shaped as `remctl.weights.read_lpips` returns them."""
        super().__init__()
        convs = [_FrozenConv(tensors[f"features.{i}.weight"], tensors[f"features.{i}.bias"]) for i in CONV_INDICES]
        self.levels = nn.ModuleList(_split(convs))
        for i in range(len(CONVS_PER_LEVEL)):
            self.register_buffer(f"head{i}", tensors[f"heads.{i}.weight"].flatten(), persistent=False)
        self.register_buffer("shift", torch.tensor(SHIFT).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(SCALE).view(1, 3, 1, 1), persistent=False)
        self.head_dropout, self.deep_type = head_dropout, deep_type
        self.eval()

    @classmethod
    def load(cls, path: Path, *, head_dropout: bool = False, deep_type: torch.dtype | None = None) -> LPIPS:
        """From the file of `remctl.weights.require_lpips`. Raises `MachineError` if it is unreadable or damaged."""
        tensors = {name: torch.tensor(array) for name, array in read_lpips(path).items()}
        return cls(tensors, head_dropout=head_dropout, deep_type=deep_type)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Distance of each image `x` to its target `y`, both (B, 3, H, W) in [-1, 1]: (B,). No gradient reaches `y`."""
        with torch.no_grad():
            target = self.features(y)
        return self.distance(self.features(x), target)

    def features(self, x: Tensor) -> Features:
        """Five maps (B, C_l, H_l, W_l) of unit length per pixel. Compute a target's once, under `torch.no_grad()`."""
        assert x.shape[1:2] == (3,), f"images are {tuple(x.shape)}, not (B, 3, H, W)"
        assert min(x.shape[2:]) >= _MIN_SIDE, f"images are {tuple(x.shape)}, smaller than {_MIN_SIDE} x {_MIN_SIDE}"
        with torch.autocast(x.device.type, enabled=False):
            return self._features(x.to(self.shift.dtype))

    def _features(self, x: Tensor) -> Features:
        x = (x - self.shift) / self.scale
        maps = []
        for i, level in enumerate(self.levels):
            if i == _EXACT_LEVELS and self.training and self.deep_type is not None:
                x = x.to(self.deep_type)
            x = level(x if i == 0 else functional.max_pool2d(x, 2))
            maps.append(_unit_length(x.to(self.shift.dtype)))
        return tuple(maps)

    def distance(self, fx: Features, fy: Features) -> Tensor:
        """The heads' weighted squared differences, averaged over pixels and summed over levels: (B,).

        Gradients flow to both arguments, as far as they carry any.
        """
        with torch.autocast(fx[0].device.type, enabled=False):
            return torch.stack([self._head(i, a, b) for i, (a, b) in enumerate(zip(fx, fy, strict=True))]).sum(0)

    def _head(self, i: int, a: Tensor, b: Tensor) -> Tensor:
        squared = (a - b).square()
        if self.head_dropout:
            squared = functional.dropout(squared, 0.5, self.training)
        # The head is linear, so the mean over pixels may come first: (B, C) @ (C,).
        return squared.mean(dim=(2, 3)) @ self.get_buffer(f"head{i}")


def _split(convs: list[_FrozenConv]) -> list[nn.Sequential]:
    rest = iter(convs)
    return [nn.Sequential(*(next(rest) for _ in range(count))) for count in CONVS_PER_LEVEL]


def _unit_length(x: Tensor) -> Tensor:
    # eps inside the root: outside it (as published) the gradient at an all-zero vector is NaN, and only the mask in the
    # ReLU's backward pass, which selects and does not multiply, keeps it from the images.
    return x * torch.rsqrt(x.square().sum(dim=1, keepdim=True) + _EPS)


class PerceptualLoss(nn.Module):
    """The perceptual term of V's loss (Eq. 8): LPIPS where given, else the pixel loss, or nothing.

    In training mode (`train()`) while V is optimised, in evaluation mode everywhere else: LPIPS may drop and round.
    """

    def __init__(self, kind: str, lpips: LPIPS | None = None) -> None:
        """`kind`: `lpips` (then `lpips` is needed), `pixel` or `none`."""
        super().__init__()
        self.kind, self.lpips = kind, lpips
        self.eval()

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Images and targets (B, 3, H, W) in [-1, 1]: of each image (B,). No gradient reaches the targets."""
        if self.lpips is not None:
            return self.lpips(x, y)
        return pixel_loss(x, y) if self.kind == "pixel" else x.new_zeros(len(x))
