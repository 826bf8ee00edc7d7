"""C by itself: the burn-in, what it is told, and what is never computed in bfloat16."""

import copy

import pytest
import torch

from remctl.interfaces import Convolved
from remctl.rem import controller as module
from remctl.rem.controller import Controller
from remctl.rem.imagination import controller_loss, imagine
from tests.draws import streams
from tests.rem.test_imagination import SIDE, A, E, F, N, make_config, make_parts, make_start, view_of

EXACT = {"rtol": 0, "atol": 1e-12}


@pytest.fixture
def _float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def test_burn_in_observes_and_then_is_told_frame_by_frame() -> None:
    controller = make_parts(make_config())[1]
    observations, actions = torch.randn(2, F, E, SIDE, SIDE), torch.randint(A, (2, F))
    fed = [True, False, True, True, False]
    state = controller.initial_state(2)
    for f in range(F):
        state, _ = controller.observe(state, observations[:, f])
        state = controller.record_action(state, actions[:, f]) if fed[f] else state
    got = controller.burn_in(observations, actions, torch.ones(2, F, dtype=torch.bool), fed)
    for a, b in zip(got, state, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


def test_padded_burn_in_frames_leave_c_untouched() -> None:
    controller = make_parts(make_config())[1]
    observations, actions = torch.randn(2, F, E, SIDE, SIDE), torch.randint(A, (2, F))
    real = torch.tensor([[False, False, True, True, True], [False] * 5])
    state = controller.burn_in(observations, actions, real, [True] * F)
    short = controller.burn_in(observations[:, 2:], actions[:, 2:], real[:, 2:], [True] * 3)
    torch.testing.assert_close(state.h, short.h, rtol=0, atol=1e-6)
    assert (state.h[1] == 0).all()
    assert (state.h[0] != 0).any()


@pytest.mark.parametrize("trains", [False, True])
def test_as_published_the_actions_fed_in_burn_in_alone_are_trained(trains: bool) -> None:
    """Against a burn-in in which a frozen copy of C takes all other steps."""
    controller = make_parts(make_config())[1]
    frozen = copy.deepcopy(controller).requires_grad_(False)
    observations, actions = torch.randn(2, F, E, SIDE, SIDE), torch.randint(A, (2, F))
    fed = [False, True, False, False, False]
    state = controller.initial_state(2)
    for f in range(F):
        state, _ = frozen.observe(state, observations[:, f])
        state = controller.record_action(state, actions[:, f]) if fed[f] else state
    named = dict(controller.named_parameters())
    want = torch.autograd.grad(state.h.sum() + state.c.sum(), list(named.values()), allow_unused=True)
    assert {name for name, grad in zip(named, want, strict=True) if grad is not None} == {
        "action_embedding.weight", "lstm.weight_ih", "lstm.weight_hh", "lstm.bias_ih", "lstm.bias_hh",
    }  # fmt: skip
    got = controller.burn_in(observations, actions, torch.ones(2, F, dtype=torch.bool), fed, trains)
    torch.testing.assert_close(got.h, state.h, rtol=0, atol=1e-6)
    assert got.h.requires_grad is trains
    if trains:
        found = torch.autograd.grad(got.h.sum() + got.c.sum(), list(named.values()), allow_unused=True)
        for a, b in zip(found, want, strict=True):
            assert (a is None and b is None) or torch.allclose(a, b, rtol=1e-5, atol=1e-6)
    assert not controller.burn_in(
        observations, actions, torch.ones(2, F, dtype=torch.bool), [False] * F, True
    ).h.requires_grad


@pytest.mark.parametrize("action_inputs", [True, False])
def test_c_is_told_its_actions_only_where_configured(action_inputs: bool) -> None:
    controller = make_parts(make_config(controller__action_inputs=action_inputs))[1]
    state, _ = controller.observe(controller.initial_state(2), torch.randn(2, E, SIDE, SIDE))
    one, two = (controller.record_action(state, torch.full((2,), a)) for a in (0, 1))
    assert torch.equal(one.h, two.h) is not action_inputs
    assert ("action_embedding.weight" in controller.state_dict()) is action_inputs


def test_values_are_not_rounded_to_bfloat16() -> None:
    controller = make_parts(make_config())[1]
    controller.critic.bias.data += 40
    state = controller.initial_state(64)._replace(h=torch.randn(64, 16))
    with torch.autocast("cpu", torch.bfloat16):
        rough = controller.decide(state)
    torch.testing.assert_close(rough.value, controller.decide(state).value, rtol=1e-6, atol=1e-6)
    assert rough.value.unique().numel() == 64


def test_the_lstm_is_not_computed_in_bfloat16() -> None:
    controller = make_parts(make_config())[1]
    state, action = controller.initial_state(4)._replace(h=torch.randn(4, 16)), torch.tensor([0, 1, 2, 0])
    want = controller.record_action(state, action)
    with torch.autocast("cpu", torch.bfloat16):
        got = controller.record_action(state, action)
    assert torch.equal(got.h, want.h)
    assert torch.equal(got.c, want.c)


@pytest.mark.usefixtures("_float64")
@pytest.mark.parametrize("side", [1, 4, 8])
@pytest.mark.parametrize("leading", [(3,), (2, 5), (2, 0), (0,)])
def test_the_first_convolution_looked_up_is_the_one_that_is_multiplied(
    side: int, leading: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its gradients; at the edges, which are most of these grids, too."""
    torch.manual_seed(0)
    controller = Controller(make_config().controller, A, E, side, 16)
    codes, tokens = torch.randn(N, E), torch.randint(N, (*leading, side * side))
    seen = codes[tokens].unflatten(-2, (side, side)).movedim(-1, -3)
    first = controller.encoder[0]
    want = first(seen.flatten(0, -4)).unflatten(0, leading)
    monkeypatch.setattr(module, "LEAST_SAVED", float("-inf"))
    view = controller.view_by_table(codes, tokens.numel())
    assert view is not None
    got = view(tokens)
    assert isinstance(got, Convolved)
    torch.testing.assert_close(got.output, want, **EXACT)
    weight = torch.randn_like(want)
    gradients = [torch.autograd.grad((out * weight).sum(), first.parameters()) for out in (got.output, want)]
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, **EXACT)


@pytest.mark.usefixtures("_float64")
@pytest.mark.parametrize("rule", ["published", "never", "all"])
@pytest.mark.parametrize("every", ["observation", "block"])
def test_rollouts_with_look_ups_are_those_without(rule: str, every: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loss and gradients; C sees the codes of `view` in none of its steps, so that nothing is computed twice."""
    config = make_config(imagination__burn_in_actions=rule, imagination__burn_in_action_every=every)
    model, controller, codes = make_parts(config)
    start, found, viewed = make_start(), [], []

    def view(tokens: torch.Tensor) -> torch.Tensor:
        viewed.append(tokens)
        return view_of(codes)(tokens)

    for least_saved in (float("inf"), float("-inf")):
        monkeypatch.setattr(module, "LEAST_SAVED", least_saved)
        trajectory = imagine(model, controller, view, start, codes, config, streams())
        loss, terms = controller_loss(trajectory, config)
        found.append([*terms.values(), *torch.autograd.grad(loss, controller.parameters()), *trajectory])
    assert len(viewed) == 1 + config.num_rewarded_steps + 1
    for wanted, looked_up in zip(*found, strict=True):
        torch.testing.assert_close(looked_up, wanted, **EXACT)


def test_c_looks_up_where_that_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    config, codes = make_config(), torch.randn(N, 64)
    controller = Controller(config.controller, A, 64, SIDE, 16)
    assert controller.view_by_table(codes, 10_000) is None
    monkeypatch.setattr(module, "LEAST_SAVED", 0)
    least = -(-N * 64 // (64 - module.LOOK_UP_COST))
    assert [controller.view_by_table(codes, n) is None for n in (least - 1, least)] == [True, False]
    with torch.autocast("cpu", torch.bfloat16):
        assert controller.view_by_table(codes, least) is None
    assert controller.to("meta").view_by_table(codes.to("meta"), least) is None
    assert make_parts(config)[1].view_by_table(codes[:, :E], 10**6) is None  # short codes are multiplied faster
    for changes in ({"controller__observes": "frames"}, {"controller__conv_channels": ()}):
        other = Controller(make_config(**changes).controller, A, 64, SIDE, 16)
        assert other.view_by_table(codes, least) is None
