"""Drawing from categorical distributions without a host synchronisation and with one random number per draw."""

from __future__ import annotations

import torch
from torch import Tensor


def sample_categorical(logits: Tensor, generator: torch.Generator, temperature: float = 1.0) -> Tensor:
    """One draw per leading index of logits (..., N), by inversion of the distribution function. Returns (...), int64."""
    cdf = (logits.float() / temperature).softmax(-1).cumsum(-1)
    u = torch.rand(*cdf.shape[:-1], 1, generator=generator, device=cdf.device)
    return (cdf <= u * cdf[..., -1:]).sum(-1).clamp(max=logits.shape[-1] - 1)
