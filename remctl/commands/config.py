"""`remctl config show | diff | schema | explain`."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from remctl.commands.options import ConfigFile, Json, Preset, Seed, Sets, Variant, refuse_beside

app = typer.Typer(help="Show, compare and explain configurations.")


@app.command()
def show(
    context: typer.Context,
    game: Annotated[str | None, typer.Option(help="A game; see `remctl list games`.", show_default="Pong")] = None,
    preset: Preset = "paper",
    variant: Variant = "rem",
    config: ConfigFile = None,
    sets: Sets = None,
    seed: Seed = 0,
    like: Annotated[
        str | None,
        typer.Option("--from", metavar="RUN", help="Show this run (its folder or config.yaml); allows no other key."),
    ] = None,
    json: Annotated[bool, typer.Option("--json/--yaml", help="Print JSON, or YAML (the default).")] = False,
    diff: Annotated[bool, typer.Option("--diff", help="Only the keys that differ from preset paper.")] = False,
) -> None:
    """Print a resolved configuration and its hash.

    What --diff prints as YAML can be given to --config.
    """
    from remctl import explain
    from remctl.commands.output import show_json
    from remctl.config import resolve, to_yaml
    from remctl.config.effects import refuse_without_effect
    from remctl.config.resolve import keys_of

    if like is not None:
        from remctl.commands.comparing import of_run

        refuse_beside(context, "--from")
        resolved = of_run(like)
    else:
        resolved = resolve(game or "Pong", preset, variant, config, sets or (), seed)
        refuse_without_effect(resolved, keys_of(sets or ()), partial(resolve, game or "Pong", preset, variant, config))
    if json:
        show_json(explain.differences(resolved) if diff else explain.shown(resolved))
    else:
        print(explain.differences_yaml(resolved) if diff else to_yaml(resolved), end="")


@app.command()
def diff(
    a: Annotated[str, typer.Argument(metavar="A", help="A run, a file, a preset, a variant, or SPEC:VARIANT.")],
    b: Annotated[str, typer.Argument(metavar="B", help="The other one, in any of these forms.")],
    game: Annotated[
        str | None, typer.Option(help="Game of a side that names none; by default the other side's.")
    ] = None,
    json: Json = False,
) -> None:
    """Show the keys in which two configurations differ."""
    from remctl.commands import comparing
    from remctl.commands.output import show, show_json
    from remctl.config import config_hash

    first, second = comparing.compared(a, b, game)
    rows = comparing.difference_rows(first, second)
    if json:
        show_json({"a": config_hash(first), "b": config_hash(second), "keys": rows})
        return
    for name, given, found in (("A", a, first), ("B", b, second)):
        show(f"{name}: {given} ({found.game}, seed {found.seed}, config {config_hash(found)})")
    if rows:
        show(comparing.difference_table(rows))
    print(comparing.verdict(first, second, rows))


@app.command()
def schema() -> None:
    """Print the JSON schema of the file that --config takes, for editors."""
    from remctl.commands.output import show_json
    from remctl.explain import file_schema

    show_json(file_schema())


@app.command()
def explain(
    key: Annotated[str, typer.Argument(metavar="KEY", help="A key or a section, such as world_model.decay.")],
) -> None:
    """Explain one configuration key, or list a section's keys."""
    from remctl.commands.explaining import explanation
    from remctl.commands.output import show
    from remctl.explain import explain as explain_name

    for part in explanation(explain_name(key)):
        show(part)
