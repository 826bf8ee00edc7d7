"""Test episodes: many environments at once, batched through the policy.

Episode i has its own seed, and every episode that is started is played to its end: no episode is favoured for being
short. An environment that has finished one takes the next.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from remctl.envs import make_env
from remctl.interfaces import Env, EnvStep
from remctl.replay.buffer import Steps, concatenate, empty_steps
from remctl.train.acting import Policy, reset_rows
from remctl.train.build import Agent
from remctl.train.seeding import Randomness, derive_seed

MAX_KEPT_STEPS = 1000
Advance = Callable[[int], None]  # given after every batched step how many episodes are done; may raise to leave


class Episode:
    """One test episode: its return and, where kept, its first MAX_KEPT_STEPS steps in arrays of one piece.

    (Many small arrays between a network's temporary ones would tear the heap to gigabytes.)
    """

    def __init__(self, index: int, frame_size: int, keep: bool) -> None:
        self.index = index
        self.total_return, self.num_steps = 0.0, 0
        self.kept = empty_steps(MAX_KEPT_STEPS if keep else 0, frame_size)

    def add(self, frame: np.ndarray, action: int, result: EnvStep) -> None:
        """Count a step, and keep its frame (H, W, 3) while there is room."""
        i = self.num_steps
        if i < len(self.kept):
            self.kept.frames[i], self.kept.actions[i], self.kept.first[i] = frame, action, i == 0
            self.kept.rewards[i], self.kept.ends[i] = result.reward, result.terminated
        self.total_return += result.reward
        self.num_steps += 1

    def steps(self) -> Steps:
        """What was kept."""
        return self.kept.first_steps(self.num_steps)


def play(
    agent: Agent, num_episodes: int, random: Randomness, advance: Advance, trained: bool, num_kept: int = 0
) -> list[Episode]:
    """`num_episodes` test episodes in the order of their index, the first `num_kept` with their steps.

    No epsilon, no life-loss ends, the test temperature; uniform actions where C is not `trained` yet.
    """
    config = agent.config
    policy = Policy(agent, trained, config.evaluation.temperature)
    num_envs = min(config.evaluation.num_envs, num_episodes)
    envs = [
        make_env(config.game, config.environment, training=False, seed=derive_seed(config.seed, "test env", i) % 2**31)
        for i in range(num_envs)
    ]
    try:
        waiting = [Episode(i, config.environment.frame_size, i < num_kept) for i in range(num_episodes)]
        return _play(envs, policy, waiting, random, advance)
    finally:
        for env in envs:
            env.close()


def _play(
    envs: list[Env], policy: Policy, waiting: list[Episode], random: Randomness, advance: Advance
) -> list[Episode]:
    running = [waiting.pop(0) for _ in envs]
    acting = {episode.index: random.numpy("acting", episode.index) for episode in (*running, *waiting)}
    frames = np.stack([env.reset(random.numpy("reset", e.index)) for env, e in zip(envs, running, strict=True)])
    state, done = policy.initial_state(len(envs)), []
    envs = list(envs)
    while running:
        state, actions = policy.act(state, frames, [acting[episode.index] for episode in running])
        results = [env.step(int(a)) for env, a in zip(envs, actions, strict=True)]
        for episode, frame, action, result in zip(running, frames, actions, results, strict=True):
            episode.add(frame, int(action), result)
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
    """The kept steps of test episodes, one after the other, as the replay buffer takes them."""
    return concatenate([e.steps() for e in episodes])
