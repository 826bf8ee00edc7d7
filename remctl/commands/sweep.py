"""`remctl ablate`, `status`, `cancel`, `retry`, `logs`: experiments from a spec to their end."""

from __future__ import annotations

import shlex
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from remctl.commands.options import AblationSpec, Json, Profile, check_folder, refuse_together
from remctl.config.presets import DESCRIPTIONS
from remctl.errors import MachineError, UserError

if TYPE_CHECKING:
    from remctl.sweep.launch import Options
    from remctl.sweep.wanted import Spec

Out = Annotated[
    Path,
    typer.Option(help="Folder of runs; under SLURM the nodes must share it.", callback=check_folder),
]
Name = Annotated[str, typer.Argument(metavar="NAME", help="An experiment's name, a run's path, or a folder of runs.")]
Chosen = Annotated[
    list[str] | None,
    typer.Argument(metavar="[RUN]...", help="Runs, as variant/game/seed_0 or a part of that; by default all."),
]


def ablate(
    spec: AblationSpec,
    executor: Annotated[str, typer.Option(help="slurm, local, or auto: SLURM if sbatch is found.")] = "auto",
    out: Out = Path("runs"),
    profile: Profile = "default",
    runs_per_gpu: Annotated[int, typer.Option(min=1, max=64, help="Runs that share one GPU.")] = 1,
    max_parallel: Annotated[
        int | None, typer.Option(min=1, help="Limit of array tasks (locally: runs) at the same time.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be done, and why.")] = False,
    same_code: Annotated[
        bool, typer.Option("--same-code", help="Run again what other code began or finished; nothing is deleted.")
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until every run is done; start failed ones again.")
    ] = False,
    then_report: Annotated[
        bool, typer.Option("--then-report", help="Run `remctl report` when all runs have ended.")
    ] = False,
    sets: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set one key of every variant; repeatable.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The experiment's name; by default the spec's.")] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="Replace the spec's preset; the experiment is then NAME-PRESET.",
            autocompletion=lambda: list(DESCRIPTIONS),
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Start without asking, however long it takes.")] = False,
    show_script: Annotated[
        bool, typer.Option("--show-script", help="Only print the batch script that SLURM would get.")
    ] = False,
    json: Json = False,
) -> None:
    """Start the runs of an ablation's spec that are not done. The same command later starts what is still missing."""
    from remctl.commands import before_start, sweep_output
    from remctl.shipped import find
    from remctl.sweep import launch
    from remctl.sweep.plan import Rules
    from remctl.sweep.spec import read_spec

    asked = read_spec(find("ablations", spec), sets or (), name, preset)
    options = launch.Options(executor, profile, runs_per_gpu, max_parallel, then_report, same_code)
    if show_script:
        refuse_together("--show-script", {"--json": json, "--wait": wait, "--executor local": executor == "local"})
        sweep_output.show_script(out, asked, options)
        return
    if dry_run:
        refuse_together("--dry-run", {"--wait": wait})
        sweep_output.show_dry_run(out, asked, options, json)
        return
    settled = launch.choose_executor(executor)  # for as long as this command takes, whatever the machine gets meanwhile
    options = replace(options, executor=settled)
    if settled == "local":
        before_start.confirm(out, asked, options, yes)
    actions, submission = launch.launch(out, asked, options, Rules(same_code=same_code), say=sweep_output.aside)
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
        raise MachineError(f"{len(held)} of {len(last)} runs did not finish ({held[0].reason}): see `{where}`")


def status(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]", help="An experiment's name, a run's path or a folder; by default all, one line each."
        ),
    ] = None,
    out: Out = Path("runs"),
    watch: Annotated[
        bool, typer.Option("--watch", help="Refresh every few seconds until all runs have ended.")
    ] = False,
    json: Json = False,
) -> None:
    """Show what the runs of an experiment are doing."""
    from remctl.commands import sweep_output
    from remctl.sweep.named import place
    from remctl.sweep.status import read_records, standing

    if watch and json:
        raise UserError("--watch and --json: choose one of them")
    where = place(name, out) if name is not None else None
    if where is None or not where.name:
        sweep_output.show_experiments(read_records(where.out if where else out), json)
        return
    while True:
        now_is = standing(where.out, where.name, part=where.part)
        sweep_output.show_standing(now_is, json, anew=watch)
        if not watch or not now_is.is_open:
            return
        time.sleep(sweep_output.WATCH_S)


def cancel(name: Name, runs: Chosen = None, out: Out = Path("runs")) -> None:
    """Stop queued and running runs; `remctl ablate`, or the command that started them, resumes them."""
    from remctl.sweep import requests
    from remctl.sweep.named import place
    from remctl.sweep.status import chosen_in, standing

    where = place(name, out)
    now_is = standing(where.out, where.one)
    stopped = requests.cancel(now_is, chosen_in(now_is, where.part, runs or ()))
    print(f"{len(stopped)} of {where.name} told to stop" if stopped else f"nothing of {name} is queued or running")
    for row in stopped:
        print(f"  {row.ref.path}")


def retry(name: Name, runs: Chosen = None, out: Out = Path("runs")) -> None:
    """Start failed, held and cancelled runs again, with their last options; earlier failures no longer count."""
    from dataclasses import fields

    from remctl.commands import sweep_output
    from remctl.sweep import launch, requests
    from remctl.sweep.named import place
    from remctl.sweep.records import read_experiment
    from remctl.sweep.spec import read_spec
    from remctl.sweep.status import choose, chosen_in, is_by_hand, standing

    where = place(name, out)
    out, experiment = where.out, where.one
    now_is = standing(out, experiment)
    if is_by_hand(out, experiment):
        sweep_output.refuse_to_retry(name, choose(now_is.rows, chosen_in(now_is, where.part, runs or ())))
        return
    record = read_experiment(out, experiment)
    asked = read_spec(_recorded(experiment, record["spec"]), record.get("sets", ()), experiment, record["preset"])
    rows = requests.to_retry(now_is, chosen_in(now_is, where.part, runs or ()))
    if not rows:
        print(f"nothing of {name} has failed or was stopped")
        return
    last = now_is.known[-1].options if now_is.known else {}
    options = launch.Options(**{f.name: last[f.name] for f in fields(launch.Options) if f.name in last})
    only = {row.ref.config_hash for row in rows}
    actions, submission = launch.launch(out, asked, options, retrying=only, say=sweep_output.aside)
    chosen = [action for action in actions if action.run.config_hash in only]
    sweep_output.show_launch(chosen, submission, out, experiment, json=False)


def _recorded(name: str, spec: str) -> Path:
    from remctl.shipped import find

    try:
        return find("ablations", spec)
    except UserError:
        raise UserError(
            f"{name} was launched with {spec}, which is gone: run `remctl ablate` with its new path"
        ) from None


def logs(
    name: Name,
    runs: Chosen = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Keep printing as the logs grow, until Ctrl-C.")
    ] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="Number of last lines of each log.")] = 40,
    out: Out = Path("runs"),
) -> None:
    """Show the last lines that runs printed."""
    from remctl.commands import sweep_output
    from remctl.runs.layout import RunFolder
    from remctl.sweep.named import folder, place
    from remctl.sweep.records import log_of, slurm_log
    from remctl.sweep.status import choose, chosen_in, standing

    with suppress(UserError):  # whatever it is, a log lies in it
        own = log_of(folder(name, out))
        if own is not None and not runs:
            sweep_output.show_logs([own], lines, follow)
            return
    where = place(name, out)
    now_is = standing(where.out, where.one)
    rows = choose(now_is.rows, chosen_in(now_is, where.part, runs or ()))
    logs_of = [row.state.log or log_of(row.state.folder) or slurm_log(RunFolder(row.state.folder)) for row in rows]
    found = [log for log in logs_of if log is not None]
    if not found:
        raise UserError(f"{name}: no log yet, because no run has started: see `remctl status`")
    sweep_output.show_logs(found, lines, follow)


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    for verb in (ablate, status, cancel, retry, logs):
        app.command()(verb)
