"""Keys whose value is a mapping of free names to plain YAML values, such as `environment.arguments`.

`environment.arguments: {size: 5}` and `environment.arguments.size: 5` are the same, at any depth. A later layer of overrides
adds names and replaces values. An empty mapping removes everything that earlier layers put inside it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator

from remctl.errors import UserError

MAPPINGS = ("environment.arguments",)
PLAIN = "null, true, false, finite numbers, text, lists, and mappings of text to these"
MAX_DEPTH = 20


def key_of(name: str) -> str:
    """Return the configuration key that `name` is or lies inside."""
    return next((key for key in MAPPINGS if is_inside(name, key)), name)


def is_inside(name: str, other: str) -> bool:
    """Return whether a dotted name lies inside another one."""
    return name.startswith(f"{other}.")


def spread(overrides: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """Return the overrides with a dotted key for each value inside a mapping.

    Raises UserError, which begins with `where`, for a value given both nested and dotted.
    """
    found: dict[str, Any] = {}
    for given, mapping in overrides.items():
        for key, value in _leaves(given, mapping, where):
            if twice := next((k for k in found if _clash(k, key)), None):
                raise UserError(f"{where}{min(twice, key)} is given twice, nested and dotted: keep one of them")
            found[key] = value
    return found


def lay(lower: Mapping[str, Any], upper: Mapping[str, Any]) -> dict[str, Any]:
    """Merge two layers of overrides. The upper layer's values win."""
    upper = spread(upper)
    kept = {key: value for key, value in spread(lower).items() if not any(_clash(key, other) for other in upper)}
    return kept | upper


def without_keys(overrides: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Return the overrides without the configuration keys that `names` are or lie inside."""
    left_out = set(map(key_of, names))
    return {key: value for key, value in overrides.items() if key_of(key) not in left_out}


def _clash(a: str, b: str) -> bool:
    return a == b or is_inside(a, b) or is_inside(b, a)


def _leaves(key: str, value: Any, where: str) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, Mapping) or not value or key_of(f"{key}.x") not in MAPPINGS:
        yield key, value
        return
    for name, inner in value.items():
        if not isinstance(name, str):
            raise UserError(f"{where}{key}: the name {name!r} is not text: write it in quotes, if it is meant")
        if not all(name.split(".")):
            raise UserError(f"{where}{key}: {name!r} cannot be a name: write one")
        yield from _leaves(f"{key}.{name}", inner, where)


def _plain(value: Any, path: str, depth: int = 0) -> Any:
    """Copy a value of plain YAML types. Raises ValueError with the `path` of anything else."""
    if depth > MAX_DEPTH:
        raise ValueError(f"{path[:60]}: nested too deeply: mend the brackets")
    if value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, list | tuple):
        return [_plain(item, f"{path}[{i}]", depth + 1) for i, item in enumerate(value)]
    if isinstance(value, Mapping):
        if odd := next((name for name in value if not isinstance(name, str)), None):
            raise ValueError(f"{path}: the name {odd!r} is not text: write it in quotes, if it is meant")
        return {name: _plain(item, f"{path}.{name}", depth + 1) for name, item in value.items()}
    raise ValueError(f"{path}: given {str(value)[:60]!r}, a {type(value).__name__}; allowed: {PLAIN}")


def _arguments(value: Any) -> dict[str, Any]:
    """Copy a mapping of argument names to plain values. Raises ValueError for anything else."""
    path = MAPPINGS[0]
    if not isinstance(value, Mapping):
        raise ValueError(
            f"{path}: given {str(value)[:60]!r}; allowed: a mapping of names to values, such as {{size: 5}}"
        )
    for name in value:
        if not isinstance(name, str) or not name.isidentifier():
            raise ValueError(f"{path}: {str(name)[:60]!r} cannot be the name of an argument: write name: value")
    found: dict[str, Any] = _plain(value, path)
    return found


Arguments = Annotated[dict[str, Any], BeforeValidator(_arguments)]
