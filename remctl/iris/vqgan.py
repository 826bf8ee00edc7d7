"""IRIS' encoder and decoder (Micheli et al. 2023): VQGAN's residual networks with attention (Esser et al. 2021).

Shapes: B frames, 3 channels, 64x64 pixels in [-1, 1], E code dimension on the h x w grid; c channels of a level. They take
the place of Table 4's networks in `rem.tokenizer.Tokenizer`: codebook, quantisation and losses are REM's.
"""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from remctl.config import TokenizerConfig


def vqgan(config: TokenizerConfig, frame_size: int) -> tuple[nn.Module, nn.Module]:
    """Encoder (B, 3, H, W) to (B, E, h, w) and decoder back; widths per level as configured, the last one repeats."""
    levels = (frame_size // config.grid_size).bit_length()
    widths = [config.channels[min(i, len(config.channels) - 1)] for i in range(levels)]
    sizes = [frame_size >> i for i in range(levels)]
    return _encoder(config, widths, sizes), _decoder(config, widths, sizes)


class ResidualBlock(nn.Module):
    """Twice GroupNorm, SiLU, 3x3 convolution; beside them the input, through a 1x1 convolution where the width changes."""

    def __init__(self, c_in: int, c_out: int, config: TokenizerConfig) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.GroupNorm(config.num_groups, c_in, config.norm_eps),
            nn.SiLU(),
            nn.Conv2d(c_in, c_out, 3, padding=1),
            nn.GroupNorm(config.num_groups, c_out, config.norm_eps),
            nn.SiLU(),
            nn.Conv2d(c_out, c_out, 3, padding=1),
        )
        self.shortcut = nn.Identity() if c_in == c_out else nn.Conv2d(c_in, c_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, c_in, H, W) to (B, c_out, H, W)."""
        return self.shortcut(x) + self.layers(x)


class AttentionBlock(nn.Module):
    """Self-attention of one head between all places, behind a GroupNorm and beside the input."""

    def __init__(self, channels: int, config: TokenizerConfig) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(config.num_groups, channels, config.norm_eps)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.projection = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, c, H, W) to the same shape."""
        q, k, v = self.qkv(self.norm(x)).flatten(2).transpose(1, 2).chunk(3, dim=-1)
        attended = F.scaled_dot_product_attention(q, k, v)
        return x + self.projection(attended.transpose(1, 2).unflatten(-1, x.shape[-2:]))


def _encoder(config: TokenizerConfig, widths: list[int], sizes: list[int]) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 3, padding=1)]
    width = widths[0]
    for level, (channels, size) in enumerate(zip(widths, sizes, strict=True)):
        layers += _level(width, channels, size, config.num_res_blocks, config)
        width = channels
        if level + 1 < len(sizes):
            layers += [nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(width, width, 3, stride=2)]
    layers += [*_middle(width, config), *_out(width, config.embed_dim, config)]
    return nn.Sequential(*layers)


def _decoder(config: TokenizerConfig, widths: list[int], sizes: list[int]) -> nn.Sequential:
    width = widths[-1]
    layers: list[nn.Module] = [nn.Conv2d(config.embed_dim, width, 3, padding=1), *_middle(width, config)]
    for level, (channels, size) in enumerate(zip(widths[::-1], sizes[::-1], strict=True)):
        layers += _level(width, channels, size, config.num_res_blocks + 1, config)
        width = channels
        if level + 1 < len(sizes):
            layers += [nn.Upsample(scale_factor=2, mode="nearest-exact"), nn.Conv2d(width, width, 3, padding=1)]
    layers += _out(width, 3, config)
    return nn.Sequential(*layers)


def _level(c_in: int, c_out: int, size: int, num_res_blocks: int, config: TokenizerConfig) -> list[nn.Module]:
    """Residual blocks of one resolution, each followed by attention where the configuration says so."""
    layers: list[nn.Module] = []
    for i in range(num_res_blocks):
        layers.append(ResidualBlock(c_out if i else c_in, c_out, config))
        if size in config.attention_resolutions:
            layers.append(AttentionBlock(c_out, config))
    return layers


def _middle(width: int, config: TokenizerConfig) -> list[nn.Module]:
    return [ResidualBlock(width, width, config), AttentionBlock(width, config), ResidualBlock(width, width, config)]


def _out(c_in: int, c_out: int, config: TokenizerConfig) -> list[nn.Module]:
    return [
        nn.GroupNorm(config.num_groups, c_in, config.norm_eps),
        nn.SiLU(),
        nn.Conv2d(c_in, c_out, 3, padding=1),
    ]
