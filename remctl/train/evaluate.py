"""Test episodes: many environments at once, batched through the policy.

Episode i has its own seed, and every episode that is started is played to its end: no episode is favoured for being
short. An environment that has finished one takes the next.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from remctl.envs import make_env
from remctl.interfaces import Env, EnvStep
from remctl.replay.buffer import Steps
from remctl.train.acting import Policy, reset_rows
from remctl.train.build import Agent
from remctl.train.seeding import Randomness, derive_seed

MAX_KEPT_STEPS = 1000


class Advance(Protocol):
    """Told after every batched step how many episodes are done; may raise to leave."""

    def __call__(self, num_done: int) -> None: ...


@dataclass
class Episode:
    """One test episode: its return, and its first MAX_KEPT_STEPS steps."""

    index: int
    total_return: float = 0.0
    num_steps: int = 0
    frames: list[np.ndarray] = field(default_factory=list)
    actions: list[int] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    ends: list[bool] = field(default_factory=list)

    def add(self, frame: np.ndarray, action: int, result: EnvStep, keep: bool) -> None:
        self.total_return += result.reward
        self.num_steps += 1
        if keep and len(self.frames) < MAX_KEPT_STEPS:
            self.frames.append(frame)
            self.actions.append(action)
            self.rewards.append(result.reward)
            self.ends.append(result.terminated)


def play(
    agent: Agent, num_episodes: int, random: Randomness, advance: Advance, trained: bool = True, keep_steps: bool = False
) -> list[Episode]:
    """`num_episodes` test episodes in the order of their index. No epsilon, no life-loss ends, the test temperature."""
    config = agent.config
    policy = Policy(agent, trained, config.evaluation.temperature, 0.0, True)
    num_envs = min(config.evaluation.num_envs, num_episodes)
    envs = [
        make_env(config.game, config.environment, training=False, seed=derive_seed(config.seed, "test env", i) % 2**31)
        for i in range(num_envs)
    ]
    try:
        return _play(envs, policy, num_episodes, random, advance, keep_steps)
    finally:
        for env in envs:
            env.close()


def _play(
    envs: list[Env], policy: Policy, num_episodes: int, random: Randomness, advance: Advance, keep_steps: bool
) -> list[Episode]:
    rng, generator = random.numpy("actions"), random.torch(policy.agent.device, "actions")
    waiting = [Episode(i) for i in range(num_episodes)]
    running = [waiting.pop(0) for _ in envs]
    frames = np.stack([env.reset(random.numpy("reset", e.index)) for env, e in zip(envs, running, strict=True)])
    state, done = policy.initial_state(len(envs)), []
    envs = list(envs)
    while running:
        state, actions = policy.act(state, frames, rng, generator)
        results = [env.step(int(a)) for env, a in zip(envs, actions, strict=True)]
        for episode, frame, action, result in zip(running, frames, actions, results, strict=True):
            episode.add(frame, int(action), result, keep_steps)
        frames = np.stack([r.frame for r in results])
        over = np.array([r.terminated or r.truncated for r in results])
        done += [e for e, is_over in zip(running, over, strict=True) if is_over]
        state = reset_rows(state, policy.initial_state(len(envs)), over)
        stay = ~over
        for i in np.flatnonzero(over)[: len(waiting)]:
            running[i], stay[i] = waiting.pop(0), True
            frames[i] = envs[i].reset(random.numpy("reset", running[i].index))
        if not stay.all():
            envs = [e for e, s in zip(envs, stay, strict=True) if s]
            running = [e for e, s in zip(running, stay, strict=True) if s]
            frames, state = frames[stay], state.rows(stay)
        advance(len(done))
    return sorted(done, key=lambda e: e.index)


def as_steps(episodes: list[Episode]) -> Steps:
    """The kept steps of test episodes, as the replay buffer takes them."""
    first = [[i == 0 for i in range(len(e.frames))] for e in episodes]
    return Steps(
        frames=np.concatenate([np.stack(e.frames) for e in episodes]),
        actions=np.concatenate([e.actions for e in episodes]).astype(np.int64),
        rewards=np.concatenate([e.rewards for e in episodes]).astype(np.float32),
        ends=np.concatenate([e.ends for e in episodes]).astype(bool),
        first=np.concatenate(first).astype(bool),
    )
