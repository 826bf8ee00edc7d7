"""Winograd's convolution is the convolution, value and gradient."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from remctl.rem.winograd import WinogradConv


@pytest.mark.parametrize("shape", [(1, 1, 1, 4, 4), (2, 3, 5, 8, 12), (3, 7, 2, 16, 4)])
def test_it_is_the_convolution_and_so_is_its_gradient(shape: tuple[int, ...]) -> None:
    B, C, O, H, W = shape  # noqa: E741
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(B, C, H, W, generator=generator, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(O, C, 3, 3, generator=generator, dtype=torch.float64)
    found, wanted = WinogradConv(weight)(x), functional.conv2d(x, weight, padding=1)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    of_output = torch.randn(wanted.shape, generator=generator, dtype=torch.float64)
    gradients = [torch.autograd.grad(y, x, of_output)[0] for y in (found, wanted)]
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-12)


def test_in_float32_it_rounds_little_more() -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(2, 256, 8, 8), torch.randn(256, 256, 3, 3)
    exact = functional.conv2d(x.double(), weight.double(), padding=1)
    error = (WinogradConv(weight)(x) - exact).norm() / exact.norm()
    assert error < 1e-5


def test_it_gives_channels_last_whatever_it_is_given() -> None:
    x, weight = torch.randn(2, 3, 8, 8), torch.randn(4, 3, 3, 3)
    for layout in (torch.contiguous_format, torch.channels_last):
        out = WinogradConv(weight)(x.contiguous(memory_format=layout))
        assert out.is_contiguous(memory_format=torch.channels_last)


def test_other_sides_are_refused() -> None:
    with pytest.raises(AssertionError, match="6 x 8 are no whole tiles"):
        WinogradConv(torch.randn(1, 1, 3, 3))(torch.randn(1, 1, 6, 8))
