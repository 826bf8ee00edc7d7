"""Pictures of an agent that are small enough for git: V's reconstructions, M's dream, and episodes as C plays them."""

from __future__ import annotations

import io
from collections.abc import Sequence

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
# If lossless frames are too large, in this order: how often their width is halved, and the lossy quality.
ATTEMPTS = ((0, 80), (0, 50), (0, 20), (0, 0), (1, 20), (2, 20))


def num_episodes_shown(lengths: Sequence[int]) -> int:
    """Return how many of the first episodes, of these lengths in steps, fill a video; at least 1."""
    before = np.cumsum([0, *lengths])[:-1]
    return max(1, int((before < NUM_FRAMES).sum()))


@torch.no_grad()
def reconstructions_png(agent: Agent, steps: Steps, random: Randomness, game: str) -> bytes:
    """A PNG of 256 colours: frames, V's reconstructions, and the differences."""
    with evaluation_mode(agent, random), agent.autocast():
        picture = reconstructions(agent, steps, game)
    data = io.BytesIO()
    picture.quantize(256).save(data, "PNG", optimize=True)
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
    """Lossless if that is small enough, else as good as it can be; the smallest if nothing is."""
    made = webp(images, durations_ms, lossless=True, quality=60, method=3)
    for halvings, quality in ATTEMPTS:
        if len(made) <= max_bytes:
            break
        reduced = [image.reduce(2**halvings) for image in images]
        made = min(made, webp(reduced, durations_ms, quality=quality, method=3), key=len)
    return made
