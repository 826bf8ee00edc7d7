"""Dropout of our own: the distribution of torch's, exact scaling, masks from torch's generator."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from remctl import dropout as module
from remctl.dropout import LEVELS, dropout, keep_mask

SHAPE = (97, 1031)  # no multiple of four


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_a_share_of_p_is_dropped_and_the_mean_stays(p: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    out = dropout(torch.ones(SHAPE, dtype=dtype), p, True).double()
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
            monkeypatch.setattr(module, "_pool", lambda pool=pool: pool)
            torch.manual_seed(0)
            masks.append(keep_mask([2 * size + 10], LEVELS // 2))
    assert torch.equal(*masks)
    first, second, rest = masks[0].split(size)
    assert (first != second).double().mean().item() == pytest.approx(0.5, abs=0.01)
    assert len(rest) == 10


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_gradient_is_masked_and_scaled_as_the_value(dtype: torch.dtype) -> None:
    x = torch.randn(33, 7).to(dtype).requires_grad_()
    out = dropout(x, 0.3, True)
    (gradient,) = torch.autograd.grad(out, x, torch.ones_like(out))
    torch.testing.assert_close(gradient * x, out)
    (of_strided,) = torch.autograd.grad(dropout(x.T, 0.3, True).T.sum(), x)
    assert set(of_strided.float().unique().tolist()) <= {0.0, *gradient.float().unique().tolist()}


def test_masks_are_a_function_of_torchs_seed() -> None:
    def draw(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return dropout(torch.ones(SHAPE), 0.1, True)

    assert torch.equal(draw(3), draw(3))
    assert not torch.equal(draw(3), draw(4))
    twice = torch.stack([dropout(torch.ones(SHAPE), 0.1, True) for _ in range(2)])
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


def test_what_is_not_finite_is_dropped_too() -> None:
    out = dropout(torch.full((1000,), float("inf")), 0.5, True)
    assert set(out.unique().tolist()) == {0.0, float("inf")}
