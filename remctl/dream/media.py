"""Pictures of one agent: V's reconstructions beside real frames, and M's dream beside reality, under the same actions.

Errors are in [-1, 1] (mean squared, and the worst pixel's square). Text is drawn in Pillow's own font.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from remctl.interfaces import ImaginationStreams
from remctl.rem.tokenizer import to_model_range, to_pixels
from remctl.replay.buffer import Episodes, ReplayBuffer, Steps
from remctl.runs.files import make_folder, write_atomic
from remctl.train.build import Agent
from remctl.train.diagnosis import buffer_of, decode, evaluation_mode, imagine_as_acted
from remctl.train.evaluate import Episode, as_steps
from remctl.train.seeding import Randomness

Color = tuple[int, int, int]

NUM_PICTURES, PICTURE_COLUMNS = 8, 2
DIFFERENCE_GAIN = 4  # differences are dark
NUM_VIDEO_FRAMES = 150
FRAME_MS = 90  # 11 frames per second
HOLD_MS = 450  # on a restart, and where an episode ends
EVENT_FRAMES = 4  # a reward stays visible for as long
EVENT_WEIGHT = 5.0  # of a reward against average motion, where the clip is chosen

BACKGROUND, TEXT, QUIET = (24, 24, 28), (235, 235, 235), (150, 150, 155)
# Okabe and Ito's colours: told apart by colour-blind people too.
ORANGE, GREEN, VERMILLION, SKY = (230, 159, 0), (0, 158, 115), (213, 94, 0), (86, 180, 233)
MARGIN, LINE = 8, 20
PICTURE_WIDTH, VIDEO_WIDTH = 192, 256  # pixels per frame, upscaled


@dataclass
class Clip:
    """What is shown of each of n steps, in order: real frames, V's, M's (n, H, W, 3) uint8; what followed the action.

    ends (n,): the episode ended. dreamt (n,): steps since M was last given a real frame, 0 on a restart. step (n,): of
    the episode, from 0. last (n,): the episode's last stored one.
    """

    real: np.ndarray
    reconstructed: np.ndarray
    imagined: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    imagined_rewards: np.ndarray
    ends: np.ndarray
    imagined_ends: np.ndarray
    dreamt: np.ndarray
    step: np.ndarray
    last: np.ndarray

    def __len__(self) -> int:
        return len(self.step)


class Panel(NamedTuple):
    """A frame (H, W, 3) uint8 and what is drawn on it and below it."""

    frame: np.ndarray
    caption: str
    color: Color = QUIET
    border: bool = False
    reward: float = 0.0
    end: bool = False


@torch.no_grad()
def write_media(
    agent: Agent,
    episodes: Sequence[Episode] | Steps,
    folder: Path,
    random: Randomness,
    action_names: Sequence[str],
    game: str,
) -> list[Path]:
    """`reconstructions.png` and `dream.webp` in `folder`, of test episodes or other steps. Returns their paths.

    The clip is the most eventful part of the longest episode; where that is shorter than NUM_VIDEO_FRAMES, the next
    episodes follow. Raises MachineError where the disk refuses.
    """
    steps = episodes if isinstance(episodes, Steps) else as_steps(list(episodes))
    steps, shown = choose_clip(steps, NUM_VIDEO_FRAMES)
    clip = imagined_clip(agent, steps, shown, random)
    with evaluation_mode(agent, random), agent.autocast():
        picture = reconstructions(agent, steps, game)
    make_folder(folder)
    paths = [folder / "reconstructions.png", folder / "dream.webp"]
    write_atomic(paths[0], _png(picture))
    write_atomic(paths[1], _video(clip, action_names, game))
    return paths


# What to show


def choose_clip(steps: Steps, num_frames: int) -> tuple[Steps, np.ndarray]:
    """Whole episodes, the longest first, and which of their steps (n,) to show: at most `num_frames`."""
    episodes = Episodes(steps.first | (np.arange(len(steps)) == 0))
    starts = np.flatnonzero(episodes.before == 0)
    longest = int(np.argmax(episodes.remaining[starts]))
    kept: list[np.ndarray] = []
    for start in np.roll(starts, -longest):
        kept.append(np.arange(start, episodes.stop[start]))
        if sum(map(len, kept)) >= num_frames:
            break
    index = np.concatenate(kept)
    part = Steps(*(getattr(steps, name)[index] for name in ("frames", "actions", "rewards", "ends", "first")))
    part.first[0] = True
    begin = _most_eventful(part, num_frames) if len(kept) == 1 else 0
    return part, np.arange(begin, min(begin + num_frames, len(part)))


def motion(steps: Steps) -> np.ndarray:
    """Fraction of the pixels that differ from the episode's previous frame (n,); 0 on its first."""
    moved = [0.0]
    for before, now in zip(steps.frames[:-1], steps.frames[1:], strict=True):
        moved.append(float((before != now).any(-1).mean()))
    return np.where(steps.first, 0.0, moved)


def _most_eventful(steps: Steps, num_frames: int) -> int:
    """First step of the window with most motion and rewards."""
    moved = motion(steps)
    score = moved / max(moved.mean(), 1e-9) + EVENT_WEIGHT * (steps.rewards != 0)
    total = np.concatenate([[0.0], np.cumsum(score)])
    width = min(num_frames, len(steps))
    return int(np.argmax(total[width:] - total[:-width]))


@torch.no_grad()
def imagined_clip(agent: Agent, steps: Steps, shown: np.ndarray, random: Randomness) -> Clip:
    """Return reality, V and M on the steps `shown` (n,), as `choose_clip` gives them."""
    buffer = buffer_of(agent, steps)
    with evaluation_mode(agent, random), agent.autocast():
        buffer.refresh_tokens(agent.encode)
        return make_clip(agent, buffer, steps, shown, random.imagination(agent.device))


def make_clip(agent: Agent, buffer: ReplayBuffer, steps: Steps, shown: np.ndarray, streams: ImaginationStreams) -> Clip:
    """Reality, V and M on the steps `shown` (n,). M restarts with each episode and after as many steps as C dreams."""
    length, episodes = agent.config.num_rewarded_steps + 1, buffer.episodes
    dreamt = np.minimum(episodes.before[shown], np.arange(len(shown))) % length
    starts = shown[dreamt == 0]
    start = buffer.starts(starts, agent.config.imagination.burn_in_frames)
    imagined = imagine_as_acted(agent, start, buffer.segments(starts, length).actions, streams)
    given_and_imagined = torch.cat([start.tokens[:, -1:], imagined.tokens[:, :-1]], dim=1)
    frames = to_pixels(decode(agent, given_and_imagined)).cpu().numpy()
    real_tokens = buffer.tokens[torch.from_numpy(shown).to(agent.device)].long()
    at = (np.cumsum(dreamt == 0) - 1, dreamt)  # of each shown step: which dream, how far in
    return Clip(
        real=steps.frames[shown],
        reconstructed=to_pixels(decode(agent, real_tokens[:, None])[:, 0]).cpu().numpy(),
        imagined=frames[at],
        actions=steps.actions[shown],
        rewards=steps.rewards[shown],
        imagined_rewards=imagined.reward.cpu().numpy()[at],
        ends=steps.ends[shown],
        imagined_ends=imagined.end.cpu().numpy()[at],
        dreamt=dreamt,
        step=episodes.before[shown],
        last=episodes.remaining[shown] == 1,
    )


# The picture


def reconstructions(agent: Agent, steps: Steps, game: str) -> Image.Image:
    """Real frame, V's reconstruction, absolute difference: evenly spread frames, and those with most motion."""
    index, episodes = picture_rows(steps), Episodes(steps.first)
    frames = to_model_range(torch.from_numpy(steps.frames[index]).to(agent.device))
    output = agent.tokenizer.reconstruct(frames)
    squares = (output - frames).square().flatten(1).cpu().numpy()
    number, blocks = np.cumsum(steps.first), []
    for step, shown, square in zip(index, to_pixels(output).cpu().numpy(), squares, strict=True):
        caption = f"episode {number[step]}, step {episodes.before[step]}"
        blocks.append(_reconstruction(steps.frames[step], shown, square, caption))
    labels = ("real frame", "V's reconstruction", f"absolute difference x {DIFFERENCE_GAIN}")
    rows = [_beside(blocks[i : i + PICTURE_COLUMNS]) for i in range(0, len(blocks), PICTURE_COLUMNS)]
    title = f"{game}: V's reconstructions (error: mean square in [-1, 1]; worst pixel: largest square)"
    return stack_of([header_of(title, labels * min(PICTURE_COLUMNS, len(blocks)), rows[0].width), *rows])


def _reconstruction(real: np.ndarray, shown: np.ndarray, squares: np.ndarray, caption: str) -> Image.Image:
    difference = np.abs(shown.astype(np.int16) - real) * DIFFERENCE_GAIN
    panels = [
        Panel(real, caption),
        Panel(shown, f"error {squares.mean():.2g}"),
        Panel(difference.clip(0, 255).astype(np.uint8), f"worst pixel {squares.max():.2g}"),
    ]
    return row_of(panels, PICTURE_WIDTH)


def picture_rows(steps: Steps) -> np.ndarray:
    """Indices (n,) of at most NUM_PICTURES frames: half evenly spread, half those with most motion, not too close."""
    chosen = list(np.unique(np.linspace(0, len(steps) - 1, NUM_PICTURES // 2).round().astype(int)))
    gap = len(steps) // (4 * NUM_PICTURES)
    for step in np.argsort(-motion(steps), kind="stable"):
        if len(chosen) < NUM_PICTURES and min(abs(step - other) for other in chosen) > gap:
            chosen.append(int(step))
    return np.sort(chosen)


# The video


def _video(clip: Clip, action_names: Sequence[str], game: str) -> bytes:
    images = [draw_frame(clip, i, action_names, game) for i in range(len(clip))]
    # Lossless: else the codec leaves ghosts in the very panel that is to be trusted.
    return webp(images, held(clip.last | (clip.dreamt == 0)), lossless=True, quality=0, method=0)


def held(longer: np.ndarray) -> list[int]:
    """Milliseconds for each frame; `longer` (n,): whether one stands still for a moment."""
    return [HOLD_MS if each else FRAME_MS for each in longer]


def webp(images: Sequence[Image.Image], durations_ms: Sequence[int], **options: object) -> bytes:
    """Return an animated WebP that repeats; `options` are Pillow's."""
    data = io.BytesIO()
    images[0].save(
        data, "WEBP", save_all=True, append_images=images[1:], duration=list(durations_ms), loop=0, **options
    )
    return data.getvalue()


def draw_frame(clip: Clip, i: int, action_names: Sequence[str], game: str, width: int = VIDEO_WIDTH) -> Image.Image:
    """One frame of the video: reality, V, M, `width` pixels each, with the marks of restarts, rewards and ends."""
    restart, count = clip.dreamt[i] == 0, int(clip.dreamt[i])
    caption = "restart: shown reality" if restart else f"imagined for {count} step{'s' if count > 1 else ''}"
    action = action_names[int(clip.actions[i])]
    error = np.square((clip.reconstructed[i].astype(np.float64) - clip.real[i]) / 127.5).mean()
    panels = [
        Panel(clip.real[i], f"step {clip.step[i]}  {action}", reward=_recent(clip.rewards, clip, i), end=clip.ends[i]),
        Panel(clip.reconstructed[i], f"error {error:.2g}"),
        Panel(
            clip.imagined[i],
            caption,
            color=ORANGE if restart else SKY,
            border=bool(restart),
            reward=_recent(clip.imagined_rewards, clip, i),
            end=clip.imagined_ends[i],
        ),
    ]
    row = row_of(panels, width)
    title = f"{game}: M imagines under the actions really taken"
    return stack_of([header_of(title, ("reality", "V's reconstruction", "M's imagination"), row.width), row])


def _recent(rewards: np.ndarray, clip: Clip, i: int) -> float:
    """The reward to show: this step's, or the last one of the same episode at most EVENT_FRAMES ago; else 0."""
    for j in range(i, max(i - EVENT_FRAMES, i - int(clip.step[i]) - 1, -1), -1):
        if rewards[j]:
            return float(rewards[j])
    return 0.0


# Drawing


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def row_of(panels: Sequence[Panel], width: int) -> Image.Image:
    """Panels side by side, each about `width` pixels wide, its caption below."""
    images = [_frame(panel, width) for panel in panels]
    w, h = images[0].size
    row = Image.new("RGB", (len(panels) * (w + MARGIN) + MARGIN, h + LINE), BACKGROUND)
    draw = ImageDraw.Draw(row)
    for i, (panel, image) in enumerate(zip(panels, images, strict=True)):
        x = MARGIN + i * (w + MARGIN)
        row.paste(image, (x, 0))
        draw.text((x, h + LINE // 2), panel.caption, panel.color, _font(13), anchor="lm")
    return row


def _frame(panel: Panel, width: int) -> Image.Image:
    """Nearest neighbour, so that pixels stay pixels."""
    scale = max(1, width // panel.frame.shape[1])
    image = Image.fromarray(panel.frame)
    image = image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(image)
    if panel.border:
        draw.rectangle((0, 0, image.width - 1, image.height - 1), outline=ORANGE, width=5)
    if panel.reward:
        _badge(
            draw, (image.width - 12, 12), f"reward {panel.reward:+g}", GREEN if panel.reward > 0 else VERMILLION, "rt"
        )
    if panel.end:
        _badge(draw, (12, 12), "end", QUIET, "lt")
    return image


def _badge(draw: ImageDraw.ImageDraw, at: tuple[int, int], text: str, color: Color, anchor: str) -> None:
    left, top, right, bottom = draw.textbbox(at, text, _font(16), anchor=anchor)
    draw.rounded_rectangle((left - 6, top - 5, right + 6, bottom + 5), 4, fill=color, outline=BACKGROUND, width=1)
    draw.text(at, text, (255, 255, 255), _font(16), anchor=anchor)


def header_of(title: str, labels: Sequence[str], width: int) -> Image.Image:
    """A title, and below it a label over each of the columns."""
    header = Image.new("RGB", (width, 2 * LINE + MARGIN), BACKGROUND)
    draw = ImageDraw.Draw(header)
    draw.text((MARGIN, MARGIN + LINE // 2), title, QUIET, _font(13), anchor="lm")
    step = (width - MARGIN) // len(labels)
    for i, label in enumerate(labels):
        draw.text((MARGIN + i * step, MARGIN + LINE + LINE // 2 - 1), label, TEXT, _font(14), anchor="lm")
    return header


def stack_of(images: Sequence[Image.Image]) -> Image.Image:
    """One below the other."""
    height = sum(image.height for image in images) + MARGIN // 2
    stacked = Image.new("RGB", (images[0].width, height), BACKGROUND)
    y = 0
    for image in images:
        stacked.paste(image, (0, y))
        y += image.height
    return stacked


def _beside(images: Sequence[Image.Image]) -> Image.Image:
    """Side by side; the margin between two is shared."""
    step = images[0].width - MARGIN
    joined = Image.new("RGB", (step * len(images) + MARGIN, images[0].height), BACKGROUND)
    for i, image in enumerate(images):
        joined.paste(image, (i * step, 0))
    return joined


def _png(image: Image.Image) -> bytes:
    data = io.BytesIO()
    image.save(data, "PNG", optimize=True)
    return data.getvalue()
