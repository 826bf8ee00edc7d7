"""The values of a spec's keys: each is read and checked by itself, so that all that is wrong is named at once."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from yaml import MappingNode, ScalarNode

from remctl.config import one_of
from remctl.config.arguments import lay, spread
from remctl.config.hashing import NOT_IDENTITY
from remctl.config.presets import DESCRIPTIONS
from remctl.config.resolve import check_key, each, sections, short
from remctl.games import ABLATION_SUBSET, ATARI_100K, check_game, folder_name
from remctl.runs.layout import run_path
from remctl.sweep.marked import Marked, unique
from remctl.sweep.wanted import SpecVariant
from remctl.variants import VARIANTS, label_of

MAX_RUNS = 10_000
MAX_FOLDER_BYTES = 255
REM = "rem"
GAME_SETS = {"atari_100k": ATARI_100K, "ablation_subset": ABLATION_SUBSET}
VARIANT_REQUIRED = {"name": "small"}
VARIANT_OPTIONAL = ("label", "base", "overrides")
LABELS = {"preset": "preset", "variant": "variants", "game": "games", "seed": "seeds"}  # configuration key: spec's key


@dataclass(frozen=True)
class Draft:
    """A variant, where it stands, and the line that sets each key for it (the spec's, its own, a grid point's).

    `own`: the keys that the file sets for this variant alone.
    """

    variant: SpecVariant
    given: Marked
    lines: dict[str, int]
    own: frozenset[str] = frozenset()
    hashes: tuple[str, ...] = ()  # of its configurations, game by game


def _games(given: Marked) -> tuple[str, ...]:
    if isinstance(given.node, ScalarNode):
        name = given.text()
        if name not in GAME_SETS:
            raise given.wrong(f"{', '.join(GAME_SETS)}, or a list of games such as [Pong, Breakout]")
        return GAME_SETS[name]

    def checked(item: Marked) -> tuple[str, Marked]:
        game = item.check(check_game, item.text())
        check_folder(item, folder_name(game))
        return game, item

    games = each(checked, given.items())
    unique((folder_name(game), item) for game, item in games)
    return tuple(game for game, _ in games)


def _seeds(given: Marked) -> tuple[int, ...]:
    if isinstance(given.node, ScalarNode):
        count = given.value()
        if type(count) is not int or not 1 <= count <= MAX_RUNS:
            raise given.wrong(f"a count of 1 to {MAX_RUNS}, or a list of seeds such as [0, 1, 2]")
        return tuple(range(count))

    def checked(item: Marked) -> tuple[int, Marked]:
        seed = item.value()
        if type(seed) is not int or not 0 <= seed < 2**31:
            raise item.wrong("a whole number from 0 to 2147483647")
        return seed, item

    seeds = each(checked, given.items())
    unique((str(seed), item) for seed, item in seeds)
    return tuple(seed for seed, _ in seeds)


def _drafts(given: Marked) -> list[Draft]:
    drafts = each(_draft, given.items())
    unique((draft.variant.name, draft.given) for draft in drafts)
    return drafts


def _draft(given: Marked) -> Draft:
    """A name of the switchboard, or a mapping with a name."""
    if not isinstance(given.node, MappingNode):
        name = given.check(one_of, given.text(), VARIANTS, "variant")
        return Draft(SpecVariant(name, VARIANTS[name].label, dict(VARIANTS[name].overrides)), given, {})
    keys = given.keyed(VARIANT_REQUIRED, VARIANT_OPTIONAL)
    name = keys["name"].text()
    check_folder(keys["name"], name)
    base = _base(keys, name)
    label = keys["label"].text() if "label" in keys else label_of(name)
    own = _overrides(keys["overrides"]) if "overrides" in keys else {}
    variant = SpecVariant(name, label, lay(VARIANTS[base].overrides, values_of(own)))
    return Draft(variant, given, lines_of(own), frozenset(own))


def _base(keys: Mapping[str, Marked], name: str) -> str:
    own = name if name in VARIANTS else REM
    if "base" not in keys:
        return own
    base: str = keys["base"].check(one_of, keys["base"].text(), VARIANTS, "variant")
    if name in VARIANTS and base != name:
        raise keys["base"].problem(f"given {base!r}, but {name!r} is the switchboard's: choose another name")
    return base


def _overrides(given: Marked) -> dict[str, Marked]:
    """Nested or dotted keys as dotted ones. Raises UserError for unknown keys, a section, a key given twice."""
    found = unique((leaf.key, leaf) for leaf in _leaves(given))
    given.check(spread, values_of(found))
    return found


def _leaves(given: Marked, prefix: str = "") -> list[Marked]:
    def within(item: tuple[str, Marked]) -> list[Marked]:
        key, entry = f"{prefix}{item[0]}", item[1]
        if key in LABELS:
            raise entry.problem(f"not an override: set it with {LABELS[key]!r} of the spec")
        if isinstance(entry.node, MappingNode) and key in sections():
            return _leaves(entry, f"{key}.")
        check_key(key, entry.where, ())
        return [replace(entry, key=key)]

    return [leaf for part in each(within, given.entries().items()) for leaf in part]


def values_of(overrides: Mapping[str, Marked]) -> dict[str, Any]:
    """Return the values of keys."""
    return {key: given.value() for key, given in overrides.items()}


def lines_of(overrides: Mapping[str, Marked]) -> dict[str, int]:
    """Return the lines in which keys are set."""
    return {key: given.line for key, given in overrides.items()}


def _axes(given: Marked) -> dict[str, list[Marked]]:
    """The values of each of the grid's keys, in the file's order."""
    axes = {key: axis.items() for key, axis in _overrides(given).items()}
    for key, values in axes.items():
        if key.split(".")[0] in NOT_IDENTITY:
            raise values[0].problem("no result depends on it, so it cannot be compared: set it with 'overrides'")
        unique((shown(value.value()), value) for value in values)
    return axes


def shown(value: object) -> str:
    """Return a value as part of a folder's name."""
    if isinstance(value, list):
        return ",".join(shown(x) for x in value)
    if isinstance(value, dict):
        return ",".join(f"{name}={shown(x)}" for name, x in value.items())
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)


def check_folder(given: Marked, name: str) -> None:
    """Raise UserError for a name that no folder can have."""
    given.check(run_path, Path(), name, name, name, 0)
    if len(name.encode()) > MAX_FOLDER_BYTES:
        raise given.problem(f"{short(name)} is longer than {MAX_FOLDER_BYTES} bytes, as no folder can be: shorten it")


# What reads the value of each key of a spec
PARTS: Mapping[str, Callable[[Marked], Any]] = {
    "name": Marked.text,
    "question": Marked.text,
    "control": Marked.text,
    "preset": lambda given: given.check(one_of, given.text(), DESCRIPTIONS, "preset"),
    "overrides": _overrides,
    "grid": _axes,
    "games": _games,
    "seeds": _seeds,
    "variants": _drafts,
}
