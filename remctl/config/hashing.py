"""A run's identity: the hash of the keys that differ from what the program did before each key existed.

A key that is added later therefore does not change the hash of earlier runs. It declares in the schema what the program did
without it (`before`). That need not be its default: a preset that changes behaviour changes its hash.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from pydantic import BaseModel

from remctl.config.effects import without_effect
from remctl.config.resolve import keys
from remctl.config.schema import RunConfig

NOT_IDENTITY = ("preset", "variant", "runtime")
ALWAYS = ("game", "seed")  # nothing to compare them with


def identity(config: RunConfig) -> dict[str, Any]:
    """Return game, seed, and every key that has an effect and differs from `baseline`; no labels, no `runtime`."""
    base, idle = baseline(type(config)), without_effect(config)
    flat = {key: value for key, value in identity_keys(keys(config)).items() if key not in idle}
    return {key: value for key, value in flat.items() if key in ALWAYS or value != base[key]}


def config_hash(config: RunConfig) -> str:
    """Return 12 hexadecimal digits that identify a run."""
    return digest(identity(config))


def differing(a: RunConfig, b: RunConfig) -> dict[str, tuple[Any, Any]]:
    """Return the keys that make two configurations different runs, with both values."""
    x, y = identity_keys(keys(a)), identity_keys(keys(b))
    idle = without_effect(a).keys() & without_effect(b)
    return {key: (value, y[key]) for key, value in x.items() if _text(value) != _text(y[key]) and key not in idle}


@cache
def baseline(schema: type[RunConfig] = RunConfig) -> Mapping[str, Any]:
    """Return what the program did before each key existed: the key's `before`, or its default if it has always existed."""
    return keys(schema()) | dict(_declared(schema()))


def identity_keys(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys without labels and `runtime`."""
    return {key: value for key, value in flat.items() if str(key).split(".")[0] not in NOT_IDENTITY}


def digest(flat: Mapping[str, Any]) -> str:
    """Return 12 hexadecimal digits that do not depend on the order of the keys."""
    return hashlib.sha256(_text(flat).encode()).hexdigest()[:12]


def _text(value: Any) -> str:
    """Return JSON, in which 1, 1.0 and true differ. Python calls them equal, but as arguments they are not."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)


def _declared(section: BaseModel, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, field in type(section).model_fields.items():
        key, value = f"{prefix}{field.alias or name}", getattr(section, name)
        if isinstance(value, BaseModel):
            yield from _declared(value, f"{key}.")
        elif isinstance(field.json_schema_extra, dict) and "before" in field.json_schema_extra:
            yield key, field.json_schema_extra["before"]
