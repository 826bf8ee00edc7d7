"""What `remctl config` and `remctl list` print, as data. Imports no torch, changes nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import yaml

from remctl.config import config_hash, keys, resolve
from remctl.config.arguments import PLAIN, key_of
from remctl.config.presets import DESCRIPTIONS
from remctl.config.resolve import NOT_OVERRIDES, sections, suggestion
from remctl.config.schema import RunConfig, Section
from remctl.errors import UserError
from remctl.games import ABLATION_SUBSET, references
from remctl.variants import VARIANTS

Node = dict[str, Any]

# Column title -> preset and a game it is shown for; `quick` has other sizes for a toy.
PRESET_COLUMNS = {
    "paper": ("paper", "Pong"),
    "quick (Atari)": ("quick", "Pong"),
    "quick (Catch)": ("quick", "Catch"),
    "corrected": ("corrected", "Pong"),
    "paper-text": ("paper-text", "Pong"),
    "iris": ("iris", "Pong"),
    "iris-rem": ("iris-rem", "Pong"),
}
# Labels whose allowed values stand outside the schema.
LABELS: dict[str, Iterable[str]] = {"preset": DESCRIPTIONS, "variant": VARIANTS}


@dataclass(frozen=True)
class KeyExplanation:
    """One configuration key. `presets` and `variants`: its value in each (of the variants, those that set it)."""

    key: str
    meaning: str
    allowed: str
    unit: str
    source: str
    default: Any
    presets: dict[str, Any]
    variants: dict[str, Any]


@dataclass(frozen=True)
class SectionExplanation:
    """One section: what it is about, and its keys (sections within included) with their defaults."""

    section: str
    meaning: str
    keys: dict[str, Any]


# --- config show


def shown(config: RunConfig) -> dict[str, Any]:
    """The resolved configuration and its hash."""
    return {"config_hash": config_hash(config), "config": config.model_dump(mode="json", by_alias=True)}


def differences(config: RunConfig) -> dict[str, dict[str, Any]]:
    """The keys whose values differ from preset `paper` for the same game: {key: {value, paper}}."""
    ours, paper = keys(config), keys(resolve(config.game))
    changed = (key for key in ours if key not in NOT_OVERRIDES and ours[key] != paper[key])
    return {key: {"value": ours[key], "paper": paper[key]} for key in changed}


def differences_yaml(config: RunConfig) -> str:
    """`differences` as a file that `--config` takes, the paper's values as comments."""
    labels = f"game {config.game}, preset {config.preset}, variant {config.variant}, seed {config.seed}"
    lines = [f"# config_hash: {config_hash(config)} ({labels})"]
    for key, row in differences(config).items():
        lines.append(f"{plain(key)}: {plain(row['value'])}  # paper: {plain(row['paper'])}")
    return "\n".join(lines if len(lines) > 1 else [*lines, "# no key differs from preset paper"]) + "\n"


def plain(value: Any) -> str:
    """A value as YAML on one line: `null`, `0.001`, `[32, 64]`."""
    text = yaml.safe_dump(value, default_flow_style=True, width=math.inf)
    return text.removesuffix("...\n").strip()


# --- config schema


def file_schema() -> Node:
    """JSON schema of the file that `--config` takes: any subset of the keys, nested or dotted, without the labels."""
    schema = RunConfig.model_json_schema()
    for label in NOT_OVERRIDES:
        del schema["properties"][label]
    for node in (schema, *schema["$defs"].values()):
        node.pop("required", None)
        node["patternProperties"] = {r"^[a-z_]+\..": {}}  # dotted: remctl checks them
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return head | schema | {"title": "remctl configuration file", "description": "For `remctl train --config FILE`."}


# --- config explain


def explain(name: str) -> KeyExplanation | SectionExplanation:
    """A key's or a section's explanation. Raises UserError with the nearest names."""
    known = list(keys())
    if key_of(name) in known:
        return explain_key(key_of(name))
    if name in sections():
        return explain_section(name)
    raise UserError(f"unknown key {name!r}: {suggestion(name, known + sections())}")


def explain_key(key: str) -> KeyExplanation:
    """Meaning, allowed values, unit, source, default, and the value in each preset and in variants that set it."""
    *parents, last = key.split(".")
    node = _section_class(parents).model_json_schema()["properties"][last]
    per_preset = {title: keys(resolve(game, preset))[key] for title, (preset, game) in PRESET_COLUMNS.items()}
    return KeyExplanation(
        key=key,
        meaning=node["description"],
        allowed=" | ".join(LABELS[key]) if key in LABELS else allowed(node),
        unit=node["unit"],
        source=node["source"],
        default=keys()[key],
        presets={} if key in NOT_OVERRIDES else per_preset,
        variants={name: v.overrides[key] for name, v in VARIANTS.items() if key in v.overrides},
    )


def explain_section(name: str) -> SectionExplanation:
    """What the section holds."""
    inside = {key: value for key, value in keys().items() if key.startswith(f"{name}.")}
    meaning = (_section_class(name.split(".")).__doc__ or "").strip()
    return SectionExplanation(name, " ".join(meaning.split()), inside)


def _section_class(path: list[str]) -> type[Section]:
    section: type[Section] = RunConfig
    for name in path:
        inner = section.model_fields[name].annotation
        assert isinstance(inner, type), name
        assert issubclass(inner, Section), name
        section = inner
    return section


def allowed(node: Node) -> str:
    """A key's JSON schema in words: `whole number, at least 1`; `mse | l1`."""
    if "anyOf" in node:
        return " or ".join(allowed(option) for option in node["anyOf"])
    if "const" in node:
        return str(node["const"])
    if "enum" in node:
        return " | ".join(str(value) for value in node["enum"])
    if node["type"] == "array":
        least = f"{node['minItems']} or more" if node.get("minItems") else "any number"
        return f"list of {least}, each: {allowed(node['items'])}"
    if node["type"] == "object":
        return f"mapping of names to plain values: {PLAIN}"
    names = {"integer": "whole number", "number": "number", "boolean": "true | false", "string": "text", "null": "null"}
    return ", ".join([names[node["type"]], *_limits(node)])


def _limits(node: Node) -> list[str]:
    words = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    return [f"{word} {node[name]}" for name, word in words.items() if name in node]


# --- list


def games() -> list[dict[str, Any]]:
    """Every game with reference scores: these, whose they are, their sources, and whether the paper's ablations have it."""
    return [
        {"game": game, **asdict(row), "reference": row.label, "ablation_subset": game in ABLATION_SUBSET}
        for game, row in references().items()
    ]


def presets() -> list[dict[str, Any]]:
    """Each preset: what it is, and how many keys it changes against `paper`."""
    counts = {title: len(differences(resolve(game, preset))) for title, (preset, game) in PRESET_COLUMNS.items()}
    return [
        {
            "preset": preset,
            "description": description,
            "changed_keys": {title: n for title, n in counts.items() if title.split(" ")[0] == preset},
        }
        for preset, description in DESCRIPTIONS.items()
    ]


def variants() -> list[dict[str, Any]]:
    """Each variant: its label, what it changes against the control, where the paper has it."""
    return [
        {"variant": name, "label": variant.label, "overrides": variant.overrides, "source": variant.source}
        for name, variant in VARIANTS.items()
    ]


def as_json(value: Any) -> str:
    """Indented JSON."""
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)
