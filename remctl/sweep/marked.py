"""YAML whose every value knows its key and its line, so that an error can say where it stands.

Bounded: files of 100 kB at most; no anchors, aliases and tags, so that nothing grows or runs. A key given twice in one
mapping is refused (PyYAML takes the last).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from remctl.config import yaml12
from remctl.config.resolve import each, one_line, short, suggestion
from remctl.errors import UserError

MAX_FILE_BYTES = 100_000
MAX_TEXT = 500  # characters of a name or a sentence


class _Loader(yaml12.Loader):
    """Every value stands where it is used, in its own words."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event: Any = self.peek_event()
        if getattr(event, "anchor", None) or getattr(event, "tag", None):
            problem = "anchors (&), aliases (*) and tags (!) are not read here: write the value out"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)
        return super().compose_node(parent, index)


@dataclass(frozen=True)
class Marked:
    """A value of a YAML file: the key it is given for, and its line (from 1)."""

    path: Path
    line: int
    key: str
    node: yaml.Node

    @property
    def where(self) -> str:
        """How a message about it begins."""
        return f"{self.path}:{self.line}: "

    def problem(self, text: str) -> UserError:
        """The error to raise: file, line, key, and `text`, which gives the fix."""
        key = self.key if self.key.isprintable() else repr(self.key)
        return UserError(f"{self.where}{key}: {text}")

    def wrong(self, allowed: str) -> UserError:
        """The error to raise for a value that is not what is `allowed`."""
        return self.problem(f"given {short(self.value())}; allowed: {allowed}")

    def check(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What `function` returns; its UserError with file, line and key in front."""
        try:
            return function(*arguments)
        except UserError as error:
            raise self.problem(str(error)) from None

    def value(self) -> Any:
        """As Python's. Raises UserError for what is none, such as an integer of 5,000 digits."""
        try:
            return _Loader("").construct_document(self.node)
        except (yaml.YAMLError, ValueError) as error:
            raise self.problem(f"not a value: {one_line(getattr(error, 'problem', error))}") from None

    def text(self) -> str:
        """A name or a sentence, on one line. Raises UserError for anything else."""
        value = self.value()
        line = " ".join(value.split()) if isinstance(value, str) else ""
        if not 1 <= len(line) <= MAX_TEXT or not line.isprintable():
            raise self.wrong(f"text of 1 to {MAX_TEXT} characters that can be printed")
        return line

    def items(self) -> list[Marked]:
        """Of a list that is not empty; UserError for anything else."""
        if not isinstance(self.node, yaml.SequenceNode) or not self.node.value:
            raise self.wrong("a list of at least one")
        return [Marked(self.path, item.start_mark.line + 1, self.key, item) for item in self.node.value]

    def entries(self) -> dict[str, Marked]:
        """Of a mapping, by key; UserError for anything else, and for a key given twice."""
        if not isinstance(self.node, yaml.MappingNode):
            raise self.wrong("keys with values")
        return unique((key.value, self._entry(key, value)) for key, value in self.node.value)

    def _entry(self, key: yaml.Node, value: yaml.Node) -> Marked:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode) or len(key.value) > MAX_TEXT:
            raise UserError(f"{self.path}:{line}: {self.key}: a key is not plain text: fix it")
        return Marked(self.path, line, key.value, value)

    def keyed(self, required: Mapping[str, str], optional: Collection[str]) -> dict[str, Marked]:
        """`entries` with no unknown key and all `required` ones (key: an example).

        Raises UserError that names all that are unknown and all that are missing.
        """
        if not isinstance(self.node, yaml.MappingNode):
            raise self.wrong(f"the keys {', '.join(required)}")
        entries = self.entries()
        known = [*required, *optional]
        near = {key: suggestion(key, known) for key in entries if key not in known}
        absent = {key: example for key, example in required.items() if key not in entries}
        meant = {key for key in absent if any(f"did you mean {key}" in text for text in near.values())}
        lines = {key: f" (line {entries[key].line})" if len(near) > 1 else "" for key in near}
        problems = [f"unknown key {key!r}{lines[key]}: {text}" for key, text in near.items()]
        problems += [f"missing key {k!r}: add it, for example '{k}: {v}'" for k, v in absent.items() if k not in meant]
        if problems:
            raise next((entries[key] for key in near), self).problem("; ".join(problems))
        return entries


def unique(named: Iterable[tuple[str, Marked]]) -> dict[str, Marked]:
    """By name; UserError for all that are given twice."""
    found: dict[str, Marked] = {}

    def add(one: tuple[str, Marked]) -> None:
        name, given = one
        if name in found:
            raise given.problem(f"{short(name)} is given twice, first in line {found[name].line}: remove one")
        found[name] = given

    each(add, named)
    return found


def read_marked(path: Path, key: str) -> Marked:
    """A file's one document, as the value of `key`. UserError, with the line, for what is no YAML or too large."""
    text = _read_text(path)
    try:
        node = _Loader(text).get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise _no_yaml(path, mark.line if mark else 0, error.problem or "fix the syntax") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position)
        raise _no_yaml(path, line, f"U+{error.character:04X} is not allowed: remove it") from None
    except RecursionError:
        raise UserError(f"{path}: nested too deeply: fix the brackets or the indentation") from None
    return Marked(path, 1, key, node or yaml.ScalarNode("tag:yaml.org,2002:null", ""))


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}: give a readable YAML file") from None
    if len(content) > MAX_FILE_BYTES:
        raise UserError(f"{path}: larger than {MAX_FILE_BYTES // 1000} kB: give a shorter YAML file")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise _no_yaml(path, content.count(b"\n", 0, error.start), "not UTF-8: save it as UTF-8") from None


def _no_yaml(path: Path, line: int, problem: str) -> UserError:
    return UserError(f"{path}:{line + 1}: not YAML: {one_line(problem)}")
