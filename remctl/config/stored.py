"""A run's config.yaml: written, read whichever version wrote it, and recognised by its hash.

    # config_hash: 0123456789ab
    schema: 2
    preset: paper
    ...

`schema` counts the changes that a file cannot be read across as it stands: a key renamed, moved or removed. Files of an
earlier schema are migrated while they are read; version 0.1.0 wrote schema 1, without that line. A key that is merely missing
is read as what the program did before it existed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from remctl.config.hashing import baseline, config_hash, digest, identity_keys
from remctl.config.resolve import build, flatten, leaves, read_mapping, short
from remctl.config.schema import RunConfig
from remctl.errors import UserError

SCHEMA = 2
REMEDY = "restore the run's config.yaml from a copy"
_HEAD = re.compile(rb"# config_hash: ([0-9a-f]{12})\n(?:schema: (\d{1,9})\n)?")


def to_yaml(config: RunConfig) -> str:
    """The resolved configuration as YAML that `from_yaml` reads back."""
    tree = {"schema": SCHEMA} | config.model_dump(mode="json", by_alias=True)
    return f"# config_hash: {config_hash(config)}\n" + yaml.safe_dump(tree, sort_keys=False)


def from_yaml(path: Path) -> RunConfig:
    """A run's config.yaml, of this schema or an earlier one. Raises UserError, one line with the fix."""
    tree = read_mapping(path, REMEDY)
    for step in range(_schema(tree, path), SCHEMA):
        tree = MIGRATIONS[step](tree)
    try:
        given = leaves(tree, f"{path}: ")
    except UserError as error:
        raise UserError(f"{error} (a newer remctl may have written this file: update remctl)") from None
    return build({**baseline(), **given})


def known_hashes(path: Path) -> tuple[str, ...]:
    """The hashes by which the run of this config.yaml is known: today's, then the one its own version gave it.

    One hash for a file of this schema, or for one that cannot be read (then as it states); none if there is no file.
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
    return _hashes_of_earlier(path, about.st_mtime_ns, about.st_size) or stated


@lru_cache(maxsize=4096)
def _hashes_of_earlier(path: Path, mtime_ns: int, size: int) -> tuple[str, ...]:
    """As `known_hashes`, by the file's content; none if it cannot be read. The last two arguments make it another file."""
    try:
        today, tree = config_hash(from_yaml(path)), read_mapping(path, REMEDY)
    except UserError:
        return ()
    return today, digest(identity_keys(flatten(tree)))  # schema 1 hashed every key


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


def _precision_is_of_the_device(tree: dict[str, Any]) -> dict[str, Any]:
    """Schema 1: precision was part of a run's identity, whatever the device does well."""
    training, runtime = tree.get("training") or {}, tree.get("runtime") or {}
    if not isinstance(training, dict) or not isinstance(runtime, dict):
        return tree
    precision = training.get("precision", "bf16")
    rest = {name: value for name, value in training.items() if name != "precision"}
    return tree | {"training": rest, "runtime": runtime | {"precision": precision}}


MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _precision_is_of_the_device}
