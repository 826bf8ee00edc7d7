"""Gymnasium environments seen through their pictures: a tiny one made here, since the stock ones need pygame."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
from PIL import Image

from remctl.envs.pixels import GymPixels, as_rgb
from remctl.errors import UserError


class Walk(gymnasium.Env[np.ndarray, Any]):
    """A random walk seen as a picture: actions 5 and 6 push left and right, noise pushes too; past 40 it ends."""

    metadata = {"render_modes": ["rgb_array"]}
    observation_space = gymnasium.spaces.Box(0, 1, (1,))
    action_space: gymnasium.Space[Any] = gymnasium.spaces.Discrete(2, start=5)

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self.position = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.position = int(self.np_random.integers(30))
        return np.zeros(1), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        assert action in (5, 6)
        self.position = max(self.position + 2 * (action - 5) + int(self.np_random.integers(-1, 2)), 0)
        return np.zeros(1), self.position / 2, self.position > 40, False, {}

    def render(self) -> Any:
        picture = np.zeros((30, 50, 3), np.uint8)
        picture[5:20, self.position : self.position + 4] = (200, 100, 50)
        return picture


class Continuous(Walk):
    action_space = gymnasium.spaces.Box(0, 1, (2,))


class Blind(Walk):
    def render(self) -> None:
        return None


class NeedsPygame(Walk):
    def render(self) -> Any:
        raise gymnasium.error.DependencyNotInstalled("pygame is not installed, run `pip install pygame-ce`")


class NeedsModule(Walk):
    def __init__(self, render_mode: str | None = None) -> None:
        import no_such_module.part  # type: ignore[import-not-found]  # noqa: F401


class Unseeded(Walk):
    def reset(self, **options: Any) -> tuple[np.ndarray, dict]:
        observation = super().reset(**options)
        self.position = int(np.random.default_rng().integers(30, 10**6)) % 37
        return observation


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    classes = (Walk, Continuous, Blind, NeedsPygame, NeedsModule, Unseeded)
    for made in classes:
        gymnasium.register(f"{made.__name__}Pixels-v0", made)
    gymnasium.register("ShortWalkPixels-v0", Walk, max_episode_steps=5)
    yield
    for name in [*(made.__name__ for made in classes), "ShortWalk"]:
        del gymnasium.registry[f"{name}Pixels-v0"]


def walk(**options: Any) -> GymPixels:
    return GymPixels("WalkPixels-v0", **options)


def test_the_frame_is_the_resized_picture() -> None:
    env = walk()
    frame = env.reset(np.random.default_rng(0))
    picture = Image.fromarray(env._env.render()).resize((64, 64), Image.Resampling.BILINEAR)  # type: ignore[arg-type]
    assert (frame.shape, frame.dtype) == ((64, 64, 3), np.uint8)
    assert (frame == np.asarray(picture)).all()
    assert frame.any()
    assert (env.step(1).frame != frame).any()


def test_actions_start_at_zero_and_the_end_is_game_over() -> None:
    env = walk()
    assert (env.num_actions, env.action_names) == (2, ("0", "1"))
    env.reset(np.random.default_rng(0))
    steps = [env.step(1)]
    while not steps[-1].terminated:
        steps.append(env.step(1))
    assert steps[-1][1:] == (pytest.approx(20.5, abs=1), True, False, True)
    assert not any(step.truncated or step.game_over for step in steps[:-1])


@pytest.mark.parametrize(("env_id", "limit", "length"), [("Walk", 3, 3), ("ShortWalk", None, 5), ("ShortWalk", 9, 5)])
def test_the_nearer_time_limit_truncates(env_id: str, limit: int | None, length: int) -> None:
    env = GymPixels(f"{env_id}Pixels-v0", time_limit_frames=limit)
    for _ in range(2):
        env.reset(np.random.default_rng(0))
        steps = [env.step(0) for _ in range(length)]
        assert [step.truncated for step in steps] == [False] * (length - 1) + [True]
        assert not any(step.terminated or step.game_over for step in steps)


def test_seeds_decide() -> None:
    def frames(generator: int, **options: Any) -> bytes:
        env, rng = walk(**options), np.random.default_rng(generator)
        return b"".join(env.reset(rng).tobytes() + env.step(1).frame.tobytes() for _ in range(4))

    assert frames(0) == frames(0)
    assert len({frames(0), frames(1), frames(0, seed=1)}) == 3


def test_a_state_is_played_again() -> None:
    env, copy, rng = walk(time_limit_frames=30), walk(time_limit_frames=30), np.random.default_rng(3)
    copy.set_state(env.get_state())
    env.reset(rng)
    for action in rng.integers(2, size=10):
        env.step(int(action))
    copy.set_state(json.loads(json.dumps(env.get_state())))
    for _ in range(20):
        a, b = env.step(0), copy.step(0)
        assert (a.frame == b.frame).all()
        assert a[1:] == b[1:]
    assert b.truncated


def test_an_environment_that_ignores_its_seed_is_told_of() -> None:
    env = GymPixels("UnseededPixels-v0")
    env.reset(np.random.default_rng(0))
    state = env.get_state() | {"picture": 1}
    with pytest.warns(UserWarning, match="UnseededPixels-v0 is not deterministic"):
        env.set_state(state)


@pytest.mark.parametrize(
    ("env_id", "message"),
    [
        ("WalkPixel-v0", "knows no environment 'WalkPixel-v0': did you mean gym:WalkPixels-v0"),
        ("ContinuousPixel-v0", "there is gym:ContinuousPixels-v0, but: gym:ContinuousPixels-v0 has actions Box"),
        (
            "NeedsPygamePixels-v7",
            "there is gym:NeedsPygamePixels-v0, but: gym:NeedsPygamePixels-v0 cannot render: pygame",
        ),
        ("qqqq", "install the package"),
        (
            "no_such_module:Foo-v0",
            "no module 'no_such_module', neither in the working folder nor installed: set PYTHONPATH",
        ),
        ("ContinuousPixels-v0", "choose an environment with a Discrete action space"),
        ("BlindPixels-v0", "renders NoneType, no image"),
        ("NeedsPygamePixels-v0", "cannot render: pygame is not installed, run `pip install pygame-ce`"),
        ("NeedsModulePixels-v0", "no module 'no_such_module', neither in"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(env_id: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        GymPixels(env_id)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


# --- skipped frames, rewards and pictures of other kinds


def test_a_step_plays_its_action_as_often_as_frames_are_skipped() -> None:
    one, three = walk(), walk(frame_skip=3)
    for env in (one, three):
        env.reset(np.random.default_rng(0))
    singles = [one.step(1) for _ in range(3)]
    step = three.step(1)
    assert step.reward == sum(single.reward for single in singles)
    assert (step.frame == singles[-1].frame).all()


def test_skipping_stops_at_the_end_and_at_the_time_limit() -> None:
    env = walk(frame_skip=1000)
    env.reset(np.random.default_rng(0))
    assert env.step(1)[2:] == (True, False, True)
    env = walk(frame_skip=4, time_limit_frames=6)
    env.reset(np.random.default_rng(0))
    assert [env.step(0).truncated for _ in range(2)] == [False, True]
    assert len(env.get_state()["actions"]) == 6


@pytest.mark.parametrize("reward", [float("nan"), float("inf"), -float("inf")])
def test_a_reward_that_is_not_finite_is_refused_by_name(reward: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Walk, "step", lambda self, action: (np.zeros(1), reward, False, False, {}))
    env = walk()
    env.reset(np.random.default_rng(0))
    with pytest.raises(UserError, match=rf"gym:WalkPixels-v0 returned the reward {reward} at step 1 of an episode"):
        env.step(0)


GREY = np.arange(12, dtype=np.uint8).reshape(3, 4)
RGB = np.arange(36, dtype=np.uint8).reshape(3, 4, 3)


@pytest.mark.parametrize(
    ("picture", "expected"),
    [
        (RGB, RGB),
        (GREY, np.stack([GREY] * 3, axis=-1)),
        (GREY[..., None], np.stack([GREY] * 3, axis=-1)),
        (np.concatenate([RGB, RGB[..., :1]], axis=-1), RGB),
        (RGB.astype(np.float32), RGB),
        (RGB / 255, RGB),
        (RGB.astype(np.int64), RGB),
        (RGB > 17, (RGB > 17) * np.uint8(255)),
        (RGB.tolist(), RGB),
    ],
    ids=["RGB", "grey", "one channel", "alpha", "floats to 255", "floats to 1", "integers", "bool", "lists"],
)
def test_what_environments_render_becomes_rgb(picture: Any, expected: np.ndarray) -> None:
    found = as_rgb(picture, "X-v0")
    assert found.dtype == np.uint8
    assert (found == expected).all()


def test_dark_images_are_scaled_as_the_bright_ones_of_their_environment() -> None:
    dark = np.full((3, 4, 3), 1.0)
    assert as_rgb(dark, "X-v0").max() == 255
    assert as_rgb(dark, "X-v0", largest=200.0).max() == 1
    assert as_rgb(dark.astype(np.int64), "X-v0").max() == 1


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (None, "renders NoneType, no image"),
        ("text", "renders str, no image"),
        (np.zeros((3, 4, 2)), r"renders float64 \(3, 4, 2\), no image"),
        (np.zeros((2, 3, 4, 3)), "no image"),
        (np.full((3, 4), np.nan), "not finite"),
    ],
)
def test_what_is_no_picture_is_refused_by_name(picture: Any, message: str) -> None:
    with pytest.raises(UserError, match=f"gym:X-v0 renders .*{message.removeprefix('renders ')}"):
        as_rgb(picture, "X-v0")


@pytest.mark.parametrize("picture", [None, "text", np.full((3, 4), np.nan)])
def test_what_stops_being_a_picture_within_an_episode_is_refused_too(
    picture: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = walk()
    env.reset(np.random.default_rng(0))
    monkeypatch.setattr(Walk, "render", lambda self: picture)
    with pytest.raises(UserError, match="gym:WalkPixels-v0 renders "):
        env.step(0)
