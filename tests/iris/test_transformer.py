"""The Transformer: what it computes, causality, positions, and a cache that is a value. float64, odd sizes."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from remctl.config import WorldModelConfig
from remctl.iris.transformer import KeysValues, Transformer, TransformerLayer, TransformerState

CLOSE = {"rtol": 0, "atol": 1e-12}
B, T, K, H, E = 3, 5, 3, 3, 15
n = K + 1


@pytest.fixture(autouse=True)
def _float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)


def make_transformer(**changes: object) -> Transformer:
    small = {"num_layers": 2, "num_heads": H, "embed_dim": E, "ffn_dim": 22, "sequence_blocks": T, "dropout": 0.3}
    return Transformer(WorldModelConfig(**small | changes), K).eval()


def make_blocks() -> Tensor:
    return torch.randn(B, T, n, E)


def whole(model: Transformer, x: Tensor, keep: Tensor | None = None) -> Tensor:
    return model(x, model.initial_state(len(x), x), keep=keep).real


def in_parts(model: Transformer, x: Tensor, sizes: list[int]) -> Tensor:
    """The rows of x (B, T, n, E) in parts of so many, each on what the ones before it left."""
    state, outputs, start = model.initial_state(len(x), x), [], 0
    for part in x.flatten(1, 2).split(sizes, dim=1):
        out = model(part[:, None], state, start)
        outputs.append(out.real[:, 0])
        state, start = out.state, start + part.shape[1]
    return torch.cat(outputs, 1).view_as(x)


def obvious(model: Transformer, x: Tensor, visible: Tensor) -> Tensor:
    """Row by row and head by head, every softmax written out. visible (B, R) bool."""
    rows = x.flatten(1, 2)
    rows = rows + model.position_embedding.weight[: rows.shape[1]]
    for layer in model.layers:
        rows = torch.stack([torch.stack(_layer(layer, rows[b], visible[b])) for b in range(B)])
    return model.norm(rows).view_as(x)


def _layer(layer: TransformerLayer, rows: Tensor, visible: Tensor) -> list[Tensor]:
    q, k, v = layer.qkv(layer.norm1(rows)).view(len(rows), 3, H, E // H).unbind(1)
    outputs = []
    for i, row in enumerate(rows):
        seen = [j for j in range(i + 1) if visible[j] or j == i]
        heads = []
        for h in range(H):
            scores = torch.stack([q[i, h] @ k[j, h] for j in seen]) / (E // H) ** 0.5
            weights = scores.exp() / scores.exp().sum()
            heads.append(sum(w * v[j, h] for w, j in zip(weights, seen, strict=True)))
        y = row + layer.projection(torch.cat(heads))
        outputs.append(y + layer.linear2(layer.ffn_activation(layer.linear1(layer.norm2(y)))))
    return outputs


@pytest.mark.parametrize("activation", ["gelu", "swish"])
def test_the_training_form_is_the_obvious_one(activation: str) -> None:
    model, x = make_transformer(ffn_activation=activation), make_blocks()
    visible = torch.ones(B, T * n, dtype=torch.bool)
    torch.testing.assert_close(whole(model, x), obvious(model, x, visible), **CLOSE)


@pytest.mark.parametrize("sizes", [[1] * (T * n), [n] * T, [K, 1] * T, [7, 1, 1, 9, 2], [T * n - 1, 1]])
@pytest.mark.parametrize("gradients", [True, False])
def test_the_cached_form_equals_the_training_form_in_values_and_gradients(sizes: list[int], gradients: bool) -> None:
    model, x = make_transformer(), make_blocks().requires_grad_(gradients)
    with torch.set_grad_enabled(gradients):
        one, many = whole(model, x), in_parts(model, x, sizes)
    torch.testing.assert_close(many, one, **CLOSE)
    if gradients:
        weight, inputs = torch.randn_like(x), (x, *model.parameters())
        wanted = torch.autograd.grad((one * weight).sum(), inputs)
        assert all(g.isfinite().all() and (g != 0).any() for g in wanted)
        for got, want in zip(torch.autograd.grad((many * weight).sum(), inputs), wanted, strict=True):
            torch.testing.assert_close(got, want, rtol=0, atol=1e-11)


@pytest.mark.parametrize("at", [0, 1, n - 1, 2 * n, T * n - 1])
def test_a_later_token_has_exactly_no_influence(at: int) -> None:
    model, x = make_transformer(), make_blocks().requires_grad_()
    other = x.detach().clone()
    other.view(B, T * n, E)[:, at + 1 :] += 5
    before, after = whole(model, x).flatten(1, 2), whole(model, other).flatten(1, 2)
    assert torch.equal(before[:, : at + 1], after[:, : at + 1])
    assert not torch.equal(before[:, at + 1 :], after[:, at + 1 :]) or at == T * n - 1
    (gradient,) = torch.autograd.grad((before[:, at] * torch.randn(E)).sum(), x)
    gradient = gradient.flatten(1, 2)
    assert (gradient[:, at + 1 :] == 0).all()
    assert (gradient[:, : at + 1].abs() > 1e-9).any(-1).all()


def test_hidden_blocks_leave_no_trace_and_nothing_is_nan() -> None:
    model, x = make_transformer(), make_blocks()
    keep = torch.tensor([[False, True, True, True, True], [False, False, False, True, True], [True] * 5])
    rows = keep.repeat_interleave(n, 1)
    torch.testing.assert_close(whole(model, x, keep), obvious(model, x, rows), **CLOSE)
    other = torch.where(keep[..., None, None], x, x + 7)
    a, b = whole(model, x, keep), whole(model, other, keep)
    assert torch.equal(a[keep], b[keep])
    assert a.isfinite().all()
    # Given in two parts, the first blocks stay hidden from the rest.
    first = model(x[:, :3], model.initial_state(B, x), keep=keep[:, :3])
    rest = model(x[:, 3:], first.state, 3 * n).real
    torch.testing.assert_close(rest, a[:, 3:], **CLOSE)


def test_positions_are_learned_one_per_token_of_the_window() -> None:
    model, x = make_transformer(), make_blocks()
    x[:, :] = x[:, :1, :1]  # the same token everywhere
    out = whole(model, x).flatten(1, 2)
    assert all(not torch.allclose(out[:, i], out[:, j]) for i in range(T * n) for j in range(i))
    (out[:, :7] * torch.randn(E)).sum().backward()
    gradient = model.position_embedding.weight.grad
    assert gradient is not None
    assert model.position_embedding.num_embeddings == T * n
    assert (gradient[:7].abs() > 1e-9).any(-1).all()
    assert (gradient[7:] == 0).all()


def test_no_token_stands_outside_the_window_or_where_it_does_not_belong() -> None:
    model, x = make_transformer(), make_blocks()
    state = model(x, model.initial_state(B, x)).state
    with pytest.raises(AssertionError, match=f"{T * n + 1} positions in a window of {T * n}"):
        model(x[:, :1, :1], state, T * n)
    with pytest.raises(AssertionError, match="tokens stand at 3, but 0 tokens are held"):
        model(x[:, :1], model.initial_state(B, x), 3)


# --- the cache is a value


def contents(state: TransformerState) -> list[Tensor]:
    return [layer.held.clone() for layer in state.layers]


@torch.no_grad()
def test_a_state_never_changes_and_serves_as_often_as_one_likes() -> None:
    model, x = make_transformer(), make_blocks()
    begun = model(x[:, :2], model.initial_state(B, x)).state
    token, other = x[:, 2:3, :1], x[:, 3:4, :1]
    states = [begun]
    for i in range(3):
        states.append(model(x[:, 2:3, i : i + 1], states[-1], 2 * n + i).state)
    kept = [contents(state) for state in states]
    for state, content in zip(states, kept, strict=True):
        start = state.length
        first, second, third = (model(part, state, start) for part in (token, other, token))
        assert torch.equal(first.real, third.real)
        assert not torch.equal(first.real, second.real)
        # What stood on the first is not touched by what was put on the same state afterwards.
        again = model(other, first.state, start + 1).real
        assert torch.equal(model(other, third.state, start + 1).real, again)
        for held, was in zip(contents(state), content, strict=True):
            assert torch.equal(held, was)
    for state, content in zip(states, kept, strict=True):
        assert all(torch.equal(held, was) for held, was in zip(contents(state), content, strict=True))


def test_only_the_newest_holder_is_extended_in_place_and_memory_is_taken_once() -> None:
    new = torch.randn(2, B, H, 1, E // H)
    empty = KeysValues(new[..., :0, :], 0, [0])
    one = empty.extended(new, 9)
    two = one.extended(new, 9)
    three = two.extended(new, 9)
    branch = two.extended(-new, 9)
    assert two.memory.shape[-2] == 9
    assert two.memory.data_ptr() == three.memory.data_ptr() != branch.memory.data_ptr()
    assert torch.equal(three.held, new.expand(2, B, H, 3, E // H))
    assert torch.equal(branch.held, torch.cat([new, new, -new], dim=-2))
    assert branch.extended(new, 2).length == 4  # more than was asked for is taken where it is needed


def test_dropout_only_in_training() -> None:
    model, x = make_transformer(), make_blocks()
    assert torch.equal(whole(model, x), whole(model, x))
    model.train()
    assert not torch.equal(whole(model, x), whole(model, x))
    none = make_transformer(dropout=0.0).train()
    assert torch.equal(whole(none, x), whole(none, x))
