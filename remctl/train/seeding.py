"""Named random streams: each is a function of seed, epoch, component and purpose, so that no generator is ever saved.

A resumed epoch draws the same numbers as an uninterrupted one. No stream depends on how many numbers another one gave, so
that two variants of one seed draw the same wherever neither is changed:

    epoch 0   V, M, C              initial weights of each parameter, by its name
    each      collect              environment (resets), acting
              tokenizer            probe, warm-up batches, warm-up masks, codebook, batches, masks
              world_model          batches, masks
              controller           batches; imagination: actions, observations, outcomes
              test, final, eval    of each episode: reset, acting
              diagnosis, inspect   starts, segments, masks; imagination, as C's, once for each use
              media                masks; imagination

"masks" are dropout's. A stream's seed is a hash (SHA-256) of all that it is named by.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch

from remctl.interfaces import ImaginationStreams


def derive_seed(seed: int, *path: str | int) -> int:
    """A 63-bit seed for what `path` names."""
    digest = hashlib.sha256(repr((seed, *path)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


@dataclass(frozen=True)
class Randomness:
    """The streams of one component, or of what else draws, in one epoch; `purpose` names a stream of it."""

    seed: int
    epoch: int
    component: str

    def stream_seed(self, *purpose: str | int) -> int:
        """Return the 63-bit seed of the stream that `purpose` names."""
        return derive_seed(self.seed, self.epoch, self.component, *purpose)

    def numpy(self, *purpose: str | int) -> np.random.Generator:
        """A numpy generator."""
        return np.random.default_rng(self.stream_seed(*purpose))

    def imagination(self, device: torch.device, *purpose: str | int) -> ImaginationStreams:
        """Generators on `device`."""
        streams = imagination_streams(device)
        self.seed_imagination(streams, *purpose)
        return streams

    def seed_imagination(self, streams: ImaginationStreams, *purpose: str | int) -> None:
        """Make `streams` draw from now on what those of `imagination` would."""
        for name, generator in streams._asdict().items():
            generator.manual_seed(self.stream_seed("imagination", *purpose, name))

    def seed_global(self, *purpose: str | int) -> None:
        """Seed torch's own generators, which dropout draws from."""
        torch.manual_seed(self.stream_seed(*purpose))


def imagination_streams(device: torch.device) -> ImaginationStreams:
    """Generators on `device`, to be seeded."""
    return ImaginationStreams(*(torch.Generator(device) for _ in ImaginationStreams._fields))
