"""Drawing from categorical distributions without a host synchronisation and with one random number per draw."""

from __future__ import annotations

import torch
from torch import Tensor


def sample_categorical(logits: Tensor, generator: torch.Generator, temperature: float = 1.0) -> Tensor:
    """One draw per leading index of logits (..., N). Returns (...), int64."""
    u = torch.rand(logits.shape[:-1], generator=generator, device=logits.device)
    return categorical_at(logits, u, temperature)


def categorical_at(logits: Tensor, u: Tensor, temperature: float = 1.0) -> Tensor:
    """Invert the distribution function of logits (..., N) at u (...), uniform in [0, 1). Returns (...), int64."""
    cdf = (logits.float() / temperature).softmax(-1).cumsum(-1)
    return (cdf <= u[..., None] * cdf[..., -1:]).sum(-1).clamp(max=logits.shape[-1] - 1)
