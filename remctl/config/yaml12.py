"""YAML as its version 1.2 reads it: 1e-3 is a number, `no` and 12:30 are text, 010 is ten.

PyYAML follows version 1.1, where 1e-3 is text, `no` is false, 12:30 is 750 and 010 is eight. Anchors and aliases are
refused: a few lines of them stand for more values than any memory holds.
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
)


class NotYamlError(ValueError):
    """Text that is no YAML: what is wrong, in one line, and the number of the line, from 1, if there is one to point to."""

    def __init__(self, problem: object, line: int | None = None) -> None:
        self.problem, self.line = " ".join(str(problem).split())[:200], line
        super().__init__(self.problem if line is None else f"line {line}: {self.problem}")


class Loader(yaml.SafeLoader):
    """The safe loader with the plain scalars of YAML 1.2, and without aliases."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """As PyYAML does. Raises NotYamlError for an anchor (&name) or an alias (*name)."""
        event: Any = self.peek_event()
        if name := getattr(event, "anchor", None):
            kind, sign = ("aliases", "*") if isinstance(event, yaml.AliasEvent) else ("anchors", "&")
            line = event.start_mark.line + 1
            raise NotYamlError(f"{kind} ({sign}{name[:20]}) are not allowed: write the value out", line)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """As PyYAML does, but a key that stands there twice is an error rather than the last one's."""
        seen: dict[str, int] = {}
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode):
                line = key.start_mark.line + 1
                if key.value in seen:
                    raise NotYamlError(
                        f"{key.value!r} is given twice, first in line {seen[key.value]}: remove one", line
                    )
                seen[key.value] = line
        return super().construct_mapping(node, deep)


def _int(loader: Loader, node: yaml.ScalarNode) -> int:
    return int(loader.construct_scalar(node))


def _float(loader: Loader, node: yaml.ScalarNode) -> float:
    return float(loader.construct_scalar(node))


for _name, _pattern, _first in _RESOLVERS:
    Loader.add_implicit_resolver(f"{_TAG}{_name}", re.compile(rf"^(?:{_pattern})$"), _first)
Loader.add_constructor(f"{_TAG}int", _int)
Loader.add_constructor(f"{_TAG}float", _float)


def load(text: str | bytes) -> Any:
    """The value of a YAML document, in UTF-8 if it is bytes. Raises NotYamlError for what is none."""
    try:
        text = text if isinstance(text, str) else text.decode()
        return yaml.load(text, Loader)
    except NotYamlError:
        raise
    except RecursionError:
        raise NotYamlError("nested too deeply") from None
    except UnicodeDecodeError as error:
        raise NotYamlError("not UTF-8: save it as UTF-8", error.object.count(b"\n", 0, error.start) + 1) from None
    except yaml.reader.ReaderError as error:
        line = str(text).count("\n", 0, error.position) + 1
        raise NotYamlError(f"U+{error.character:04X} is not allowed: remove it", line) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise NotYamlError(error.problem or "mend the syntax", mark.line + 1 if mark else None) from None
    except (
        yaml.YAMLError,
        ValueError,
        LookupError,
        AttributeError,
        TypeError,
    ) as error:  # a wrong tag can raise any of them
        raise NotYamlError(error) from None
