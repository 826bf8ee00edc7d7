"""lambda-returns (paper Section A.1.2; Sutton and Barto 2018)."""

from __future__ import annotations

import torch
from torch import Tensor


def lambda_returns(rewards: Tensor, values: Tensor, ends: Tensor, discount: float, lambda_: float) -> Tensor:
    """G_t = r_t + discount (1 - d_t) ((1 - lambda) V_{t+1} + lambda G_{t+1}), bootstrapped from the last value.

    rewards, ends (B, T); values (B, T+1). Returns (B, T) without a gradient.
    """
    assert values.shape[1] == rewards.shape[1] + 1 == ends.shape[1] + 1, (rewards.shape, values.shape, ends.shape)
    values = values.detach()
    keep = discount * (1 - ends.to(values.dtype))
    result = values[:, -1]
    returns = []
    for t in reversed(range(rewards.shape[1])):
        result = rewards[:, t] + keep[:, t] * ((1 - lambda_) * values[:, t + 1] + lambda_ * result)
        returns.append(result)
    return torch.stack(returns[::-1], dim=1)
