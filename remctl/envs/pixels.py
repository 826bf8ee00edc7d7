"""Any Gymnasium environment with discrete actions, seen through its own pictures."""

from __future__ import annotations

import difflib
import importlib
import inspect
import re
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from types import MappingProxyType
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import load_env_creator
from PIL import Image

from remctl.config.resolve import short
from remctl.envs.pictures import Pictures
from remctl.errors import Interrupted, UserError, one_line
from remctl.interfaces import EnvStep, Frame

# What Gymnasium takes for itself, or the program sets.
SET_HERE = {
    "id": "it is the game, gym:ID",
    "render_mode": "it is rgb_array, as the agent sees pictures",
    "disable_env_checker": "Gymnasium's checker is off",
    "max_episode_steps": "the constructor does not get it: environment.time_limit_train_frames and "
    "environment.time_limit_test_frames are the limits",
}


MAX_TRIED, MAX_NAMED = 8, 3  # environments of a similar name
SURELY_MEANT = 0.8  # a typing error or another version: that much of the name is the same
MAX_REWARD = 1e12  # float32 holds the squares of sums of many
FIVE = "step() must return (observation, reward, terminated, truncated, info)"
# What somebody else's code may raise that says nothing against it; SystemExit is caught with its errors.
NOT_ITS_FAULT = (UserError, Interrupted, MemoryError, BrokenPipeError)


class GymPixels:
    """The Gymnasium environment `env_id`, its observations replaced by what `render()` shows.

    Frames are uint8 (frame_size, frame_size, 3) RGB, `render()` resized (PIL bilinear). A step plays its action
    `frame_skip` times, or fewer if the episode ends, and sums the rewards; a raw frame is one step of the environment. Its
    own time limit stays in force next to `time_limit_frames` (raw frames; None: no other).
    Each episode's seed is drawn from the generator given to `reset`, and shifted by `seed`.
    `arguments`: of the environment's constructor.
    UserError: the id is unknown, its constructor does not accept an argument, the action space is not Discrete, or the
    environment cannot render pictures.
    """

    is_new_game: bool = True

    def __init__(
        self,
        env_id: str,
        *,
        frame_skip: int = 1,
        frame_size: int = 64,
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
        self._env = _make(env_id, arguments)
        with self._named("describing its actions"):
            self._first_action, self.num_actions = _discrete(self._env, env_id)
            self.action_names = _action_names(self._env, self.num_actions)
            self._pictures = Pictures(env_id, getattr(self._env, "observation_space", None))
        # Drawn once now, under one seed: rather than fail after the first steps of a run, and so that training and test
        # take their pictures alike.
        self._pictures.rgb(_first_picture(self._env, env_id, arguments))

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
            self._env.reset(seed=episode_seed)

    def _play(self, action: int) -> tuple[float, bool, bool]:
        self._actions.append(action)
        with self._named("in step()"):
            answer: Any = self._env.step(self._first_action + action)
        if not isinstance(answer, tuple) or len(answer) != 5:
            given = f"{len(answer)} values" if isinstance(answer, tuple) else _shown(answer)
            raise UserError(f"gym:{self.env_id} returned {given}{self._when()}: {FIVE}")
        _, reward, terminated, truncated, _ = answer
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
        with self._named("in render()"):
            picture: Any = self._env.render()
        image = Image.fromarray(self._pictures.rgb(picture))
        return np.array(image.resize(self._frame_size, Image.Resampling.BILINEAR))

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
            raise UserError(f"gym:{self.env_id} {_raised(error)} {place}{self._when()}: {mend}") from error


def _shown(value: Any) -> str:
    return "None" if value is None else " ".join(short(value).split())


def _raised(error: BaseException) -> str:
    return f"called sys.exit({error.code!r})" if isinstance(error, SystemExit) else f"raised {one_line(error)}"


def _make(env_id: str, arguments: Mapping[str, Any]) -> gymnasium.Env[Any, Any]:
    if env_id.startswith("ALE/"):
        import ale_py  # noqa: F401 - registers the ALE ids
    try:
        _check_arguments(env_id, arguments)
        # A copy: an environment may change its lists, and the run's configuration is not to change with them.
        given = deepcopy(dict(arguments))
        return gymnasium.make(env_id, render_mode="rgb_array", disable_env_checker=True, **given)
    except NOT_ITS_FAULT:
        raise
    except gymnasium.error.UnregisteredEnv as error:
        raise UserError(f"Gymnasium knows no environment {env_id!r}{_nearest(env_id)}") from error
    except (Exception, SystemExit) as error:  # whatever somebody else's constructor raises, the user wants one line
        refused = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        if isinstance(error, TypeError) and refused and refused[1] in arguments:
            raise UserError(_not_accepted(env_id, refused[1], _accepted(env_id)[0])) from error
        raise UserError(f"cannot make gym:{env_id}{_with(arguments)}: {_remedy(error)}") from error


def _with(arguments: Mapping[str, Any]) -> str:
    return f" with environment.arguments {short(dict(arguments))}" if arguments else ""


def _check_arguments(env_id: str, arguments: Mapping[str, Any]) -> None:
    for name in arguments:
        if name in SET_HERE:
            raise UserError(f"environment.arguments.{name}: {SET_HERE[name]}; leave it out")
        accepted, are_all = _accepted(env_id)
        if are_all and name not in accepted:
            raise UserError(_not_accepted(env_id, name, accepted))


def _not_accepted(env_id: str, name: str, accepted: list[str]) -> str:
    near = difflib.get_close_matches(name, accepted, n=1)
    hint = f": did you mean {near[0]}?" if near else ""
    listed = f"it accepts {', '.join(accepted) if accepted else 'none'}"
    return f"environment.arguments.{name}: gym:{env_id} does not accept it{hint}; {listed}"


def _accepted(env_id: str) -> tuple[list[str], bool]:
    """The names of arguments of an environment's constructor, and whether they are all that it accepts."""
    module, _, name = env_id.rpartition(":")
    if module:
        importlib.import_module(module)
    versions = [spec for spec in gymnasium.registry.values() if name in (spec.id, spec.id.rpartition("-v")[0])]
    newest = max(versions, key=lambda spec: spec.version or 0, default=None)
    if newest is None or newest.entry_point is None:
        return [], False
    creator = newest.entry_point if callable(newest.entry_point) else load_env_creator(newest.entry_point)
    found: list[str] = []
    for number, constructor in enumerate(_constructors(creator)):
        try:
            parameters = inspect.signature(constructor).parameters.values()
        except ValueError:  # it is not written in Python
            return found, False
        named = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        found += [name for name in named if name not in ("self", *SET_HERE, *found)]
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            return found, number == 0
    return found, False


def _constructors(creator: Callable[..., Any]) -> list[Callable[..., Any]]:
    """A function itself; of a class its constructor, and those of its bases, which get what it does not take by name."""
    if not inspect.isclass(creator):
        return [creator]
    return [vars(c)["__init__"] for c in creator.__mro__ if "__init__" in vars(c) and c is not object]


def _nearest(env_id: str) -> str:
    """Why what was surely meant cannot be played, else what has a similar name and can."""
    near = difflib.get_close_matches(env_id, list(gymnasium.registry), n=MAX_TRIED)
    why_not = {other: _why_not_played(other) for other in near}
    for meant in difflib.get_close_matches(env_id, near, n=1, cutoff=SURELY_MEANT):
        if why_not[meant]:
            return f"; there is gym:{meant}, but: {why_not[meant]}"
    if played := [f"gym:{other}" for other in near if not why_not[other]]:
        return f": did you mean {' or '.join(played[:MAX_NAMED])}?"
    return ": install the package that registers it, and write MODULE:ID if Gymnasium does not import it by itself"


def _why_not_played(env_id: str) -> str:
    """Empty if it can be made here, has discrete actions and renders pictures."""
    try:
        with warnings.catch_warnings(action="ignore"):  # of versions that are out of date
            GymPixels(env_id).close()
    except UserError as error:
        return str(error)
    return ""


def _remedy(error: BaseException) -> str:
    """One line about a failure: where a missing module is looked for, else the error's first line.

    Which package has a module is for its author to say: that of the module's own name may be a stranger's.
    """
    if isinstance(error, SystemExit):
        return f"it {_raised(error)}; fix the environment"
    first_line = next(iter(str(error).splitlines()), "") or type(error).__name__
    pip = re.search(r"pip install [^`]+", first_line)
    missing = error.__cause__ if isinstance(error.__cause__, ModuleNotFoundError) else error
    if pip is None and isinstance(missing, ModuleNotFoundError) and missing.name:
        return (
            f"no module {missing.name!r}, neither in the working folder nor installed: set PYTHONPATH to the folder that holds "
            "it, or install the package that it belongs to"
        )
    return first_line


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
        raise UserError(f"gym:{env_id}{_with(arguments)} cannot render: {_remedy(error)}") from error
