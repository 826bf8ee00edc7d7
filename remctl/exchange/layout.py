"""What the tensors of a published state dict are here: parts of a file's tensors and of ours, the same numbers in both.

Keys of a file are `tokenizer.encoder.in_conv.weight`, ours `tokenizer.encoder.0.weight`: component and parameter.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from remctl.config import RunConfig, keys
from remctl.errors import UserError

Tensors = dict[str, Tensor]
Rows = tuple[int, int]
NUM_NAMED = 3


class Link(NamedTuple):
    """A tensor of the file and one of ours, or only some rows of either, which are the same numbers."""

    key: str
    ours: str
    rows: Rows | None = None
    our_rows: Rows | None = None


class Layout(Protocol):
    """A published format. `mark`: what keys of every such file begin with, and of no other.

    `holds`: by key, what the code that reads it computes with and no shape says.
    """

    name: str
    preset: str
    mark: str
    holds: Mapping[str, Any]

    def sizes(self, tensors: Tensors, config: RunConfig) -> dict[str, Any]:
        """Keys of the configuration with the values that the shapes of {key: tensor} say, as far as they do."""

    def num_actions(self, tensors: Tensors) -> int | None:
        """A, from {key: tensor}; None where the actor's layer is not found."""

    def names(self, tensors: Tensors, ours: Tensors) -> dict[str, str]:
        """Keys of a file {key: tensor} that no table lists, by ours; of `ours` {key: tensor} those found by their shapes."""

    def links(self, config: RunConfig, ours: Tensors, names: Mapping[str, str]) -> list[Link]:
        """All of `ours` {key: tensor}, in the file's order."""

    def rest(self, config: RunConfig, ours: Tensors, names: Mapping[str, str]) -> Tensors:
        """Tensors of a file with parts that no network here has {key: tensor}: those as they are written, ours as zeros."""

    def refuse(self, tensors: Tensors, ours: Tensors) -> str | None:
        """Why a file {key: tensor} of the right shapes computes something else; None if it does not."""


def to_file(links: Sequence[Link], ours: Tensors, rest: Tensors) -> Tensors:
    """The file's tensors {key: tensor} of ours, over `rest`; in the order of the links, and of the rest."""
    made = {link.key: rest[link.key].clone() for link in links if link.key in rest}
    for key, name, rows, our_rows in links:
        part = ours[name][_slice(our_rows)]
        if rows is None:
            made[key] = part.clone(memory_format=torch.contiguous_format)
        else:
            made[key][_slice(rows)] = part
    found = {link.key: made[link.key] for link in links} | {k: t.clone() for k, t in rest.items() if k not in made}
    parts = list(dict.fromkeys(key.split(".")[0] for key in found))
    return dict(sorted(found.items(), key=lambda item: parts.index(item[0].split(".")[0])))


def from_file(links: Sequence[Link], tensors: Tensors, ours: Tensors) -> Tensors:
    """Tensors shaped as `ours` {key: tensor} with the file's numbers {key: tensor}."""
    made = {name: torch.empty_like(tensor, memory_format=torch.contiguous_format) for name, tensor in ours.items()}
    for key, name, rows, our_rows in links:
        made[name][_slice(our_rows)] = tensors[key][_slice(rows)]
    return made


def _slice(rows: Rows | None) -> slice | tuple[()]:
    return () if rows is None else slice(*rows)


# --- does a file fit?


def refuse_other_settings(layout: Layout, config: RunConfig, what: str) -> None:
    """UserError naming the keys in which a configuration computes what the format's own code does not."""
    values = keys(config)
    bad = [f"{k} is {_text(values[k])}, not {_text(v)}" for k, v in layout.holds.items() if values[k] != v]
    if bad:
        raise UserError(f"{what}: format {layout.name} cannot hold this configuration: {', '.join(bad)}")


def differences(layout: Layout, tensors: Tensors, config: RunConfig) -> dict[str, tuple[Any, Any]]:
    """Keys of which the shapes of {key: tensor} say something else than the configuration: the file's value, and that."""
    values = keys(config)
    return {k: (v, values[k]) for k, v in layout.sizes(tensors, config).items() if _text(v) != _text(values[k])}


def as_set(key: str, value: Any) -> str:
    """As it is written on a command line."""
    text = f"{key}={_text(value)}"
    return f"--set '{text}'" if " " in text or "[" in text else f"--set {text}"


def refuse_other_tensors(
    file: object, links: Sequence[Link], tensors: Tensors, ours: Tensors, rest: Tensors, optional: Tensors
) -> None:
    """UserError naming the first tensors {key: tensor} that are missing, misshapen or none of the format, and how many.

    `optional`: which may be missing, but not some of them.
    """
    needed = dict.fromkeys(link.key for link in links)
    extra = optional if any(key in tensors for key in optional) else {}
    missing = [key for key in (*needed, *extra) if key not in tensors]
    unknown = [key for key in tensors if key not in needed and key not in rest and key not in optional]
    misshapen = [
        f"{key} is {_shape(tensors[key])}, not {wanted}"
        for key in (*needed, *(k for k in rest if k not in needed), *optional)
        if key in tensors and (wanted := _other_shape(key, tensors[key], links, ours, rest | optional))
    ]
    problems = [
        f"{len(found)} {what}: {', '.join(found[:NUM_NAMED])}{', ..' if len(found) > NUM_NAMED else ''}"
        for found, what in ((missing, "missing"), (unknown, "unknown"), (misshapen, "of another shape"))
        if found
    ]
    if problems:
        raise UserError(f"{file} does not fit; of its {len(tensors)} tensors {'; '.join(problems)}")


def _other_shape(key: str, found: Tensor, links: Iterable[Link], ours: Tensors, rest: Tensors) -> str | None:
    """What a tensor (any shape) should be, if it is something else. Rows that nothing reads may be missing."""
    mine = [link for link in links if link.key == key]
    if key not in rest:
        wanted = ours[mine[0].ours][_slice(mine[0].our_rows)]
        return None if found.shape == wanted.shape and _is_like(found, wanted) else _shape(wanted)
    wanted, least = rest[key], max((link.rows[1] for link in mine if link.rows), default=rest[key].shape[0])
    fits = found.ndim == wanted.ndim and found.shape[1:] == wanted.shape[1:] and _is_like(found, wanted)
    return None if fits and least <= found.shape[0] <= wanted.shape[0] else _shape(wanted)


def _is_like(a: Tensor, b: Tensor) -> bool:
    return a.is_floating_point() == b.is_floating_point()


def _shape(tensor: Tensor) -> str:
    kind = "" if tensor.is_floating_point() else f" {str(tensor.dtype).removeprefix('torch.')}"
    return ("x".join(map(str, tensor.shape)) or "scalar") + kind


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
