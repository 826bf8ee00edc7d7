"""`remctl list games | presets | variants`."""

from __future__ import annotations

import typer

from remctl.commands.options import Json

app = typer.Typer(help="List games, presets, variants and specs.")


def _print(what: str, json: bool) -> None:
    from remctl import explain
    from remctl.commands import explaining
    from remctl.commands.output import show, show_json

    rows = getattr(explain, what)()
    if json:
        show_json(rows)
        return
    for part in getattr(explaining, what)(rows):
        show(part)


@app.command()
def games(json: Json = False) -> None:
    """The games with reference scores for normalising: random play, and a human, an agent or optimal play."""
    _print("games", json)


@app.command()
def presets(json: Json = False) -> None:
    """The presets."""
    _print("presets", json)


@app.command()
def variants(json: Json = False) -> None:
    """The variants of the ablations and what each changes."""
    _print("variants", json)
