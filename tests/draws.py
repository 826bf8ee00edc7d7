"""What tests of imagination draw from."""

import torch

from remctl.interfaces import ImaginationStreams
from remctl.train.seeding import Randomness


def streams(seed: int = 0) -> ImaginationStreams:
    """Of a seed, on the CPU."""
    return Randomness(seed, 0, "test").imagination(torch.device("cpu"))
