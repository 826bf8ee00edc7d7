"""POP against its obvious loop and against yet-another-retnet, float64, values and gradients."""

import pytest
import torch
from torch import Tensor
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


def test_equals_the_package_parallel_chunkwise_and_recurrent() -> None:
    net = make_net()
    real, _ = make_inputs(T=5)
    package = RetNetDecoder(RetNetDecoderLayer(32, 2, dim_feedforward=48, layer_norm_eps=1e-6), 3).eval()
    package.load_state_dict(net.decoder.state_dict())
    flat = real.flatten(1, 2)
    ours = net(real, net.initial_state(2, real))
    torch.testing.assert_close(ours.real.flatten(1, 2), package.forward_parallel(flat), **EXACT)
    chunked, states = package.forward_chunkwise(flat, start_idx=0)
    torch.testing.assert_close(ours.real.flatten(1, 2), chunked, **EXACT)
    for a, b in zip(ours.state, states, strict=True):
        torch.testing.assert_close(a, b, **EXACT)
    recurrent, _ = run_tokens(net, flat, net.initial_state(2, real), 0)
    torch.testing.assert_close(ours.real.flatten(1, 2), recurrent, **EXACT)


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
    decay = tables.causal_decay(650, torch.zeros(1, dtype=torch.bfloat16))
    assert decay.dtype == torch.float32
    assert decay[-1, 649, 0] == pytest.approx((1 - 1 / 512) ** 649, rel=1e-5)


@pytest.mark.parametrize("seed", [0, 1])
def test_bf16_stays_within_two_percent_in_the_last_of_ten_blocks(seed: int) -> None:
    """Positions and decays computed in bfloat16 would be off by 25-43% from the fourth block on."""
    torch.manual_seed(seed)
    torch.set_default_dtype(torch.float32)
    net = make_net(num_layers=2, embed_dim=128, num_heads=4, ffn_dim=256)
    real = torch.randn(2, 10, 65, 128)
    exact = net(real, net.initial_state(2, real)).real[:, -1]
    with torch.autocast("cpu", torch.bfloat16):
        rough = net(real, net.initial_state(2, real)).real[:, -1].float()
    assert (rough - exact).norm() / exact.norm() < 0.02


def test_states_are_carried_in_float32_under_bfloat16() -> None:
    torch.set_default_dtype(torch.float32)
    net = make_net(num_layers=1)
    real = torch.randn(2, 3, 4, 32)
    with torch.autocast("cpu", torch.bfloat16):
        state = net(real, net.initial_state(2, real)).state[0]
    assert state.dtype == torch.float32
    assert not torch.equal(state, state.to(torch.bfloat16).float())
