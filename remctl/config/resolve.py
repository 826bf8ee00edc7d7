"""From preset, variant, file and `--set` to one RunConfig; errors that name the key.

Order, later wins: schema defaults, preset, variant, --config file, --set, game and seed.
"""

from __future__ import annotations

import difflib
import json
import re
import reprlib
from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from remctl.config import yaml12
from remctl.config.arguments import MAPPINGS, key_of, lay, spread
from remctl.config.presets import DESCRIPTIONS, PRESET_VARIANTS, preset_overrides
from remctl.config.schema import RunConfig
from remctl.errors import UserError
from remctl.games import check_game
from remctl.variants import VARIANTS

NOT_OVERRIDES = ("preset", "variant", "game", "seed")
MAX_FILE_BYTES = 1_000_000
MAX_PROBLEMS = 8  # that one message names

T = TypeVar("T")
R = TypeVar("R")

# `repr`, but of large values only as much as a message quotes: text keeps its first 60 characters, lists their first 20.
_REPR = reprlib.Repr()
_REPR.maxlevel, _REPR.maxlist, _REPR.maxtuple, _REPR.maxdict = 3, 20, 20, 20
_REPR.maxstring = _REPR.maxlong = _REPR.maxother = 200


def resolve(
    game: str,
    preset: str = "paper",
    variant: str = "rem",
    file: Path | None = None,
    sets: Iterable[str] = (),
    seed: int = 0,
) -> RunConfig:
    """The complete configuration of one run. Raises UserError, one line with the fix.

    Without a variant of its own, what a preset such as `iris` trains bears its own label, not REM's.
    """
    game = check_game(game)
    overrides = preset_overrides(one_of(preset, DESCRIPTIONS, "preset"), game)
    overrides = lay(overrides, VARIANTS[one_of(variant, VARIANTS, "variant")].overrides)
    for layer in (read_file(file) if file else {}, *(dict([pair]) for pair in each(parse_set, sets))):
        overrides = lay(overrides, layer)
    label = PRESET_VARIANTS.get(preset, variant) if variant == "rem" else variant
    return build(overrides | {"game": game, "preset": preset, "variant": label, "seed": seed})


def build(overrides: Mapping[str, Any], over: RunConfig | None = None) -> RunConfig:
    """Dotted overrides over the schema's defaults, or over another configuration, validated."""
    tree = (over or RunConfig()).model_dump(by_alias=True)
    for key, value in overrides.items():
        _assign(tree, key, value)
    return validate(tree)


def validate(tree: Mapping[str, Any]) -> RunConfig:
    """A nested mapping as a RunConfig; UserError with the key's path, what was given and what is allowed."""
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as error:
        raise UserError(_first_problem(error)) from None


def one_of(name: str, known: Iterable[str], what: str) -> str:
    """`name` if known; else a UserError with the nearest names."""
    known = list(known)
    if name in known:
        return name
    raise UserError(f"unknown {what} {name!r}: {suggestion(name, known)}")


def each(check: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """`check` of each item. Raises one UserError that names everything that is wrong, not the first alone."""
    found: list[R] = []
    problems: list[str] = []
    for item in items:
        try:
            found.append(check(item))
        except UserError as error:
            problems.append(str(error))
    if problems:
        more = f"; and {len(problems) - MAX_PROBLEMS} more" if len(problems) > MAX_PROBLEMS else ""
        raise UserError("; ".join(problems[:MAX_PROBLEMS]) + more)
    return found


def suggestion(name: str, known: list[str]) -> str:
    """`did you mean a, b?`, or all names where none is near and they are few."""
    nearness = {k: _nearness(name, k) for k in known}
    least = 1.0 if 1.0 in nearness.values() else 0.6
    near = sorted((k for k in known if nearness[k] >= least), key=lambda k: -nearness[k])
    if near:
        return f"did you mean {', '.join(near[:3])}?"
    return f"known: {', '.join(known)}" if len(known) <= 12 else "see `remctl config show`"


def _nearness(name: str, known: str) -> float:
    """1 for the same name in another section or case; 0 for nothing in common."""
    name, known = name.lower(), known.lower()
    pairs = ((name, known), (name.rsplit(".", 1)[-1], known.rsplit(".", 1)[-1]))
    return max(difflib.SequenceMatcher(None, *pair).ratio() for pair in pairs)


def keys(config: BaseModel | None = None) -> dict[str, Any]:
    """All dotted keys with their values (tuples as lists), in the schema's order."""
    return flatten((config or RunConfig()).model_dump(mode="json", by_alias=True))


def sections() -> list[str]:
    """All names that hold keys: `tokenizer`, `tokenizer.training`, ..."""
    parents = (key.split(".")[:depth] for key in keys() for depth in range(1, key.count(".") + 1))
    return list(dict.fromkeys(".".join(names) for names in parents))


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{'a': {'b': 1}} as {'a.b': 1}."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        path = f"{prefix}{key}"
        flat |= flatten(value, f"{path}.") if isinstance(value, Mapping) and path not in MAPPINGS else {path: value}
    return flat


def parse_set(text: str) -> tuple[str, Any]:
    """`key=value` with a YAML value; UserError with the form for anything else."""
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals or not key:
        raise UserError(f"--set {text!r}: write key=value, for example --set world_model.num_layers=3")
    check_key(key, "--set: ", NOT_OVERRIDES)
    try:
        return key, yaml12.load(value)
    except yaml12.NotYamlError as error:
        raise UserError(f"--set {key}: value is not YAML: {error.problem}") from None


def keys_of(sets: Iterable[str]) -> list[str]:
    """The keys that `--set` options name."""
    return [key for key, _ in each(parse_set, sets)]


def read_file(path: Path) -> dict[str, Any]:
    """A YAML file of nested or dotted keys as dotted overrides."""
    example = "write configuration keys with values, for example 'world_model: {num_layers: 3}'"
    return leaves(read_mapping(path, example), f"{path}: ", NOT_OVERRIDES)


def check_key(key: str, where: str, refused: Iterable[str]) -> None:
    """UserError, which begins with `where`, for a key that is unknown, a section, or one of `refused`."""
    known = list(keys())
    if key in refused:
        raise UserError(f"{where}{key} is not set here: give --{key} on the command line")
    if key in sections():
        inside = next(k for k in known if k.startswith(f"{key}."))
        raise UserError(f"{where}{key} is a section: set one of its keys, for example {inside}")
    if key_of(key) not in known:
        raise UserError(f"{where}unknown key {key!r}: {suggestion(key, known)}")
    if not all(key.split(".")):
        raise UserError(f"{where}{key} has no name at one of its dots: write {key_of(key)}.NAME")


def short(value: object) -> str:
    """A value as a message quotes it: 60 characters at most."""
    text = json.dumps(value) if value is None or isinstance(value, bool) else _REPR.repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def one_line(value: object) -> str:
    """Whatever it is, as one line of 200 characters at most."""
    return " ".join(str(value).split())[:200]


def read_mapping(path: Path, remedy: str) -> dict[str, Any]:
    """A YAML file that holds a mapping, or nothing. Raises UserError ending in `remedy` for any other."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise UserError(f"{path}: larger than 1 MB, which no configuration is: give another file")
        tree = yaml12.load(data)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}: give a readable YAML file") from None
    except yaml12.NotYamlError as error:
        where = path if error.line is None else f"{path}:{error.line}"
        raise UserError(f"{where}: not YAML ({error.problem}): {remedy}") from None
    if not isinstance(tree, dict | None):
        raise UserError(f"{path}: holds {short(tree)}, not a mapping: {remedy}")
    return tree or {}


def leaves(tree: Mapping[Any, Any], where: str, refused: Iterable[str] = (), prefix: str = "") -> dict[str, Any]:
    """Nested or dotted keys as dotted ones, each checked before anything below it is looked at.

    Raises UserError for an unknown or refused key, and for one given twice.
    """

    def within(item: tuple[Any, Any]) -> dict[str, Any]:
        key, value = f"{prefix}{item[0]}", item[1]
        if isinstance(value, Mapping) and key in sections():
            return leaves(value, where, refused, f"{key}.")
        check_key(key, where, refused)
        return {key: value}

    flat: dict[str, Any] = {}
    for found in each(within, tree.items()):
        if twice := flat.keys() & found:
            raise UserError(f"{where}{min(twice)} is given twice, nested and dotted: keep one of them")
        flat |= found
    return spread(flat, where)


def _assign(tree: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for name in parents:
        tree = tree.setdefault(name, {})
    tree[last] = deepcopy(value)  # what is given inside it later is not the caller's


def _first_problem(error: ValidationError) -> str:
    problem = error.errors(include_url=False)[0]
    if problem["type"] == "value_error":
        return str(problem["ctx"]["error"])
    path = ".".join(str(part) for part in problem["loc"])
    return f"{path}: given {short(problem['input'])}; allowed: {_allowed(problem['msg'])}"


def _allowed(message: str) -> str:
    """Pydantic's message in the words of a YAML file."""
    text = one_line(message).removeprefix("Input should be ").replace("a valid ", "").replace("tuple", "list")
    return re.split(r", unable to|, got a| after validation", text.removeprefix("Tuple should have "))[0]
