"""Collecting experience with epsilon and life-loss ends (Algorithm 4)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from remctl.interfaces import Env, EnvStep
from remctl.rem.controller import ControllerState
from remctl.replay.buffer import Steps, empty_steps
from remctl.train.acting import Policy
from remctl.train.phases import Track
from remctl.train.seeding import Randomness

Record = dict[str, float | int | str]


class Collector:
    """The training environment, wherever it stands in its episode.

    `time_limit_ends`: an episode that the time limit cuts off is stored as one that ended.
    """

    def __init__(self, env: Env, time_limit_ends: bool = False) -> None:
        self.env = env
        self.time_limit_ends = time_limit_ends
        self.frame: np.ndarray | None = None  # None: a reset is due
        self.controller_state: ControllerState | None = None
        self.game_return, self.game_steps = 0.0, 0

    def remind(self, policy: Policy, frames: np.ndarray) -> None:
        """Have C forget a running episode but for its last stored `frames` (n, H, W, 3) uint8."""
        if self.frame is not None:
            self.controller_state = policy.reminded(frames)

    def collect(
        self, num_steps: int, policy: Policy, random: Randomness, track: Track, seeded: bool = True
    ) -> tuple[Steps, list[Record]]:
        """`num_steps` agent steps, and a record of each game that ended in them. `seeded`: the environment's resets."""
        resets = random.numpy("environment") if seeded else np.random.default_rng()
        acting = [random.numpy("acting")]
        steps = empty_steps(num_steps, policy.agent.config.environment.frame_size)
        games: list[Record] = []
        for i in track(range(num_steps), "collect", num_steps):
            steps.first[i] = self.frame is None
            if self.frame is None:
                self.frame = self.env.reset(resets)
                if self.game_steps and self.env.is_new_game:  # the last one ended unseen, after a lost life
                    games.append(self._game_ended())
                self.controller_state = policy.initial_state(1)
            assert self.controller_state is not None
            self.controller_state, actions = policy.act(self.controller_state, self.frame[None], acting)
            steps.frames[i], steps.actions[i] = self.frame, actions[0]
            result = self.env.step(int(actions[0]))
            steps.rewards[i] = result.reward
            steps.ends[i] = result.terminated or (result.truncated and self.time_limit_ends)
            games += self._account(result)
            self.frame = None if result.terminated or result.truncated else result.frame
        return steps, games

    def _account(self, result: EnvStep) -> list[Record]:
        """Returns are of whole games: a lost life ends an episode for the learner, not the game."""
        self.game_return += result.reward
        self.game_steps += 1
        return [self._game_ended()] if result.game_over or result.truncated else []

    def _game_ended(self) -> Record:
        record: Record = {"kind": "train", "return": self.game_return, "length_steps": self.game_steps}
        self.game_return, self.game_steps = 0.0, 0
        return record

    def get_state(self) -> dict[str, Any]:
        """Tensors and JSON-compatible values."""
        return {
            "env": self.env.get_state(),
            "frame": None if self.frame is None else torch.from_numpy(self.frame.copy()),
            "controller_state": None if self.controller_state is None else list(self.controller_state),
            "game_return": self.game_return,
            "game_steps": self.game_steps,
        }

    def set_state(self, state: dict[str, Any], device: torch.device) -> None:
        """Go on exactly where `get_state` was taken."""
        self.env.set_state(state["env"])
        self.frame = None if state["frame"] is None else state["frame"].cpu().numpy()
        kept = state["controller_state"]
        self.controller_state = None if kept is None else ControllerState(*(t.to(device) for t in kept))
        self.game_return, self.game_steps = state["game_return"], state["game_steps"]
