"""How the data of `remctl.explain` looks on the terminal."""

from __future__ import annotations

from typing import Any

from rich.console import RenderableType

from remctl.commands.output import facts, table
from remctl.config.resolve import NOT_OVERRIDES
from remctl.explain import KeyExplanation, SectionExplanation, explain_key, plain


def explanation(of: KeyExplanation | SectionExplanation) -> list[RenderableType]:
    """What `remctl config explain` prints."""
    return section(of) if isinstance(of, SectionExplanation) else key(of)


def key(of: KeyExplanation) -> list[RenderableType]:
    """One key: meaning and limits, then its values."""
    label = of.key in NOT_OVERRIDES
    about = {
        "meaning": of.meaning,
        "allowed": of.allowed,
        "unit": of.unit,
        "source": of.source,
        "default": plain(of.default),
        "set by": f"--{of.key}" if label else f"--set {of.key}=..., or a --config file",
    }
    values = {f"preset {name}": plain(value) for name, value in of.presets.items()}
    values |= {f"variant {name}": plain(value) for name, value in of.variants.items()}
    return [of.key, facts({name: text for name, text in about.items() if text} | values)]


def section(of: SectionExplanation) -> list[RenderableType]:
    """One section: its keys with default and meaning."""
    rows = [
        (name.removeprefix(f"{of.section}."), plain(value), explain_key(name).meaning)
        for name, value in of.keys.items()
    ]
    return [f"{of.section}: {of.meaning}", table(("key", "default", "meaning"), rows)]


def games(rows: list[dict[str, Any]]) -> list[RenderableType]:
    """What `remctl list games` prints."""
    cells = [
        (row["game"], _score(row["random"]), _score(row["score"]), row["reference"], "yes" * row["ablation_subset"])
        for row in rows
    ]
    more = (
        "Subset: the games of the paper's ablations. Also: any other single-player ALE game in CamelCase, and gym:ID for a "
        "Gymnasium environment. Where the scores come from: remctl list games --json"
    )
    return [table(("game", "random", "reference", "whose", "subset"), cells, right=("random", "reference")), more]


def _score(value: float) -> str:
    return f"{value:,.1f}" if abs(value) >= 10 else f"{value:.3g}"


def presets(rows: list[dict[str, Any]]) -> list[RenderableType]:
    """What `remctl list presets` prints."""
    cells = [(row["preset"], str(max(row["changed_keys"].values())), row["description"]) for row in rows]
    return [table(("preset", "keys changed", "what it is"), cells, right=("keys changed",))]


def variants(rows: list[dict[str, Any]]) -> list[RenderableType]:
    """What `remctl list variants` prints."""
    cells = [(row["variant"], f"{row['label']} ({row['source']})\n{_changes(row['overrides'])}") for row in rows]
    return [table(("variant", "what it changes"), cells)]


def _changes(overrides: dict[str, Any]) -> str:
    return "\n".join(f"  {name}={plain(value)}" for name, value in overrides.items()) or "  nothing: the control"
