"""From a spec, a YAML file that puts a question, to every run that answers it.

    variants:                                           # names of the switchboard, and variants of your own
      - rem
      - {name: small, label: Small, base: no_pop, overrides: {world_model: {num_layers: 2}}}
    games: ablation_subset                              # or atari_100k, or a list
    seeds: 5                                            # 0 to 4; or a list

These three are enough. Also:

    name: pop                                           # the experiment's folder; else the file's name
    question: Does POP keep the scores?
    control: rem                                        # what the others are compared with: a variant; else rem
    preset: paper                                       # which is the default
    overrides: {tokenizer.num_codes: 256}               # of every variant
    grid: {imagination.horizon: [5, 10]}                # every variant at every point of the product

Later wins: schema defaults, preset (with what it sets for a game), overrides (the file's, then `--set`), variant (its base,
then its own overrides), grid point, then game and seed. Without `base` a variant starts from the switchboard's of its
name, or rem.

A grid point is a variant named `rem+imagination.horizon=5`. The point that changes nothing of its variant keeps the
variant's name, so that `control: rem` is the point with REM's own values; a grid without it needs a control named in full.

A variant that is the control in every game is refused: it answers nothing. Others may coincide; they share their runs.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from yaml import MappingNode, ScalarNode

from remctl.config import RunConfig, build, config_hash, one_of
from remctl.config.arguments import lay, spread, without_keys
from remctl.config.effects import refuse_without_effect
from remctl.config.hashing import NOT_IDENTITY
from remctl.config.presets import DESCRIPTIONS, preset_overrides
from remctl.config.resolve import check_key, each, parse_set, sections, short
from remctl.errors import UserError
from remctl.games import ABLATION_SUBSET, ATARI_100K, check_game, folder_name
from remctl.runs.layout import run_path
from remctl.sweep.marked import Marked, read_marked, unique
from remctl.sweep.wanted import Spec, SpecVariant, WantedRun
from remctl.variants import VARIANTS

MAX_RUNS = 10_000
MAX_FOLDER_BYTES = 255
REM = "rem"
GAME_SETS = {"atari_100k": ATARI_100K, "ablation_subset": ABLATION_SUBSET}
PRESET = "paper"
REQUIRED = {"variants": "[rem, no_pop]", "games": "ablation_subset", "seeds": "5"}
OPTIONAL = ("name", "question", "control", "preset", "overrides", "grid")
VARIANT_REQUIRED = {"name": "small"}
VARIANT_OPTIONAL = ("label", "base", "overrides")
LABELS = {"preset": "preset", "variant": "variants", "game": "games", "seed": "seeds"}  # configuration key: spec's key


def read_spec(path: Path, sets: Sequence[str] = (), name: str | None = None, preset: str | None = None) -> Spec:
    """A spec, checked down to every configuration. Raises UserError, one line: file, line, key, what is wrong, the fix.

    `sets`: KEY=VALUE over the file's overrides. `name` and `preset`: instead of the file's; with another preset and no name
    the experiment is NAME-PRESET.
    """
    try:
        return _read(read_marked(path, "spec"), sets, name, preset)
    except RecursionError:
        raise UserError(f"{path}: nested too deeply: fix the brackets or the indentation") from None


def wanted_runs(spec: Spec) -> list[WantedRun]:
    """Every variant, game and seed, in that order. Raises UserError for a configuration that cannot be."""
    runs = []
    for variant, game in itertools.product(spec.variants, spec.games):
        config = _configuration(spec, variant, game)
        for seed in spec.seeds:
            own = config.model_copy(update={"seed": seed})
            runs.append(WantedRun(variant.name, game, seed, own, config_hash(own)))
    return runs


def _configuration(spec: Spec, variant: SpecVariant, game: str) -> RunConfig:
    """Of the first seed."""
    overrides = lay(lay(preset_overrides(spec.preset, game), spec.overrides), variant.overrides)
    labels = {"preset": spec.preset, "variant": variant.name, "game": game, "seed": spec.seeds[0]}
    return build(overrides | labels)


# Reading


@dataclass(frozen=True)
class _Draft:
    """A variant, where it stands, and the line that sets each key for it (the spec's, its own, a grid point's).

    `own`: the keys that the file sets for this variant alone.
    """

    variant: SpecVariant
    given: Marked
    lines: dict[str, int]
    own: frozenset[str] = frozenset()
    hashes: tuple[str, ...] = ()  # of its configurations, game by game


def _read(root: Marked, sets: Sequence[str], name: str | None, preset: str | None) -> Spec:
    given = root.keyed(REQUIRED, OPTIONAL)
    own_name = given["name"].text() if "name" in given else root.path.stem
    own_preset = (
        given["preset"].check(one_of, given["preset"].text(), DESCRIPTIONS, "preset") if "preset" in given else PRESET
    )
    preset = own_preset if preset is None else one_of(preset, DESCRIPTIONS, "preset")
    common = _overrides(given["overrides"]) if "overrides" in given else {}
    axes = _axes(given["grid"]) if "grid" in given else {}
    own = dict(each(parse_set, sets))
    spec = Spec(
        path=root.path,
        name=name or (own_name if preset == own_preset else f"{own_name}-{preset}"),
        question=given["question"].text() if "question" in given else "",
        control=given["control"].text() if "control" in given else REM,
        variants=(),
        games=_games(given["games"]),
        seeds=_seeds(given["seeds"]),
        preset=preset,
        overrides=_values(common) | own,
        sets=tuple(sets),
    )
    _check_folder(given.get("name", root) if name is None else replace(root, key="--name"), spec.name)
    drafts = [_draft(item, _lines(common)) for item in given["variants"].items()]
    unique((draft.variant.name, draft.given) for draft in drafts)
    _check_size(given["grid" if axes else "variants"], spec, len(drafts), axes)
    if own:
        _check_sets(spec, own, replace(spec, overrides=_values(common)), drafts, axes)
    points = [point for draft in drafts for point in _points(spec, draft, axes)]
    _check_points(points, given.get("control", root), spec.control)
    return replace(spec, variants=tuple(point.variant for point in points))


def _games(given: Marked) -> tuple[str, ...]:
    if isinstance(given.node, ScalarNode):
        name = given.text()
        if name not in GAME_SETS:
            raise given.wrong(f"{', '.join(GAME_SETS)}, or a list of games such as [Pong, Breakout]")
        return GAME_SETS[name]
    games = [(item.check(check_game, item.text()), item) for item in given.items()]
    for game, item in games:
        _check_folder(item, folder_name(game))
    unique((folder_name(game), item) for game, item in games)
    return tuple(game for game, _ in games)


def _seeds(given: Marked) -> tuple[int, ...]:
    if isinstance(given.node, ScalarNode):
        count = given.value()
        if type(count) is not int or not 1 <= count <= MAX_RUNS:
            raise given.wrong(f"a count of 1 to {MAX_RUNS}, or a list of seeds such as [0, 1, 2]")
        return tuple(range(count))
    seeds = [(item.value(), item) for item in given.items()]
    for seed, item in seeds:
        if type(seed) is not int or not 0 <= seed < 2**31:
            raise item.wrong("a whole number from 0 to 2147483647")
    unique((str(seed), item) for seed, item in seeds)
    return tuple(seed for seed, _ in seeds)


def _draft(given: Marked, common: dict[str, int]) -> _Draft:
    """A name of the switchboard, or a mapping with a name."""
    if not isinstance(given.node, MappingNode):
        name = given.check(one_of, given.text(), VARIANTS, "variant")
        return _Draft(SpecVariant(name, VARIANTS[name].label, dict(VARIANTS[name].overrides)), given, common)
    keys = given.keyed(VARIANT_REQUIRED, VARIANT_OPTIONAL)
    name = keys["name"].text()
    _check_folder(keys["name"], name)
    base = _base(keys, name)
    label = keys["label"].text() if "label" in keys else VARIANTS[name].label if name in VARIANTS else name
    own = _overrides(keys["overrides"]) if "overrides" in keys else {}
    variant = SpecVariant(name, label, lay(VARIANTS[base].overrides, _values(own)))
    return _Draft(variant, given, common | _lines(own), frozenset(own))


def _base(keys: Mapping[str, Marked], name: str) -> str:
    own = name if name in VARIANTS else REM
    if "base" not in keys:
        return own
    base: str = keys["base"].check(one_of, keys["base"].text(), VARIANTS, "variant")
    if name in VARIANTS and base != name:
        raise keys["base"].problem(f"given {base!r}, but {name!r} is the switchboard's: choose another name")
    return base


# Overrides and grid


def _check_sets(spec: Spec, own: Iterable[str], file: Spec, drafts: Sequence[_Draft], axes: Iterable[str]) -> None:
    """Raises UserError for a value that is not allowed, a key that a variant or the grid sets, or one without any effect."""
    for key in own:
        setting = [f"variant {d.variant.name!r}" for d in drafts if key in d.variant.overrides]
        setting += ["the grid"] if key in axes else []
        if setting:
            raise UserError(f"--set {key}: {setting[0]} sets it: leave it out, or change {spec.path}")
    build(preset_overrides(spec.preset, spec.games[0]) | spec.overrides | {"game": spec.games[0]})
    for key in () if axes else own:  # a grid may give it one
        _refuse_idle(spec, key, file, [draft.variant for draft in drafts])


def _refuse_idle(spec: Spec, key: str, file: Spec, variants: Sequence[SpecVariant]) -> None:
    refused = UserError("")
    for variant, game in itertools.product(variants, spec.games):
        try:
            without = partial(_configuration, file, variant, game)
            return refuse_without_effect(_configuration(spec, variant, game), [key], without)
        except UserError as error:
            refused = error
    raise refused


def _overrides(given: Marked) -> dict[str, Marked]:
    """Nested or dotted keys as dotted ones. Raises UserError for unknown keys, a section, a key given twice."""
    found = unique((leaf.key, leaf) for leaf in _leaves(given))
    given.check(spread, _values(found))
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


def _values(overrides: Mapping[str, Marked]) -> dict[str, Any]:
    return {key: given.value() for key, given in overrides.items()}


def _lines(overrides: Mapping[str, Marked]) -> dict[str, int]:
    return {key: given.line for key, given in overrides.items()}


def _axes(given: Marked) -> dict[str, list[Marked]]:
    """The values of each of the grid's keys, in the file's order."""
    axes = {key: axis.items() for key, axis in _overrides(given).items()}
    for key, values in axes.items():
        if key.split(".")[0] in NOT_IDENTITY:
            raise values[0].problem("no result depends on it, so it cannot be compared: set it with 'overrides'")
        unique((_shown(value.value()), value) for value in values)
    return axes


def _shown(value: object) -> str:
    """As part of a folder's name."""
    if isinstance(value, list):
        return ",".join(_shown(x) for x in value)
    if isinstance(value, dict):
        return ",".join(f"{name}={_shown(x)}" for name, x in value.items())
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)


def _check_size(given: Marked, spec: Spec, num_variants: int, axes: Mapping[str, list[Marked]]) -> None:
    num_points = math.prod(len(values) for values in axes.values())
    num_runs = num_variants * num_points * len(spec.games) * len(spec.seeds)
    if num_runs > MAX_RUNS:
        raise given.problem(f"asks for {num_runs:,} runs; allowed: at most {MAX_RUNS:,}: shorten a list")


def _points(spec: Spec, draft: _Draft, axes: Mapping[str, list[Marked]]) -> Iterator[_Draft]:
    """The variant at every point of the grid; without a grid, the variant."""
    own: tuple[str, ...] = ()
    with suppress(UserError):  # it need not be possible by itself
        own = _hashes(spec, draft)
    for values in itertools.product(*axes.values()):
        point = _at(draft, dict(zip(axes, values, strict=True)))
        hashes = _hashes(spec, point)
        name = draft.variant.name if hashes == own else point.variant.name
        yield replace(point, variant=replace(point.variant, name=name), hashes=hashes)


def _at(draft: _Draft, point: Mapping[str, Marked]) -> _Draft:
    if not point:
        return draft
    values, old = _values(point), draft.variant
    last = [key.rsplit(".", 1)[-1] for key in point]
    words = last if len(set(last)) == len(last) else list(point)
    name = "+".join([old.name, *(f"{key}={_shown(value)}" for key, value in values.items())])
    label = ", ".join([old.label, *(f"{word}={_shown(v)}" for word, v in zip(words, values.values(), strict=True))])
    given = list(point.values())[-1]
    variant = SpecVariant(name, label, lay(old.overrides, values))
    return _Draft(variant, given, draft.lines | _lines(point), draft.own | point.keys())


# Checks of what came out


def _hashes(spec: Spec, draft: _Draft) -> tuple[str, ...]:
    """Of the configurations, game by game. Raises UserError with the line of the key that is wrong."""
    hashes, base = [], replace(draft.variant, overrides=without_keys(draft.variant.overrides, draft.own))
    for game in spec.games:
        try:
            config = _configuration(spec, draft.variant, game)
            refuse_without_effect(config, sorted(draft.own), partial(_configuration, spec, base, game))
            hashes.append(config_hash(config))
        except UserError as error:
            where = f"{spec.path}:{_line(draft, str(error))}"
            raise UserError(f"{where}: {error} (variant {draft.variant.name!r}, {game})") from None
    return tuple(hashes)


def _line(draft: _Draft, message: str) -> int:
    """Of the first key that the message names and the file sets; else of the variant."""
    named = ((re.search(rf"(?<![\w.]){re.escape(key)}(?!\w)", message), line) for key, line in draft.lines.items())
    return min(((match.start(), line) for match, line in named if match), default=(0, draft.given.line))[1]


def _check_points(points: list[_Draft], given: Marked, control: str) -> None:
    by_name = unique((point.variant.name, point.given) for point in points)
    for point in points:
        _check_folder(point.given, point.variant.name)
    if control not in by_name and given.key == "control":
        raise given.wrong(f"one of {_listed(list(by_name))}")
    if control not in by_name:
        raise given.problem(f"missing key 'control', as no variant is named rem: add one of {_listed(list(by_name))}")
    hashes = {point.variant.name: point.hashes for point in points}
    for name, own in hashes.items():
        if name != control and own == hashes[control]:
            raise by_name[name].problem(f"{name!r} is the control {control!r} in every game: remove or change it")


def _listed(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= 8 else f"{', '.join(names[:8])}, and {len(names) - 8} more"


def _check_folder(given: Marked, name: str) -> None:
    given.check(run_path, Path(), name, name, name, 0)
    if len(name.encode()) > MAX_FOLDER_BYTES:
        raise given.problem(f"{short(name)} is longer than {MAX_FOLDER_BYTES} bytes, as no folder can be: shorten it")
