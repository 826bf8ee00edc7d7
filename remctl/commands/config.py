"""`remctl config show | schema | explain`."""

from __future__ import annotations

from typing import Annotated

import typer

from remctl.commands.options import ConfigFile, Preset, Seed, Sets, Variant

app = typer.Typer(help="Look at the configuration.")


@app.command()
def show(
    game: Annotated[str, typer.Option(help="A game; see `remctl list games`.")] = "Pong",
    preset: Preset = "paper",
    variant: Variant = "rem",
    config: ConfigFile = None,
    sets: Sets = None,
    seed: Seed = 0,
    json: Annotated[bool, typer.Option("--json/--yaml", help="Print JSON, or YAML (the default).")] = False,
    diff: Annotated[bool, typer.Option("--diff", help="Only the keys that differ from preset paper.")] = False,
) -> None:
    """Print a resolved configuration and its hash.

    The YAML of --diff is a file that --config takes.
    """
    from remctl import explain
    from remctl.commands.output import show_json
    from remctl.config import resolve, to_yaml
    from remctl.config.effects import refuse_without_effect
    from remctl.config.resolve import keys_of

    resolved = resolve(game, preset, variant, config, sets or (), seed)
    refuse_without_effect(resolved, keys_of(sets or ()))
    if json:
        show_json(explain.differences(resolved) if diff else explain.shown(resolved))
    else:
        print(explain.differences_yaml(resolved) if diff else to_yaml(resolved), end="")


@app.command()
def schema() -> None:
    """Print the JSON schema of the file that --config takes, for editors."""
    from remctl.commands.output import show_json
    from remctl.explain import file_schema

    show_json(file_schema())


@app.command()
def explain(
    key: Annotated[str, typer.Argument(metavar="KEY", help="A key or a section, as world_model.decay.")],
) -> None:
    """Explain one configuration key, or list a section's keys."""
    from remctl.commands.explaining import explanation
    from remctl.commands.output import show
    from remctl.explain import explain as explain_name

    for part in explanation(explain_name(key)):
        show(part)
