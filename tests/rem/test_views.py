"""Views whose gradients are written to one place."""

import torch
from torch import Tensor

from remctl.rem.views import partition


def view(x: Tensor) -> list[Tensor]:
    first, second = x.split([2, 3], dim=1)
    return [second.transpose(0, 1), first.unflatten(0, (2, 2)), x[:, 5:]]  # the last is empty


def test_the_gradient_of_a_partition_is_that_of_plain_views() -> None:
    found = []
    for split in (lambda x: view(x), lambda x: partition(x, view)):
        x = torch.arange(20.0).view(4, 5).requires_grad_()
        parts = split(x * 2)
        assert [tuple(part.shape) for part in parts] == [(3, 4), (2, 2, 2), (4, 0)]
        loss = (parts[0] * torch.arange(12.0).view(3, 4)).sum() + (parts[1] ** 2)[
            :1
        ].sum()  # half of one, none of the last
        found.append((loss.detach(), *torch.autograd.grad(loss, x)))
    for plain, fast in zip(*found, strict=True):
        assert torch.equal(plain, fast)


def test_the_gradient_of_a_partition_is_one_tensor() -> None:
    seen: list[Tensor] = []
    x = torch.randn(4, 5, requires_grad=True)
    y = x * 1
    y.register_hook(seen.append)
    parts = partition(y, view)
    assert all(
        part._base is None or part.untyped_storage().data_ptr() == y.untyped_storage().data_ptr() for part in parts
    )
    sum(part.sum() for part in parts).backward()
    assert seen[0].is_contiguous()
    assert type(parts[0].grad_fn).__name__ == "_PartitionBackward"
