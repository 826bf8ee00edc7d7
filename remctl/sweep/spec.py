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
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from remctl.config import RunConfig, build, config_hash, one_of
from remctl.config.arguments import lay, without_keys
from remctl.config.effects import refuse_without_effect
from remctl.config.presets import DESCRIPTIONS, preset_overrides
from remctl.config.resolve import each, parse_set
from remctl.errors import UserError
from remctl.sweep.marked import Marked, read_marked, unique
from remctl.sweep.spec_parts import LABELS, MAX_RUNS, PARTS, REM, Draft, check_folder, lines_of, shown, values_of
from remctl.sweep.wanted import Spec, SpecVariant, WantedRun

PRESET = "paper"
REQUIRED = {"variants": "[rem, no_pop]", "games": "ablation_subset", "seeds": "5"}
OPTIONAL = ("name", "question", "control", "preset", "overrides", "grid")


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


def _read(root: Marked, sets: Sequence[str], name: str | None, preset: str | None) -> Spec:
    given = root.keyed(REQUIRED, OPTIONAL)
    read = dict(each(lambda key: (key, PARTS[key](given[key])), [key for key in PARTS if key in given]))
    own_name, own_preset = read.get("name", root.path.stem), read.get("preset", PRESET)
    common, axes = read.get("overrides", {}), read.get("grid", {})
    preset = own_preset if preset is None else one_of(preset, DESCRIPTIONS, "preset")
    own = dict(each(_parse_set, sets))
    spec = Spec(
        path=root.path,
        name=name or (own_name if preset == own_preset else f"{own_name}-{preset}"),
        question=read.get("question", ""),
        control=read.get("control", REM),
        variants=(),
        games=read["games"],
        seeds=read["seeds"],
        preset=preset,
        overrides=values_of(common) | own,
        sets=tuple(sets),
    )
    check_folder(given.get("name", root) if name is None else replace(root, key="--name"), spec.name)
    drafts = [replace(draft, lines=lines_of(common) | draft.lines) for draft in read["variants"]]
    _check_size(given["grid" if axes else "variants"], spec, len(drafts), axes)
    if own:
        _check_sets(spec, own, replace(spec, overrides=values_of(common)), drafts, axes)
    points = [point for draft in drafts for point in _points(spec, draft, axes)]
    _check_points(points, given.get("control", root), spec.control)
    return replace(spec, variants=tuple(point.variant for point in points))


def _parse_set(text: str) -> tuple[str, Any]:
    key = text.partition("=")[0].strip()
    if key in LABELS:
        option = " or give --preset" if key == "preset" else ""
        raise UserError(f"--set {key}: not an override: set it with {LABELS[key]!r} of the spec{option}")
    return parse_set(text)


# Overrides and grid


def _check_sets(spec: Spec, own: Iterable[str], file: Spec, drafts: Sequence[Draft], axes: Iterable[str]) -> None:
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


def _check_size(given: Marked, spec: Spec, num_variants: int, axes: Mapping[str, list[Marked]]) -> None:
    num_points = math.prod(len(values) for values in axes.values())
    num_runs = num_variants * num_points * len(spec.games) * len(spec.seeds)
    if num_runs > MAX_RUNS:
        raise given.problem(f"asks for {num_runs:,} runs; allowed: at most {MAX_RUNS:,}: shorten a list")


def _points(spec: Spec, draft: Draft, axes: Mapping[str, list[Marked]]) -> Iterator[Draft]:
    """The variant at every point of the grid; without a grid, the variant."""
    own: tuple[str, ...] = ()
    with suppress(UserError):  # it need not be possible by itself
        own = _hashes(spec, draft)
    for values in itertools.product(*axes.values()):
        point = _at(draft, dict(zip(axes, values, strict=True)))
        hashes = _hashes(spec, point)
        name = draft.variant.name if hashes == own else point.variant.name
        yield replace(point, variant=replace(point.variant, name=name), hashes=hashes)


def _at(draft: Draft, point: Mapping[str, Marked]) -> Draft:
    if not point:
        return draft
    values, old = values_of(point), draft.variant
    last = [key.rsplit(".", 1)[-1] for key in point]
    words = last if len(set(last)) == len(last) else list(point)
    name = "+".join([old.name, *(f"{key}={shown(value)}" for key, value in values.items())])
    label = ", ".join([old.label, *(f"{word}={shown(v)}" for word, v in zip(words, values.values(), strict=True))])
    given = list(point.values())[-1]
    variant = SpecVariant(name, label, lay(old.overrides, values))
    return Draft(variant, given, draft.lines | lines_of(point), draft.own | point.keys())


# Checks of what came out


def _hashes(spec: Spec, draft: Draft) -> tuple[str, ...]:
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


def _line(draft: Draft, message: str) -> int:
    """Of the first key that the message names and the file sets; else of the variant."""
    named = ((re.search(rf"(?<![\w.]){re.escape(key)}(?!\w)", message), line) for key, line in draft.lines.items())
    return min(((match.start(), line) for match, line in named if match), default=(0, draft.given.line))[1]


def _check_points(points: list[Draft], given: Marked, control: str) -> None:
    by_name = unique((point.variant.name, point.given) for point in points)
    for point in points:
        check_folder(point.given, point.variant.name)
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
