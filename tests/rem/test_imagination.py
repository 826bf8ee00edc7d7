"""Imagination and C's loss: what M and C are told and when, returns, weights, and the shape of a rollout."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from remctl.config import RunConfig, build
from remctl.interfaces import Start
from remctl.rem import imagination as imagination_module
from remctl.rem import world_model as world_model_module
from remctl.rem.controller import Controller
from remctl.rem.imagination import (
    Trajectory,
    burn_in,
    controller_loss,
    fed_actions,
    imagine,
    model_context,
    step_weights,
)
from remctl.rem.returns import lambda_returns
from remctl.rem.sampling import sample_categorical
from remctl.rem.world_model import WorldModel
from tests.draws import streams

A, B, F, E, SIDE, N = 3, 4, 5, 32, 2, 11
K = SIDE * SIDE


def make_config(**changes: object) -> RunConfig:
    small = {
        "environment.frame_size": 16,
        "tokenizer.grid_size": SIDE,
        "tokenizer.channels": (8, 8, 8, 8),
        "tokenizer.embed_dim": E,
        "world_model.embed_dim": E,
        "world_model.num_heads": 2,
        "world_model.num_layers": 1,
        "world_model.ffn_dim": 16,
        "controller.conv_channels": (8, 4),
        "controller.hidden_dim": 16,
        "imagination.burn_in_frames": F,
    }
    return build(small | {k.replace("__", "."): v for k, v in changes.items()})


def make_parts(config: RunConfig) -> tuple[WorldModel, Controller, Tensor]:
    torch.manual_seed(0)
    model = WorldModel(config.world_model, A, K, N).eval()
    controller = Controller(config.controller, A, E, SIDE, 16)
    return model, controller, torch.randn(N, E)


def make_start(real: Tensor | None = None) -> Start:
    real = torch.ones(B, F + 1, dtype=torch.bool) if real is None else real
    return Start(torch.randint(N, (B, F + 1, K)), torch.randint(A, (B, F)), real)


def view_of(codes: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda tokens: codes[tokens].unflatten(-2, (SIDE, SIDE)).movedim(-1, -3)


def roll(config: RunConfig, start: Start, seed: int = 0):
    model, controller, codes = make_parts(config)
    return imagine(model, controller, view_of(codes), start, codes, config, streams(seed)), controller


@pytest.mark.parametrize(
    ("changes", "acted", "rewarded"),
    [
        ({}, 9, 8),
        ({"imagination__last_step": "used"}, 9, 9),
        ({"imagination__imagined_steps": "text", "imagination__last_step": "used"}, 10, 10),
        ({"world_model__context_blocks": 1}, 10, 9),
        ({"imagination__horizon": 5}, 4, 3),
    ],
)
def test_a_rollout_has_the_configured_number_of_steps(changes: dict, acted: int, rewarded: int) -> None:
    config = make_config(**changes)
    trajectory, _ = roll(config, make_start())
    assert config.num_imagined_steps == acted
    assert trajectory.rewards.shape == trajectory.ends.shape == trajectory.actions.shape == (B, rewarded)
    assert trajectory.values.shape == (B, rewarded + 1)
    assert trajectory.tokens.shape == (B, rewarded + 1, K)


def test_the_first_observation_is_the_real_current_one_and_the_seed_decides_the_rest() -> None:
    config, start = make_config(), make_start()
    a, b, c = roll(config, start)[0], roll(config, start)[0], roll(config, start, seed=1)[0]
    assert torch.equal(a.tokens[:, 0], start.tokens[:, -1])
    assert torch.equal(a.tokens, b.tokens)
    assert torch.equal(a.actions, b.actions)
    assert not torch.equal(a.tokens, c.tokens)


def test_gradients_reach_c_but_not_m_and_not_through_the_burn_in() -> None:
    config = make_config()
    model, controller, codes = make_parts(config)
    codes.requires_grad_()
    start = make_start()
    start.tokens[:, :-1] = 0  # code 0 stands in the burn-in ...
    start.tokens[:, -1] = 1
    model.observation_head[-1].bias.data[0] = -1e9  # ... and nowhere else
    trajectory = imagine(model, controller, view_of(codes), start, codes.detach(), config, streams())
    loss, _ = controller_loss(trajectory, config)
    loss.backward()
    assert codes.grad is not None
    assert (codes.grad[0] == 0).all()
    assert (codes.grad[1] != 0).any()
    assert all(p.grad is None for p in model.parameters())
    assert all(p.grad is not None for p in controller.parameters())


@pytest.mark.parametrize(
    ("rule", "every", "side", "frames", "fed"),
    [
        ("published", "observation", 8, 20, []),
        ("published", "observation", 4, 20, [15]),
        ("published", "block", 4, 20, [16]),
        ("never", "observation", 4, 20, []),
        ("all", "observation", 8, 20, list(range(20))),
    ],
)
def test_actions_fed_during_burn_in(rule: str, every: str, side: int, frames: int, fed: list[int]) -> None:
    keys = {"burn_in_actions": rule, "burn_in_action_every": every, "burn_in_frames": frames}
    config = build({"tokenizer.grid_size": side} | {f"imagination.{key}": value for key, value in keys.items()})
    assert [i for i, f in enumerate(fed_actions(config)) if f] == fed


@pytest.mark.parametrize("every", ["observation", "block"])
def test_as_published_the_action_fed_after_every_kth_frame_is_trained(every: str) -> None:
    rules = {"imagination.burn_in_actions": "published", "imagination.burn_in_action_every": every}
    config = make_config(**{key.replace(".", "__"): value for key, value in rules.items()})
    assert fed_actions(config).count(True) == 1  # 4 or 5 of 5 frames, at 4 tokens
    _, controller, _ = make_parts(config)
    state = burn_in(controller, lambda tokens: torch.randn(*tokens.shape[:2], E, SIDE, SIDE), make_start(), config)
    assert state.h.requires_grad is (every == "observation")


def test_the_model_context_is_the_last_frames_before_the_current_one() -> None:
    start = make_start()
    tokens, actions, real = model_context(start, 3)
    assert torch.equal(tokens, start.tokens[:, -3:])
    assert torch.equal(actions, start.actions[:, -2:])
    assert torch.equal(real, start.real[:, -3:-1])
    tokens, actions, real = model_context(start, 1)
    assert torch.equal(tokens, start.tokens[:, -1:])
    assert actions.shape == real.shape == (B, 0)


def test_frames_before_an_episode_have_no_influence_on_a_rollout() -> None:
    real = torch.arange(F + 1) >= torch.tensor([[0], [3], [4], [5]])
    start = make_start(real)
    other = start._replace(
        tokens=torch.where(real[..., None], start.tokens, (start.tokens + 1) % N),
        actions=torch.where(real[:, :-1], start.actions, (start.actions + 1) % A),
    )
    config = make_config(imagination__burn_in_actions="all")
    a, b = roll(config, start)[0], roll(config, other)[0]
    torch.testing.assert_close(a.values, b.values, rtol=0, atol=1e-6)
    assert torch.equal(a.tokens, b.tokens)


def direct_return(r: list, v: list, d: list, t: int, discount: float, lam: float) -> float:
    """The definition in Section A.1.2, by recursion."""
    if t == len(r):
        return v[t]
    later = (1 - lam) * v[t + 1] + lam * direct_return(r, v, d, t + 1, discount, lam)
    return r[t] + discount * (1 - d[t]) * later


def test_lambda_returns_equal_the_direct_recursion() -> None:
    generator = torch.Generator().manual_seed(0)
    rewards, values = (torch.randn(5, n, generator=generator, dtype=torch.float64) for n in (7, 8))
    ends = (torch.rand(5, 7, generator=generator) < 0.2).double()
    result = lambda_returns(rewards, values, ends, 0.995, 0.95)
    for i in range(5):
        for t in range(7):
            want = direct_return(rewards[i].tolist(), values[i].tolist(), ends[i].tolist(), t, 0.995, 0.95)
            assert result[i, t].item() == pytest.approx(want, abs=1e-12)


def test_weights_stop_after_the_end() -> None:
    ends = torch.tensor([[0, 1, 0, 1], [0, 0, 0, 0], [1, 0, 0, 0]]).bool()
    assert step_weights(ends).tolist() == [[1, 1, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0]]


def test_steps_after_an_end_train_c_only_when_not_masked() -> None:
    for mask in (True, False):
        config = make_config(imagination__mask_after_end=mask)
        trajectory, _ = roll(config, make_start())
        ends = torch.zeros_like(trajectory.ends)
        ends[:, 2] = True
        logits = trajectory.logits.detach().requires_grad_()
        loss, _ = controller_loss(trajectory._replace(ends=ends, logits=logits), config)
        (gradient,) = torch.autograd.grad(loss, logits)
        assert (gradient[:, :3] != 0).any()
        assert (gradient[:, 3:] == 0).all().item() is mask


def test_steps_after_an_end_leave_the_mean_when_masked() -> None:
    """The losses of a rollout that ends at its second step are those of the two steps alone."""
    config = make_config(imagination__mask_after_end=True)
    ends = torch.tensor([[False, True, False, False]])
    whole = Trajectory(
        torch.zeros(1, 5, K),
        torch.randn(1, 4, A),
        torch.tensor([[0, 1, 2, 0]]),
        torch.randn(1, 5),
        torch.randn(1, 4),
        ends,
    )
    short = Trajectory(*(x[:, : x.shape[1] - 2] for x in whole))
    for name in ("policy_loss", "value_loss", "entropy_loss"):
        losses = [controller_loss(t, config)[1][name] for t in (whole, short)]
        torch.testing.assert_close(*losses)


def test_sampling_follows_the_distribution_and_the_temperature() -> None:
    logits = torch.tensor([0.1, 0.2, 0.7]).log().expand(40_000, 3)
    for temperature in (1.0, 0.5):
        drawn = sample_categorical(logits, torch.Generator().manual_seed(0), temperature)
        shares = torch.bincount(drawn, minlength=3) / len(drawn)
        torch.testing.assert_close(shares, (logits[0] / temperature).softmax(-1), rtol=0, atol=0.01)
    certain = torch.tensor([-1e9, 0.0, -1e9]).expand(100, 3)
    assert (sample_categorical(certain, torch.Generator()) == 1).all()


def test_c_is_rewarded_for_what_it_did_and_pushed_to_explore() -> None:
    """Two steps by hand: A=2, probabilities 0.8 and 0.2; the sign and size of every gradient."""
    config = make_config(controller__entropy_weight=0.1)
    logits = torch.tensor([[[0.8, 0.2], [0.8, 0.2]]]).log().requires_grad_()
    values = torch.tensor([[0.5, 0.5, 0.5]], requires_grad=True)
    rewards, ends = torch.tensor([[1.0, -1.0]]), torch.tensor([[False, True]])
    trajectory = Trajectory(torch.zeros(1, 3, K), logits, torch.tensor([[1, 1]]), values, rewards, ends)
    loss, terms = controller_loss(trajectory, config)
    later = -1.0  # the second return: its end cuts the rest
    first = 1.0 + 0.995 * (0.05 * 0.5 + 0.95 * later)
    advantages = (first - 0.5, later - 0.5)
    log_prob = torch.tensor(0.2).log().item()
    assert terms["policy_loss"].item() == pytest.approx(-log_prob * sum(advantages) / 2, rel=1e-5)
    entropy = -(0.8 * torch.tensor(0.8).log() + 0.2 * torch.tensor(0.2).log()).item()
    assert terms["policy_entropy"].item() == pytest.approx(entropy, rel=1e-5)
    assert terms["entropy_loss"].item() == pytest.approx(-0.1 * entropy, rel=1e-5)
    assert terms["value_loss"].item() == pytest.approx(sum(a * a for a in advantages) / 2, rel=1e-5)
    assert loss.item() == pytest.approx(
        sum(terms[f"{n}_loss"].item() for n in ("policy", "entropy", "value")), rel=1e-5
    )
    to_logits, to_values = torch.autograd.grad(loss, (logits, values))
    # d(-log p_1 A)/d logit_1 = -(1 - p_1) A; the entropy's gradient at logit_1 is p_1 (log p_1 + H).
    for t, advantage in enumerate(advantages):
        want = (-(1 - 0.2) * advantage + 0.1 * 0.2 * (log_prob + entropy)) / 2
        assert to_logits[0, t, 1].item() == pytest.approx(want, rel=1e-4)
    assert to_values[0].tolist() == pytest.approx([-advantages[0], -advantages[1], 0.0], rel=1e-5)


def test_rollouts_that_only_fill_the_batch_up_leave_no_trace_be_they_nan() -> None:
    g = torch.Generator().manual_seed(0)
    present, bad = torch.tensor([True, True, False]), float("nan")
    found = []
    for hidden in (0.5, bad, float("inf")):
        logits, values = (torch.rand(3, n, *more, generator=g.manual_seed(1)) for n, more in ((2, (4,)), (3, ())))
        rewards, actions = torch.rand(3, 2, generator=g), torch.zeros(3, 2, dtype=torch.int64)
        for x in (logits, values, rewards):
            x[2] = hidden
        logits.requires_grad_(), values.requires_grad_()
        ends = torch.tensor([[False, True], [False, False], [True, False]])
        whole = Trajectory(torch.zeros(3, 3, K), logits, actions, values, rewards, ends)
        loss, terms = controller_loss(whole, make_config(), present)
        found.append((loss, terms, torch.autograd.grad(loss, (logits, values))))
        two = controller_loss(Trajectory(*(x[:2] for x in whole)), make_config())
        torch.testing.assert_close((loss, terms), two)
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=0, atol=0)
    assert all((gradient[2] == 0).all() for gradient in found[0][2])


def test_m_is_given_the_action_that_c_sampled_on_the_observation_that_c_saw() -> None:
    config, start = make_config(), make_start()
    model, controller, codes = make_parts(config)
    given: list[Tensor] = []
    step = model.step

    def recording(state, action, streams):
        given.append(action)
        return step(state, action, streams)

    model.step = recording  # type: ignore[method-assign]
    viewed: list[Tensor] = []

    def view(tokens: Tensor) -> Tensor:
        viewed.append(tokens)
        return view_of(codes)(tokens)

    trajectory = imagine(model, controller, view, start, codes, config, streams())
    assert torch.equal(torch.stack(given, 1), trajectory.actions)
    assert trajectory.actions.unique().numel() > 1
    assert torch.equal(torch.stack(viewed[1:], 1), trajectory.tokens)  # the first view is the burn-in's
    assert torch.equal(trajectory.tokens[:, 0], start.tokens[:, -1])


def test_c_is_told_the_action_that_it_sampled_after_it_observed(monkeypatch: pytest.MonkeyPatch) -> None:
    config, start = make_config(imagination__burn_in_actions="never"), make_start()
    model, controller, codes = make_parts(config)
    calls: list[Tensor | None] = []  # an observation, or the action that was told
    observe, record = controller.observe, controller.record_action
    monkeypatch.setattr(controller, "observe", lambda s, o: calls.append(None) or observe(s, o))
    monkeypatch.setattr(controller, "record_action", lambda s, a: calls.append(a) or record(s, a))
    trajectory = imagine(model, controller, view_of(codes), start, codes, config, streams())
    steps = config.num_rewarded_steps
    assert [action is None for action in calls] == [True, False] * steps + [True]
    assert torch.equal(torch.stack([a for a in calls if a is not None], 1), trajectory.actions)


def test_everything_imagined_is_sampled_at_temperature_1(monkeypatch: pytest.MonkeyPatch) -> None:
    temperatures: list[float] = []

    def sample(logits: Tensor, generator: torch.Generator, temperature: float = 1.0) -> Tensor:
        temperatures.append(temperature)
        return sample_categorical(logits, generator, temperature)

    for module in (imagination_module, world_model_module):
        monkeypatch.setattr(module, "sample_categorical", sample)
    config = make_config()
    roll(config, make_start())
    assert temperatures == [1.0] * 4 * config.num_rewarded_steps  # action, observation, reward, end
