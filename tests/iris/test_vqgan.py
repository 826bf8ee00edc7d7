"""IRIS' tokenizer: shapes, where attention and residual blocks stand, and REM's quantisation between the networks."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from remctl.config import TokenizerConfig, resolve
from remctl.iris.vqgan import AttentionBlock, ResidualBlock, vqgan
from remctl.rem.tokenizer import Tokenizer
from remctl.train.build import build_agent

SMALL = {
    "architecture": "vqgan",
    "channels": (6, 9, 3),
    "num_groups": 3,
    "num_res_blocks": 1,
    "attention_resolutions": (8,),
    "grid_size": 4,
    "embed_dim": 7,
    "num_codes": 11,
}


def make_tokenizer(**changes: object) -> Tokenizer:
    torch.manual_seed(0)
    config = TokenizerConfig(**SMALL | changes)
    tokenizer = Tokenizer(config, 16, vqgan(config, 16))
    torch.nn.init.normal_(tokenizer.codebook.weight)
    return tokenizer


def nothing(x: Tensor, y: Tensor) -> Tensor:
    return x.new_zeros(())


def count(network: torch.nn.Module, kind: type) -> int:
    return sum(isinstance(m, kind) for m in network.modules())


@pytest.mark.parametrize(("preset", "grid"), [("iris", 4), ("iris-rem", 8)])
def test_the_published_networks(preset: str, grid: int) -> None:
    tokenizer = build_agent(resolve("Pong", preset=preset), 6, torch.device("cpu")).tokenizer
    levels = {4: 5, 8: 4}[grid]
    attended = {4: 2, 8: 2}[grid]  # levels at 16 and 8
    assert count(tokenizer.encoder, ResidualBlock) == 2 * levels + 2
    assert count(tokenizer.decoder, ResidualBlock) == 3 * levels + 2
    assert count(tokenizer.encoder, AttentionBlock) == 2 * attended + 1
    assert count(tokenizer.decoder, AttentionBlock) == 3 * attended + 1
    assert tokenizer.codebook.weight.shape == (512, 512)
    assert {m.out_channels for m in tokenizer.encoder.modules() if isinstance(m, torch.nn.Conv2d)} == {64, 192, 512}
    frames = torch.randn(2, 3, 64, 64)
    latents = tokenizer.latents(frames)
    assert latents.shape == (2, 512, grid, grid)
    assert tokenizer.encode(frames).shape == (2, grid * grid)
    assert tokenizer.decode(latents).shape == frames.shape


def test_attention_stands_at_the_configured_sizes() -> None:
    sizes: list[int] = []
    tokenizer = make_tokenizer(attention_resolutions=(16, 4))
    for module in tokenizer.encoder.modules():
        if isinstance(module, AttentionBlock):
            module.register_forward_hook(lambda _m, _i, out: sizes.append(out.shape[-1]))
    tokenizer.latents(torch.randn(1, 3, 16, 16))
    assert sizes == [16, 4, 4]  # the last one in the middle


def test_widths_change_from_level_to_level_and_the_last_one_repeats() -> None:
    encoder, decoder = vqgan(TokenizerConfig(**SMALL | {"grid_size": 2, "attention_resolutions": ()}), 32)
    assert encoder(torch.randn(3, 3, 32, 32)).shape == (3, 7, 2, 2)
    assert decoder(torch.randn(3, 7, 2, 2)).shape == (3, 3, 32, 32)
    assert count(encoder, torch.nn.Upsample) == 0
    assert count(decoder, torch.nn.Upsample) == 4


def test_attention_is_the_obvious_one_between_all_places_of_one_frame() -> None:
    config = TokenizerConfig(**SMALL)
    block, x = AttentionBlock(6, config).double(), torch.randn(2, 6, 3, 4, dtype=torch.float64)
    q, k, v = block.qkv(block.norm(x)).split(6, dim=1)
    want = x.clone()
    for b in range(2):
        flat = [t[b].reshape(6, 12).T for t in (q, k, v)]
        weights = (flat[0] @ flat[1].T / 6**0.5).softmax(-1)
        want[b] += block.projection((weights @ flat[2]).T.reshape(1, 6, 3, 4))[0]
    torch.testing.assert_close(block(x), want, rtol=0, atol=1e-12)


def test_gradients_pass_straight_through_the_quantisation() -> None:
    tokenizer = make_tokenizer(commitment_weight=0.0, codebook_weight=0.0).double()
    frames = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    loss, _ = tokenizer.loss(frames, nothing)
    loss.backward()
    assert tokenizer.codebook.weight.grad is None or (tokenizer.codebook.weight.grad == 0).all()
    latents = tokenizer.latents(frames)
    codes = tokenizer.quantize(latents).codes.detach().requires_grad_()
    (at_codes,) = torch.autograd.grad(functional.mse_loss(tokenizer.decode(codes), frames), codes)
    first = tokenizer.encoder[0].weight
    (want,) = torch.autograd.grad(latents, first, at_codes)
    torch.testing.assert_close(first.grad, want, rtol=1e-9, atol=1e-12)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in tokenizer.encoder.parameters())


def test_every_term_of_the_loss_has_rems_name() -> None:
    tokenizer, frames = make_tokenizer(reconstruction="l1"), torch.randn(2, 3, 16, 16)
    total, terms = tokenizer.loss(frames, nothing)
    assert set(terms) == {"reconstruction_loss", "perceptual_loss", "codebook_loss", "commitment_loss"}
    output = tokenizer.decode(tokenizer.quantize(tokenizer.latents(frames)).codes)
    torch.testing.assert_close(terms["reconstruction_loss"], (output - frames).abs().mean())
    torch.testing.assert_close(total, sum(terms.values()))
