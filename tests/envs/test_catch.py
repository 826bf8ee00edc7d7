"""Catch: its rules, its picture, its states."""

from __future__ import annotations

import json

import numpy as np
import pytest

from remctl.envs.catch import Catch

LEFT, STAY, RIGHT = range(3)


def play(env: Catch, rng: np.random.Generator) -> float:
    """One episode at random; its return, after checking its length and when the reward comes."""
    env.reset(rng)
    steps = [env.step(int(rng.integers(3))) for _ in range(7)]
    assert [step.terminated for step in steps] == [False] * 6 + [True]
    assert [step.reward for step in steps[:6]] == [0.0] * 6
    assert not any(step.truncated for step in steps)
    assert steps[-1].game_over
    assert abs(steps[-1].reward) == 1.0
    return steps[-1].reward


def test_play_at_random_loses_three_quarters() -> None:
    rng = np.random.default_rng(0)
    assert np.mean([play(Catch(), rng) for _ in range(3000)]) == pytest.approx(-0.75, abs=0.03)


@pytest.mark.parametrize(("shift", "reward"), [(0, 1.0), (1, -1.0)])
def test_following_the_ball_wins_and_stopping_beside_it_loses(shift: int, reward: float) -> None:
    env = Catch()
    for ball in range(7):
        env.set_state({"ball": [0, ball], "paddle": 3})
        target, position = ball + shift, 3
        for _ in range(7):
            move = int(np.sign(target - position))
            position += move
            step = env.step(move + 1)
        assert step.reward == reward


def test_the_picture_shows_ball_and_paddle_in_their_cells() -> None:
    env = Catch()
    env.set_state({"ball": [2, 5], "paddle": 0})
    frame = env.step(RIGHT).frame
    assert (frame.shape, frame.dtype) == ((64, 64, 3), np.uint8)
    cells = frame.reshape(8, 8, 8, 8, 3).transpose(0, 2, 1, 3, 4).reshape(8, 8, 64, 3)
    assert (cells == cells[:, :, :1]).all()
    colours = cells[:, :, 0].astype(int)
    background = colours[0, 0]
    assert np.argwhere((colours != background).any(-1)).tolist() == [[3, 5], [7, 1]]
    assert np.abs(colours[3, 5] - background).max() > 100
    assert np.abs(colours[7, 1] - background).max() > 100
    assert np.abs(colours[7, 1] - colours[3, 5]).max() > 100


@pytest.mark.parametrize(("start", "action", "end"), [(0, LEFT, 0), (7, RIGHT, 7), (4, LEFT, 3), (4, STAY, 4)])
def test_the_paddle_stops_at_the_walls(start: int, action: int, end: int) -> None:
    env = Catch()
    env.set_state({"ball": [0, 2], "paddle": start})
    env.step(action)
    assert env.get_state() == {"ball": [1, 2], "paddle": end}


def test_starts_cover_all_columns_and_follow_the_generator() -> None:
    def starts(seed: int) -> list[tuple[int, int]]:
        env, rng = Catch(), np.random.default_rng(seed)
        states = [(env.reset(rng), env.get_state())[1] for _ in range(100)]
        return [(state["ball"][1], state["paddle"]) for state in states]

    assert starts(0) == starts(0) != starts(1)
    assert {ball for ball, _ in starts(0)} == {paddle for _, paddle in starts(0)} == set(range(8))


def test_a_state_goes_through_json() -> None:
    env, copy = Catch(), Catch()
    env.reset(np.random.default_rng(0))
    env.step(LEFT)
    copy.set_state(json.loads(json.dumps(env.get_state())))
    for action in (RIGHT, RIGHT, STAY, LEFT, LEFT, RIGHT):
        a, b = env.step(action), copy.step(action)
        assert (a.frame == b.frame).all()
        assert a[1:] == b[1:]


def test_other_sizes() -> None:
    assert Catch(frame_size=32).reset(np.random.default_rng(0)).shape == (32, 32, 3)
    with pytest.raises(ValueError, match="multiple of 8"):
        Catch(frame_size=60)


def test_a_finished_episode_takes_no_step() -> None:
    env = Catch()
    with pytest.raises(AssertionError, match="reset"):
        env.step(STAY)
