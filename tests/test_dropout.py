"""Dropout of our own, by drawn masks and by keys: the distribution of torch's, exact scaling, masks of torch's seed."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from remctl import dropout as module
from remctl.dropout import LEVELS, dropout, dropout_keys, hashed_bits, keep_mask

SHAPE = (97, 1031)  # no multiple of four
CPU = torch.device("cpu")
KINDS = ["drawn", "keyed"]


def drop(kind: str, x: torch.Tensor, p: float) -> torch.Tensor:
    return dropout(x, p, True, dropout_keys((), CPU) if kind == "keyed" else None)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("kind", KINDS)
def test_a_share_of_p_is_dropped_and_the_mean_stays(kind: str, p: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    out = drop(kind, torch.ones(SHAPE, dtype=dtype), p).double()
    dropped = (out == 0).double()
    sigma = (p * (1 - p) / out.numel()) ** 0.5
    assert abs(dropped.mean().item() - p) < 4 * sigma + 0.5 / LEVELS
    kept = out[out != 0]
    assert kept.unique().numel() == 1
    assert kept[0].item() == pytest.approx(1 / (1 - p), rel=1e-2 if dtype == torch.bfloat16 else 1e-3)
    for axis in (0, 1):  # no stripes
        n = SHAPE[1 - axis]
        assert (dropped.mean(1 - axis) - p).abs().max() < 5 * (p * (1 - p) / n) ** 0.5


def test_neighbours_in_one_random_number_are_independent() -> None:
    torch.manual_seed(1)
    kept = (keep_mask(torch.Size([400_000]), LEVELS // 4) != 0).double().view(-1, 4)
    correlation = torch.corrcoef(kept.T) - torch.eye(4)
    assert correlation.abs().max() < 5 / kept.shape[0] ** 0.5


def test_pieces_of_a_large_mask_differ_and_are_the_same_by_any_number_of_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    size, masks = module.PIECE * module.LANES, []
    for threads in (1, 3):
        with ThreadPoolExecutor(threads) as pool:
            monkeypatch.setattr(module, "_pool", lambda _, pool=pool: pool)
            torch.manual_seed(0)
            masks.append(keep_mask([2 * size + 10], LEVELS // 2))
    assert torch.equal(*masks)
    first, second, rest = masks[0].split(size)
    assert (first != second).double().mean().item() == pytest.approx(0.5, abs=0.01)
    assert len(rest) == 10


def test_bits_of_elements_and_of_keys_are_independent() -> None:
    torch.manual_seed(2)
    n = 200_000
    keys = dropout_keys((2,), CPU)
    same_second_half = torch.stack([keys[1][0], keys[0][1]])
    bits = torch.stack([hashed_bits((n,), key) for key in (keys[0], keys[1], same_second_half, keys[0].flip(0))])
    assert (bits >= 0).all()
    uniform = bits.double() / 2**31
    assert uniform.mean(1).tolist() == pytest.approx([0.5] * 4, abs=5 * (1 / 12 / n) ** 0.5)
    for shift in (0, 1, 2, 15, 16, 256, 1024):
        kept = torch.cat([uniform[:, : n - 1024], uniform[:, shift : n - 1024 + shift]])
        correlation = torch.corrcoef(kept)[:4, 4:]
        assert (correlation - (torch.eye(4) if shift == 0 else 0)).abs().max() < 5 / n**0.5, shift
    for lane in range(31):  # no bit is a function of the index' parity, or of a bit of it
        bit = (bits[0] >> lane & 1).double()
        for place in range(17):
            of_index = torch.arange(n) >> place & 1
            assert abs(bit[of_index == 1].mean().item() - 0.5) < 6 * 0.5 / (n / 3) ** 0.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_is_masked_and_scaled_as_the_value(kind: str, dtype: torch.dtype) -> None:
    x = torch.randn(33, 7).to(dtype).requires_grad_()
    out = drop(kind, x, 0.3)
    (gradient,) = torch.autograd.grad(out, x, torch.ones_like(out))
    torch.testing.assert_close(gradient * x, out)
    (of_strided,) = torch.autograd.grad(drop(kind, x.T, 0.3).T.sum(), x)
    assert set(of_strided.float().unique().tolist()) <= {0.0, *gradient.float().unique().tolist()}


@pytest.mark.parametrize("kind", KINDS)
def test_masks_are_a_function_of_torchs_seed(kind: str) -> None:
    def draw(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return drop(kind, torch.ones(SHAPE), 0.1)

    assert torch.equal(draw(3), draw(3))
    assert not torch.equal(draw(3), draw(4))
    twice = torch.stack([drop(kind, torch.ones(SHAPE), 0.1) for _ in range(2)])
    assert not torch.equal(twice[0], twice[1])


def test_nothing_happens_in_evaluation_or_without_a_rate() -> None:
    x = torch.randn(5, 5)
    state = torch.get_rng_state()
    assert dropout(x, 0.1, False) is x
    assert dropout(x, 0.0, True) is x
    assert torch.equal(torch.get_rng_state(), state)


def test_other_types_go_through_torchs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[torch.dtype] = []
    right = F.dropout
    monkeypatch.setattr(module.F, "dropout", lambda x, p, t: calls.append(x.dtype) or right(x, p, t))
    dropout(torch.ones(3, dtype=torch.float64), 0.1, True)
    dropout(torch.ones(3), 0.1, True)
    assert calls == [torch.float64]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_finite_is_dropped_too(kind: str) -> None:
    out = drop(kind, torch.full((1000,), float("inf")), 0.5)
    assert set(out.unique().tolist()) == {0.0, float("inf")}
