"""Any Gymnasium environment with discrete actions, seen through its own pictures."""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, Literal

import gymnasium
import numpy as np
from PIL import Image

from remctl.config.resolve import short
from remctl.envs.making import NOT_ITS_FAULT, described, make, raised, remedy
from remctl.envs.pictures import Pictures
from remctl.errors import UserError
from remctl.interfaces import EnvStep, Frame

MAX_REWARD = 1e12  # float32 holds the squares of sums of many
FIVE = "step() must return (observation, reward, terminated, truncated, info)"


class GymPixels:
    """The Gymnasium environment `env_id`, its observations replaced by what `render()` shows.

    One without a `render_mode` is seen through its observations, if they are pictures: bsuite's are.
    Frames are uint8 (frame_size, frame_size, 3) RGB, pictures resized (PIL bilinear; smaller ones by `enlarge`).
    A step plays its action `frame_skip` times, or fewer if the episode ends, and sums the rewards; a raw frame is one step of
    the environment. Its own time limit stays in force next to `time_limit_frames` (raw frames; None: no other).
    Each episode's seed is drawn from the generator given to `reset`, and shifted by `seed`.
    `arguments`: of the environment's constructor.
    UserError: the id is unknown, its constructor does not accept an argument, the action space is not Discrete, or the
    environment shows no pictures.
    """

    is_new_game: bool = True

    def __init__(
        self,
        env_id: str,
        *,
        frame_skip: int = 1,
        frame_size: int = 64,
        enlarge: Literal["bilinear", "nearest"] = "bilinear",
        time_limit_frames: int | None = None,
        seed: int = 0,
        arguments: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self.env_id = env_id
        self._frame_size = (frame_size, frame_size)
        self._frame_skip = frame_skip
        self._time_limit_frames = time_limit_frames
        self._seed = seed
        self._episode_seed: int | None = None
        self._actions: list[int] = []
        self._enlarging = Image.Resampling[enlarge.upper()]
        self._env, self._renders = make(env_id, arguments, _why_not_played)
        self._observation: Any = None
        with self._named("describing its actions"):
            self._first_action, self.num_actions = _discrete(self._env, env_id)
            self.action_names = _action_names(self._env, self.num_actions)
            self._pictures = Pictures(env_id, getattr(self._env, "observation_space", None))
        # Drawn once now, under one seed: rather than fail after the first steps of a run, and so that training and test
        # take their pictures alike.
        first = _first_picture(self._env, env_id, arguments) if self._renders else _first_observation(self._env, env_id)
        self._pictures.rgb(first)

    def reset(self, rng: np.random.Generator) -> Frame:
        """Start an episode under a seed drawn from `rng`."""
        self._start((int(rng.integers(2**31)) + self._seed) % 2**31)
        return self._frame()

    def step(self, action: int) -> EnvStep:
        """Play action 0 .. num_actions - 1. The rewards are the environment's own."""
        assert self._episode_seed is not None, "step() before reset()"
        assert 0 <= action < self.num_actions, f"action {action} of {self.num_actions}"
        total, terminated, truncated = 0.0, False, False
        for _ in range(self._frame_skip):
            reward, terminated, truncated = self._play(int(action))
            total += reward
            if terminated or truncated:
                break
        return EnvStep(self._frame(), total, terminated, truncated and not terminated, terminated)

    def get_state(self) -> dict[str, Any]:
        """The episode's seed and its actions so far: few environments can be copied, all can be played again."""
        started = self._episode_seed is not None
        return {
            "env_id": self.env_id,
            "episode_seed": self._episode_seed,
            "actions": list(self._actions),
            "picture": zlib.crc32(self._frame().tobytes()) if started else None,
            "range": self._pictures.range and list(self._pictures.range),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Replay the episode of a state of `get_state`, without drawing it.

        Warns where the environment then shows another picture: it is not deterministic under its seed, so what
        follows cannot be the same to the bit.
        """
        if state["env_id"] != self.env_id:
            raise ValueError(f"this is {self.env_id}, the state is of {state['env_id']}: make that environment")
        if state.get("range"):  # none in states of earlier versions
            low, high = state["range"]
            self._pictures.range = (float(low), float(high))
        if state["episode_seed"] is None:
            self._episode_seed, self._actions = None, []
            return
        self._start(state["episode_seed"])
        for action in state["actions"]:
            self._play(action)
        if zlib.crc32(self._frame().tobytes()) != state["picture"]:
            warnings.warn(f"{self.env_id} is not deterministic: its episode goes on from another state", stacklevel=2)

    def close(self) -> None:
        """Close the environment and its window, if any."""
        with self._named("in close()"):
            self._env.close()

    def _start(self, episode_seed: int) -> None:
        self._episode_seed = episode_seed
        self._actions = []
        with self._named("in reset()"):
            answer: Any = self._env.reset(seed=episode_seed)
            self._observation = answer[0]

    def _play(self, action: int) -> tuple[float, bool, bool]:
        self._actions.append(action)
        with self._named("in step()"):
            answer: Any = self._env.step(self._first_action + action)
        if not isinstance(answer, tuple) or len(answer) != 5:
            given = f"{len(answer)} values" if isinstance(answer, tuple) else _shown(answer)
            raise UserError(f"gym:{self.env_id} returned {given}{self._when()}: {FIVE}")
        self._observation, reward, terminated, truncated, _ = answer
        number = self._single("the reward", reward, "buif", "a finite number")
        if not abs(number) <= MAX_REWARD:
            what = "finite" if not np.isfinite(number) else f"at most {MAX_REWARD:g} in size"
            raise UserError(
                f"gym:{self.env_id} returned the reward {number}{self._when()}: rewards must be {what}; fix the environment"
            )
        ended = bool(self._single("terminated", terminated, "bui", "True or False"))
        cut = bool(self._single("truncated", truncated, "bui", "True or False"))
        return number, ended, cut or len(self._actions) == self._time_limit_frames

    def _single(self, name: str, value: Any, kinds: str, allowed: str) -> float:
        """A number, also as an array of one element. Raises UserError for another value of step()."""
        try:
            found = np.asarray(value)
        except Exception:  # of whatever object it is
            found = np.empty(0)
        if found.size != 1 or found.dtype.kind not in kinds:
            raise UserError(
                f"gym:{self.env_id} returned {_shown(value)} as {name}{self._when()}: {name} must be {allowed}; "
                "fix the environment"
            )
        return float(found.item())

    def _frame(self) -> Frame:
        picture: Any = self._observation
        if self._renders:
            with self._named("in render()"):
                picture = self._env.render()
        image = Image.fromarray(self._pictures.rgb(picture))
        smaller = image.width < self._frame_size[0] and image.height < self._frame_size[1]
        return np.array(image.resize(self._frame_size, self._enlarging if smaller else Image.Resampling.BILINEAR))

    def _when(self) -> str:
        if self._episode_seed is None:
            return ""
        return f" at step {len(self._actions)} of an episode (seed {self._episode_seed})"

    @contextmanager
    def _named(self, place: str) -> Iterator[None]:
        """What the environment raises becomes a UserError with its name and the step; --debug shows the traceback."""
        try:
            yield
        except NOT_ITS_FAULT:
            raise
        except (Exception, SystemExit) as error:
            mend = (
                FIVE if "values to unpack (expected 5" in str(error) else "fix the environment; --debug shows the line"
            )
            raise UserError(f"gym:{self.env_id} {raised(error)} {place}{self._when()}: {mend}") from error


def _shown(value: Any) -> str:
    return "None" if value is None else " ".join(short(value).split())


def _why_not_played(env_id: str) -> str:
    """Empty if it can be made here, has discrete actions and renders pictures."""
    try:
        with warnings.catch_warnings(action="ignore"):  # of versions that are out of date
            GymPixels(env_id).close()
    except UserError as error:
        return str(error)
    return ""


def _discrete(env: gymnasium.Env[Any, Any], env_id: str) -> tuple[int, int]:
    """The first action and the number of actions."""
    space = env.action_space
    if not isinstance(space, gymnasium.spaces.Discrete):
        raise UserError(f"gym:{env_id} has actions {space}: choose an environment with a Discrete action space")
    return int(space.start), int(space.n)


def _action_names(env: gymnasium.Env[Any, Any], num_actions: int) -> tuple[str, ...]:
    meanings = getattr(env.unwrapped, "get_action_meanings", None)
    return tuple(meanings()) if meanings else tuple(str(action) for action in range(num_actions))


def _first_picture(env: gymnasium.Env[Any, Any], env_id: str, arguments: Mapping[str, Any]) -> Any:
    try:
        env.reset(seed=0)
        return env.render()
    except NOT_ITS_FAULT:
        raise
    except (Exception, SystemExit) as error:  # as in _make
        raise UserError(f"gym:{env_id}{described(arguments)} cannot render: {remedy(error)}") from error


def _first_observation(env: gymnasium.Env[Any, Any], env_id: str) -> Any:
    space = env.observation_space
    if not isinstance(space, gymnasium.spaces.Box) or len(space.shape) not in (2, 3):
        raise UserError(
            f"gym:{env_id} has no render_mode, and its observations are no pictures: {space}; choose another"
        )
    return env.reset(seed=0)[0]
