"""C by itself: the burn-in, what it is told, and what is never computed in bfloat16."""

import copy

import pytest
import torch

from tests.rem.test_imagination import SIDE, A, E, F, make_config, make_parts


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
