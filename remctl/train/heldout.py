"""V's errors and V's and M's training losses on held-out steps (Figure 15 plots M's observation loss, training and test).

Shapes: F frames, K tokens per observation, N codes. Called without gradients and in evaluation mode.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from remctl.rem.tokenizer import ImageLoss, to_model_range
from remctl.replay.buffer import ReplayBuffer
from remctl.train.build import Agent

Losses = tuple[int, Tensor, dict[str, Tensor]]  # batch size, total, terms

FRAME_BATCH = 128
MAX_FRAMES = 512  # that V is judged by, evenly spread
MAX_SEGMENTS = 256  # that M's losses are computed on


def judge_tokenizer(
    agent: Agent, buffer: ReplayBuffer, image_loss: ImageLoss
) -> tuple[dict[str, Any], dict[str, float]]:
    """V's errors beside the median image's on the same frames, its use of codes on all, its losses."""
    index = np.unique(np.linspace(0, buffer.size - 1, MAX_FRAMES).round().astype(np.int64))
    pixels = buffer.frames_at(torch.from_numpy(index).to(agent.device))
    median = to_model_range(torch.from_numpy(np.median(pixels.cpu().numpy(), axis=0)).to(agent.device))
    errors, losses = [], []
    for batch in pixels.split(FRAME_BATCH):
        frames = to_model_range(batch)
        squares = (agent.tokenizer.reconstruct(frames) - frames).square().flatten(1)
        of_median = (median - frames).square().flatten(1)
        errors.append(torch.stack([squares.mean(1), squares.amax(1), of_median.mean(1)]))
        losses.append((len(batch), *agent.tokenizer.loss(frames, image_loss)))
    error, worst, median_error = torch.cat(errors, dim=1).cpu().numpy()
    report = {
        "num_frames": len(index),
        "reconstruction_error": float(error.mean()),
        "median_image_error": float(median_error.mean()),
        "reconstruction_to_median_ratio": ratio(error, median_error),
        "worst_pixel_error": float(worst.mean()),
    }
    return report | code_use(buffer.tokens, agent.config.tokenizer.num_codes), _mean_losses(losses)


def code_use(tokens: Tensor, num_codes: int) -> dict[str, Any]:
    """Perplexity (the exponential of the entropy) and number of the codes in tokens (any shape), of N."""
    share = torch.bincount(tokens.flatten().long(), minlength=num_codes).double() / tokens.numel()
    perplexity = float((-torch.xlogy(share, share).sum()).exp())
    return {"code_perplexity": perplexity, "used_codes": int((share > 0).sum()), "num_codes": num_codes}


def judge_world_model(agent: Agent, buffer: ReplayBuffer, rng: np.random.Generator) -> dict[str, float] | None:
    """On up to MAX_SEGMENTS training segments; None where no episode is long enough for one."""
    config = agent.config.world_model
    admissible = np.flatnonzero(buffer.episodes.remaining >= agent.config.min_segment_blocks)
    starts = rng.permutation(admissible)[:MAX_SEGMENTS]
    size, losses = config.training.batch_size, []
    for i in range(0, len(starts), size):
        segment = buffer.segments(starts[i : i + size], config.sequence_blocks)
        losses.append((len(segment.actions), *agent.world_model.loss(segment, agent.tokenizer.code_vectors)))
    return _mean_losses(losses) if losses else None


def _mean_losses(batches: list[Losses]) -> dict[str, float]:
    """Means over batches weighted by their sizes, under the names of training."""
    sizes = [size for size, _, _ in batches]
    named = [{"loss": loss} | terms for _, loss, terms in batches]
    return {name: float(np.average([float(x[name]) for x in named], weights=sizes)) for name in named[0]}


def ratio(numerator: Any, denominator: Any) -> float | None:
    """Sum over sum; None where the second is zero."""
    total = float(np.sum(denominator))
    return float(np.sum(numerator)) / total if total else None
