"""Write a run's config.yaml, read those of any version, and recognise runs by their hash.

    # config_hash: 0123456789ab
    schema: 2
    preset: paper
    ...

`schema` counts incompatible changes: a key renamed, moved or removed. Files of an earlier schema are migrated while they are
read. Version 0.1.0 wrote schema 1, without that line. A missing key means what the program did before the key existed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import yaml

from remctl.config.hashing import baseline, config_hash
from remctl.config.presets import DESCRIPTIONS
from remctl.config.resolve import build, leaves, read_mapping, resolve, short
from remctl.config.schema import RunConfig
from remctl.errors import UserError
from remctl.games import GYM_PREFIX, kind

SCHEMA = 2
REMEDY = "restore the run's config.yaml from a copy"
_HEAD = re.compile(rb"# config_hash: ([0-9a-f]{12})\n(?:schema: (\d{1,9})\n)?")


def to_yaml(config: RunConfig) -> str:
    """Return the resolved configuration as YAML that `from_yaml` reads back."""
    tree = {"schema": SCHEMA} | config.model_dump(mode="json", by_alias=True)
    return f"# config_hash: {config_hash(config)}\n" + yaml.safe_dump(tree, sort_keys=False)


def from_yaml(path: Path) -> RunConfig:
    """Read a run's config.yaml, of this schema or an earlier one. Raises UserError, one line with the fix."""
    tree = read_mapping(path, REMEDY)
    for step in range(_schema(tree, path), SCHEMA):
        tree = MIGRATIONS[step](tree)
    try:
        given = leaves(tree, f"{path}: ")
    except UserError as error:
        raise UserError(f"{error} (a newer remctl may have written this file: update remctl)") from None
    if not {"game", "seed"} <= given.keys():
        raise UserError(f"{path}: no game or no seed in it: {REMEDY}")
    return build({**baseline(), **given})


def known_hashes(path: Path) -> tuple[str, ...]:
    """Return the hashes of the run of this config.yaml: this version's, then the one of the version that wrote it.

    A file of this schema has one. So has a file that cannot be read: the hash that it states. Without a file there is none.
    """
    try:
        with path.open("rb") as file:
            head = _HEAD.match(file.read(80))
        about = path.stat()
    except OSError:
        return ()
    if head and head[2] and int(head[2]) == SCHEMA:
        return (head[1].decode(),)
    stated = (head[1].decode(),) if head else ()
    return (*_todays_hash(path, about.st_mtime_ns, about.st_size), *stated)


def is_published_environment(config: RunConfig) -> bool:
    """Return whether scores that others published for the game apply: to the environment as its package makes it.

    Its constructor gets no arguments. A Gymnasium one has the frame skip and the time limit of tests that are the preset's.
    """
    if config.environment.arguments:
        return False
    if kind(config.game) != "gym":
        return True
    preset = config.preset if config.preset in DESCRIPTIONS else RunConfig().preset
    return all(getattr(config.environment, key) == value for key, value in _usual(preset, config.game).items())


@cache
def _usual(preset: str, game: str) -> dict[str, int]:
    environment = resolve(game, preset).environment
    return {key: getattr(environment, key) for key in ("frame_skip", "time_limit_test_frames")}


def why_not_trained(config: RunConfig) -> str | None:
    """Return why this version cannot train a run that an earlier one began, and what to do; None if it can."""
    if config.training.random_streams == "named":
        return None
    return (
        "its random streams are those of version 0.1.0 (training.random_streams=shared), which this version does not draw "
        "from: finish it with that version, or train it anew, with training.random_streams=named and another --name or --out"
    )


def precision_of_schema_1(path: Path) -> str | None:
    """Return the precision in which version 0.1.0 computed the run of this file; None for a file of a later version."""
    with suppress(UserError):
        training = read_mapping(path, REMEDY).get("training")
        return training.get("precision") if isinstance(training, dict) else None
    return None


def same_run(a: str | None, b: str | None, path: Path) -> bool:
    """Return whether two hashes are equal, or are both hashes of the run whose config.yaml is `path`."""
    return a == b or {a, b} <= set(known_hashes(path))


@lru_cache(maxsize=4096)
def _todays_hash(path: Path, mtime_ns: int, size: int) -> tuple[str, ...]:
    """Return the hash of a file's content; none if it cannot be read. The last two arguments only invalidate the cache."""
    try:
        return (config_hash(from_yaml(path)),)
    except UserError:
        return ()


def _schema(tree: dict[str, Any], path: Path) -> int:
    """Take the schema's number out of the file's content."""
    schema = tree.pop("schema", 1)
    if isinstance(schema, bool) or not isinstance(schema, int) or schema < 1:
        raise UserError(f"{path}: schema is {short(schema)}, not a whole number from 1: {REMEDY}")
    if schema > SCHEMA:
        raise UserError(
            f"{path}: written by a newer remctl (schema {schema}; this one reads up to {SCHEMA}): update remctl"
        )
    return schema


def _from_schema_1(tree: dict[str, Any]) -> dict[str, Any]:
    """Migrate schema 1, in which a run configured its precision and Gymnasium environments skipped no frames."""
    training, runtime, environment = (tree.get(name) or {} for name in ("training", "runtime", "environment"))
    if not all(isinstance(section, dict) for section in (training, runtime, environment)):
        return tree  # reading it names the section that is no mapping
    # bf16 was the default, so nobody need have asked for it
    precision = "fp32" if training.get("precision") == "fp32" else "auto"
    rest = {name: value for name, value in training.items() if name != "precision"}
    skipped = {"frame_skip": 1} if str(tree.get("game")).startswith(GYM_PREFIX) else {}
    return tree | {
        "training": rest,
        "runtime": runtime | {"precision": precision},
        "environment": environment | skipped,
    }


MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _from_schema_1}
