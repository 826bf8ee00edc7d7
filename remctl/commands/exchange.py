"""`remctl import` and `remctl export`: weights in the formats of others."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from remctl.commands.options import Game, Run, Seed, Sets, check_folder
from remctl.config.presets import DESCRIPTIONS

FORMATS = "rem or iris: the authors' state dicts."


def take_in(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A state dict, by torch or safetensors.")],
    kind: Annotated[str, typer.Option("--from", metavar="FORMAT", help=FORMATS)],
    out: Annotated[
        Path,
        typer.Option(metavar="RUN", help="The new run folder: runs/published/rem/Pong/seed_0.", callback=check_folder),
    ],
    game: Game = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="Whose configuration the agent has.",
            show_default="paper, or iris",
            autocompletion=lambda: list(DESCRIPTIONS),
        ),
    ] = None,
    sets: Sets = None,
    seed: Seed = 0,
) -> None:
    """Make a run folder of an agent that others trained: to eval, inspect, report."""
    from remctl.commands.before_start import aside
    from remctl.exchange.formats import format_of
    from remctl.exchange.requests import Import

    format_of(kind).take_in(Import(file, out, aside, tuple(sys.argv), game, preset, tuple(sets or ()), seed))
    print(f"{out}: imported from {file}; remctl eval {out} measures its score")


def give_out(
    run: Run,
    kind: Annotated[str, typer.Option("--format", metavar="FORMAT", help=FORMATS)],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The new file; NAME.safetensors for that format.")],
    like: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A published file: its names for what no table lists (rem)."),
    ] = None,
    without_lpips: Annotated[bool, typer.Option("--without-lpips", help="Leave LPIPS' weights out.")] = False,
) -> None:
    """Write a run's newest agent as its authors' code reads it."""
    from remctl.commands.before_start import aside
    from remctl.exchange.formats import format_of
    from remctl.exchange.requests import Export

    format_of(kind).give_out(Export(run, out, aside, like, not without_lpips))
    print(f"{out}: the agent of {run}")


def register(app: typer.Typer) -> None:
    """Add both verbs."""
    app.command("import")(take_in)
    app.command("export")(give_out)
