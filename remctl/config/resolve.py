"""From preset, variant, file and `--set` to one RunConfig; errors that name the key; the run's identity.

Order, later wins: schema defaults, preset, variant, --config file, --set, game and seed.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from remctl.config.presets import DESCRIPTIONS, preset_overrides
from remctl.config.schema import RunConfig
from remctl.errors import UserError
from remctl.games import check_game
from remctl.variants import VARIANTS

NOT_IDENTITY = ("preset", "variant", "runtime")
MAX_FILE_BYTES = 1_000_000


def resolve(
    game: str,
    preset: str = "paper",
    variant: str = "rem",
    file: Path | None = None,
    sets: Iterable[str] = (),
    seed: int = 0,
) -> RunConfig:
    """The complete configuration of one run. Raises UserError, one line with the fix."""
    game = check_game(game)
    overrides = dict(preset_overrides(one_of(preset, DESCRIPTIONS, "preset"), game))
    overrides |= VARIANTS[one_of(variant, VARIANTS, "variant")].overrides
    overrides |= read_file(file) if file else {}
    overrides |= dict(parse_set(text) for text in sets)
    return build(overrides | {"game": game, "preset": preset, "variant": variant, "seed": seed})


def build(overrides: Mapping[str, Any]) -> RunConfig:
    """Dotted overrides over the schema's defaults, validated."""
    tree = RunConfig().model_dump(by_alias=True)
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


def suggestion(name: str, known: list[str]) -> str:
    """`did you mean a, b?`, or all names where none is near and they are few."""
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    near = near or [k for k in known if k.rsplit(".", 1)[-1] == name.rsplit(".", 1)[-1]][:3]
    if near:
        return f"did you mean {', '.join(near)}?"
    return f"known: {', '.join(known)}" if len(known) <= 12 else "see `remctl config schema`"


def keys(config: BaseModel | None = None) -> dict[str, Any]:
    """All dotted keys with their values (tuples as lists), in the schema's order."""
    return flatten((config or RunConfig()).model_dump(mode="json", by_alias=True))


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{'a': {'b': 1}} as {'a.b': 1}."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        path = f"{prefix}{key}"
        flat |= flatten(value, f"{path}.") if isinstance(value, Mapping) else {path: value}
    return flat


def parse_set(text: str) -> tuple[str, Any]:
    """`key=value` with a YAML value."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise UserError(f"--set {text!r}: write key=value, for example --set world_model.num_layers=3")
    return _known_key(key.strip()), _yaml_scalar(key, value)


def read_file(path: Path) -> dict[str, Any]:
    """A YAML file of nested or dotted keys as dotted overrides."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise UserError(f"{path}: larger than 1 MB, which no configuration is: give another file")
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}: give a readable YAML file") from None
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: not YAML: {_one_line(error)}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict) or not all(isinstance(k, str) for k in tree):
        raise UserError(f"{path}: expected a mapping of configuration keys, for example 'world_model: {{num_layers: 3}}'")
    labels = {"preset", "variant", "game", "seed"} & set(tree)
    if labels:
        raise UserError(f"{path}: {sorted(labels)[0]!r} is given on the command line (--{sorted(labels)[0]}), not in a file")
    return {_known_key(key): value for key, value in _flatten_guarded(path, tree).items()}


def identity(config: RunConfig) -> dict[str, Any]:
    """What makes a run the run it is: every key but labels and `runtime`."""
    return {k: v for k, v in keys(config).items() if k.split(".")[0] not in NOT_IDENTITY}


def config_hash(config: RunConfig) -> str:
    """12 hexadecimal digits: the run's identity."""
    text = json.dumps(identity(config), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def differing(a: RunConfig, b: RunConfig) -> dict[str, tuple[Any, Any]]:
    """Identity keys whose values differ."""
    x, y = identity(a), identity(b)
    return {key: (x.get(key), y.get(key)) for key in x | y if x.get(key) != y.get(key)}


def to_yaml(config: RunConfig) -> str:
    """The resolved configuration as YAML that `from_yaml` reads back."""
    tree = config.model_dump(mode="json", by_alias=True)
    return f"# config_hash: {config_hash(config)}\n" + yaml.safe_dump(tree, sort_keys=False)


def from_yaml(path: Path) -> RunConfig:
    """A run folder's config.yaml."""
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as a run's configuration: {_one_line(error)}") from None
    if not isinstance(tree, dict):
        raise UserError(f"{path}: empty or not a run's configuration")
    for key in flatten(tree):
        _known_key(key, where=f"{path}: ")
    return validate(tree)


def _assign(tree: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for name in parents:
        tree = tree[name]
    tree[last] = value


def _known_key(key: str, where: str = "") -> str:
    known = list(keys())
    if key in known:
        return key
    inside = [k for k in known if k.startswith(f"{key}.")]
    if inside:
        raise UserError(f"{where}{key} is a section: set one of its keys, for example {inside[0]}")
    raise UserError(f"{where}unknown key {key!r}: {suggestion(key, known)}")


def _flatten_guarded(path: Path, tree: dict[str, Any]) -> dict[str, Any]:
    try:
        return {str(k): v for k, v in flatten(tree).items()}
    except RecursionError:
        raise UserError(f"{path}: nested too deeply or in a circle: write plain keys") from None


def _yaml_scalar(key: str, value: str) -> Any:
    try:
        return yaml.safe_load(value)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"--set {key}: value is not YAML: {_one_line(error)}") from None


def _first_problem(error: ValidationError) -> str:
    problem = error.errors(include_url=False)[0]
    path = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "value_error":
        return str(problem["ctx"]["error"])
    given = repr(problem["input"])
    given = given if len(given) <= 60 else given[:57] + "..."
    return f"{path}: given {given}; allowed: {_allowed(problem['msg'])}"


def _allowed(message: str) -> str:
    return _one_line(message).removeprefix("Input should be ").removeprefix("a valid ").replace("valid ", "")


def _one_line(value: object) -> str:
    return " ".join(str(value).split())[:200]
