"""Making a Gymnasium environment of any package, and one line for whatever goes wrong with it."""

from __future__ import annotations

import difflib
import importlib
import inspect
import re
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

import gymnasium
from gymnasium.envs.registration import load_env_creator

from remctl.config.resolve import short
from remctl.envs.families import register
from remctl.envs.modules import module_of, search_working_folder
from remctl.errors import Interrupted, UserError, one_line

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
# What somebody else's code may raise that says nothing against it; SystemExit is caught with its errors.
NOT_ITS_FAULT = (UserError, Interrupted, MemoryError, BrokenPipeError)


def raised(error: BaseException) -> str:
    """What somebody else's code did, in one line: raised an error, or ended the program."""
    return f"called sys.exit({error.code!r})" if isinstance(error, SystemExit) else f"raised {one_line(error)}"


def make(
    env_id: str, arguments: Mapping[str, Any], why_not: Callable[[str], str]
) -> tuple[gymnasium.Env[Any, Any], bool]:
    """Make an environment that renders RGB, or, if its constructor knows no `render_mode`, one that does not (False).

    `why_not` says why another id cannot be played, empty if it can: advice names what can.
    Raises UserError, in one line, for whatever its package or constructor raises.
    """
    register(env_id)
    search_working_folder(env_id)
    try:
        _check_arguments(env_id, arguments)
        try:
            return _made(env_id, arguments, render_mode="rgb_array"), True
        except TypeError as error:
            if not re.search(r"unexpected keyword argument 'render_mode'|takes no arguments", str(error)):
                raise
            return _made(env_id, arguments), False
    except NOT_ITS_FAULT:
        raise
    except gymnasium.error.UnregisteredEnv as error:
        raise UserError(f"Gymnasium knows no environment {env_id!r}{_nearest(env_id, why_not)}") from error
    except (Exception, SystemExit) as error:  # whatever somebody else's constructor raises, the user wants one line
        refused = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        if isinstance(error, TypeError) and refused and refused[1] in arguments:
            raise UserError(_not_accepted(env_id, refused[1], _accepted(env_id)[0])) from error
        raise UserError(f"cannot make gym:{env_id}{described(arguments)}: {remedy(error)}") from error


def _made(env_id: str, arguments: Mapping[str, Any], **rendering: Any) -> gymnasium.Env[Any, Any]:
    # A copy: an environment may change its lists, and the run's configuration is not to change with them.
    return gymnasium.make(env_id, disable_env_checker=True, **rendering, **deepcopy(dict(arguments)))


def described(arguments: Mapping[str, Any]) -> str:
    """The constructor's arguments for an error line; empty if there are none."""
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
    name = env_id.rpartition(":")[2]
    if module := module_of(env_id):
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


def _nearest(env_id: str, why_not: Callable[[str], str]) -> str:
    """Why what was surely meant cannot be played, else what has a similar name and can."""
    near = difflib.get_close_matches(env_id, list(gymnasium.registry), n=MAX_TRIED)
    reasons = {other: why_not(other) for other in near}
    for meant in difflib.get_close_matches(env_id, near, n=1, cutoff=SURELY_MEANT):
        if reasons[meant]:
            return f"; there is gym:{meant}, but: {reasons[meant]}"
    if played := [f"gym:{other}" for other in near if not reasons[other]]:
        return f": did you mean {' or '.join(played[:MAX_NAMED])}?"
    return ": install the package that registers it, and write MODULE:ID if Gymnasium does not import it by itself"


def remedy(error: BaseException) -> str:
    """One line about a failure: where a missing module is looked for, else the error's first line.

    Which package has a module is for its author to say: that of the module's own name may be a stranger's.
    """
    if isinstance(error, SystemExit):
        return f"it {raised(error)}; fix the environment"
    first_line = next(iter(str(error).splitlines()), "") or type(error).__name__
    pip = re.search(r"pip install [^`]+", first_line)
    missing = error.__cause__ if isinstance(error.__cause__, ModuleNotFoundError) else error
    if pip is None and isinstance(missing, ModuleNotFoundError) and missing.name:
        return (
            f"no module {missing.name!r}, neither in the working folder nor installed: set PYTHONPATH to the folder that holds "
            "it, or install the package that it belongs to"
        )
    return first_line
