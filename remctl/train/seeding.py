"""Randomness as a function of (seed, epoch, phase): no generator ever has to be saved.

A resumed epoch draws the same numbers as an uninterrupted one, a phase's draws do not depend on how many another phase
took, and two variants of one seed see the same resets and batches wherever they can.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator


def derive_seed(seed: int, *path: str | int) -> int:
    """A 63-bit seed for what `path` names."""
    digest = hashlib.sha256(repr((seed, *path)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


@dataclass(frozen=True)
class Randomness:
    """All draws of one phase of one epoch."""

    seed: int
    epoch: int
    phase: str

    def numpy(self, *path: str | int) -> np.random.Generator:
        """A numpy generator; `path` names a stream within the phase."""
        return np.random.default_rng(derive_seed(self.seed, self.epoch, self.phase, *path))

    def torch(self, device: torch.device, *path: str | int) -> Generator:
        """A torch generator on `device`."""
        return self.seed_generator(Generator(device), *path)

    def seed_generator(self, generator: Generator, *path: str | int) -> Generator:
        """`generator`, which from now on draws what one of `torch` would."""
        return generator.manual_seed(derive_seed(self.seed, self.epoch, self.phase, *path))

    def seed_global(self) -> None:
        """Seed torch's own generators, which dropout and initialisation draw from."""
        torch.manual_seed(derive_seed(self.seed, self.epoch, self.phase, "global"))
