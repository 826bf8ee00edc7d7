"""What an experiment consists of: the runs that its question needs, each known by its configuration hash."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from remctl.config import RunConfig


@dataclass(frozen=True)
class SpecVariant:
    """One column of the comparison: `overrides` (dotted configuration keys) go over the spec's own.

    They include those of its base and of its grid point.
    """

    name: str
    label: str
    overrides: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Spec:
    """A question, as its YAML file puts it, checked. `variants` includes the control, and every point of a grid."""

    path: Path
    name: str
    question: str
    control: str
    variants: tuple[SpecVariant, ...]
    games: tuple[str, ...]
    seeds: tuple[int, ...]
    preset: str
    overrides: dict[str, Any]
    sets: tuple[str, ...] = ()  # what of them was given on the command line

    @property
    def title(self) -> str:
        """Name and question."""
        return f"{self.name}: {self.question}" if self.question else self.name


@dataclass(frozen=True)
class WantedRun:
    """One run that a spec asks for. `config_hash` is its identity: done once, by whatever spec, it is done."""

    variant: str
    game: str
    seed: int
    config: RunConfig
    config_hash: str
