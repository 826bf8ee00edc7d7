"""V: shapes of Table 4, nearest codes, straight-through gradients, Eq. 8."""

import pytest
import torch
from torch.nn import functional

from remctl.config import TokenizerConfig
from remctl.rem.tokenizer import Tokenizer, to_model_range, to_pixels


def make_tokenizer(**changes: object) -> Tokenizer:
    torch.manual_seed(0)
    small = {"channels": (8, 8, 16), "grid_size": 4, "embed_dim": 6, "num_codes": 9}
    return Tokenizer(TokenizerConfig(**small | changes), frame_size=16)


def nothing(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return x.new_zeros(())


@pytest.mark.parametrize(("grid", "levels"), [(8, 3), (4, 4), (16, 2)])
def test_the_grid_decides_the_number_of_levels_and_tokens(grid: int, levels: int) -> None:
    config = TokenizerConfig(grid_size=grid)
    tokenizer = Tokenizer(config)
    assert config.tokens_per_obs == tokenizer.tokens_per_obs == grid * grid
    strided = [m for m in tokenizer.encoder.modules() if isinstance(m, torch.nn.Conv2d) and m.stride == (2, 2)]
    assert len(strided) == levels
    latents = tokenizer.latents(torch.zeros(1, 3, 64, 64))
    assert latents.shape == (1, 256, grid, grid)
    assert tokenizer.decode(latents).shape == (1, 3, 64, 64)


@pytest.mark.parametrize(
    ("levels", "inner", "num_parameters"), [("doubled", 512, 7_339_043), ("repeated", 256, 5_551_011)]
)
def test_a_fifth_level_is_as_wide_as_published_or_as_the_fourth(levels: str, inner: int, num_parameters: int) -> None:
    tokenizer = Tokenizer(TokenizerConfig(grid_size=4, further_levels=levels))
    assert sum(p.numel() for p in tokenizer.parameters()) == num_parameters
    convolutions = [m for m in tokenizer.encoder.modules() if isinstance(m, torch.nn.Conv2d)]
    assert [(m.in_channels, m.out_channels) for m in convolutions][-2:] == [(inner, inner), (inner, 256)]
    back = [m.out_channels for m in tokenizer.decoder.modules() if isinstance(m, torch.nn.Conv2d)]
    assert back[::2] == ([256, 128, 64, 32, 32] if levels == "doubled" else [256, 256, 128, 64, 32])
    assert tokenizer.decode(tokenizer.latents(torch.zeros(1, 3, 64, 64))).shape == (1, 3, 64, 64)
    assert sum(p.numel() for p in Tokenizer(TokenizerConfig(further_levels=levels)).parameters()) == 3_189_667


def test_tokens_are_the_nearest_codes_in_row_order() -> None:
    tokenizer = make_tokenizer()
    torch.nn.init.normal_(tokenizer.codebook.weight)
    tokenizer.codebook.weight.data *= torch.linspace(0.3, 2.0, 9).unsqueeze(1)  # codes of many lengths
    latents = torch.randn(2, 6, 4, 4)
    result = tokenizer.quantize(latents)
    for b in range(2):
        for k in range(16):
            h = latents[b, :, k // 4, k % 4]
            nearest = (tokenizer.codebook.weight - h).norm(dim=1).argmin()
            assert result.tokens[b, k] == nearest
            assert torch.equal(result.codes[b, :, k // 4, k % 4], tokenizer.codebook.weight[nearest])


def test_tokens_are_computed_in_float32_under_bfloat16() -> None:
    torch.manual_seed(0)
    tokenizer = Tokenizer(TokenizerConfig())
    latents = torch.randn(8, 256, 8, 8) / 512
    want = tokenizer.quantize(latents).tokens
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(tokenizer.quantize(latents).tokens, want)


def test_down_blocks_pad_right_and_bottom() -> None:
    pads = [m.padding for m in Tokenizer(TokenizerConfig()).encoder.modules() if isinstance(m, torch.nn.ZeroPad2d)]
    assert pads == [(0, 1, 0, 1)] * 3  # left, right, top, bottom


def test_gradients_pass_straight_through_the_quantisation() -> None:
    """The decoder's gradient at the code vectors is the encoder's, and the codebook gets none of it."""
    tokenizer = make_tokenizer(commitment_weight=0.0, codebook_weight=0.0).double()
    frames = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    loss, _ = tokenizer.loss(frames, nothing)
    loss.backward()
    got = tokenizer.pre_quantization.weight.grad
    assert tokenizer.codebook.weight.grad is None or (tokenizer.codebook.weight.grad == 0).all()
    latents = tokenizer.latents(frames)
    codes = tokenizer.quantize(latents).codes.detach().requires_grad_()
    (at_codes,) = torch.autograd.grad(functional.mse_loss(tokenizer.decode(codes), frames), codes)
    (want,) = torch.autograd.grad(latents, tokenizer.pre_quantization.weight, at_codes)
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-12)


def test_each_term_of_the_loss_is_a_mean_and_reaches_its_own_side() -> None:
    tokenizer = make_tokenizer(commitment_weight=0.25, codebook_weight=2.0)
    frames = torch.randn(2, 3, 16, 16)
    latents = tokenizer.latents(frames)
    codes = tokenizer.quantize(latents).codes
    total, terms = tokenizer.loss(frames, lambda x, y: 3 * (x - y).abs().mean())
    output = tokenizer.decode(codes)
    want = {
        "reconstruction_loss": (output - frames).square().mean(),
        "perceptual_loss": 3 * (output - frames).abs().mean(),
        "codebook_loss": 2.0 * (codes - latents).square().mean(),
        "commitment_loss": 0.25 * (codes - latents).square().mean(),
    }
    for name, value in want.items():
        torch.testing.assert_close(terms[name], value, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(total, sum(want.values()), rtol=1e-5, atol=1e-6)
    encoder = tokenizer.pre_quantization.weight
    (from_codebook,) = torch.autograd.grad(terms["codebook_loss"], encoder, retain_graph=True, allow_unused=True)
    assert from_codebook is None or (from_codebook == 0).all()
    (from_commitment,) = torch.autograd.grad(terms["commitment_loss"], encoder, retain_graph=True)
    assert (from_commitment != 0).any()
    (to_encoder,) = torch.autograd.grad(
        terms["commitment_loss"], tokenizer.codebook.weight, retain_graph=True, allow_unused=True
    )
    assert to_encoder is None or (to_encoder == 0).all()


def test_the_texts_reconstruction_loss_is_absolute() -> None:
    tokenizer = make_tokenizer(reconstruction="l1")
    frames = torch.randn(2, 3, 16, 16)
    _, terms = tokenizer.loss(frames, nothing, autoencoder=True)
    output = tokenizer.decode(tokenizer.latents(frames))
    torch.testing.assert_close(terms["reconstruction_loss"], (output - frames).abs().mean())
    assert terms["codebook_loss"] == terms["commitment_loss"] == 0


def test_pixels_survive_the_round_trip() -> None:
    frames = torch.arange(256, dtype=torch.uint8).repeat(12).view(1, 32, 32, 3)
    x = to_model_range(frames)
    assert x.shape == (1, 3, 32, 32)
    assert x.min() == -1
    assert x.max() == 1
    assert x.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(to_pixels(x), frames)


def test_the_codebook_starts_uniform() -> None:
    weight = Tokenizer(TokenizerConfig()).codebook.weight
    assert weight.abs().max() <= 1 / 512
    assert weight.std().item() == pytest.approx((2 / 512) / 12**0.5, rel=0.02)
