"""POP against its obvious loop and against yet-another-retnet, float64, values and gradients."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from yet_another_retnet import retention
from yet_another_retnet.retnet import RetNetDecoder, RetNetDecoderLayer

from remctl.config import WorldModelConfig
from remctl.rem.reference import pop_loop, run_tokens
from remctl.rem.retention import RetentionTables
from remctl.rem.retnet import RetNet

EXACT = {"rtol": 0, "atol": 1e-12}


@pytest.fixture(autouse=True)
def _float64():
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)


def make_net(**changes: object) -> RetNet:
    config = WorldModelConfig(
        **{"num_layers": 3, "num_heads": 2, "embed_dim": 32, "ffn_dim": 48, "layer_init": "independent"} | changes
    )
    return RetNet(config).eval()


def make_inputs(B: int = 2, T: int = 5, K: int = 3, P: int | None = None, E: int = 32) -> tuple[Tensor, Tensor]:
    return torch.randn(B, T, K + 1, E, requires_grad=True), torch.randn(B, P or T, K, E, requires_grad=True)


def random_state(net: RetNet, B: int = 2) -> list[Tensor]:
    return [torch.randn_like(s) for s in net.initial_state(B, torch.zeros(1))]


@pytest.mark.parametrize(("T", "c"), [(5, 1), (5, 2), (6, 3), (5, 3), (2, 3), (1, 1), (4, 9)])
@pytest.mark.parametrize(("decay", "activation"), [("log_linear", "swish"), ("power_of_two", "gelu")])
def test_pop_parallel_equals_the_block_loop(T: int, c: int, decay: str, activation: str) -> None:
    net = make_net(blocks_per_chunk=c, decay=decay, ffn_activation=activation)
    real, u = make_inputs(T=T)
    state = random_state(net)
    fast, slow = (f(net, real, state, start=8, prediction=u) for f in (RetNet.forward, pop_loop))
    for a, b in zip((fast.real, fast.predicted, *fast.state), (slow.real, slow.predicted, *slow.state), strict=True):
        torch.testing.assert_close(a, b, **EXACT)
    weights = torch.randn_like(fast.real), torch.randn_like(fast.predicted)
    targets = [real, u, *net.parameters()]
    gradients = [
        torch.autograd.grad((out.real * weights[0]).sum() + (out.predicted * weights[1]).sum(), targets)
        for out in (fast, slow)
    ]
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


def test_leaving_out_what_nobody_reads_changes_nothing_that_is_read() -> None:
    """Outputs at the blocks' last tokens, predictions, states and all gradients, with padding and two chunks."""
    net = make_net(blocks_per_chunk=2)
    real, u = make_inputs(T=5)
    keep = torch.tensor([[False, True, True, True, True], [True] * 5])
    state = [torch.randn_like(s) for s in net.initial_state(2, real)]
    found = []
    for last_tokens_only in (False, True):
        out = net(real, state, 3, u, 1, keep, last_tokens_only)
        read = [out.real[:, :, -1:], out.predicted, *out.state]
        weights = [torch.linspace(-1, 1, t.numel(), dtype=t.dtype).view(t.shape) for t in read]
        loss = sum((w * t).sum() for w, t in zip(weights, read, strict=True))
        found.append((read, torch.autograd.grad(loss, [real, u, *net.parameters()])))
    (full, gradients), (pruned, its_gradients) = found
    for a, b in zip((*full, *gradients), (*pruned, *its_gradients), strict=True):
        torch.testing.assert_close(a, b, **EXACT)


@pytest.mark.parametrize("T", [1, 5])
def test_sequential_states_equal_parallel_ones(T: int) -> None:
    net = make_net(block_states="sequential")
    parallel = make_net()
    parallel.load_state_dict(net.state_dict())
    real, u = make_inputs(T=T)
    state = random_state(net)
    outs = [model(real, state, prediction=u) for model in (net, parallel)]
    for a, b in zip(*((o.real, o.predicted, *o.state) for o in outs), strict=True):
        torch.testing.assert_close(a, b, **EXACT)
    gradients = [torch.autograd.grad(o.predicted.square().sum() + o.state[0].sum(), [real, u]) for o in outs]
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(("first", "P"), [(0, 2), (2, 3), (4, 1), (5, 1), (1, 5)])
def test_any_run_of_blocks_can_be_predicted_up_to_the_one_after_the_last(first: int, P: int) -> None:
    net = make_net()
    real, u = make_inputs(T=5, P=P)
    state = random_state(net)
    fast = net(real, state, prediction=u, first_predicted=first)
    slow = pop_loop(net, real, state, prediction=u, first_predicted=first)
    torch.testing.assert_close(fast.predicted, slow.predicted, **EXACT)


@pytest.mark.parametrize(("c", "start"), [(1, 0), (2, 8), (3, 20)])
def test_prediction_tokens_stand_at_the_positions_of_the_block_they_predict(c: int, start: int) -> None:
    """With the block's own tokens in their place they must come out as those tokens do, wherever the sequence begins."""
    net = make_net(blocks_per_chunk=c)
    real, _ = make_inputs(T=5, K=3)
    out = net(real, random_state(net), start=start, prediction=real[:, :, :3])
    torch.testing.assert_close(out.predicted, out.real[:, :, :3], **EXACT)
    shifted = net(real, random_state(net), start=start, prediction=real[:, 1:, :3], first_predicted=0)
    assert not torch.allclose(shifted.predicted, out.real[:, 1:, :3])


def test_prediction_tokens_never_enter_a_state_or_a_real_output() -> None:
    net = make_net()
    real, u = make_inputs()
    with_u, without = net(real, random := random_state(net), prediction=u), net(real, random)
    torch.testing.assert_close(with_u.real, without.real, **EXACT)
    for a, b in zip(with_u.state, without.state, strict=True):
        torch.testing.assert_close(a, b, **EXACT)


def test_a_prediction_reads_only_earlier_blocks() -> None:
    net = make_net()
    real, u = make_inputs(T=5)
    out = net(real, net.initial_state(2, real), prediction=u).predicted
    for j in range(5):
        (gradient,) = torch.autograd.grad(out[:, j].sum(), real, retain_graph=True)
        assert (gradient[:, j:] == 0).all()
        assert j == 0 or (gradient[:, j - 1] != 0).any()


@pytest.fixture
def decay(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The package knows the published code's decay; the text's is put in its place."""
    if request.param == "power_of_two":
        rates = lambda num_heads, **_: 1 - 2.0 ** (-5 - torch.arange(num_heads))  # noqa: E731
        monkeypatch.setattr(retention, "_build_decay_gammas", rates)
    retention._build_decay_mask.cache_clear()
    yield request.param
    retention._build_decay_mask.cache_clear()


def package_with(net: RetNet, activation: str, dropout: float = 0.0) -> RetNetDecoder:
    """The package's decoder with the parameters of `net`; its gate stays swish whatever the FFN has."""
    linear = net.decoder.layers[0].linear1
    layer = RetNetDecoderLayer(linear.in_features, net.num_heads, linear.out_features, dropout, activation)
    layer.retention.activation = torch.nn.functional.silu
    package = RetNetDecoder(layer, len(net.decoder.layers))
    package.load_state_dict(net.decoder.state_dict())
    return package.train(net.training)


def in_chunks(package: RetNetDecoder, x: Tensor, size: int) -> tuple[Tensor, list[Tensor]]:
    states, outs = [], []
    for start in range(0, x.shape[1], size):
        out, states = package.forward_chunkwise(x[:, start : start + size], start, states)
        outs.append(out)
    return torch.cat(outs, 1), states


def token_by_token(package: RetNetDecoder, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    states, outs = [], []
    for i in range(x.shape[1]):
        out, states = package.forward_recurrent(x[:, i], i, states)
        outs.append(out)
    return torch.stack(outs, 1), states


@pytest.mark.parametrize("c", [1, 2, 3, 9])
@pytest.mark.parametrize(
    ("decay", "activation"), [("log_linear", "swish"), ("power_of_two", "gelu")], indirect=["decay"]
)
def test_values_and_gradients_are_the_packages_in_its_three_forms(c: int, decay: str, activation: str) -> None:
    """Three heads of 24: no powers of two. The package's chunks of 6 tokens cut blocks of 4 anywhere."""
    net = make_net(num_heads=3, embed_dim=72, blocks_per_chunk=c, decay=decay, ffn_activation=activation)
    package = package_with(net, activation)
    x, w = torch.randn(2, 5, 4, 72, requires_grad=True), torch.randn(2, 20, 72)
    flat = x.flatten(1, 2)
    out = net(x, net.initial_state(2, x))
    ours = out.real.flatten(1, 2)
    theirs = [(package.forward_parallel(flat), None), in_chunks(package, flat, 6), token_by_token(package, flat)]
    wanted = torch.autograd.grad((ours * w).sum(), [x, *net.parameters()], retain_graph=True)
    for values, states in theirs:
        torch.testing.assert_close(ours, values, **EXACT)
        for a, b in zip(out.state, states or out.state, strict=True):
            torch.testing.assert_close(a, b, **EXACT)
        gradients = torch.autograd.grad((values * w).sum(), [x, *package.parameters()], retain_graph=True)
        for a, b in zip(wanted, gradients, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


def test_token_by_token_equals_the_packages_recurrent_form() -> None:
    net = make_net()
    x = torch.randn(2, 11, 32)
    ours, state = run_tokens(net, x, net.initial_state(2, x), 0)
    theirs, states = token_by_token(package_with(net, "swish"), x)
    torch.testing.assert_close(ours, theirs, **EXACT)
    for a, b in zip(state, states, strict=True):
        torch.testing.assert_close(a, b, **EXACT)


def test_dropout_falls_where_the_package_has_it_with_its_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the place of dropout a function that is not linear, so that each of the four places of a layer matters."""
    net = make_net(num_layers=1, dropout=0.25).train()
    rates: list[float] = []

    def marker(x: Tensor, p: float, training: bool, inplace: bool = False) -> Tensor:
        assert training
        rates.append(p)
        return x * (1 + 0.3 * torch.sin(7 * x))

    monkeypatch.setattr(torch.nn.functional, "dropout", marker)
    real, _ = make_inputs()
    ours = net(real, net.initial_state(2, real)).real.flatten(1, 2)
    assert rates == [0.25] * 4
    theirs = package_with(net, "swish", dropout=0.25).forward_parallel(real.flatten(1, 2))
    torch.testing.assert_close(ours, theirs, **EXACT)
    assert rates == [0.25] * 8


def test_splitting_a_sequence_at_any_token_changes_nothing() -> None:
    net = make_net()
    x = torch.randn(2, 1, 11, 32)
    whole = net(x, net.initial_state(2, x))
    first = net(x[:, :, :4], net.initial_state(2, x))
    second = net(x[:, :, 4:], first.state, start=4)
    torch.testing.assert_close(torch.cat([first.real, second.real], 2), whole.real, **EXACT)


def test_dropped_blocks_have_exactly_no_influence() -> None:
    net = make_net()
    real, u = make_inputs(T=3)
    keep = torch.tensor([[False, True, True], [False, False, True]])
    state = net.initial_state(2, real)
    out = net(real, state, prediction=u, keep=keep)
    (gradient,) = torch.autograd.grad(out.predicted.sum() + sum(s.sum() for s in out.state), real)
    assert (gradient[~keep] == 0).all()
    assert (gradient[keep] != 0).any()
    alone = net(real[1:, 2:], [s[1:] for s in state], start=8)
    for a, b in zip(out.state, alone.state, strict=True):
        torch.testing.assert_close(a[1:], b, **EXACT)


def test_copies_start_equal_and_independent_layers_do_not() -> None:
    for init, same in (("copies", True), ("independent", False)):
        layers = make_net(layer_init=init).decoder.layers
        assert torch.equal(layers[0].linear1.weight, layers[1].linear1.weight) is same


def test_tables_of_the_last_head_survive_bfloat16() -> None:
    tables = RetentionTables(4, 64)
    decay = tables.decays(650, torch.zeros(1, dtype=torch.bfloat16)).causal
    assert decay.dtype == torch.float32
    assert decay[-1, 649, 0] == pytest.approx((1 - 1 / 512) ** 649, rel=1e-5)


@pytest.mark.parametrize("seed", [0, 1])
def test_bf16_stays_within_two_percent_in_the_last_of_ten_blocks(seed: int) -> None:
    """Positions and decays computed in bfloat16 would be off by 25-43% from the fourth block on."""
    torch.manual_seed(seed)
    torch.set_default_dtype(torch.float32)
    net = make_net(num_layers=2, embed_dim=128, num_heads=4, ffn_dim=256)
    real = torch.randn(2, 10, 65, 128)
    u = torch.randn(2, 10, 64, 128)
    exact = net(real, net.initial_state(2, real), prediction=u)
    with torch.autocast("cpu", torch.bfloat16):
        rough = net(real, net.initial_state(2, real), prediction=u)
    for a, b in ((rough.real, exact.real), (rough.predicted, exact.predicted)):
        last, wanted = a[:, -1].float(), b[:, -1]
        assert (last - wanted).norm() / wanted.norm() < 0.02


def test_states_are_carried_in_float32_under_bfloat16() -> None:
    torch.set_default_dtype(torch.float32)
    net = make_net(num_layers=1)
    real = torch.randn(2, 3, 4, 32)
    with torch.autocast("cpu", torch.bfloat16):
        state = net(real, net.initial_state(2, real)).state[0]
    assert state.dtype == torch.float32
    assert not torch.equal(state, state.to(torch.bfloat16).float())
