"""Pictures of an agent that are small enough for git: V's reconstructions, M's dream, and episodes as C plays them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from remctl.dream.media import (
    Panel,
    choose_clip,
    draw_frame,
    header_of,
    held,
    imagined_clip,
    reconstructions,
    row_of,
    stack_of,
    webp,
)
from remctl.games import GYM_PREFIX
from remctl.replay.buffer import Episodes, Steps
from remctl.train.build import Agent
from remctl.train.diagnosis import evaluation_mode
from remctl.train.seeding import Randomness

NUM_FRAMES = 110  # 10 seconds
WIDTH = 128  # pixels per frame, upscaled
# What is tried until a video is small enough: Pillow's options, and into how many parts it is cut, of which the first is shown.
QUALITIES: tuple[dict[str, Any], ...] = (
    {"lossless": True, "quality": 60, "method": 3},
    *({"quality": quality, "method": 4, "minimize_size": True} for quality in (80, 60, 40, 20)),
)
SHORTER = (1, 2, 4, 8)


def num_episodes_shown(lengths: Sequence[int]) -> int:
    """Return how many of the first episodes, of these lengths in steps, fill a video; at least 1."""
    before = np.cumsum([0, *lengths])[:-1]
    return max(1, int((before < NUM_FRAMES).sum()))


@torch.no_grad()
def reconstructions_png(agent: Agent, steps: Steps, random: Randomness, game: str) -> bytes:
    """A PNG of 256 colours, and no others mixed of them: frames, V's reconstructions, and the differences."""
    with evaluation_mode(agent, random), agent.autocast():
        picture = reconstructions(agent, steps, game)
    data = io.BytesIO()
    picture.quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(data, "PNG", optimize=True)
    return data.getvalue()


def dream_video(
    agent: Agent, steps: Steps, random: Randomness, action_names: Sequence[str], game: str, max_bytes: int
) -> bytes:
    """An animated WebP of reality next to M's imagination, in at most `max_bytes` if that is possible."""
    part, shown = choose_clip(steps, NUM_FRAMES)
    clip = imagined_clip(agent, part, shown, random)
    images = [draw_frame(clip, i, action_names, game.removeprefix(GYM_PREFIX), WIDTH) for i in range(len(clip))]
    return _fit(images, held(clip.last | (clip.dreamt == 0)), max_bytes)


def episode_video(steps: Steps, action_names: Sequence[str], max_bytes: int) -> bytes:
    """An animated WebP of the first NUM_FRAMES steps of whole episodes, with each action and the return so far."""
    count = min(NUM_FRAMES, len(steps))
    episodes, number = Episodes(steps.first), np.cumsum(steps.first)
    images, total = [], 0.0
    for i in range(count):
        total = float(steps.rewards[i]) + (0.0 if steps.first[i] else total)
        labels = (f"step {episodes.before[i]}  return {total:g}",)
        caption, reward = action_names[int(steps.actions[i])], float(steps.rewards[i])
        picture = row_of([Panel(steps.frames[i], caption, reward=reward, end=bool(steps.ends[i]))], WIDTH)
        images.append(stack_of([header_of(f"episode {number[i]}", labels, picture.width), picture]))
    return _fit(images, held(episodes.remaining[:count] == 1), max_bytes)


def _fit(images: Sequence[Image.Image], durations_ms: Sequence[int], max_bytes: int) -> bytes:
    """Lossless if that is small enough, else lossy, else shorter: captions stay legible. The smallest if nothing is."""
    made: list[bytes] = []
    for parts in SHORTER:
        count = -(-len(images) // parts)
        for options in QUALITIES:
            made.append(webp(images[:count], durations_ms[:count], **options))
            if len(made[-1]) <= max_bytes:
                return made[-1]
    return min(made, key=len)
