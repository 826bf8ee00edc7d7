"""`remctl import` and `remctl export`: bundles, and weights in the formats of others."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from remctl.commands.options import Game, Run, Seed, Sets, check_folder, refuse_beside
from remctl.config.presets import DESCRIPTIONS

FORMAT_HELP = "bundle (a folder to check and play), or rem or iris: the authors' state dicts."


def take_in(
    context: typer.Context,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A bundle's folder, or a state dict, by torch or safetensors.")
    ],
    out: Annotated[
        Path,
        typer.Option(metavar="RUN", help="The new run folder: runs/published/rem/Pong/seed_0.", callback=check_folder),
    ],
    kind: Annotated[
        str | None, typer.Option("--from", metavar="FORMAT", help=FORMAT_HELP, show_default="bundle, if it is one")
    ] = None,
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
    """Make a run folder of a bundle, or of an agent that others trained: to eval, inspect, report."""
    from remctl.commands.before_start import aside
    from remctl.exchange.formats import BUNDLE, FORMATS, format_of
    from remctl.exchange.requests import Import

    chosen = format_of(kind, file)
    if chosen is FORMATS[BUNDLE]:
        refuse_beside(context, "a bundle", "--from")
    chosen.take_in(Import(file, out, aside, tuple(sys.argv), game, preset, tuple(sets or ()), seed))
    score = "with the score of its final test" if chosen is FORMATS[BUNDLE] else f"remctl eval {out} measures its score"
    print(f"{out}: imported from {file}; {score}")


def give_out(
    run: Run,
    out: Annotated[
        Path, typer.Option(metavar="OUT", help="The new folder of a bundle; else the file, .pt or .safetensors.")
    ],
    kind: Annotated[str, typer.Option("--format", metavar="FORMAT", help=FORMAT_HELP)] = "bundle",
    like: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A published file: its names for what no table lists (rem)."),
    ] = None,
    without_lpips: Annotated[bool, typer.Option("--without-lpips", help="Leave LPIPS' weights out.")] = False,
) -> None:
    """Write a finished run as a bundle that anyone can check, or a run's newest agent as its authors' code reads it."""
    from remctl.commands.before_start import aside
    from remctl.exchange.formats import BUNDLE, format_of
    from remctl.exchange.requests import Export

    format_of(kind, out).give_out(Export(run, out, aside, like, not without_lpips))
    print(f"{out}: the agent of {run}" + (f"; remctl eval {out} checks it" if kind == BUNDLE else ""))


def register(app: typer.Typer) -> None:
    """Add both verbs."""
    app.command("import")(take_in)
    app.command("export")(give_out)
