"""Arguments of Gymnasium environments reach their constructors, and those that none accepts are refused by name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from remctl import runner
from remctl.config import config_hash, from_yaml, resolve
from remctl.envs import make_env
from remctl.errors import UserError
from remctl.runs.files import read_json
from tests.tiny import TINY

MADE: list[dict[str, Any]] = []  # what constructors were given, in turn


class Field(gymnasium.Env[np.ndarray, Any]):
    """A picture whose brightness is `size`; two actions; ends after 6 steps."""

    metadata = {"render_modes": ["rgb_array"]}
    observation_space = gymnasium.spaces.Box(0, 1, (1,))
    action_space: gymnasium.Space[Any] = gymnasium.spaces.Discrete(2)

    def __init__(self, size: int = 8, goal: Any = (0, 0), options: Any = None, render_mode: str | None = None) -> None:
        if not isinstance(size, int) or size < 1:
            raise ValueError(f"size must be positive, not {size}")
        MADE.append({"size": size, "goal": goal, "options": options})
        self.size, self.at, self.render_mode = size, 0, render_mode
        if isinstance(goal, list):
            goal.append("changed")

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.at = 0
        return np.zeros(1), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.at += 1
        return np.zeros(1), 1.0, self.at == 6, False, {}

    def render(self) -> Any:
        return np.full((32, 32, 3), 10 * self.size + self.at, np.uint8)


class Passing(Field):
    """Gives on what it does not know."""

    def __init__(self, depth: int = 1, **others: Any) -> None:
        super().__init__(**others)


class Swallowing(Field):
    def __init__(self, **anything: Any) -> None:
        super().__init__(size=anything.get("width", 8))


class Without(Field):
    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__()


class Needing(Field):
    def __init__(self, depth: int, render_mode: str | None = None) -> None:
        super().__init__()


def by_function(height: int = 3, render_mode: str | None = None) -> Field:
    return Field(size=height)


MAKERS: dict[str, Any] = {
    "Field": Field,
    "Passing": Passing,
    "Swallowing": Swallowing,
    "Without": Without,
    "Needing": Needing,
    "ByFunction": by_function,
    "ByName": f"{__name__}:Field",
}


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    MADE.clear()
    for name, maker in MAKERS.items():
        gymnasium.register(f"{name}Arguments-v0", maker)
    yield
    for name in MAKERS:
        del gymnasium.registry[f"{name}Arguments-v0"]


def made(name: str, *sets: str) -> dict[str, Any]:
    """What the last constructor was given."""
    config = resolve(f"gym:{name}Arguments-v0", "quick", sets=[f"environment.arguments{text}" for text in sets])
    make_env(config.game, config.environment, training=True, seed=0).close()
    return MADE[-1]


def test_arguments_reach_the_constructor_with_their_types() -> None:
    assert made("Field") == {"size": 8, "goal": (0, 0), "options": None}
    found = made("Field", ".size=5", ".goal=[1, 2]", ".options={a: {b: no, c: [true, null]}}")
    assert found["size"] == 5
    assert found["options"] == {"a": {"b": "no", "c": [True, None]}}


@pytest.mark.parametrize(
    ("name", "sets", "size"),
    [
        ("Passing", [".size=3", ".depth=2"], 3),
        ("Swallowing", [".width=4"], 4),
        ("ByFunction", [".height=2"], 2),
        ("ByName", [".size=6"], 6),
    ],
)
def test_constructors_of_every_form_take_them(name: str, sets: list[str], size: int) -> None:
    assert made(name, *sets)["size"] == size


@pytest.mark.parametrize(
    ("name", "sets", "message"),
    [
        (
            "Field",
            [".sise=5"],
            "sise: gym:FieldArguments-v0 does not accept it: did you mean size?; it accepts size",
        ),
        (
            "Field",
            [".size=5", ".weight=5"],
            "weight: gym:FieldArguments-v0 does not accept it; it accepts size, goal, options",
        ),
        ("ByName", [".Size=5"], "does not accept it: did you mean size?; it accepts size, goal, options"),
        ("Passing", [".sise=5"], "does not accept it: did you mean size?; it accepts depth, size, goal, options"),
        ("Without", [".size=5"], "size: gym:WithoutArguments-v0 does not accept it; it accepts none"),
        ("ByFunction", [".size=5"], "does not accept it; it accepts height"),
        ("Field", [".self=5"], "self: gym:FieldArguments-v0 does not accept it"),
        ("Field", [".render_mode=human"], "render_mode: it is rgb_array, as the agent sees pictures; leave it out"),
        ("Swallowing", [".render_mode=human"], "render_mode: it is rgb_array"),
        ("Field", [".id=Other-v0"], "id: it is the game, gym:ID; leave it out"),
        (
            "Field",
            [".max_episode_steps=3"],
            "environment.time_limit_train_frames and environment.time_limit_test_frames",
        ),
        ("Field", [".disable_env_checker=false"], "Gymnasium's checker is off; leave it out"),
        ("Field", [".size=-1"], "with environment.arguments {'size': -1}: size must be positive, not -1"),
        ("Field", [".size=big"], "with environment.arguments {'size': 'big'}: size must be positive, not big"),
        ("Needing", [], "missing 1 required positional argument: 'depth'"),
    ],
)
def test_what_the_constructor_does_not_accept_is_refused_in_one_line(name: str, sets: list[str], message: str) -> None:
    with pytest.raises(UserError) as refused:
        made(name, *sets)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_an_id_without_its_version_is_asked_too() -> None:
    config = resolve("gym:FieldArguments", "quick", sets=["environment.arguments.sise=5"])
    with pytest.raises(UserError, match="did you mean size"):
        make_env(config.game, config.environment, training=True, seed=0)


def test_an_environment_that_changes_its_arguments_changes_no_configuration() -> None:
    config = resolve("gym:FieldArguments-v0", "quick", sets=["environment.arguments.goal=[1]"])
    for training in (True, False):
        make_env(config.game, config.environment, training=training, seed=0).close()
    assert config.environment.arguments == {"goal": [1]}
    assert [given["goal"] for given in MADE] == [[1, "changed"]] * 2


def test_a_run_keeps_its_arguments_and_plays_with_them_everywhere(tmp_path: Path) -> None:
    few = ("training.num_epochs=1", "evaluation.final_episodes=2", "evaluation.every_epochs=1")
    game = "gym:FieldArguments-v0"
    sets = (*TINY, *few, "tokenizer.warmup=fixed", "environment.arguments.size=5")
    arguments = {"out": tmp_path, "experiment": "x", "device": "cpu", "command": [], "quiet": True}
    config = resolve(game, "quick", sets=sets)
    run = runner.train(config, **arguments)
    assert {given["size"] for given in MADE} == {5}
    assert from_yaml(run.config).environment.arguments == {"size": 5}
    other = resolve(game, "quick", sets=(*sets, "environment.arguments.size=6"))
    assert read_json(run.result)["config_hash"] == config_hash(config) != config_hash(other)
    with pytest.raises(UserError, match=r'environment.arguments is \{"size": 5\} there, \{"size": 6\} here'):
        runner.train(other, **arguments)
    MADE.clear()
    runner.evaluate(run.path, 1, "cpu")
    assert {given["size"] for given in MADE} == {5}


def test_a_refused_argument_leaves_no_folder(tmp_path: Path) -> None:
    config = resolve("gym:FieldArguments-v0", "quick", sets=("environment.arguments.sise=5",))
    with pytest.raises(UserError, match="did you mean size"):
        runner.train(config, out=tmp_path / "runs", experiment="x", device="cpu", command=[], quiet=True)
    assert not (tmp_path / "runs").exists()
