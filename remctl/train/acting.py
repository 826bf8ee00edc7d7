"""C acting in real environments: one policy for collection (one environment) and tests (many at once).

State is a value: it goes into the checkpoint in the middle of an episode.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from remctl.rem.controller import ControllerState
from remctl.rem.sampling import categorical_at
from remctl.train.build import Agent


@dataclass(frozen=True)
class Policy:
    """How C acts; where it does not decide, actions are uniform (before its first epoch, if so configured)."""

    agent: Agent
    decides: bool
    temperature: float
    epsilon: float = 0.0
    executed_action_to_controller: bool = False

    def initial_state(self, num_envs: int) -> ControllerState:
        """Nothing seen yet."""
        return self.agent.controller.initial_state(num_envs)

    @torch.no_grad()
    def reminded(self, frames: np.ndarray) -> ControllerState:
        """Of one environment, after frames (n, H, W, 3) uint8 of its episode, without the actions taken on them."""
        tokens = self.agent.encode(torch.from_numpy(frames))[None]
        seen = tokens.new_ones(tokens.shape[:2], dtype=torch.bool)
        untold = [False] * len(frames)
        return self.agent.controller.burn_in(self.agent.view(tokens), tokens.new_zeros(tokens.shape[:2]), seen, untold)

    @torch.no_grad()
    def act(
        self, state: ControllerState, frames: np.ndarray, streams: Sequence[np.random.Generator]
    ) -> tuple[ControllerState, np.ndarray]:
        """One action per environment. frames (n, H, W, 3) uint8; returns the new state and actions (n,) int64.

        `streams`: one per environment. Every step takes three numbers of each, whatever is done with them, so that what one
        environment plays depends neither on the others nor on epsilon.
        """
        u_uniform, u_explore, u_own = np.stack([stream.random(3) for stream in streams], axis=1)
        uniform = (u_uniform * self.agent.controller.num_actions).astype(np.int64)
        if not self.decides:
            return state, uniform
        state, own = self._decide(state, frames, u_own)
        executed = np.where(u_explore < self.epsilon, uniform, own.cpu().numpy())
        told = torch.from_numpy(executed).to(own.device) if self.executed_action_to_controller else own
        return self.agent.controller.record_action(state, told), executed

    def _decide(self, state: ControllerState, frames: np.ndarray, u: np.ndarray) -> tuple[ControllerState, Tensor]:
        tokens = self.agent.encode(torch.from_numpy(frames))
        state, policy = self.agent.controller.observe(state, self.agent.view(tokens))
        return state, categorical_at(policy.logits, torch.from_numpy(u).to(policy.logits), self.temperature)


def reset_rows(state: ControllerState, fresh: ControllerState, rows: np.ndarray) -> ControllerState:
    """State with `rows` (n,) bool set back to `fresh`."""
    if not rows.any():
        return state
    return fresh.where(torch.from_numpy(rows).to(state.h.device), state)
