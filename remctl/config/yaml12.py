"""YAML as its version 1.2 reads it: 1e-3 is a number, `no` and 12:30 are text, 010 is ten.

PyYAML follows version 1.1, where 1e-3 is text, `no` is false, 12:30 is 750 and 010 is eight.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

_TAG = "tag:yaml.org,2002:"
# Tag, pattern, and what the first character may be.
_RESOLVERS = (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", list("-+.0123456789")),
    ("merge", r"<<", ["<"]),
)


class Loader(yaml.SafeLoader):
    """The safe loader with the plain scalars of YAML 1.2."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}


def _int(loader: Loader, node: yaml.ScalarNode) -> int:
    return int(loader.construct_scalar(node))


def _float(loader: Loader, node: yaml.ScalarNode) -> float:
    return float(loader.construct_scalar(node))


for _name, _pattern, _first in _RESOLVERS:
    Loader.add_implicit_resolver(f"{_TAG}{_name}", re.compile(rf"^(?:{_pattern})$"), _first)
Loader.add_constructor(f"{_TAG}int", _int)
Loader.add_constructor(f"{_TAG}float", _float)


def load(text: str) -> Any:
    """The value of a YAML document. Raises ValueError, one line, for what is none."""
    try:
        return yaml.load(text, Loader)
    except RecursionError:
        raise ValueError("nested too deeply, or in a circle") from None
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(" ".join(str(error).split())[:200]) from None
