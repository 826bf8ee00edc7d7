"""Options that several verbs share, and checks that need no torch."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

import typer

from remctl.config.presets import DESCRIPTIONS
from remctl.errors import UserError
from remctl.games import ATARI_100K, TOYS
from remctl.runs.layout import RunFolder
from remctl.shipped import Kind, available
from remctl.variants import VARIANTS


def check_device(name: str) -> str:
    """The form only (UserError); whether it is there is found out by whoever loads torch."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        raise UserError(f"--device: given {name!r}; allowed: auto, cpu, cuda, cuda:N")
    return name


def check_run(path: Path) -> Path:
    """A folder with a run in it, also as `remctl status` names it, without `runs/`; UserError for another."""
    for folder in (path, Path("runs") / path):
        if RunFolder(folder).config.is_file():
            return folder
    raise UserError(f"{path}: not a run folder (no config.yaml): give one such as runs/quick/rem/Pong/seed_0")


def refuse_beside_from(game: object, preset: str, variant: str, config: object, sets: object, seed: int) -> None:
    """UserError where something beside --from says what to train."""
    if game is not None or config is not None or sets or (preset, variant, seed) != ("paper", "rem", 0):
        raise UserError("--from says it all: leave out --game, --preset, --variant, --config, --set and --seed")


def refuse_together(option: str, others: Mapping[str, bool]) -> None:
    """UserError where an option is given with one of the others that are."""
    for other, is_given in others.items():
        if is_given:
            raise UserError(f"{option} and {other}: choose one of them")


def _shipped(kind: Kind) -> Callable[[], list[str]]:
    """Names to complete, read when a shell asks."""
    return lambda: list(available(kind))


Game = Annotated[
    str | None,
    typer.Option(
        help="A game (see `remctl list games`), Catch, or gym:ID.", autocompletion=lambda: [*TOYS, *ATARI_100K]
    ),
]
Preset = Annotated[
    str,
    typer.Option(
        help="paper, quick, corrected, paper-text, iris or iris-rem.", autocompletion=lambda: list(DESCRIPTIONS)
    ),
]
Variant = Annotated[
    str, typer.Option(help="An ablation; see `remctl list variants`.", autocompletion=lambda: list(VARIANTS))
]
AblationSpec = Annotated[
    str,
    typer.Argument(
        metavar="SPEC", help="A name (`remctl list specs`) or a YAML file.", autocompletion=_shipped("ablations")
    ),
]
ReportSpec = Annotated[
    str | None,
    typer.Option(
        metavar="SPEC", help="A name (`remctl list specs`) or a YAML file.", autocompletion=_shipped("reports")
    ),
]
Profile = Annotated[
    str,
    typer.Option(metavar="PROFILE", help="SLURM profile: a name or a YAML file.", autocompletion=_shipped("slurm")),
]
ConfigFile = Annotated[Path | None, typer.Option("--config", metavar="FILE", help="YAML file of configuration keys.")]
Sets = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set one configuration key; repeatable.")
]
Seed = Annotated[int, typer.Option(help="Seeds everything.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.", callback=check_device)]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.", callback=check_run)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
