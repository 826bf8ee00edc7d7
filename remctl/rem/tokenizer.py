"""The tokenizer V: a VQ-VAE (paper Section A.1.1, Table 4, Eq. 8).

Shapes: B frames, 3 channels, 64x64 pixels in [-1, 1]; h = w = grid_size, K = h*w tokens in row order, E, N codes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from remctl.config import TokenizerConfig
from remctl.rem.means import mean_of

ImageLoss = Callable[[Tensor, Tensor], Tensor]


class Quantized(NamedTuple):
    """tokens (B, K), and the nearest code vectors on their grid: codes (B, E, h, w)."""

    tokens: Tensor
    codes: Tensor


class DownBlock(nn.Sequential):
    """GroupNorm, SiLU, 3x3 convolution of stride 2 padded right and bottom, 3x3 convolution (Table 4, EncoderBlock)."""

    def __init__(self, c_in: int, c_out: int, config: TokenizerConfig) -> None:
        super().__init__(
            nn.GroupNorm(config.num_groups, c_in, config.norm_eps),
            nn.SiLU(),
            nn.ZeroPad2d((0, 1, 0, 1)),
            nn.Conv2d(c_in, c_out, 3, stride=2),
            nn.Conv2d(c_out, c_out, 3, padding=1),
        )


class UpBlock(nn.Sequential):
    """GroupNorm, SiLU, nearest-exact x2, two 3x3 convolutions (Table 4, DecoderBlock)."""

    def __init__(self, c_in: int, c_out: int, config: TokenizerConfig) -> None:
        super().__init__(
            nn.GroupNorm(config.num_groups, c_in, config.norm_eps),
            nn.SiLU(),
            nn.Upsample(scale_factor=2, mode="nearest-exact"),
            nn.Conv2d(c_in, c_out, 3, padding=1),
            nn.Conv2d(c_out, c_out, 3, padding=1),
        )


class Tokenizer(nn.Module):
    """Encoder, codebook, decoder.

    `networks`: an encoder to (B, E, h, w) and a decoder from it, in the place of Table 4's (IRIS).
    """

    def __init__(
        self, config: TokenizerConfig, frame_size: int = 64, networks: tuple[nn.Module, nn.Module] | None = None
    ) -> None:
        super().__init__()
        self.config = config
        self.tokens_per_obs = config.tokens_per_obs
        down, up = config.widths(frame_size)
        inner = config.embed_dim if networks else up[0]
        self.encoder = networks[0] if networks else _encoder(config, down, inner)
        self.pre_quantization = nn.Conv2d(inner, config.embed_dim, 1)
        self.codebook = nn.Embedding(config.num_codes, config.embed_dim)
        self.post_quantization = nn.Conv2d(config.embed_dim, inner, 1)
        self.decoder = networks[1] if networks else _decoder(config, up)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the codebook; the networks' layers draw their own weights."""
        nn.init.uniform_(self.codebook.weight, -1 / self.config.num_codes, 1 / self.config.num_codes)

    @property
    def code_vectors(self) -> Tensor:
        """(N, E), detached: what M and C see of the codebook."""
        return self.codebook.weight.detach()

    def latents(self, frames: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] to the encoder's outputs (B, E, h, w)."""
        return self.pre_quantization(self.encoder(frames))

    def quantize(self, latents: Tensor) -> Quantized:
        """Nearest code of each latent vector (B, E, h, w), in float32 (as precise as `training.matmul_precision` says)."""
        flat = latents.permute(0, 2, 3, 1).flatten(1, 2)
        flat = flat.float() if flat.dtype == torch.bfloat16 else flat
        with torch.autocast(flat.device.type, enabled=False), torch.no_grad():
            table = self.codebook.weight
            tokens = (table.pow(2).sum(-1) - 2 * flat @ table.T).argmin(-1)
        return Quantized(tokens, self.embed(tokens))

    def embed(self, tokens: Tensor) -> Tensor:
        """(B, K) to code vectors on their grid (B, E, h, w)."""
        side = self.config.grid_size
        return self.codebook(tokens).unflatten(-2, (side, side)).movedim(-1, -3)

    def encode(self, frames: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] to tokens (B, K)."""
        return self.quantize(self.latents(frames)).tokens

    def decode(self, codes: Tensor) -> Tensor:
        """(B, E, h, w) to frames (B, 3, H, W), not clipped."""
        return self.decoder(self.post_quantization(codes))

    def reconstruct(self, frames: Tensor) -> Tensor:
        """Frames (B, 3, H, W) in [-1, 1] through the codes and back, clipped to [-1, 1]."""
        return self.decode(self.quantize(self.latents(frames)).codes).float().clamp(-1, 1)

    def loss(
        self, frames: Tensor, image_loss: ImageLoss, autoencoder: bool = False, present: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Eq. 8, every term a mean over all elements: total, and its terms.

        frames (B, 3, H, W) in [-1, 1]. `image_loss(x, y)` is the perceptual term of each frame (B,). `autoencoder`: leave
        the quantisation out (warm-up). `present` (B,) bool: frames that count, where some only fill the batch up.
        """
        latents = self.latents(frames)
        if autoencoder:
            zero = frames.new_zeros(len(frames))
            return self._terms(self.decode(latents), frames, image_loss, zero, zero, present)
        latents = latents.to(self.codebook.weight.dtype)
        codes = self.quantize(latents).codes
        straight_through = latents + (codes - latents).detach()
        return self._terms(
            self.decode(straight_through),
            frames,
            image_loss,
            _per_frame(F.mse_loss, codes, latents.detach()),
            _per_frame(F.mse_loss, latents, codes.detach()),
            present,
        )

    def _terms(
        self,
        output: Tensor,
        frames: Tensor,
        image_loss: ImageLoss,
        codebook: Tensor,
        commitment: Tensor,
        present: Tensor | None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Eq. 8 from what V puts out and from its terms of each frame (B,)."""
        output = output.to(frames.dtype)
        distance = F.l1_loss if self.config.reconstruction == "l1" else F.mse_loss
        of_frames = {
            "reconstruction_loss": _per_frame(distance, output, frames),
            "perceptual_loss": image_loss(output, frames),
            "codebook_loss": self.config.codebook_weight * codebook,
            "commitment_loss": self.config.commitment_weight * commitment,
        }
        terms = {name: mean_of(term, present) for name, term in of_frames.items()}
        return torch.stack(list(terms.values())).sum(), terms


def _per_frame(distance: Callable[..., Tensor], x: Tensor, y: Tensor) -> Tensor:
    return distance(x, y, reduction="none").flatten(1).mean(1)


def _encoder(config: TokenizerConfig, widths: list[int], out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, widths[0], 3, padding=1),
        *(DownBlock(a, b, config) for a, b in zip(widths, widths[1:], strict=False)),
        nn.GroupNorm(config.num_groups, widths[-1], config.norm_eps),
        nn.SiLU(),
        nn.Conv2d(widths[-1], out, 3, padding=1),
    )


def _decoder(config: TokenizerConfig, widths: list[int]) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(widths[0], widths[0], 3, padding=1),
        *(UpBlock(a, b, config) for a, b in zip(widths, widths[1:], strict=False)),
        nn.GroupNorm(config.num_groups, widths[-1], config.norm_eps),
        nn.SiLU(),
        nn.Conv2d(widths[-1], 3, 3, padding=1),
    )


def to_model_range(frames: Tensor) -> Tensor:
    """uint8 (..., H, W, 3) to float32 (..., 3, H, W) in [-1, 1]; the memory stays channels-last."""
    return frames.movedim(-1, -3).float().div(127.5).sub(1)


def to_pixels(frames: Tensor) -> Tensor:
    """float (..., 3, H, W) in [-1, 1] to uint8 (..., H, W, 3)."""
    return frames.float().add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8).movedim(-3, -1)
