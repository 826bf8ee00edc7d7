"""From the configuration's environment section to an environment in its training or its test form."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from remctl.envs import make_env
from remctl.envs.atari import Atari
from remctl.envs.catch import Catch
from remctl.errors import UserError


@dataclass(frozen=True)
class Settings:
    frame_skip: int = 4
    frame_size: int = 64
    sticky_probability: float = 0.0
    full_action_space: bool = False
    max_noops_train: int = 30
    noops_test: int = 1
    time_limit_train_frames: int = 20_000
    time_limit_test_frames: int = 108_000
    end_on_life_loss: bool = True


def test_training_and_test_differ_as_the_protocol_says() -> None:
    train, test = (make_env("Pong", Settings(), training=training, seed=0) for training in (True, False))
    assert isinstance(train, Atari)
    assert isinstance(test, Atari)
    assert (train._noops, train._time_limit_frames, train._end_on_life_loss) == ((1, 30), 20_000, True)
    assert (test._noops, test._time_limit_frames, test._end_on_life_loss) == ((1, 1), 108_000, False)


def test_the_other_settings_reach_the_emulator() -> None:
    settings = Settings(
        frame_skip=2, frame_size=32, full_action_space=True, sticky_probability=0.5, end_on_life_loss=False
    )
    env = make_env("Pong", replace(settings, max_noops_train=0), training=True, seed=5)
    assert isinstance(env, Atari)
    assert env.num_actions == 18
    assert env.reset(np.random.default_rng(0)).shape == (32, 32, 3)
    assert env._played == b""
    env.step(0)
    assert len(env._played) == 2
    assert not env._end_on_life_loss
    assert (env._ale.getFloat("repeat_action_probability"), env._ale.getInt("random_seed")) == (0.5, 5)


def test_toys_take_the_frame_size_and_refuse_what_they_cannot_draw() -> None:
    env = make_env("Catch", Settings(frame_size=32), training=True, seed=0)
    assert isinstance(env, Catch)
    assert env.reset(np.random.default_rng(0)).shape == (32, 32, 3)
    with pytest.raises(UserError, match="multiple of 8"):
        make_env("Catch", Settings(frame_size=36), training=True, seed=0)


def test_gymnasium_ids_and_unknown_names() -> None:
    env = make_env("gym:ALE/Pong-v5", Settings(time_limit_train_frames=3), training=True, seed=0)
    assert env.action_names[0] == "NOOP"
    assert env.reset(np.random.default_rng(0)).shape == (64, 64, 3)
    assert [env.step(0).truncated for _ in range(3)] == [False, False, True]
    with pytest.raises(UserError, match="did you mean Pong"):
        make_env("pong", Settings(), training=True, seed=0)
