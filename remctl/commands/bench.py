"""`remctl bench` and `remctl bench compare`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from remctl.commands.bench_compare import compare
from remctl.commands.options import Device, Sets, check_folder
from remctl.errors import UserError

if TYPE_CHECKING:
    from remctl.bench.result import Check, Result
    from remctl.config import RunConfig

SCALES = ("full", "reduced")
MIN_ROUNDS = 6  # fewer bear no interval of 95%
app = typer.Typer(
    help="Time REM against IRIS and its own ablations; compare two benchmarks.", invoke_without_command=True
)
app.command()(compare)


@app.callback(invoke_without_command=True)
def bench(
    context: typer.Context,
    suites: Annotated[
        list[str] | None,
        typer.Option(
            "--suite",
            metavar="NAME",
            help="paper, ablations, components, scaling, phases, packing or precision; repeatable.",
            show_default="all but precision",
        ),
    ] = None,
    scale: Annotated[
        str | None,
        typer.Option(metavar="SCALE", help="full, or reduced (minutes on a CPU).", show_default="full on a GPU"),
    ] = None,
    device: Device = "auto",
    batch: Annotated[
        int | None, typer.Option(min=1, max=4096, help="Use this batch size everywhere.", show_default="as published")
    ] = None,
    rounds: Annotated[
        int | None,
        typer.Option(
            min=MIN_ROUNDS, max=1000, help="Number of rounds; each runs every case in turn.", show_default="9 or 6"
        ),
    ] = None,
    game: Annotated[str, typer.Option(help="Game of the suites phases, packing and precision.")] = "Pong",
    preset: Annotated[
        str | None,
        typer.Option(help="Preset of these suites.", show_default="paper; phases and packing, reduced: quick"),
    ] = None,
    variant: Annotated[str, typer.Option(help="Variant of these suites.")] = "rem",
    sets: Sets = None,
    json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write bench.json here too.")] = None,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder for bench.json and the figures.", callback=check_folder)
    ] = Path("runs/bench"),
    check: Annotated[
        bool, typer.Option("--check", help="Check outputs and counts against the reference; time nothing.")
    ] = False,
) -> None:
    """Time the agents side by side: `remctl bench`, or one suite of it."""
    if context.invoked_subcommand is not None:
        return
    chosen = _suites(suites or [])
    _check_scale(scale)
    if (preset, variant, game, sets) != (None, "rem", "Pong", None):
        _refuse_unused(chosen)
    from remctl.bench import run as bench_run
    from remctl.config import resolve

    def phases_of(scale: str) -> RunConfig:
        return resolve(game, preset or ("quick" if scale == "reduced" else "paper"), variant, None, sets or ())

    if check and json is not None:
        raise UserError("--check measures nothing, so there is nothing to write: leave out --json")
    todo = bench_run.plan(chosen, scale, device, batch, rounds, phases_of)  # type: ignore[arg-type]
    if check:
        _say_checks(bench_run.check(todo))
        return
    paths = _targets(out, json)
    _say(bench_run.run(todo, paths, ["remctl", *sys.argv[1:]]), out)


def _check_scale(scale: str | None) -> None:
    if scale is not None and scale not in SCALES:
        raise UserError(f"--scale: given {scale!r}; allowed: {', '.join(SCALES)}")


def _refuse_unused(chosen: list[str]) -> None:
    if chosen and not {"phases", "packing", "precision"} & set(chosen):
        raise UserError(
            "--game, --preset, --variant and --set are for the suites phases, packing and precision: add --suite phases"
        )


def _targets(out: Path, json: Path | None) -> list[Path]:
    """Where bench.json goes; UserError now, not after the measurement, for what cannot be written there."""
    from remctl.runs.files import refuse_target

    paths = [out / "bench.json", *([json] if json is not None else [])]
    for path in (*paths, out / "bench.partial.json", out / "tables.md", out / "figures" / "bench_paper.png"):
        refuse_target(path)
    return paths


def _suites(names: list[str]) -> list[str]:
    from remctl.bench.suites import SUITES
    from remctl.config import one_of

    return [one_of(name, SUITES, "suite") for name in names]


def _say_checks(checks: list[Check]) -> None:
    from remctl.bench import tables_whole
    from remctl.commands.bench_output import show_table

    show_table(tables_whole.checks(checks))


def _say(result: Result, out: Path) -> None:
    """The tables: all of a single suite, else those that are not long; all of them, and the figures, as files."""
    from remctl.bench.tables import tables
    from remctl.commands.bench_output import show_tables

    made = tables(result)
    from remctl.bench.figures import write_figures
    from remctl.report.benchmarks import LONG
    from remctl.report.write import write_bench_tables

    few = len(result.suites) == 1
    show_tables({name: table for name, table in made.items() if few or not LONG.fullmatch(name)})
    paths = write_figures(result, out, ("png", "pdf", "svg"))
    for path in (out / "bench.json", write_bench_tables(result, out), *(p for p in paths if p.suffix == ".png")):
        print(path)
