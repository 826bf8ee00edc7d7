"""A whole run from its measured phases: what an epoch costs beside the training steps, and the hours of all epochs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np

from remctl.bench.numbers import HOUR_S
from remctl.bench.result import Prediction
from remctl.config import RunConfig, config_hash
from remctl.envs import make_env
from remctl.replay.buffer import ENCODE_BATCH
from remctl.train.acting import Policy
from remctl.train.build import Agent
from remctl.train.collector import Collector
from remctl.train.remaining import COLLECT, ENCODE, FINAL, TEST, TRAINED, WARM_UP, work_left
from remctl.train.seeding import Randomness
from remctl.train.trainer import capacity

COLLECTED_STEPS = 20  # agent steps of one measurement
TEST_EPISODE_STEPS = 1000  # assumed: how long a game lasts depends on the game and on how well it is played
ASSUMPTION = (
    f"test episodes of {TEST_EPISODE_STEPS:,} agent steps, all steps collected by a trained C, a warm-up at its longest; "
    "without checkpoints, diagnosis and media"
)


class Surroundings:
    """What an epoch does around the training steps: collecting, encoding, test steps; environments are real."""

    def __init__(self, agent: Agent) -> None:
        config = agent.config
        self.agent = agent
        self.collector = Collector(make_env(config.game, config.environment, training=True, seed=0))
        self.policy = Policy(agent, True, config.collection.temperature, config.collection.epsilon)
        self.test_policy = Policy(agent, True, config.evaluation.temperature)
        self.random = Randomness(0, 0, "bench")
        self.rng = self.random.numpy("reset")
        self.envs = [
            make_env(config.game, config.environment, training=False, seed=i) for i in range(test_envs(config))
        ]
        self.acting = [self.random.numpy("acting", i) for i in range(len(self.envs))]
        self.frames = np.stack([env.reset(self.rng) for env in self.envs])
        self.state = self.test_policy.initial_state(len(self.envs))
        frame_size = config.environment.frame_size
        self.batch = agent.tokenizer.codebook.weight.new_zeros((ENCODE_BATCH, frame_size, frame_size, 3)).byte()

    def works(self) -> dict[str, Callable[[], object]]:
        """Phase to one measurement of it: COLLECTED_STEPS steps, ENCODE_BATCH frames, one step of all test environments."""
        return {"collect": self._collect, "encode": lambda: self.agent.encode(self.batch), "test": self._test_step}

    def _collect(self) -> None:
        def untracked(steps: Iterable[int], name: str, total: int) -> Iterable[int]:
            return steps

        self.collector.collect(COLLECTED_STEPS, self.policy, self.random, untracked)

    def _test_step(self) -> None:
        self.state, actions = self.test_policy.act(self.state, self.frames, self.acting)
        for i, (env, action) in enumerate(zip(self.envs, actions, strict=True)):
            result = env.step(int(action))
            over = result.terminated or result.truncated
            self.frames[i] = env.reset(self.rng) if over else result.frame

    def close(self) -> None:
        """End the environments."""
        for env in (self.collector.env, *self.envs):
            env.close()


def num_actions(config: RunConfig) -> int:
    """Of the configuration's environment."""
    env = make_env(config.game, config.environment, training=True, seed=0)
    env.close()
    return env.num_actions


def runs_per_epoch(config: RunConfig) -> dict[str, float]:
    """Measurements of each phase in an epoch of a full-grown run; of a test its share of every epoch."""
    e = config.evaluation
    return {
        "collect": config.collection.steps_per_epoch / COLLECTED_STEPS,
        "encode": capacity(config) / ENCODE_BATCH,
        "test": e.num_episodes * TEST_EPISODE_STEPS / test_envs(config) / e.every_epochs,
    }


def test_envs(config: RunConfig) -> int:
    """Environments that play a test side by side."""
    return min(config.evaluation.num_envs, config.evaluation.num_episodes)


def predict(config: RunConfig, seconds: Mapping[str, float], label: str) -> Prediction:
    """Hours of a whole run; `seconds`: of one training step of each component, and of one measurement of the others."""
    work, e = work_left(config, 0), config.evaluation
    rounds = work[TEST] / test_envs(config) + work[FINAL] / min(e.num_envs, e.final_episodes)
    count = {name: work[loop] for name, loop in TRAINED.items()}
    count["tokenizer"] += work[WARM_UP]
    count["collect"] = work[COLLECT] / COLLECTED_STEPS
    count["encode"] = work[ENCODE] / ENCODE_BATCH
    count["test"] = rounds * TEST_EPISODE_STEPS  # steps of all test environments side by side
    hours = {name: times * seconds[name] / HOUR_S for name, times in count.items()}
    epochs = config.training.num_epochs
    return Prediction(
        label=label,
        config_hash=config_hash(config),
        num_epochs=epochs,
        hours=sum(hours.values()),
        phase_hours=hours,
        assumption=ASSUMPTION,
    )
