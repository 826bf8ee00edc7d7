"""Pictures, figures and tables of a diagnosis: what they show, on agents with known answers."""

from __future__ import annotations

import copy
import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from remctl.dream import figures, media, table
from remctl.dream.figures import diagnosis_figures, wilson
from remctl.dream.media import choose_clip, draw_frame, make_clip, picture_rows, write_media
from remctl.dream.table import diagnosis_table, verdicts
from remctl.replay.buffer import Episodes, Steps
from remctl.train.build import Agent, build_agent
from remctl.train.diagnosis import buffer_of, flat
from remctl.train.evaluate import play
from tests.train.test_diagnosis import (
    RANDOM,
    Oracle,
    Standstill,
    agent,
    diagnosed,
    noise_steps,
    steps,
    tiny_config,
    with_model,
)

__all__ = ["agent", "steps"]  # fixtures
ACTIONS = ("LEFT", "STAY", "RIGHT")


def part(steps: Steps, where: slice | np.ndarray) -> Steps:
    return Steps(*(getattr(steps, name)[where] for name in ("frames", "actions", "rewards", "ends", "first")))


def clip_of(agent: Agent, steps: Steps) -> media.Clip:
    ordered, shown = choose_clip(steps, 100)
    buffer = buffer_of(agent, ordered)
    buffer.refresh_tokens(agent.encode)
    with torch.no_grad():
        return make_clip(agent, buffer, ordered, shown, RANDOM.imagination(agent.device))


def moving_steps(num_steps: int, moving: slice) -> Steps:
    """One episode whose frames all change within `moving` and rest elsewhere."""
    frames = np.zeros((num_steps, 8, 8, 3), np.uint8)
    frames[moving] = np.arange(len(frames[moving]))[:, None, None, None] % 2 * 200
    nothing = np.zeros(num_steps)
    return Steps(frames, nothing.astype(int), nothing.astype(np.float32), nothing > 0, np.arange(num_steps) == 0)


def test_media_of_played_episodes(tmp_path: Path) -> None:
    agent = build_agent(tiny_config(), 3, torch.device("cpu"))
    episodes = play(agent, 3, RANDOM, lambda num_done: None, True, num_kept=3)
    paths = write_media(agent, episodes, tmp_path / "media", RANDOM, ACTIONS, "Catch")
    assert [path.name for path in paths] == ["reconstructions.png", "dream.webp"]
    assert sorted(path.name for path in (tmp_path / "media").iterdir()) == ["dream.webp", "reconstructions.png"]
    with Image.open(paths[1]) as video:
        assert video.n_frames == 21
        assert video.size == (4 * media.MARGIN + 3 * 256, video.height)
        pixels = np.asarray(video.convert("RGB"))
    top = pixels.shape[0] - media.LINE - media.MARGIN // 2 - 256
    shown = pixels[top : top + 256, media.MARGIN : media.MARGIN + 256]
    assert np.array_equal(shown[::4, ::4], episodes[0].steps().frames[0])
    with Image.open(paths[0]) as picture:
        assert picture.width > 1000


def test_media_are_the_same_again(tmp_path: Path, agent: Agent, steps: Steps) -> None:
    few = part(steps, slice(14))
    a, b = (write_media(agent, few, tmp_path / name, RANDOM, ACTIONS, "Noise") for name in "ab")
    assert [path.read_bytes() for path in a] == [path.read_bytes() for path in b]


def test_one_step_is_enough(tmp_path: Path, agent: Agent, steps: Steps) -> None:
    paths = write_media(agent, part(steps, slice(1)), tmp_path, RANDOM, ACTIONS, "Noise")
    assert all(path.stat().st_size > 500 for path in paths)


def test_who_knows_the_future_dreams_what_v_sees(agent: Agent, steps: Steps) -> None:
    clip = clip_of(with_model(agent, Oracle, steps), steps)
    assert np.array_equal(clip.imagined, clip.reconstructed)
    assert np.array_equal(clip.imagined_rewards, np.sign(clip.rewards))
    assert np.array_equal(clip.imagined_ends, clip.ends)


def test_standstill_keeps_the_frame_of_its_restart(agent: Agent, steps: Steps) -> None:
    clip = clip_of(with_model(agent, Standstill, steps), steps)
    restart = np.maximum.accumulate(np.where(clip.dreamt == 0, np.arange(len(clip)), 0))
    assert np.array_equal(clip.imagined, clip.reconstructed[restart])
    assert not np.array_equal(clip.imagined, clip.reconstructed)


def test_dreams_restart_with_the_episode_and_after_the_horizon(agent: Agent, steps: Steps) -> None:
    clip = clip_of(agent, steps)
    length = tiny_config().num_rewarded_steps + 1
    assert (clip.dreamt == clip.step % length).all()
    assert clip.last.sum() == 4
    assert clip.real.shape == clip.reconstructed.shape == clip.imagined.shape == (26, 64, 64, 3)


def test_the_longest_episode_comes_first_and_others_follow(steps: Steps) -> None:
    shuffled = part(steps, np.r_[13:26, 0:12])
    ordered, shown = choose_clip(shuffled, 100)
    assert np.array_equal(ordered.frames[:12], steps.frames[:12])
    assert np.array_equal(shown, np.arange(25))
    ordered, shown = choose_clip(shuffled, 14)
    assert len(ordered) == 12 + 4  # whole episodes, in their order, the first again after the last
    assert np.array_equal(shown, np.arange(14))


def test_a_long_episode_is_shown_where_it_moves_and_pays() -> None:
    steps = moving_steps(200, slice(120, 150))
    _, shown = choose_clip(steps, 40)
    assert shown[0] <= 120
    assert shown[-1] >= 149
    still = moving_steps(200, slice(0))
    still.rewards[60] = 1
    assert 60 in choose_clip(still, 40)[1]


def test_the_picture_shows_the_ends_and_the_motion() -> None:
    index = picture_rows(moving_steps(320, slice(150, 160)))
    assert {0, 319} <= set(index)
    assert any(149 < i < 161 for i in index)
    assert len(index) == len(set(index)) <= media.NUM_PICTURES
    assert list(picture_rows(moving_steps(2, slice(0)))) == [0, 1]


def test_restarts_and_rewards_are_marked(agent: Agent, steps: Steps) -> None:
    clip = clip_of(with_model(agent, Oracle, steps), steps)

    def colors(i: int) -> set[tuple[int, ...]]:
        image = draw_frame(clip, i, ACTIONS, "Noise")
        return {color for _, color in image.getcolors(image.width * image.height)}

    assert media.ORANGE in colors(0)
    assert media.ORANGE not in colors(1)
    assert media.VERMILLION not in colors(2)
    assert media.VERMILLION in colors(3)  # -5
    assert media.VERMILLION in colors(3 + media.EVENT_FRAMES - 1)
    assert media.VERMILLION not in colors(3 + media.EVENT_FRAMES)
    assert media.GREEN in colors(11)
    assert media.GREEN not in colors(12)  # another episode, of one step, whose reward is -1
    assert media.VERMILLION in colors(12)
    assert media.VERMILLION not in colors(13)
    corner = (3 * media.MARGIN + 2 * 256, 2 * media.LINE + media.MARGIN)  # of M's panel
    assert draw_frame(clip, 0, ACTIONS, "Noise").getpixel(corner) == media.ORANGE
    assert draw_frame(clip, 1, ACTIONS, "Noise").getpixel(corner) != media.ORANGE


@pytest.fixture(scope="module")
def report(agent: Agent, steps: Steps) -> dict[str, Any]:
    """Of an agent that is right about everything, with a V that is good."""
    report = diagnosed(with_model(agent, Oracle, steps), steps)
    report["tokenizer"] |= {"reconstruction_to_median_ratio": 0.1, "code_perplexity": 20.0}
    return report


def changed(report: dict[str, Any], path: str, **values: Any) -> dict[str, Any]:
    tree = report = copy.deepcopy(report)
    for key in path.split("."):
        tree = tree[key]
    tree |= values
    return report


def test_verdicts(report: dict[str, Any]) -> None:
    assert verdicts(report) == ["No typical failure shows in these numbers."]
    rare = {"precision": 0.4, "recall": 0.9, "num_right": 4, "num_imagined": 10, "num_real": 5}
    replay = changed(report, "losses.world_model", reward_loss=0.01)
    cases = {
        "median image": changed(report, "tokenizer", reconstruction_to_median_ratio=1.0),
        "what moves": changed(report, "imagination.all_steps", token_accuracy_changed=0.1),
        "M first": changed(report, "returns", imagined_return=0.9, real_return=-0.8),
        "explores too little": changed(report, "returns", imagined_return=-0.7, real_return=-0.7),
        "looks perfect (0.010)": changed(replay, "imagination.all_steps.reward", any=rare),
    }
    for words, case in cases.items():
        found = verdicts(case)
        assert len(found) == 1, found
        assert words in found[0]
    few = rare | {"num_imagined": table.MIN_EVENTS - 1}
    assert verdicts(changed(report, "imagination.all_steps.reward", any=few)) == verdicts(report)


def test_tables_fit_a_terminal(agent: Agent, report: dict[str, Any], steps: Steps) -> None:
    for shown in (report, diagnosed(agent, part(steps, slice(1)))):
        console = Console(width=80, record=True, file=io.StringIO())
        for one in diagnosis_table(shown):
            console.print(one)
        text = console.export_text()
        assert "Verdict" in text
        assert "…" not in text
        assert "nan" not in text.lower()
        assert "None" not in text


def test_figures(tmp_path: Path, agent: Agent, steps: Steps, report: dict[str, Any]) -> None:
    values = {name: None if math.isnan(value) else value for name, value in flat(report).items()}
    losses = {"tokenizer/reconstruction_loss": 0.1, "tokenizer/gradient_norm": 2.0, "collect/wall_s": 1.0}
    entries = [{"epoch": 1}, {"epoch": 2, "world_model/loss": None, **losses}, {"epoch": 3, **losses, **values}]
    names = ["imagination_accuracy.png", "imagination_events.png", "training_curves.png"]
    assert [path.name for path in diagnosis_figures(report, entries, tmp_path / "a")] == names
    empty = diagnosed(agent, part(steps, slice(1)))
    assert [path.name for path in diagnosis_figures(empty, [], tmp_path / "b")] == names[:2]
    for path in tmp_path.rglob("*.png"):
        with Image.open(path) as image:
            assert image.width > 1000


def test_series_leaves_gaps_out() -> None:
    assert figures._series([{"epoch": 1}, {"epoch": 2, "a": None}, {"epoch": 3, "a": 2}], "a") == ([3], [2.0])


def test_a_test_is_drawn_at_the_epoch_that_was_tested() -> None:
    entries = [{"epoch": 2, "test/value": 1.0}, {"epoch": 8, "test/value": 2.0, "test/of_epoch": 4}]
    assert figures._series(entries, "test/value") == ([2, 4], [1.0, 2.0])


def test_wilson_by_hand() -> None:
    """Ten of ten: 10 / (10 + 1.96^2)."""
    low, high = wilson(10, 10)
    assert low == pytest.approx(10 / (10 + 1.96**2))
    assert high == pytest.approx(1)
    assert wilson(0, 10)[1] == pytest.approx(1 - low)


def test_noise_has_the_episodes_the_tests_rely_on() -> None:
    assert list(Episodes(noise_steps().first).remaining[[0, 12, 13, 17]]) == [12, 1, 4, 9]
