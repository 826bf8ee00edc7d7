"""Arguments of Gymnasium environments: a key that is a mapping of any names, nested or dotted, layer over layer."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from remctl.config import config_hash, differing, from_yaml, identity, keys, resolve, to_yaml
from remctl.config.effects import refuse_without_effect
from remctl.config.hashing import baseline
from remctl.config.resolve import keys_of
from remctl.errors import UserError
from remctl.explain import differences_yaml, explain
from remctl.sweep.spec import read_spec, wanted_runs

GYM = "gym:CartPole-v1"


def given(*sets: str, file: Path | None = None, game: str = GYM) -> dict[str, Any]:
    return resolve(game, "quick", file=file, sets=sets).environment.arguments


def dotted(*sets: str) -> list[str]:
    return [f"environment.arguments{text}" for text in sets]


@pytest.mark.parametrize(
    ("sets", "value"),
    [
        ([".size=5"], {"size": 5}),
        (["={size: 5}"], {"size": 5}),
        ([".size=5.0"], {"size": 5.0}),
        (
            [".wide=true", ".deep=null", ".name=no", ".rate=1e-3"],
            {"wide": True, "deep": None, "name": "no", "rate": 1e-3},
        ),
        ([".map=[SF, FG]", ".grid=[[1, 2], [3]]"], {"map": ["SF", "FG"], "grid": [[1, 2], [3]]}),
        ([".options.size=5", ".options.inner.depth=2"], {"options": {"size": 5, "inner": {"depth": 2}}}),
        (["={options: {size: 5}}", ".options.depth=2"], {"options": {"size": 5, "depth": 2}}),
        ([".size=5", ".size=7"], {"size": 7}),
        ([".size=5", "={depth: 2}"], {"size": 5, "depth": 2}),
        ([".size=5", "={}"], {}),
        ([".options.size=5", ".options=3"], {"options": 3}),
        ([".options=3", ".options.size=5"], {"options": {"size": 5}}),
        ([".options.size=5", ".options=3", ".options.size=6"], {"options": {"size": 6}}),
        ([".options={}"], {"options": {}}),
        ([".text=''"], {"text": ""}),
        ([".list=[{a: 1}, null]"], {"list": [{"a": 1}, None]}),
    ],
)
def test_arguments_are_given_dotted_or_nested_and_later_ones_win(sets: list[str], value: dict[str, Any]) -> None:
    found = given(*dotted(*sets))
    assert found == value
    assert repr(found) == repr(value)  # 5, 5.0 and true are different arguments


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("environment: {arguments: {size: 5, options: {a: 1}}}", {"size": 5, "options": {"a": 1}}),
        ("environment.arguments: {size: 5}", {"size": 5}),
        ("environment: {arguments.size: 5}", {"size": 5}),
        (
            "environment.arguments.size: 5\nenvironment.arguments.options: {a.b: 1}",
            {"size": 5, "options": {"a": {"b": 1}}},
        ),
        ("environment: {arguments: {}}", {}),
    ],
)
def test_a_file_gives_them_nested_or_dotted_and_set_adds_to_it(
    text: str, value: dict[str, Any], tmp_path: Path
) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(text)
    assert given(file=file) == value
    assert given(*dotted(".more=1"), file=file) == value | {"more": 1}


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (["=5"], r"environment\.arguments: given '5'; allowed: a mapping of names to values, such as \{size: 5\}"),
        (["=[size]"], "allowed: a mapping of names to values"),
        (["=null"], "allowed: a mapping of names to values"),
        (["=size"], "allowed: a mapping of names to values"),
        (["."], "write key=value"),
        ([".=5"], r"environment\.arguments\. has no name at one of its dots: write environment\.arguments\.NAME"),
        (["..size=5"], "has no name at one of its dots"),
        ([".size.=5"], "has no name at one of its dots"),
        ([".a b=5"], "'a b' cannot be the name of an argument: write name: value"),
        (["={1: a}"], "the name 1 is not text: write it in quotes"),
        (["={options: {1: a}}"], r"environment\.arguments\.options: the name 1 is not text"),
        ([".list=[{1: a}]"], r"environment\.arguments\.list\[0\]: the name 1 is not text"),
        (["={null: a}"], "the name None is not text"),
        (["={'': a}"], "'' cannot be a name: write one"),
        (["={options: {'a.': 1}}"], r"'a\.' cannot be a name: write one"),
        (["={? [1, 2] : a}"], "value is not YAML: .*unhashable key"),
        (["={size: 5, size: 6}"], "'size' is given twice"),
        (["={size: 5"], "value is not YAML"),
        (["={a.b: 1, a: {b: 2}}"], r"environment\.arguments\.a\.b is given twice, nested and dotted"),
        (["={a: 1, a.b: 2}"], r"environment\.arguments\.a is given twice, nested and dotted"),
        ([".when=!!set {a, b}"], r"environment\.arguments\.when: given \"\{.*\}\", a set; allowed: null, true, false"),
        ([".data=!!binary aGk="], r"environment\.arguments\.data: given \"b'hi'\", a bytes; allowed: null"),
        ([".list=[1, [!!binary aGk=]]"], r"environment\.arguments\.list\[1\]\[0\]: given"),
        ([".rate=!!float nan"], r"environment\.arguments\.rate: given 'nan', a float; allowed: .*finite numbers"),
        ([".size=&a 5"], "anchors"),
        ([f"={'{a: ' * 40}1{'}' * 40}"], "nested too deeply"),
        ([f".list={'[' * 90}{']' * 90}"], "nested too deeply"),
    ],
)
def test_what_is_no_argument_is_refused_in_one_line(sets: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message) as refused:
        given(*dotted(*sets))
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize(
    "key", ["environment.argument.size", "environment.arguments_size", "enviroment.arguments.size"]
)
def test_a_misspelt_key_is_unknown(key: str) -> None:
    with pytest.raises(UserError, match=f"unknown key '{key}': did you mean .*environment.arguments"):
        given(f"{key}=5")


@pytest.mark.parametrize(
    "text",
    [
        "environment: {arguments: {size: 5}}\nenvironment.arguments.size: 6",
        "environment.arguments: {size: 5}\nenvironment.arguments.size: 6",
        "environment.arguments.size: {a: 5}\nenvironment.arguments.size.a: 6",
        "environment.arguments.size: 5\nenvironment.arguments.size.a: 6",
    ],
)
def test_an_argument_given_twice_in_a_file_is_refused(text: str, tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=r"own.yaml: environment\.arguments\.size.* is given twice, nested and dotted"):
        given(file=file)


def test_arguments_make_other_runs_of_gym_environments_and_of_no_others() -> None:
    base = resolve(GYM, "quick")
    hashes = {
        config_hash(resolve(GYM, "quick", sets=dotted(*sets))) for sets in ([], [".a=1"], [".a=1.0"], [".a=true"])
    }
    assert len(hashes) == 4
    assert config_hash(base) in hashes
    assert "environment.arguments" not in identity(base)
    five = resolve(GYM, "quick", sets=dotted(".a=1"))
    assert identity(five)["environment.arguments"] == {"a": 1}
    assert differing(base, five) == {"environment.arguments": ({}, {"a": 1})}
    assert differing(five, resolve(GYM, "quick", sets=dotted(".a=true"))).keys() == {"environment.arguments"}
    assert config_hash(five) == config_hash(resolve(GYM, "quick", sets=dotted("={a: 1}")))
    for game in ("Catch", "Pong"):
        without, idle = resolve(game, "quick"), resolve(game, "quick", sets=dotted(".a=1"))
        assert config_hash(without) == config_hash(idle)
        assert differing(without, idle) == {}
        with pytest.raises(
            UserError, match=r"environment\.arguments has no effect here: only gym: environments have it"
        ):
            refuse_without_effect(idle, keys_of(dotted(".a=1")), lambda without=without: without)
    refuse_without_effect(five, keys_of(dotted(".a=1")), lambda: base)


def test_the_order_in_which_they_are_given_makes_no_other_run() -> None:
    one, other = (resolve(GYM, sets=dotted(*sets)) for sets in ([".a=1", ".b=2"], [".b=2", ".a=1"]))
    assert config_hash(one) == config_hash(other)
    assert hash(one) == hash(other)


def test_a_runs_config_file_keeps_them(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    sets = dotted(".size=5", ".name='no'", ".deep.er=[1, {a: null}]", ".empty={}", ".list=[]", ".digits='010'")
    config = resolve(GYM, "quick", sets=sets)
    file.write_text(to_yaml(config))
    assert from_yaml(file) == config
    assert config_hash(from_yaml(file)) == config_hash(config)
    assert repr(from_yaml(file).environment.arguments) == repr(config.environment.arguments)


def test_one_run_s_arguments_are_not_anothers() -> None:
    """Defaults and baselines are shared by all configurations."""
    before = copy.deepcopy(dict(baseline()))
    first = given(*dotted(".size=5", ".options.a=1"))
    first["options"]["a"] = 2
    assert given() == {}
    assert given(*dotted(".options.b=1")) == {"options": {"b": 1}}
    assert dict(baseline()) == before


def test_they_are_explained_and_shown() -> None:
    assert explain("environment.arguments.size") == explain("environment.arguments")
    about = explain("environment.arguments")
    assert about.allowed.startswith("mapping of names to plain values")  # type: ignore[union-attr]
    config = resolve(GYM, "quick", sets=dotted(".size=5"))
    assert "environment.arguments: {size: 5}" in differences_yaml(config)
    assert keys(config)["environment.arguments"] == {"size": 5}


SPEC = """name: sizes
question: Does the size matter?
control: rem
variants:
  - rem
  - {{name: large, overrides: {own}}}
games: [{game}]
seeds: 1
preset: quick
overrides: {{environment: {{arguments: {{size: 5, goal: [1, 2]}}}}}}
{rest}
"""


def spec(tmp_path: Path, own: str, rest: str = "", game: str = GYM) -> dict[str, Any]:
    file = tmp_path / "sizes.yaml"
    file.write_text(SPEC.format(own=own, rest=rest, game=game))
    return {run.variant: run.config.environment.arguments for run in wanted_runs(read_spec(file))}


@pytest.mark.parametrize(
    "own",
    ["{environment: {arguments: {size: 7}}}", "{environment.arguments: {size: 7}}", "{environment.arguments.size: 7}"],
)
def test_a_spec_gives_them_in_every_form_and_a_variant_adds_to_all(own: str, tmp_path: Path) -> None:
    assert spec(tmp_path, own) == {"rem": {"size": 5, "goal": [1, 2]}, "large": {"size": 7, "goal": [1, 2]}}


def test_a_grid_over_an_argument(tmp_path: Path) -> None:
    found = spec(tmp_path, "{controller.discount: 0.9}", "grid: {environment.arguments.size: [5, 7]}")
    assert {name: value["size"] for name, value in found.items()} == {
        "rem": 5,
        "large": 5,
        "rem+environment.arguments.size=7": 7,
        "large+environment.arguments.size=7": 7,
    }


@pytest.mark.parametrize(
    ("own", "game", "message"),
    [
        ("{environment.arguments: 7}", GYM, r"sizes.yaml:6: environment\.arguments: given '7'; allowed: a mapping"),
        ("{environment: {arguments: {size: 7}}, environment.arguments.size: 8}", GYM, r"given twice"),
        ("{environment: {arguments: {1: 7}}}", GYM, "the name 1 is not text"),
        ("{environment: {arguments: {a b: 7}}}", GYM, "sizes.yaml:6: .*'a b' cannot be the name of an argument"),
        ("{environment: {arguments: {size: 7}}}", "Catch", "sizes.yaml:6: environment.arguments has no effect here"),
        ("{environment.arguments.size: 5}", GYM, "'large' is the control 'rem' in every game"),
    ],
)
def test_a_mistake_in_a_spec_is_said_with_its_line(own: str, game: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message) as refused:
        spec(tmp_path, own, game=game)
    assert "\n" not in str(refused.value)
