"""Gymnasium environments seen through their pictures: a tiny one made here, since the stock ones need pygame."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from PIL import Image

from remctl.envs.pictures import Pictures
from remctl.envs.pixels import GymPixels
from remctl.errors import Interrupted, UserError


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


def test_an_environment_needs_no_observation_space(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(Walk, "observation_space")
    assert walk().reset(np.random.default_rng(0)).any()


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
    found = Pictures("X-v0").rgb(picture)
    assert found.dtype == np.uint8
    assert (found == expected).all()


def first_then(*pictures: np.ndarray, space: gymnasium.Space[Any] | None = None) -> np.ndarray:
    taken = Pictures("X-v0", space)
    return [taken.rgb(picture) for picture in pictures][-1]


def flat(value: float, dtype: Any = np.float32, size: int = 3) -> np.ndarray:
    return np.full((size, size, 3), value, dtype)


def box(low: float, high: float, dtype: Any = np.float32, size: int = 3) -> gymnasium.spaces.Box:
    return gymnasium.spaces.Box(low, high, (size, size, 3), dtype)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([flat(0.5), flat(1.0000001), flat(0.5)], 128),  # what overshoots by rounding changes nothing
        ([flat(1.0000001), flat(0.5)], 128),
        ([flat(-0.0005), flat(-0.0005)], 0),
        ([flat(200), flat(1)], 1),
        ([flat(200, np.int64), flat(1, np.int64)], 1),
        ([flat(200), flat(255.1)], 255),
        ([flat(51400, np.uint16), flat(257, np.uint16)], 1),
        ([flat(200), flat(1, np.uint8), flat(True, bool)], 255),
    ],
)
def test_the_first_picture_decides_what_is_white(given: list[np.ndarray], expected: int) -> None:
    assert (first_then(*given) == expected).all()


@pytest.mark.parametrize(
    ("picture", "space", "expected"),
    [
        (flat(1), box(0, 255), 1),
        (flat(0), box(-1, 1), 128),
        (flat(1, np.uint8), box(0, 1, np.uint8), 255),
        (flat(1, np.int64), box(0, 1, np.int64), 255),
        (flat(257, np.uint16), box(0, 65535, np.uint16), 1),
        (flat(1, np.uint8), box(0, 255, np.uint8), 1),
        (flat(1), box(0, 255, size=4), 255),  # the picture is no observation
        (flat(1), box(-np.inf, np.inf), 255),
        (flat(7, np.uint8), box(0, 10, np.uint8), 7),
    ],
)
def test_the_observation_space_decides_where_the_picture_is_one(
    picture: np.ndarray, space: gymnasium.Space[Any], expected: int
) -> None:
    assert (first_then(picture, space=space) == expected).all()


@pytest.mark.parametrize(
    ("given", "space", "message"),
    [
        ([flat(0.5), flat(200)], None, "numbers from 200 to 200, but its first picture says 0 to 1: let render"),
        ([flat(0.5), flat(1.01)], None, "its first picture says 0 to 1"),
        ([flat(0.5), flat(-0.1)], None, "its first picture says 0 to 1"),
        ([flat(2.0)], box(0, 1), "its observation_space says 0 to 1"),
        ([flat(-0.5)], None, "below 0: let render"),
        ([flat(-1, np.int8)], None, "below 0: let render"),
        ([flat(1, np.int64)], None, "which may be dark, or of a smaller range"),
        ([flat(200, np.uint16)], None, "which may be dark, or of a smaller range"),
        ([flat(300)], None, "above 255"),
        ([flat(300, np.int32)], None, "above 255"),
    ],
)
def test_a_picture_of_an_uncertain_or_another_range_is_refused(
    given: list[np.ndarray], space: gymnasium.Space[Any] | None, message: str
) -> None:
    with pytest.raises(UserError, match=f"gym:X-v0 renders .*{message}"):
        first_then(*given, space=space)


def test_a_range_is_part_of_the_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Walk, "render", lambda self: flat(200))
    env = walk()
    env.reset(np.random.default_rng(0))
    state = json.loads(json.dumps(env.get_state()))
    monkeypatch.setattr(Walk, "render", lambda self: flat(1))
    copy = walk()
    with pytest.warns(UserWarning, match="not deterministic"):
        copy.set_state(state)
    assert copy.step(0).frame.max() == 1
    copy.set_state({key: value for key, value in copy.get_state().items() if key != "range"})  # of an earlier version


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
        Pictures("X-v0").rgb(picture)


@pytest.mark.parametrize("picture", [None, "text", np.full((3, 4), np.nan)])
def test_what_stops_being_a_picture_within_an_episode_is_refused_too(
    picture: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = walk()
    env.reset(np.random.default_rng(0))
    monkeypatch.setattr(Walk, "render", lambda self: picture)
    with pytest.raises(UserError, match="gym:WalkPixels-v0 renders "):
        env.step(0)


# --- mistakes of an environment


def raising(error: BaseException) -> Any:
    def method(self: object, *args: object, **options: object) -> None:
        raise error

    return method


FIVE = "must return (observation, reward, terminated, truncated, info)"


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((0, None, False, False, {}), "returned None as the reward at step 2 of an episode (seed "),
        ((0, "x", False, False, {}), "returned 'x' as the reward at step 2"),
        ((0, "1.0", False, False, {}), "the reward must be a finite number; fix the environment"),
        ((0, np.zeros(2), False, False, {}), "returned array([0., 0.]) as the reward"),
        ((0, np.zeros((9, 9)), False, False, {}), "as the reward at step 2"),
        ((0, 10**400, False, False, {}), "as the reward at step 2"),
        ((0, 1j, False, False, {}), "returned 1j as the reward"),
        ((0, 1e300, False, False, {}), "the reward 1e+300 at step 2 of an episode"),
        ((0, 0.0, None, False, {}), "returned None as terminated at step 2"),
        ((0, 0.0, False, "no", {}), "returned 'no' as truncated at step 2"),
        ((0, 0.0, False, {}), f"returned 4 values at step 2 of an episode (seed 0): step() {FIVE}"),
        (None, f"returned None at step 2 of an episode (seed 0): step() {FIVE}"),
    ],
)
@pytest.mark.parametrize("env_id", ["Walk", "ShortWalk"])
def test_what_step_returns_is_refused_by_name(
    env_id: str, answer: Any, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = GymPixels(f"{env_id}Pixels-v0")
    env._start(0)
    env.step(0)
    monkeypatch.setattr(Walk, "step", lambda self, action: answer)
    with pytest.raises(UserError) as caught:
        env.step(0)
    said = str(caught.value)
    assert said.startswith(f"gym:{env_id}Pixels-v0 ")
    assert "\n" not in said
    if env_id == "Walk" or (isinstance(answer, tuple) and len(answer) == 5):
        assert message in said
    elif answer is not None:  # Gymnasium's own time limit has unpacked it
        assert FIVE in said


@pytest.mark.parametrize("reward", [np.array([1.0]), np.float32(1), np.array(1), 1, True, np.array([[1]])])
def test_a_reward_may_be_any_single_number(reward: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Walk, "step", lambda self, action: (0, reward, np.bool_(False), np.array([False]), {}))
    env = walk()
    env.reset(np.random.default_rng(0))
    step = env.step(0)
    assert (type(step.reward), step.reward, step.terminated, step.truncated) == (float, 1.0, False, False)


@pytest.mark.parametrize("method", ["step", "reset", "render", "close"])
@pytest.mark.parametrize(
    ("error", "says"),
    [
        (KeyError("k"), "raised KeyError: 'k'"),
        (RuntimeError("one\ntwo"), "raised RuntimeError: one"),
        (SystemExit(), "called sys.exit(None)"),
        (SystemExit("bye"), "called sys.exit('bye')"),
        (FileNotFoundError(2, "No such file", "level.txt"), "raised FileNotFoundError"),
    ],
)
def test_what_an_environment_raises_is_named_with_the_step(
    method: str, error: BaseException, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = walk()
    env._start(7)
    env.step(0)
    monkeypatch.setattr(Walk, method, raising(error))
    with pytest.raises(UserError) as caught:
        {"step": lambda: env.step(0), "reset": lambda: env._start(7), "render": env._frame, "close": env.close}[
            method
        ]()
    said = str(caught.value)
    assert f"gym:WalkPixels-v0 {says}" in said
    assert f"in {method}() at step " in said
    assert "(seed 7): fix the environment; --debug shows the line" in said
    assert "\n" not in said
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("error", [Interrupted(15), KeyboardInterrupt(), MemoryError(), BrokenPipeError()])
@pytest.mark.parametrize("method", ["__init__", "reset", "step", "render"])
def test_what_is_not_an_environments_fault_passes_through(
    method: str, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = walk()
    env._start(0)
    monkeypatch.setattr(Walk, method, raising(error))
    with pytest.raises(type(error)):
        env.step(0) if method == "step" else walk()


@pytest.mark.parametrize("method", ["__init__", "reset", "render"])
def test_an_environment_that_exits_as_it_is_made_does_not_end_the_command(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Walk, method, raising(SystemExit(0)))
    with pytest.raises(UserError, match=r"gym:WalkPixels-v0.*: it called sys.exit\(0\); fix the environment"):
        walk()


def test_a_module_that_exits_on_import_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "leaving_module.py").write_text("import sys\nsys.exit(0)\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=r"cannot make gym:leaving_module:X-v0: it called sys.exit\(0\)"):
        GymPixels("leaving_module:X-v0")
