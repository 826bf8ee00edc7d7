"""A replay of random steps, for timing: no environment, no tokenizer. What training does with it costs what it always costs."""

from __future__ import annotations

import numpy as np
import torch

from remctl.config import RunConfig
from remctl.replay.buffer import ReplayBuffer, Steps


def random_buffer(config: RunConfig, num_actions: int, device: torch.device, num_steps: int = 256) -> ReplayBuffer:
    """One endless episode of `num_steps` steps with random frames, actions and tokens, no rewards, the same each time."""
    size, rng = config.environment.frame_size, np.random.default_rng(0)
    num_codes, num_tokens = config.tokenizer.num_codes, config.tokenizer.tokens_per_obs
    buffer = ReplayBuffer(num_steps, size, num_tokens, device)
    buffer.append(
        Steps(
            frames=rng.integers(256, size=(num_steps, size, size, 3), dtype=np.uint8),
            actions=rng.integers(num_actions, size=num_steps),
            rewards=np.zeros(num_steps, np.float32),
            ends=np.zeros(num_steps, bool),
            first=np.arange(num_steps) == 0,
        )
    )
    buffer.refresh_tokens(lambda frames: torch.from_numpy(rng.integers(num_codes, size=(len(frames), num_tokens))))
    return buffer
