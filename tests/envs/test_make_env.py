"""From the configuration's environment section to an environment in its training or its test form."""

from __future__ import annotations

import numpy as np
import pytest

from remctl.config import EnvironmentConfig, resolve
from remctl.envs import make_env
from remctl.envs.atari import Atari
from remctl.envs.catch import Catch
from remctl.errors import UserError

PAPER = resolve("Pong").environment


def test_a_run_has_the_benchmarks_protocol_in_training_and_in_test() -> None:
    train, test = (make_env("Pong", PAPER, training=training, seed=0) for training in (True, False))
    for env in (train, test):
        assert isinstance(env, Atari)
        assert env.num_actions == 6
        assert env._frame_skip == 4
        assert (env._late_game_over, env._dead_starts) == (True, True)
        assert env._ale.getFloat("repeat_action_probability") == 0
        assert env.reset(np.random.default_rng(0)).shape == (64, 64, 3)
    assert (train._noops, train._time_limit_frames, train._end_on_life_loss) == ((1, 30), 20_000, True)
    assert (test._noops, test._time_limit_frames, test._end_on_life_loss) == ((1, 1), 108_000, False)


def changed(**changes: object) -> EnvironmentConfig:
    return PAPER.model_copy(update=changes)


def test_the_other_settings_reach_the_emulator() -> None:
    settings = changed(
        frame_skip=2,
        frame_size=32,
        full_action_space=True,
        sticky_probability=0.5,
        end_on_life_loss=False,
        max_noops_train=0,
        late_game_over=not PAPER.late_game_over,
        dead_starts=not PAPER.dead_starts,
    )
    env = make_env("Pong", settings, training=True, seed=5)
    assert isinstance(env, Atari)
    assert env.num_actions == 18
    assert env.reset(np.random.default_rng(0)).shape == (32, 32, 3)
    assert env._played == b""
    env.step(0)
    assert len(env._played) == 2
    assert not env._end_on_life_loss
    assert (env._late_game_over, env._dead_starts) == (False, False)
    assert (env._ale.getFloat("repeat_action_probability"), env._ale.getInt("random_seed")) == (0.5, 5)


def test_toys_take_the_frame_size_and_refuse_what_they_cannot_draw() -> None:
    env = make_env("Catch", changed(frame_size=32), training=True, seed=0)
    assert isinstance(env, Catch)
    assert env.reset(np.random.default_rng(0)).shape == (32, 32, 3)
    with pytest.raises(UserError, match="multiple of 8"):
        make_env("Catch", changed(frame_size=36), training=True, seed=0)


def test_gymnasium_ids_and_unknown_names() -> None:
    env = make_env("gym:ALE/Pong-v5", changed(frame_skip=1, time_limit_train_frames=3), training=True, seed=0)
    assert env.action_names[0] == "NOOP"
    assert env.reset(np.random.default_rng(0)).shape == (64, 64, 3)
    assert [env.step(0).truncated for _ in range(3)] == [False, False, True]
    with pytest.raises(UserError, match="did you mean Pong"):
        make_env("pong", PAPER, training=True, seed=0)
