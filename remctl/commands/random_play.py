"""`remctl random`: what uniformly random actions score."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from remctl.commands.options import Game, Json, Preset, Seed, Sets
from remctl.errors import UserError


def play(
    game: Game = None,
    episodes: Annotated[int, typer.Option(min=2, max=100_000, help="Test episodes to play.")] = 500,
    preset: Preset = "paper",
    sets: Sets = None,
    seed: Seed = 0,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write every return and length into this JSON file too.")
    ] = None,
    json: Json = False,
) -> None:
    """Score uniformly random actions, by the rules of a final test: mean, its 95% interval, and what a score must exceed."""
    from remctl.commands.output import facts, show, show_json, summary
    from remctl.config import resolve
    from remctl.progress import Reporter
    from remctl.random_play import play_randomly
    from remctl.runs.files import make_folder, refuse_target, write_json
    from remctl.stopping import StopFlag

    if game is None:
        raise UserError("no game given: add --game Pong (see `remctl list games`)")
    config = resolve(game, preset, sets=sets or (), seed=seed)
    if out is not None:
        refuse_target(out)
    with StopFlag().listening() as stop, Reporter(stop, to_stderr=True) as reporter:
        result = play_randomly(config, episodes, reporter)
    if out is not None:
        make_folder(out.parent)
        write_json(out, result)
    if json:
        show_json(result)
        return
    show(facts(summary(result)))
    print(f"the mean of 100 such episodes stays below {result['bound_of_100']:.4g} in 999 of 1,000 cases")


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("random")(play)
