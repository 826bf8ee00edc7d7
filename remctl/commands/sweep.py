"""`remctl ablate`, `status`, `cancel`, `retry`, `logs`: experiments from a spec to their end."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from remctl.commands.options import AblationSpec, Json, Profile, check_folder
from remctl.errors import MachineError, UserError

if TYPE_CHECKING:
    from remctl.sweep.launch import Options
    from remctl.sweep.wanted import Spec

Out = Annotated[
    Path,
    typer.Option(help="Where runs are kept; under SLURM on a file system that the nodes share.", callback=check_folder),
]
Name = Annotated[str, typer.Argument(metavar="NAME", help="An experiment's name, as in its spec.")]
Chosen = Annotated[
    list[str] | None,
    typer.Argument(metavar="[RUN]...", help="Runs, as variant/game/seed_0 or a part of that; else all."),
]


def ablate(
    spec: AblationSpec,
    executor: Annotated[str, typer.Option(help="slurm, local, or auto: SLURM where sbatch is.")] = "auto",
    out: Out = Path("runs"),
    profile: Profile = "default",
    runs_per_gpu: Annotated[int, typer.Option(min=1, max=64, help="Runs that share one GPU.")] = 1,
    max_parallel: Annotated[int | None, typer.Option(min=1, help="Tasks (locally: runs) at the same time.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done, and why.")] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Follow until every run is done; start failed ones again.")
    ] = False,
    then_report: Annotated[
        bool, typer.Option("--then-report", help="Run `remctl report` when all have ended.")
    ] = False,
    json: Json = False,
) -> None:
    """Start what an ablation's spec asks for and has not been done; the same command goes on where it stopped."""
    from remctl.commands import sweep_output
    from remctl.shipped import find
    from remctl.sweep import launch
    from remctl.sweep.spec import read_spec

    asked = read_spec(find("ablations", spec))
    settled = launch.choose_executor(executor)  # for as long as this command takes, whatever the machine gets meanwhile
    options = launch.Options(settled, profile, runs_per_gpu, max_parallel, then_report)
    if dry_run:
        sweep_output.show_dry_run(out, asked, options, json)
        return
    actions, submission = launch.launch(out, asked, options, say=sweep_output.aside)
    sweep_output.show_launch(actions, submission, out, asked.name, json)
    if wait:
        _follow(out, asked, options)


def _follow(out: Path, asked: Spec, options: Options) -> None:
    from remctl.commands import sweep_output
    from remctl.sweep import launch

    last = launch.follow(out, asked, options, sweep_output.Watcher().show)
    held = [action for action in last if action.kind == "hold"]
    if held:
        where = f"remctl status {shlex.quote(asked.name)} --out {shlex.quote(str(out))}"
        raise MachineError(f"{len(held)} of {len(last)} runs did not end ({held[0].reason}): see `{where}`")


def status(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="An experiment; else a line for each.")] = None,
    out: Out = Path("runs"),
    watch: Annotated[bool, typer.Option("--watch", help="Show it anew every few seconds, until all is over.")] = False,
    json: Json = False,
) -> None:
    """What the runs of an experiment are doing."""
    from remctl.commands import sweep_output
    from remctl.sweep.status import read_records, standing

    if watch and json:
        raise UserError("--watch and --json: choose one of them")
    if name is None:
        sweep_output.show_experiments(read_records(out), json)
        return
    while True:
        now_is = standing(out, name)
        sweep_output.show_standing(now_is, json, anew=watch)
        if not watch or not now_is.is_open:
            return
        time.sleep(sweep_output.WATCH_S)


def cancel(name: Name, runs: Chosen = None, out: Out = Path("runs")) -> None:
    """Stop queued and running runs of an experiment; `remctl ablate` goes on where they stopped."""
    from remctl.sweep import requests
    from remctl.sweep.status import standing

    stopped = requests.cancel(standing(out, name), runs or ())
    print(f"{len(stopped)} of {name} told to stop" if stopped else f"nothing of {name} is queued or running")
    for row in stopped:
        print(f"  {row.ref.path}")


def retry(name: Name, runs: Chosen = None, out: Out = Path("runs")) -> None:
    """Start failed, held and cancelled runs again, as they were started last; what failed is forgiven."""
    from dataclasses import fields, replace

    from remctl.commands import sweep_output
    from remctl.sweep import launch, requests
    from remctl.sweep.records import read_experiment
    from remctl.sweep.spec import read_spec
    from remctl.sweep.status import standing

    now_is = standing(out, name)
    recorded = read_spec(_recorded(name, read_experiment(out, name)["spec"]))
    asked = replace(recorded, name=name)  # the folder may have been renamed
    rows = requests.to_retry(now_is, runs or ())
    if not rows:
        print(f"nothing of {name} has failed or was stopped")
        return
    last = now_is.known[-1].options if now_is.known else {}
    options = launch.Options(**{f.name: last[f.name] for f in fields(launch.Options) if f.name in last})
    only = {row.ref.config_hash for row in rows}
    actions, submission = launch.launch(out, asked, options, retrying=only, say=sweep_output.aside)
    chosen = [action for action in actions if action.run.config_hash in only]
    sweep_output.show_launch(chosen, submission, out, name, json=False)


def _recorded(name: str, spec: str) -> Path:
    from remctl.shipped import find

    try:
        return find("ablations", spec)
    except UserError:
        raise UserError(
            f"{name} was launched with {spec}, which is gone: run `remctl ablate` with its new place"
        ) from None


def logs(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run's folder, or its path as `remctl status` names it.")
    ],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as the log grows, until Ctrl-C.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="How many of the last lines.")] = 40,
    out: Out = Path("runs"),
) -> None:
    """The end of what a run printed."""
    from remctl.commands import sweep_output

    sweep_output.show_log(run if run.is_dir() or run.is_relative_to(out) else out / run, lines, follow)


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    for verb in (ablate, status, cancel, retry, logs):
        app.command()(verb)
