"""Environments of other packages: registered when they are asked for, seen sharply, and named if they are missing."""

from __future__ import annotations

import sys
from types import ModuleType

import gymnasium
import numpy as np
import pytest

from remctl.config import resolve
from remctl.envs import make_env
from remctl.envs.families import FAMILIES, register
from remctl.errors import UserError


@pytest.mark.parametrize("family", [f for f in FAMILIES if f.extra], ids=lambda f: f.prefix)
def test_a_missing_package_is_named_by_its_extra(family: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gymnasium, "registry", {})
    for name in {family.module, family.module.split(".")[0]}:  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=rf"pip install {family.packages} \(the extra '{family.extra}'\)"):  # type: ignore[attr-defined]
        register(f"{family.prefix}Anything-v0")  # type: ignore[attr-defined]


def test_a_package_whose_function_registers_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    module = ModuleType("minatar.gym")
    registry = dict(gymnasium.registry)
    monkeypatch.setattr(gymnasium, "registry", registry)

    def register_envs() -> None:
        calls.append(1)
        registry["MinAtar/Breakout-v1"] = gymnasium.registry["CartPole-v1"]

    monkeypatch.setattr(module, "register_envs", register_envs, raising=False)
    monkeypatch.setitem(sys.modules, "minatar", ModuleType("minatar"))
    monkeypatch.setitem(sys.modules, "minatar.gym", module)
    for key in [key for key in registry if key.startswith("MinAtar/")]:
        del registry[key]
    register("MinAtar/Breakout-v1")
    register("MinAtar/Asterix-v1")
    assert calls == [1]


class Board(gymnasium.Env):
    """No render_mode, as bsuite's environments have it: observations are small pictures."""

    action_space = gymnasium.spaces.Discrete(2)
    observation_space: gymnasium.spaces.Space = gymnasium.spaces.Box(0.0, 1.0, (4, 2), np.float32)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self._at = 0
        return self._board(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        self._at += 1
        return self._board(), 0.0, self._at == 3, False, {}

    def _board(self) -> np.ndarray:
        board = np.zeros((4, 2), np.float32)
        board[self._at, self._at % 2] = 1
        return board


class Numbers(Board):
    """Observations that are no pictures."""

    observation_space = gymnasium.spaces.Box(0.0, 1.0, (4,), np.float32)


gymnasium.register("RemctlBoard-v0", entry_point=Board)
gymnasium.register("RemctlNumbers-v0", entry_point=Numbers)


def board(**settings: str) -> np.ndarray:
    sets = tuple(f"environment.{key}={value}" for key, value in settings.items())
    config = resolve("gym:RemctlBoard-v0", "quick", sets=sets)
    env = make_env(config.game, config.environment, training=True, seed=0)
    env.reset(np.random.default_rng(0))
    return env.step(1).frame


def test_without_a_render_mode_observations_are_the_pictures() -> None:
    frame = board(enlarge="nearest")
    assert frame.shape == (64, 64, 3)
    expected = np.zeros((64, 64, 3), np.uint8)
    expected[16:32, 32:] = 255  # row 1, column 1 of 4 x 2 cells of 16 x 32 pixels
    np.testing.assert_array_equal(frame, expected)


def test_bilinear_enlarging_is_what_it_was() -> None:
    assert len(np.unique(board())) > 2, "blurred between the cells"


def test_observations_that_are_no_pictures_are_refused() -> None:
    config = resolve("gym:RemctlNumbers-v0", "quick")
    with pytest.raises(UserError, match="has no render_mode, and its observations are no pictures: Box"):
        make_env(config.game, config.environment, training=True, seed=0)


@pytest.mark.parametrize(
    ("game", "module", "actions"),
    [
        ("MiniGrid-Empty-Random-5x5-v0", "minigrid", 7),
        ("MinAtar/Breakout-v1", "minatar", 3),
        ("MinAtar/Breakout-v0", "minatar", 6),
        ("bsuite/catch-v0", "bsuite", 3),
        ("VizdoomBasic-v1", "vizdoom", 4),
    ],
)
def test_each_family_plays(game: str, module: str, actions: int, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip(module)
    monkeypatch.chdir(tmp_path)  # ViZDoom writes its settings into the working folder
    config = resolve(f"gym:{game}", "quick")
    env = make_env(config.game, config.environment, training=True, seed=0)
    assert env.num_actions == actions
    first = env.reset(np.random.default_rng(0))
    seen = [env.step(action % actions).frame for action in range(5)]
    assert any((frame != first).any() for frame in seen)
    again = make_env(config.game, config.environment, training=True, seed=0)
    again.set_state(env.get_state())
    np.testing.assert_array_equal(again.step(0).frame, env.step(0).frame)
    env.close()
