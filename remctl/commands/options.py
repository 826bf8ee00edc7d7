"""Options that several verbs share, and checks that need no torch."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from remctl.commands.output import LEAST, NO_LIMIT
from remctl.config.presets import DESCRIPTIONS
from remctl.errors import UserError
from remctl.games import ATARI_100K, TOYS
from remctl.paths import refuse_no_folder, user_path
from remctl.runs.layout import RunFolder
from remctl.shipped import Kind, available
from remctl.variants import VARIANTS

MIN_FRAMED = 80  # columns
WHAT_TO_TRAIN = ("--game", "--preset", "--variant", "--config", "--set", "--seed", "--from", "--continue")


def check_device(name: str) -> str:
    """The form only (UserError); whether it is there is found out by whoever loads torch."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        raise UserError(f"--device: given {name!r}; allowed: auto, cpu, cuda, cuda:N")
    return name


def check_run(path: Path) -> Path:
    """A folder with a run in it, also as `remctl status` names it, without `runs/`; UserError for another."""
    for folder in (path, Path("runs") / path):
        if RunFolder(folder).config.is_file() or RunFolder(folder).is_bundle:
            return folder
    raise UserError(f"{path}: not a run folder (no config.yaml): give one such as runs/quick/rem/Pong/seed_0")


def check_folder(path: Path | None) -> Path | None:
    """A folder to write into, there or not yet; UserError where there can be none."""
    if path is not None:
        refuse_no_folder(path)
    return path


def prepare(command: Any) -> None:
    """Give every path of a command and of its verbs the home folder for its `~`, before anything else looks at it.

    An empty value is refused: it is a variable that was not set, and as a path it would mean the working folder. On a narrow
    terminal help is plain text, which is wrapped; in frames names of options would be cut.
    """
    for parameter in command.params:
        parameter.callback = _expanding(parameter.callback)
        parameter.consume_value = _refusing_nothing(parameter)
    given = os.environ.get("COLUMNS", "")
    if given and not (given.isdecimal() and LEAST <= int(given[:9]) <= NO_LIMIT):
        del os.environ["COLUMNS"]  # no width at all; whoever draws asks the terminal then
    columns = shutil.get_terminal_size().columns
    if columns < MIN_FRAMED:
        command.rich_markup_mode = None
        command.context_settings["terminal_width"] = columns
    for verb in command.commands.values() if isinstance(command, TyperGroup) else ():
        prepare(verb)


def _refusing_nothing(parameter: Any) -> Callable[..., Any]:
    consume = parameter.consume_value
    label = parameter.opts[0] if parameter.param_type_name == "option" else parameter.metavar or parameter.name.upper()

    def consumed(*args: Any) -> Any:
        value, source = consume(*args)
        if "" in (value if isinstance(value, list | tuple) else (value,)):
            raise UserError(
                f"{label}: given '', which names nothing: give a value (for a folder, . is the one you are in)"
            )
        return value, source

    return consumed


def _expanding(callback: Callable[..., Any] | None) -> Callable[..., Any]:
    def expanded(context: Any, parameter: Any, value: Any) -> Any:
        if isinstance(value, list | tuple):
            value = type(value)(user_path(v) if isinstance(v, Path) else v for v in value)
        elif isinstance(value, Path):
            value = user_path(value)
        return callback(context, parameter, value) if callback else value

    return expanded


def refuse_beside(context: typer.Context, option: str, allowed: str = "") -> None:
    """UserError if something next to `option` says what to train, whatever its value; `allowed` is one that may."""
    given = [p.opts[0] for p in context.command.params if _is_given(context, p.name) and p.opts[0] in WHAT_TO_TRAIN]
    refused = [name for name in given if name not in (option, allowed)]
    if refused:
        raise UserError(f"{option} gives the whole configuration: leave out {', '.join(refused)}")


def _is_given(context: typer.Context, name: str | None) -> bool:
    source = context.get_parameter_source(name or "")
    return source is not None and source.name == "COMMANDLINE"


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
Seed = Annotated[int, typer.Option(help="Seed of all random draws.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.", callback=check_device)]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.", callback=check_run)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
