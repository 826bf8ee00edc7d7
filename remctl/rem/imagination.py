"""Imagination, and the controller's loss on it (paper Section 2.3, Algorithm 7, Section A.1.2).

Shapes: B rollouts, F burn-in frames, K tokens, n steps acted on, r of them rewarded (r = n - 1 as published), A actions.
One `imagine` serves every variant: the world model and the controller are known by their protocols alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from remctl.config import RunConfig
from remctl.interfaces import Controller, ImaginationStreams, S, Start, WorldModel
from remctl.rem.means import mean_of
from remctl.rem.returns import lambda_returns
from remctl.rem.sampling import sample_categorical

if TYPE_CHECKING:
    from remctl.interfaces import View


class Trajectory(NamedTuple):
    """One imagined rollout per row.

    tokens (B, r+1, K): observations, the real one first. logits (B, r, A), actions (B, r). values (B, r+1), the last one
    bootstraps. rewards, ends (B, r). Only logits and values carry gradients.
    """

    tokens: Tensor
    logits: Tensor
    actions: Tensor
    values: Tensor
    rewards: Tensor
    ends: Tensor

    def only(self, present: Tensor) -> Trajectory:
        """Zeros in the rows that are not `present` (B,) bool, be they NaN: a weight of 0 would leave NaN what it is."""
        return Trajectory(*(x.masked_fill(~present.view(-1, *[1] * (x.dim() - 1)), 0) for x in self))


def imagine(
    world_model: WorldModel[Any],
    controller: Controller[Any],
    view: View,
    start: Start,
    code_vectors: Tensor,
    config: RunConfig,
    streams: ImaginationStreams,
) -> Trajectory:
    """Roll C out in M for `num_imagined_steps` observations; M, in evaluation mode, is stepped `num_rewarded_steps` times.

    `start`: tokens (B, F+1, K); `view`: tokens (..., K) to what C observes, unless C has a faster one; code_vectors (N, E).
    Paper Section 2.5.
    """
    num_seen = start.tokens.numel() + start.tokens[:, -1].numel() * config.num_rewarded_steps
    view = controller.view_by_table(code_vectors, num_seen) or view
    state = burn_in(controller, view, start, config)
    with torch.no_grad():
        model_state = world_model.begin(*model_context(start, config.world_model.context_blocks), code_vectors)
    tokens, values = [model_state.tokens], []
    taken: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []  # logits, action, reward, end of each step
    for step in range(config.num_rewarded_steps + 1):
        state, policy = controller.observe(state, view(model_state.tokens))
        values.append(policy.value)
        if step == config.num_rewarded_steps:
            break
        action = sample_categorical(policy.logits.detach(), streams.actions)
        state = controller.record_action(state, action)
        with torch.no_grad():
            model_state, imagined = world_model.step(model_state, action, streams)
        tokens.append(imagined.tokens)
        taken.append((policy.logits, action, imagined.reward, imagined.end))
    logits, actions, rewards, ends = (torch.stack(x, dim=1) for x in zip(*taken, strict=True))
    return Trajectory(torch.stack(tokens, 1), logits, actions, torch.stack(values, 1), rewards, ends)


def burn_in(controller: Controller[S], view: View, start: Start, config: RunConfig) -> S:
    """C's state after the real frames before the current one, without a gradient (but see `burn_in_action_every`)."""
    tokens, real, rule = start.tokens[:, :-1], start.real[:, :-1], config.imagination
    trained = rule.burn_in_actions == "published" and rule.burn_in_action_every == "observation"
    with torch.no_grad():
        observations = view(tokens)
    return controller.burn_in(observations, start.actions, real, fed_actions(config), trained)


def fed_actions(config: RunConfig) -> list[bool]:
    """For each burn-in frame, whether C is told its action. Published: after every K-th frame only."""
    rule, frames = config.imagination.burn_in_actions, config.imagination.burn_in_frames
    if rule == "published":
        every = config.tokenizer.tokens_per_obs + (config.imagination.burn_in_action_every == "block")
        return [(f + 1) % every == 0 for f in range(frames)]
    return [rule == "all"] * frames


def model_context(start: Start, context_blocks: int) -> tuple[Tensor, Tensor, Tensor]:
    """The last T = `context_blocks` observations (B, T, K), the actions between them and which are real, both (B, T-1)."""
    before = min(context_blocks - 1, start.actions.shape[1])
    cut = start.actions.shape[1] - before
    return start.tokens[:, cut:], start.actions[:, cut:], start.real[:, cut:-1]


def controller_loss(
    trajectory: Trajectory, config: RunConfig, present: Tensor | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """REINFORCE with the value as baseline, entropy bonus, value regression on lambda-returns: total, and its terms.

    Scalars, means over the (B, H) rewarded steps of the trajectory; with `mask_after_end`, over those before an end.
    `present` (B,) bool: rollouts that count, where some only fill the batch up.
    """
    c = config.controller
    if present is not None:
        trajectory = trajectory.only(present)
    returns = lambda_returns(trajectory.rewards, trajectory.values, trajectory.ends, c.discount, c.lambda_)
    values = trajectory.values[:, :-1]
    log_policy = F.log_softmax(trajectory.logits, dim=-1)
    log_prob = log_policy.gather(-1, trajectory.actions.unsqueeze(-1)).squeeze(-1)
    entropy = -(log_policy.exp() * log_policy).sum(-1)
    weight = step_weights(trajectory.ends) if config.imagination.mask_after_end else torch.ones_like(returns)
    weight = weight if present is None else weight * present[:, None]

    def mean(x: Tensor) -> Tensor:
        return (x * weight).sum() / weight.sum()

    terms = {
        "policy_loss": -mean(log_prob * (returns - values.detach())),
        "entropy_loss": -c.entropy_weight * mean(entropy),
        "value_loss": mean((values - returns).square()),
    }
    summary = {
        "policy_entropy": mean(entropy),
        "imagined_return": mean(returns),
        "imagined_value": mean(values),
        "imagined_length": mean_of(step_weights(trajectory.ends).sum(1), present),
    }
    return torch.stack(list(terms.values())).sum(), terms | {k: v.detach() for k, v in summary.items()}


def step_weights(ends: Tensor) -> Tensor:
    """1 up to and including the step that ends, 0 after: (B, r)."""
    over = ends.float().cumsum(1) - ends.float()
    return (over == 0).float()
