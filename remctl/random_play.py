"""Uniformly random play under the rules of a final test: the score that everything learned is compared with."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from remctl import runner
from remctl.config import RunConfig
from remctl.envs import make_env
from remctl.exchange.agreement import interval, resampled_means
from remctl.progress import Reporter
from remctl.train.build import build_agent
from remctl.train.evaluate import play
from remctl.train.seeding import Randomness

BOUND, BOUND_EPISODES = 0.999, 100  # a final test has 100 episodes
OF_AN_AGENT = ("temperature", "variant", "preset")


def play_randomly(config: RunConfig, num_episodes: int, reporter: Reporter) -> dict[str, Any]:
    """Play the test episodes of an agent that does not decide yet, whose actions are uniform.

    Returns the score, every return (raw sums of rewards) and length in agent steps, what they belong to, and what `statistics`
    says. Raises UserError for an environment that cannot be used, Interrupted once a signal has come.
    """
    env = make_env(config.game, config.environment, training=False, seed=0)
    env.close()
    agent = build_agent(config, env.num_actions, torch.device("cpu"))
    with reporter.counting("episodes", num_episodes) as advance:
        episodes = play(agent, num_episodes, Randomness(config.seed, 0, "random"), advance, trained=False)
    found = runner.describe_run(config, episodes) | {"lengths_steps": [e.num_steps for e in episodes]}
    return {key: value for key, value in found.items() if key not in OF_AN_AGENT} | statistics(found["returns"])


def statistics(returns: list[float]) -> dict[str, Any]:
    """The 95% bootstrap interval of the mean of some returns, and the 99.9% quantile of the mean of 100 of them."""
    bound = np.quantile(resampled_means(returns, BOUND_EPISODES), BOUND)
    return {"interval": list(interval(returns)), "bound_of_100": float(bound)}
