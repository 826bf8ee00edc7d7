"""The replay buffer: every real step as tensors on one device, and a token per code cached per frame.

Shapes: S stored steps, H W frame size, K tokens. Frames are uint8 (S, H, W, 3), 12 KiB each. A step is the observation,
the action taken on it, the reward and whether the episode ended; the frame after an end is never stored. A time limit
closes a segment without an end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from remctl.interfaces import Segment, Start

ENCODE_BATCH = 256
NONE = -1  # in the place of a step, where a batch is not full


@dataclass
class Steps:
    """Consecutive steps in host memory, as collected and as kept on disk.

    frames (S, H, W, 3) uint8; actions (S,) int64; rewards (S,) float32; ends (S,) bool; first (S,) bool: an episode's
    first step (after a reset or a life loss).
    """

    frames: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    ends: np.ndarray
    first: np.ndarray

    def __len__(self) -> int:
        return len(self.actions)

    def first_steps(self, count: int) -> Steps:
        """The first `count` steps, or all where there are fewer; views."""
        return Steps(*(getattr(self, f.name)[:count] for f in fields(self)))


def empty_steps(count: int, frame_size: int) -> Steps:
    """Room for `count` steps, not initialised; memory is taken as it is written."""
    return Steps(
        frames=np.empty((count, frame_size, frame_size, 3), np.uint8),
        actions=np.empty(count, np.int64),
        rewards=np.empty(count, np.float32),
        ends=np.empty(count, bool),
        first=np.empty(count, bool),
    )


def concatenate(parts: list[Steps]) -> Steps:
    """One after the other."""
    return Steps(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Steps)))


class Window(NamedTuple):
    """Consecutive steps of one episode, on the device: indices `where` (..., n), and which of them are `real` (..., n).

    Made for a whole phase at once, so that its loop copies nothing from the host.
    """

    where: Tensor
    real: Tensor

    def at(self, step: int) -> Window:
        """One training step's windows, of those of a phase."""
        return Window(self.where[step], self.real[step])


class Episodes:
    """Where each stored step lies in its episode: `start` and `stop` (S,) are the episode's bounds, in step indices."""

    def __init__(self, first: np.ndarray) -> None:
        starts = np.flatnonzero(first)
        number = np.cumsum(first) - 1
        self.start = starts[number]
        self.stop = np.append(starts[1:], len(first))[number]
        index = np.arange(len(first))
        self.before = index - self.start
        self.remaining = self.stop - index


class ReplayBuffer:
    """Frames, actions, rewards, ends and tokens of up to `capacity` steps on `device`."""

    def __init__(self, capacity: int, frame_size: int, tokens_per_obs: int, device: torch.device) -> None:
        self.device = device
        # torch.empty touches no page before it is written: a young buffer costs no memory.
        self.frames = torch.empty((capacity, frame_size, frame_size, 3), dtype=torch.uint8, device=device)
        self.tokens = torch.empty((capacity, tokens_per_obs), dtype=torch.int32, device=device)
        self.actions = torch.empty(capacity, dtype=torch.int64, device=device)
        self.rewards = torch.empty(capacity, dtype=torch.float32, device=device)
        self.ends = torch.empty(capacity, dtype=torch.bool, device=device)
        self.starts_episode = torch.empty(capacity, dtype=torch.bool, device=device)
        self.first = np.zeros(capacity, dtype=bool)
        self.size = 0
        self.num_tokenized = 0
        self.episodes = Episodes(self.first[:0])

    def append(self, steps: Steps) -> None:
        """Add consecutive steps. The first step ever stored must be an episode's first."""
        assert self.size + len(steps) <= len(self.first), (self.size, len(steps), len(self.first))
        where = slice(self.size, self.size + len(steps))
        for name in ("frames", "actions", "rewards", "ends"):
            getattr(self, name)[where] = torch.from_numpy(getattr(steps, name)).to(self.device)
        self.first[where] = steps.first
        self.starts_episode[where] = torch.from_numpy(steps.first).to(self.device)
        self.size += len(steps)
        assert self.first[0]
        self.episodes = Episodes(self.first[: self.size])

    def forget_tokens(self) -> None:
        """The tokenizer has changed: every cached token is stale."""
        self.num_tokenized = 0

    @torch.no_grad()
    def refresh_tokens(
        self, encode: Callable[[Tensor], Tensor], advance: Callable[[int], None] = lambda num_done: None
    ) -> int:
        """Encode the frames whose tokens are stale; returns how many. encode: uint8 frames to tokens (B, K).

        `advance` is given the number of frames done, before each batch, and may raise to leave: those frames count.

        Batches lie on fixed boundaries and have one size, so that a frame's tokens do not depend on when it was encoded:
        a resumed run, which encodes everything again, gets the same ones to the bit.
        """
        num_stale = self.size - self.num_tokenized
        for begin in range(self.num_tokenized // ENCODE_BATCH * ENCODE_BATCH, self.size, ENCODE_BATCH):
            advance(self.num_tokenized - (self.size - num_stale))
            end = min(begin + ENCODE_BATCH, self.size)
            batch = self.frames[begin : begin + ENCODE_BATCH]
            if end - begin < ENCODE_BATCH:
                batch = self.frames.new_zeros((ENCODE_BATCH, *self.frames.shape[1:]))
                batch[: end - begin] = self.frames[begin:end]
            self.tokens[begin:end] = encode(batch)[: end - begin].to(torch.int32)
            self.num_tokenized = end
        return num_stale

    def frames_at(self, index: Tensor) -> Tensor:
        """(B, H, W, 3) uint8; some frame in the place of NONE."""
        return self.frames[index.clamp(min=0)]

    def last_frames(self, most: int) -> np.ndarray:
        """Of the newest episode, in order: up to `most` frames (n, H, W, 3) uint8, on the host."""
        if self.size == 0:
            return self.frames[:0].cpu().numpy()
        begin = max(int(self.episodes.start[-1]), self.size - most)
        return self.frames[begin : self.size].cpu().numpy()

    def after(self, starts: np.ndarray, num_steps: int) -> Window:
        """Windows of `num_steps` from the steps `starts` (any shape) on, padded right where the episode is over.

        In those of NONE nothing is real, here and in `before`.
        """
        offset = np.arange(num_steps)
        return self._window(starts, offset, offset < self.episodes.remaining[starts][..., None])

    def before(self, current: np.ndarray, num_before: int) -> Window:
        """Windows of up to `num_before` steps before `current` (any shape) and that one, padded left at the episode's start."""
        offset = np.arange(-num_before, 1)
        return self._window(current, offset, offset + self.episodes.before[current][..., None] >= 0)

    def segment(self, window: Window) -> Segment:
        """What M is trained on, of windows padded right."""
        where, real = window
        return Segment(
            tokens=self._tokens(window),
            actions=self.actions[where].masked_fill(~real, 0),
            rewards=self.rewards[where].masked_fill(~real, 0.0),
            ends=self.ends[where] & real,
            real=real,
            starts_episode=self.starts_episode[where[..., 0]],
        )

    def start(self, window: Window) -> Start:
        """What imagination starts from, of windows padded left."""
        where, real = window
        return Start(self._tokens(window), self.actions[where].masked_fill(~real, 0)[..., :-1], real)

    def segments(self, starts: np.ndarray, num_blocks: int) -> Segment:
        """The segments that begin at the steps `starts` (B,)."""
        return self.segment(self.after(starts, num_blocks))

    def starts(self, current: np.ndarray, num_before: int) -> Start:
        """The starting points whose current steps are `current` (B,)."""
        return self.start(self.before(current, num_before))

    def _tokens(self, window: Window) -> Tensor:
        assert self.num_tokenized == self.size, "tokens are stale: refresh_tokens first"
        # Padding is code 0 and action 0, never a neighbour episode's content.
        return self.tokens[window.where].long().masked_fill(~window.real[..., None], 0)

    def _window(self, at: np.ndarray, offset: np.ndarray, real: np.ndarray) -> Window:
        at, real = np.maximum(at, 0), real & (at != NONE)[..., None]
        index = np.where(real, at[..., None] + offset, at[..., None])
        return Window(self._to_device(index), self._to_device(real))

    def _to_device(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)
