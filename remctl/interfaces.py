"""The protocols between REM's parts, and the data that crosses them.

Shapes: B batch, T blocks, K tokens per observation, E embedding, N vocabulary, A actions, C H W frame, F burn-in frames.
State is a value: `step(state, x) -> (state, y)`; modules hold parameters only. Importing this imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

import numpy as np

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    View = Callable[[Tensor], "Tensor | Convolved"]  # tokens (..., K) to what C observes

Frame = np.ndarray  # uint8 (H, W, 3), RGB
S = TypeVar("S")


# Environment


class EnvStep(NamedTuple):
    """What one agent step of an environment returned.

    `terminated`: the episode is over for the learner (game over, or a life lost in training).
    `truncated`: cut by the time limit; stored as not ended, it closes the segment.
    `game_over`: the underlying game is over too, so that its full return is known.
    """

    frame: Frame
    reward: float
    terminated: bool
    truncated: bool
    game_over: bool


class Env(Protocol):
    """Discrete actions, square RGB frames of `environment.frame_size`. What is random comes from `reset`'s generator.

    `is_new_game`: whether the last `reset` began a game; False where it went on with one in which a life was lost.
    """

    num_actions: int
    action_names: tuple[str, ...]
    is_new_game: bool

    def reset(self, rng: np.random.Generator) -> Frame: ...

    def step(self, action: int) -> EnvStep: ...

    def get_state(self) -> dict[str, Any]:
        """Everything needed to go on from here, as JSON-compatible values (bytes as base64 text)."""
        ...

    def set_state(self, state: dict[str, Any]) -> None: ...

    def close(self) -> None: ...


# Replay to world model and controller


class Segment(NamedTuple):
    """Consecutive steps of one episode per row, padded right.

    tokens (B, T, K) int64; actions (B, T) int64; rewards (B, T) float32; ends (B, T) bool; real (B, T) bool, False on
    padding; starts_episode (B,) bool: whether block 0 is an episode's first.
    """

    tokens: Tensor
    actions: Tensor
    rewards: Tensor
    ends: Tensor
    real: Tensor
    starts_episode: Tensor

    def parts(self, size: int) -> list[Segment]:
        """Itself in parts of `size` rows, the last one with what is left."""
        starts = range(0, len(self.real), size)
        return [Segment(*(t[i : i + size] for t in self)) for i in starts]


class Start(NamedTuple):
    """Real frames to start from, padded left, the last one current.

    tokens (B, F+1, K); actions (B, F) of all but the current frame; real (B, F+1) bool.
    """

    tokens: Tensor
    actions: Tensor
    real: Tensor


# World model


class ImaginationStreams(NamedTuple):
    """What a rollout draws from: C's actions, M's observations, and its rewards and ends. None shifts another's draws."""

    actions: torch.Generator
    observations: torch.Generator
    outcomes: torch.Generator


class Imagined(NamedTuple):
    """What follows an action: next observation `tokens` (B, K), `reward` (B,) in {-1, 0, 1}, `end` (B,) bool."""

    tokens: Tensor
    reward: Tensor
    end: Tensor


class SequenceModel(Protocol):
    """What M's tokens go through: the RetNet, or IRIS' Transformer; M alone knows embeddings and heads. State is a value."""

    @property
    def name(self) -> str:
        """Of its parameters within M."""
        ...

    @property
    def max_positions(self) -> int | None:
        """Its window in tokens; None without limit."""
        ...

    def initial_state(self, batch_size: int, like: Tensor) -> Any:
        """Nothing seen; on the device of `like` (any shape)."""
        ...

    def compiled(self, **options: Any) -> Callable[[], AbstractContextManager[None]]:
        """A context in which its layers run compiled, if that can gain anything; `options` as torch.compile's."""
        ...

    def __call__(self, real: Tensor, state: Any, start: int = 0, *, keep: Tensor | None = None, **pop: Any) -> Any:
        """Blocks real (B, T, n, E) from absolute position `start`: an output with `real` (B, T, n, E) and `state`.

        keep (B, T) bool: blocks that are False have no influence on anything behind them.
        """
        ...


class WorldModel(Protocol[S]):
    """M: trained on segments, stepped in imagination. S is its state, whatever that holds."""

    def loss(
        self, segment: Segment, code_vectors: Tensor, whole: Segment | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Total loss and its terms `observation_loss`, `reward_loss`, `end_loss`. code_vectors (N, E): V's, not trained.

        `whole`: the batch that `segment` is a part of; the losses of its parts add up to its own.
        """
        ...

    def begin(self, tokens: Tensor, actions: Tensor, real: Tensor, code_vectors: Tensor) -> S:
        """The state after context observations (B, T, K), the current one last; actions, real (B, T-1) of the earlier."""
        ...

    def step(self, state: S, action: Tensor, streams: ImaginationStreams) -> tuple[S, Imagined]:
        """Take `action` (B,) on the current observation."""
        ...


# Controller


class PolicyValue(NamedTuple):
    """logits (B, A), value (B,)."""

    logits: Tensor
    value: Tensor


class Convolved(NamedTuple):
    """Codes after C's first convolution: output (..., O, h, w)."""

    output: Tensor


class Controller(Protocol[S]):
    """C: observes, decides, and is told what was done.

    observation: codes (B, E, h, w), before or after the first convolution, or frames (B, 3, H, W); action (B,). burn_in:
    observations (B, F, ...), actions and real (B, F), padded left; feed_action[f]: whether C is told the action of frame f.
    """

    def initial_state(self, batch_size: int) -> S: ...

    def view_by_table(self, code_vectors: Tensor, num_tokens: int) -> View | None:
        """A view that does the first convolution of code_vectors (N, E) too, if that pays for `num_tokens`; else None."""
        ...

    def observe(self, state: S, observation: Tensor | Convolved) -> tuple[S, PolicyValue]: ...

    def record_action(self, state: S, action: Tensor) -> S: ...

    def burn_in(
        self,
        observations: Tensor | Convolved,
        actions: Tensor,
        real: Tensor,
        feed_action: list[bool],
        action_gradient: bool = False,
    ) -> S: ...
