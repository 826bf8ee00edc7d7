"""The protocols between REM's parts, and the data that crosses them.

Shapes: B batch, T blocks, K tokens per observation, E embedding, A actions, N vocabulary, C H W frame.
State is a value: `step(state, x) -> (state, y)`; modules hold parameters only.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np

Frame = np.ndarray  # uint8 (H, W, 3), RGB


class EnvStep(NamedTuple):
    """What one agent step of an environment returned.

    `terminated`: the episode is over for the learner (game over, or a life lost in training).
    `truncated`: cut by the time limit; stored as not ended (METHOD section 5), it closes the segment.
    `game_over`: the underlying game is over too, so that its full return is known.
    """

    frame: Frame
    reward: float
    terminated: bool
    truncated: bool
    game_over: bool


class Env(Protocol):
    """An environment with discrete actions and 64x64 RGB frames. All randomness comes from the generator given to `reset`."""

    num_actions: int
    action_names: tuple[str, ...]

    def reset(self, rng: np.random.Generator) -> Frame: ...

    def step(self, action: int) -> EnvStep: ...

    def get_state(self) -> dict[str, Any]:
        """Everything needed to go on from here, as JSON-compatible values (bytes as base64 text)."""
        ...

    def set_state(self, state: dict[str, Any]) -> None: ...

    def close(self) -> None: ...
