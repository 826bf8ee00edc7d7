"""A video of an agent's first test episodes, as it saw them; small enough for git."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageSequence

from remctl.dream.media import FRAME_MS, HOLD_MS, VIDEO_WIDTH, Panel, header_of, row_of, stack_of
from remctl.replay.buffer import Episodes, Steps

NUM_FRAMES = 110  # 10 seconds
# Where lossless pictures take too much: how often their width is halved, and the quality of lossy ones.
ATTEMPTS = ((0, 80), (0, 50), (0, 20), (1, 50), (1, 20), (2, 20))


def num_shown(lengths: Sequence[int]) -> int:
    """Return how many of the first episodes, of these lengths in steps, fill the video; at least 1."""
    before = np.cumsum([0, *lengths])[:-1]
    return max(1, int((before < NUM_FRAMES).sum()))


def episode_video(steps: Steps, action_names: Sequence[str], game: str, max_bytes: int) -> bytes:
    """An animated WebP of the first NUM_FRAMES steps of whole episodes, with each action and the return so far."""
    count = min(NUM_FRAMES, len(steps))
    episodes, number = Episodes(steps.first), np.cumsum(steps.first)
    images, total = [], 0.0
    for i in range(count):
        total = float(steps.rewards[i]) + (0.0 if steps.first[i] else total)
        title, label = f"{game}: test episode {number[i]}", f"step {episodes.before[i]}  return {total:g}"
        caption, reward = action_names[int(steps.actions[i])], float(steps.rewards[i])
        picture = row_of([Panel(steps.frames[i], caption, reward=reward, end=bool(steps.ends[i]))], VIDEO_WIDTH)
        images.append(stack_of([header_of(title, (label,), picture.width), picture]))
    held = [HOLD_MS if episodes.remaining[i] == 1 else FRAME_MS for i in range(count)]
    return _within(images, held, max_bytes)


def smaller_video(data: bytes, max_bytes: int) -> bytes:
    """An animated WebP once more, in at most `max_bytes` if that is possible; as it is if it takes no more."""
    if len(data) <= max_bytes:
        return data
    with Image.open(io.BytesIO(data)) as video:
        frames = [(frame.convert("RGB"), int(frame.info["duration"])) for frame in ImageSequence.Iterator(video)]
    return _within([image for image, _ in frames], [held_ms for _, held_ms in frames], max_bytes)


def _within(images: Sequence[Image.Image], durations_ms: Sequence[int], max_bytes: int) -> bytes:
    """Lossless if that is small enough, else as good as it can be; the smallest if nothing is."""
    made = _webp(images, durations_ms, lossless=True, quality=60, method=3)
    for halvings, quality in ATTEMPTS:
        if len(made) <= max_bytes:
            break
        reduced = [image.reduce(2**halvings) for image in images]
        made = min(made, _webp(reduced, durations_ms, quality=quality, method=3), key=len)
    return made


def _webp(images: Sequence[Image.Image], durations_ms: Sequence[int], **options: object) -> bytes:
    data = io.BytesIO()
    images[0].save(
        data, "WEBP", save_all=True, append_images=images[1:], duration=list(durations_ms), loop=0, **options
    )
    return data.getvalue()
