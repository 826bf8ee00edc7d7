"""What is wrong with an agent, if anything: imagination against the environment, V, M and C on held-out steps.

World models are judged by imagination here, not by replay loss: a reward loss of 0.01 on replay goes with a reward
precision of 0.4 in imagination. Everything is computed on steps that were not trained on (`evaluate.as_steps`), or on
any others, without gradients; equal `random` gives equal numbers. Undefined ones (nothing imagined, nothing real) are
None, in `flat` NaN.

Shapes: B starts of a batch, S starts, H steps (`num_rewarded_steps`), F frames, K tokens per observation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from remctl.rem.imagination import Start, imagine, model_context, step_weights
from remctl.rem.tokenizer import ImageLoss, to_model_range
from remctl.rem.world_model import Imagined
from remctl.replay.buffer import Episodes, ReplayBuffer, Steps
from remctl.train.build import Agent
from remctl.train.seeding import Randomness

Diagnosis = dict[str, Any]

START_BATCH = 64
FRAME_BATCH = 128
MAX_FRAMES = 2048  # held-out frames that V is judged by, evenly spread
MAX_SEGMENTS = 512  # held-out segments that M's losses are computed on
CONTEXTS = ("1", "2", "3+")
REWARD_SIGNS = {"-1": -1, "+1": 1}


class Comparison(NamedTuple):
    """Imagination beside reality, one entry per start and step (S, H), in numpy.

    happened: reality has this step (action, reward, end). seen: it also has the frame that follows; `right`, `moving`
    and the like are 0 where not. `still_` is the prediction that nothing changes: the start's frame, for ever.
    changed: tokens that differ from the previous real frame's. moving: pixels (times 3 channels) that do; their errors
    are sums of squares in [-1, 1] against V's reconstruction of the real frame. reward: sign. end: bool.
    """

    happened: np.ndarray
    seen: np.ndarray
    right: np.ndarray
    still_right: np.ndarray
    changed: np.ndarray
    changed_right: np.ndarray
    changed_still_right: np.ndarray
    moving: np.ndarray
    moving_error: np.ndarray
    moving_still_error: np.ndarray
    reward_imagined: np.ndarray
    reward_real: np.ndarray
    end_imagined: np.ndarray
    end_real: np.ndarray

    def select(self, where: Any) -> Comparison:
        """Any numpy index, the same for all fields."""
        return Comparison(*(field[where] for field in self))


class Rollouts(NamedTuple):
    """C acting in M beside what really followed, per start (S,): lengths in steps, returns of reward signs, discounted."""

    imagined_length: np.ndarray
    true_length: np.ndarray
    imagined_return: np.ndarray
    real_return: np.ndarray
    value: np.ndarray
    entropy: np.ndarray


@torch.no_grad()
def diagnose(agent: Agent, steps: Steps, image_loss: ImageLoss, random: Randomness, num_starts: int) -> Diagnosis:
    """Nested, JSON-compatible: `imagination`, `returns`, `tokenizer`, `policy`, `losses`, and what they rest on.

    imagination: M under the same actions as reality, from up to `num_starts` uniformly drawn frames; every stored frame
    is one, as its own action, reward and end are stored with it. Comparison ends where the real episode does, whatever
    M thinks. Of all imagined ends, precision is the share at whose step reality ends, recall the share of real ends
    that M imagines at their step; of rewards the same, per sign. A time limit is no end. For the starts with one or two
    real frames only, more are drawn; they count in `by_context` alone.

    returns: C acting in M (temperature 1) beside the stored steps (whoever acted in them), both over the horizon;
    where the recording is cut before, both over what there is.

    tokenizer: mean squared errors in [-1, 1]. losses: as in training, means over the batches.
    """
    assert len(steps) > 0, "no steps to diagnose"
    buffer = _buffer(agent, steps)
    starts, num_drawn = choose_starts(buffer.episodes, num_starts, random.numpy("starts"))
    generator = random.torch(agent.device, "imagination")
    frames = np.unique(np.linspace(0, len(steps) - 1, MAX_FRAMES).round().astype(np.int64))
    with _evaluation(agent, random), agent.autocast():
        buffer.refresh_tokens(agent.encode)
        compared = [compare(agent, buffer, index, generator) for index in _batches(starts, START_BATCH)]
        rollouts = [roll_out(agent, buffer, index, generator) for index in _batches(starts[:num_drawn], START_BATCH)]
        tokenizer, tokenizer_losses = _tokenizer(agent, buffer, frames, image_loss)
        world_model_losses = _world_model_losses(agent, buffer, random.numpy("segments"))
    joined = Comparison(*map(np.concatenate, zip(*compared, strict=True)))
    means = {name: float(x.mean()) for name, x in _join(rollouts)._asdict().items()}
    return {
        "num_steps": len(steps),
        "num_episodes": int(buffer.episodes.first.sum()),
        "num_starts": num_drawn,
        "num_starts_wanted": num_starts,
        "horizon_steps": agent.config.num_rewarded_steps,
        "imagination": summarize(joined, buffer.episodes.before[starts] + 1, num_drawn),
        "returns": {name: means[name] for name in Rollouts._fields[:4]},
        "tokenizer": tokenizer,
        "policy": {name: means[name] for name in Rollouts._fields[4:]},
        "losses": {"tokenizer": tokenizer_losses, "world_model": world_model_losses},
    }
