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

from remctl.rem.tokenizer import to_model_range, to_pixels
from remctl.replay.buffer import Episodes, ReplayBuffer, Steps
from remctl.runs.files import make_folder, write_atomic
from remctl.train.build import Agent
from remctl.train.diagnosis import buffer_of, decode, evaluation_mode, imagine_as_acted
from remctl.train.evaluate import Episode, as_steps
from remctl.train.seeding import Randomness

Color = tuple[int, int, int]

NUM_ROWS = 8
NUM_VIDEO_FRAMES = 150
FRAME_MS = 90  # 11 frames per second: a minute of play at frame skip 4 takes 80 seconds
HOLD_MS = 450  # on a restart, and where an episode ends
EVENT_FRAMES = 4  # a reward stays visible for as long
EVENT_WEIGHT = 5.0  # of a reward against average motion, where the clip is chosen

BACKGROUND, TEXT, QUIET = (24, 24, 28), (235, 235, 235), (150, 150, 155)
# Okabe and Ito's colours: told apart by colour-blind people too.
ORANGE, GREEN, VERMILLION, SKY = (230, 159, 0), (0, 158, 115), (213, 94, 0), (86, 180, 233)
MARGIN, LINE = 8, 18


@dataclass
class Clip:
    """What is shown of each of n steps, in order: real frames, V's, M's (n, H, W, 3) uint8; rewards of both; M's ends.

    dreamt (n,): steps since M was last given a real frame, 0 on a restart. step (n,): of the episode. first, last (n,):
    of an episode. ends (n,): the episode really ended there.
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


class Dream(NamedTuple):
    """M's frames (n, H, W, 3), rewards and ends (n,) for n steps, and the steps since the last restart (n,)."""

    frames: np.ndarray
    rewards: np.ndarray
    ends: np.ndarray
    dreamt: np.ndarray


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
    buffer = buffer_of(agent, steps)
    with evaluation_mode(agent, random), agent.autocast():
        buffer.refresh_tokens(agent.encode)
        clip = make_clip(agent, buffer, steps, shown, random.torch(agent.device, "dream"))
        picture = reconstructions(agent, steps, game)
    make_folder(folder)
    paths = [folder / "reconstructions.png", folder / "dream.webp"]
    write_atomic(paths[0], _png(picture))
    write_atomic(paths[1], _webp(clip, action_names, game))
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
    """First step of the window with most motion and rewards; rewards lie in its middle rather than at its edge."""
    moved = motion(steps)
    score = moved / max(moved.mean(), 1e-9) + EVENT_WEIGHT * (steps.rewards != 0)
    total = np.concatenate([[0.0], np.cumsum(score)])
    width = min(num_frames, len(steps))
    return int(np.argmax(total[width:] - total[:-width]))


def make_clip(agent: Agent, buffer: ReplayBuffer, steps: Steps, shown: np.ndarray, generator: torch.Generator) -> Clip:
    """Reality, V and M on the steps `shown` (n,). M restarts with each episode and after as many steps as C dreams."""
    episodes = buffer.episodes
    dream = _dream(agent, buffer, shown, generator)
    tokens = buffer.tokens[torch.from_numpy(shown).to(agent.device)].long()
    return Clip(
        real=steps.frames[shown],
        reconstructed=to_pixels(decode(agent, tokens[:, None])[:, 0]).cpu().numpy(),
        imagined=dream.frames,
        actions=steps.actions[shown],
        rewards=steps.rewards[shown],
        imagined_rewards=dream.rewards,
        ends=steps.ends[shown],
        imagined_ends=dream.ends,
        dreamt=dream.dreamt,
        step=episodes.before[shown],
        last=episodes.remaining[shown] == 1,
    )


def _dream(agent: Agent, buffer: ReplayBuffer, shown: np.ndarray, generator: torch.Generator) -> Dream:
    """All dreams at once; each gives the frames, rewards and ends of its restart and of the steps until the next."""
    length = agent.config.num_rewarded_steps + 1
    before = buffer.episodes.before[shown]
    dreamt = np.minimum(before, np.arange(len(shown))) % length
    starts = shown[dreamt == 0]
    start = buffer.starts(starts, agent.config.imagination.burn_in_frames)
    imagined = imagine_as_acted(agent, start, buffer.segments(starts, length).actions, generator)
    tokens = torch.cat([start.tokens[:, -1:], imagined.tokens[:, :-1]], dim=1)
    frames = to_pixels(decode(agent, tokens)).cpu().numpy()
    number = np.cumsum(dreamt == 0) - 1
    rewards, ends = imagined.reward.cpu().numpy(), imagined.end.cpu().numpy()
    return Dream(frames[number, dreamt], rewards[number, dreamt], ends[number, dreamt], dreamt)
