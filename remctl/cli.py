"""The command line: verbs only (parse, call one function, print).

Whatever is heavy is imported inside the verb, so that `remctl --help` needs neither torch nor the environments.
Errors become one line and an exit status in `remctl.commands.failures`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from typer.core import TyperGroup
from typer.main import get_command

from remctl.commands import bench, exchange, listing, random_play, report, shipping, sweep, weights
from remctl.commands import config as config_verbs
from remctl.commands.failures import guarded
from remctl.commands.options import (
    ConfigFile,
    Device,
    Game,
    Json,
    Preset,
    Run,
    Seed,
    Sets,
    Variant,
    check_folder,
    check_run,
    prepare,
    refuse_beside,
)
from remctl.errors import UserError
from remctl.runs.imported import strangers_folders
from remctl.runs.layout import RunFolder

TOO_FEW = 3  # exit status of `eval`: too few episodes to tell whether two scores agree
HELP = "Train and study REM, a world model with parallel observation prediction, on Atari 100K."

app = typer.Typer(help=HELP, context_settings={"help_option_names": ["-h", "--help"]})
app.add_typer(config_verbs.app, name="config")
app.add_typer(listing.app, name="list")
app.add_typer(weights.app, name="weights")


def run(args: Sequence[str]) -> int:
    """Run one command line; its exit status."""
    # Read once, when torch loads its threads: waiting ones that spin for long ruin a machine that others use too.
    os.environ.setdefault("GOMP_SPINCOUNT", "5000")
    debug = "--debug" in args  # anywhere on the line
    args = [arg for arg in args if arg != "--debug"] or ["--help"]
    command = get_command(app)
    prepare(command)
    return guarded(lambda: command.main(args, prog_name="remctl", standalone_mode=False), args, debug, verb_of(args))


def verb_of(args: Sequence[str]) -> str:
    """The verb that a command line asks for, as `remctl config show`, as far as there is one."""
    words, command = ["remctl"], get_command(app)
    for arg in args:
        if not isinstance(command, TyperGroup) or arg not in command.commands:
            break
        words, command = [*words, arg], command.commands[arg]
    return " ".join(words)


def _print_version(wanted: bool) -> None:
    if wanted:
        from remctl.runs.code import this_code

        print(f"remctl {this_code().version}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks; allowed anywhere on the line.")] = False,
) -> None:
    """Nothing: `--debug` is taken off the line before it is parsed (`run`), and stands here to be listed."""


root.__doc__ = HELP


@app.command()
def train(
    context: typer.Context,
    game: Game = None,
    preset: Preset = "paper",
    variant: Variant = "rem",
    config: ConfigFile = None,
    sets: Sets = None,
    seed: Seed = 0,
    like: Annotated[
        Path | None,
        typer.Option("--from", metavar="FILE", help="Train the run of this config.yaml; allows no other key."),
    ] = None,
    shorter: Annotated[
        Path | None,
        typer.Option(
            "--continue",
            metavar="RUN",
            help="Train this run for longer, in a new folder; add --set training.num_epochs=N.",
        ),
    ] = None,
    device: Device = "auto",
    out: Annotated[Path, typer.Option(help="Folder of runs.", callback=check_folder)] = Path("runs"),
    name: Annotated[str | None, typer.Option(help="The experiment's name; by default the preset's.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress, no log lines.")] = False,
) -> None:
    """Train an agent. The same command resumes an interrupted run."""
    from remctl.config import from_yaml, resolve
    from remctl.config.effects import refuse_without_effect
    from remctl.config.resolve import keys_of

    source = None
    if shorter is not None:
        from remctl.train.continuing import longer

        refuse_beside(context, "--continue", "--set")
        source = RunFolder(check_run(shorter).absolute())
        resolved = longer(source, sets or ())
        name = name or f"{shorter.absolute().parents[2].name}_{resolved.training.num_epochs}_epochs"
    elif like is not None:
        refuse_beside(context, "--from")
        resolved = from_yaml(like)
        if folders := strangers_folders(RunFolder(like.resolve().parent)):
            from remctl.envs import import_installed

            import_installed(resolved.game, *folders)
    elif game is None:
        raise UserError("no game given: add --game Pong (see `remctl list games`), or --from a run's config.yaml")
    else:
        resolved = resolve(game, preset, variant, config, sets or (), seed)
        refuse_without_effect(resolved, keys_of(sets or ()), partial(resolve, game, preset, variant, config))
    from remctl import runner

    experiment = resolved.preset if name is None else name
    given = {"source": source} if source else {}
    runner.train(resolved, out=out, experiment=experiment, device=device, command=sys.argv, quiet=quiet, **given)


@app.command("eval")
def evaluate(
    run: Run,
    episodes: Annotated[
        int | None,
        typer.Option(
            min=1, help="Test episodes to play.", show_default="100; for a bundle, as many as its final test had"
        ),
    ] = None,
    device: Device = "auto",
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the episodes; by default the run's.")] = None,
    json: Json = False,
) -> None:
    """Play test episodes with a run's newest agent.

    For a bundle: check the checksums, repeat the final test, and compare the scores. The exit status is 1 if they do not agree,
    3 if there are too few episodes to tell.
    """
    from remctl.commands.output import facts, show, show_json, summary

    if RunFolder(run).is_bundle:
        from remctl.exchange.checking import check

        result = check(run, episodes, device, seed)
    else:
        from remctl import runner

        result = runner.evaluate(run, episodes or 100, device, seed)
    if json:
        show_json(result)
    else:
        verdict = result.pop("comparison", "")
        show(facts(summary(result)))
        if verdict:
            print(verdict)
    if not (agrees := result.get("agrees", True)):
        raise typer.Exit(TOO_FEW if agrees is None else 1)


@app.command()
def inspect(
    run: Run,
    steps: Annotated[
        int | None,
        typer.Option(min=1, max=1000, help="Imagined steps from each starting point.", show_default="as C is trained"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder for the figures.", show_default="RUN/media", callback=check_folder),
    ] = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Diagnose a run's agent: imagination against reality, tokenizer, world model, controller."""
    from remctl import runner
    from remctl.commands.output import show, show_json
    from remctl.dream.table import diagnosis_table

    result = runner.inspect(run, device, out, steps)
    if json:
        show_json(result)
        return
    for table in diagnosis_table(result["diagnosis"], RunFolder(run).can_train):
        show(table)
    for figure in result["figures"]:
        print(figure)


@app.command()
def doctor(
    json: Json = False, out: Annotated[Path, typer.Option(help="Folder of runs that is checked.")] = Path("runs")
) -> None:
    """Check this machine and give the fix for each problem. Exit status 1 if a check fails."""
    from remctl.commands.output import show, show_json
    from remctl.doctor import as_table, check_all, conclusion, failed

    checks = check_all(out)
    if json:
        show_json([check._asdict() for check in checks])
    else:
        show(as_table(checks))
        show(conclusion(checks))
    if failed(checks):
        raise typer.Exit(1)


shipping.register(app, listing.app)
sweep.register(app)
report.register(app)
exchange.register(app)
random_play.register(app)
app.add_typer(bench.app, name="bench")
