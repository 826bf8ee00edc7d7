"""How plans and standings of experiments are shown."""

from __future__ import annotations

import shlex
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from remctl.commands.before_start import aside, hours_of, planned
from remctl.commands.output import show, show_json, table
from remctl.config import differing
from remctl.errors import UserError
from remctl.explain import plain
from remctl.games import folder_name
from remctl.paths import from_here
from remctl.sweep.device import device_for
from remctl.sweep.hours import Hours
from remctl.sweep.launch import Options, script, target_of
from remctl.sweep.named import experiment_names
from remctl.sweep.plan import Action
from remctl.sweep.records import Submission
from remctl.sweep.spec import wanted_runs
from remctl.sweep.status import Records, Row, Standing, read_records, standing
from remctl.sweep.wanted import Spec, WantedRun

WATCH_S = 5.0


def show_dry_run(out: Path, spec: Spec, options: Options, json: bool) -> None:
    """The plan with its reasons, what the variants change, and what it costs."""
    target = target_of(options, only_shown=True)
    look, actions = planned(out, spec, options, say=aside)
    hours = hours_of(look, actions, device_for(target.executor, target.profile))
    changed, own = changes(look.wanted, spec.control), changes_of_control(spec, look.wanted)
    if json:
        about = {"name": spec.name, "variants": changed, "sets": list(spec.sets)}
        about["control"] = {"name": spec.control, "preset": spec.preset, "changes": own}
        show_json(about | {"actions": [as_json(a) for a in actions], "gpu_hours": hours._asdict()})
        return
    show(spec.title)
    show_changes(spec, changed, own)
    columns = ("action", "variant", "game", "seed", "reason")
    show(
        table(
            columns, [(a.kind, a.run.variant, a.run.game, str(a.run.seed), a.reason) for a in actions], right=("seed",)
        )
    )
    print(f"{summary(actions)}; {describe(hours)}; executor {target.executor}; nothing was started")
    _note_other_code(actions)


def changes(wanted: Sequence[WantedRun], control: str) -> dict[str, dict[str, tuple[Any, Any]]]:
    """By variant: the keys in which it is another run than the control, with both values, for the first game that has any."""
    controls = {run.game: run.config for run in wanted if run.variant == control}
    found: dict[str, dict[str, tuple[Any, Any]]] = {}
    for run in wanted:
        if not found.get(run.variant):
            same_seed = run.config.model_copy(update={"seed": controls[run.game].seed})
            found[run.variant] = differing(controls[run.game], same_seed)
    return found


def changes_of_control(spec: Spec, wanted: Sequence[WantedRun]) -> dict[str, tuple[Any, Any]]:
    """The keys that the control itself changes of the preset, with what is set for all; for the first game that has any."""
    control = next(variant for variant in spec.variants if variant.name == spec.control)
    plain_spec = replace(spec, variants=(replace(control, overrides={}),), seeds=spec.seeds[:1])
    try:
        without = {run.game: run.config for run in wanted_runs(plain_spec)}
    except UserError:  # what is set for all is possible only with the control's own
        return {key: ("?", value) for key, value in control.overrides.items()}
    first = (run for run in wanted if run.variant == spec.control and run.seed == spec.seeds[0])
    return next(filter(None, (differing(without[run.game], run.config) for run in first)), {})


def show_changes(
    spec: Spec, changed: Mapping[str, Mapping[str, tuple[Any, Any]]], of_control: Mapping[str, tuple[Any, Any]]
) -> None:
    """What each variant changes against the control, the control against the preset, and what is set for all."""
    rows = []
    for name, against in changed.items():
        is_control = name == spec.control
        keys = of_control if is_control else against
        lines = [f"the control: preset {spec.preset}{', but' if keys else ''}"] if is_control else []
        lines += [f"{key}: {plain(old)} -> {plain(new)}" for key, (old, new) in keys.items()]
        rows.append((name, "\n".join(lines)))
    show(table(("variant", "changes"), rows))
    common = ", ".join(f"{key}={plain(value)}" for key, value in spec.overrides.items())
    if common:
        show(f"all variants: {common}")


def show_script(out: Path, spec: Spec, options: Options) -> None:
    """The batch script alone, so that it can be kept; what else is to be said goes to stderr."""
    profile = target_of(replace(options, executor="slurm"), only_shown=True).profile
    look, actions = planned(out, spec, options, say=aside)
    starting = [action for action in actions if action.starts]
    if starting:
        print(script(look, starting, profile, options))
    aside(f"{spec.name}: {summary(actions)}; nothing was started")


def show_launch(actions: Sequence[Action], submission: Submission | None, out: Path, name: str, json: bool) -> None:
    """What was handed over and what was not."""
    if json:
        handed = None if submission is None else {"id": submission.id, "jobs": [c.job for c in submission.chunks]}
        show_json({"name": name, "actions": [as_json(a) for a in actions], "submission": handed})
        return
    print(f"{name}: {summary(actions)}")
    _note_other_code(actions)
    for action in actions:
        if action.kind == "hold":
            print(f"  held: {action.run.variant} {action.run.game} seed {action.run.seed}: {action.reason}")
    if submission is None:
        print("nothing to start")
    else:
        jobs = ", ".join(chunk.job for chunk in submission.chunks)
        who = f"SLURM as job {jobs}" if submission.executor == "slurm" else "a queue on this machine"
        print(f"handed to {who}; records and logs in {submission.path}")
    where = "" if out == Path("runs") else f" --out {shlex.quote(str(out))}"
    print(f"see `remctl status {shlex.quote(name)}{where}`")


def refuse_to_retry(name: str, rows: Sequence[Row]) -> None:
    """Say that runs which were started by hand are done; raises UserError, with what resumes the first that is not."""
    left = [row for row in rows if row.state.status != "done"]
    if not left:
        are = "it is" if len(rows) == 1 else f"all {len(rows)} runs are"
        print(f"{name} was started by hand, and {are} done")
        return
    row, folder = left[0], left[0].state.folder
    more = f" (and {len(left) - 1} more)" if len(left) > 1 else ""
    if row.state.status != "stopped":
        reason = f" ({row.note})" if row.note else ""
        raise UserError(f"{name} was started by hand, and {row.ref.path}{more} is {row.label}{reason}")
    parts = (row.ref.variant, folder_name(row.ref.game), f"seed_{row.ref.seed}")
    if folder.parts[-3:] != parts:
        wanted = Path("runs", "mine", *parts)
        raise UserError(f"{name} was started by hand, and moved: to resume {folder}{more}, move it to {wanted}")
    config, experiment = str(from_here(folder / "config.yaml")), folder.parents[2]
    command = ["remctl", "train", "--from", config, "--name", experiment.name]
    command += [] if experiment.parent == Path("runs").absolute() else ["--out", str(from_here(experiment.parent))]
    raise UserError(f"{name} was started by hand: `{shlex.join(command)}` resumes {row.ref.path}{more}")


def _note_other_code(actions: Iterable[Action]) -> None:
    """Say how many runs are taken as other code made them."""
    kept = [action for action in actions if action.others and not action.again]
    if kept:
        versions = ", ".join(dict.fromkeys(version for action in kept for version in action.others))
        print(
            f"note: {len(kept)} of them made by other code ({versions}); `--same-code` runs them again from the start"
        )


def as_json(action: Action) -> dict[str, Any]:
    """One action, for programs."""
    run, state = action.run, action.state
    return {
        "action": action.kind,
        "reason": action.reason,
        "other_code": list(action.others),
        "variant": run.variant,
        "game": run.game,
        "seed": run.seed,
        "config_hash": run.config_hash,
        "path": str(state.folder),
        "epoch": state.progress.epoch,
    }


def summary(actions: Iterable[Action]) -> str:
    """`12 run, 3 skip`."""
    counts = Counter(action.kind for action in actions)
    return ", ".join(
        f"{counts[kind]} to {kind}" for kind in ("run", "resume", "retry", "wait", "skip", "hold") if counts[kind]
    )


def describe(hours: Hours) -> str:
    """Hours used and left, and how the latter is known."""
    left = "unknown" if hours.left is None else _digits(hours.left)
    return f"device-hours: {_digits(hours.used)} used, {left} left ({hours.basis})"


def _digits(hours: float) -> str:
    return f"{hours:,.1f}" if hours >= 1 or not hours else f"{hours:.2g}"


class Watcher:
    """Says what changes from one look to the next."""

    def __init__(self) -> None:
        self.last = ""

    def show(self, actions: list[Action]) -> None:
        """One dated line where the summary differs from the last."""
        states = Counter(action.state.status for action in actions)
        line = ", ".join(f"{count} {status}" for status, count in states.items())
        if line != self.last:
            aside(f"{time.strftime('%H:%M:%S')} {line}")
            self.last = line


def show_experiments(records: Records, json: bool) -> None:
    """One line per experiment; a damaged one does not hide the others. Raises UserError where there is none."""
    found: list[Standing] = []
    notes = list(records.notes)
    by_folder = {records.out: records}
    for name in experiment_names(records.out):
        out = (records.out / name).parent
        try:
            around = by_folder.setdefault(out, records if out == records.out else read_records(out))
            found.append(replace(standing(out, Path(name).name, around), name=name))
        except UserError as error:
            notes.append(str(error))
    if json:
        show_json([standing_as_json(s) for s in found])
        return
    if not found and not notes:
        raise UserError(f"no experiments in {records.out}: start one with `remctl ablate smoke`")
    rows = [(s.name, str(len(s.rows)), _totals(s), f"{s.hours.used:.1f}") for s in found]
    show(table(("experiment", "runs", "states", "device-hours"), rows, right=("runs", "device-hours")))
    for note in notes:
        print(f"note: {note}")


def show_standing(now_is: Standing, json: bool, anew: bool = False) -> None:
    """A table of the runs, totals and hours; `anew`: on a screen of its own, where there is a terminal."""
    if anew and not json and sys.stdout.isatty():
        print("\x1b[H\x1b[2J", end="")
    if json:
        show_json(standing_as_json(now_is))
        return
    show(f"{now_is.name}: {now_is.question}" if now_is.question else now_is.name)
    columns = ("variant", "game", "seed", "state", "epoch", "s/epoch", "left", "score")
    show(table(columns, [_cells(row) for row in now_is.rows], right=("seed", "epoch", "s/epoch", "left", "score")))
    by_note: dict[str, list[Row]] = {}
    for row in now_is.rows:
        by_note.setdefault(row.note, []).append(row)
    for note, rows in by_note.items():
        if note:
            print(f"{rows[0].ref.path if len(rows) == 1 else f'{len(rows)} runs'}: {note}")
    print(f"{_totals(now_is)}; {describe(now_is.hours)}")
    for note in now_is.notes:
        print(f"note: {note}")


def _cells(row: Row) -> tuple[str, ...]:
    progress = row.state.progress
    running = row.state.status in ("running", "queued", "stopped", "failed")
    return (
        row.ref.variant,
        row.ref.game,
        str(row.ref.seed),
        row.label,
        f"{progress.epoch}/{row.ref.num_epochs}",
        f"{progress.epoch_s:.1f}" if progress.epoch_s and running else "",
        _duration(row.eta_s) if row.state.status == "running" else "",
        f"{progress.score:.4g}" if progress.score is not None else "",
    )


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    hours, rest = divmod(int(seconds), 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}"


def _totals(now_is: Standing) -> str:
    return ", ".join(f"{count} {label}" for label, count in now_is.totals.items())


def standing_as_json(now_is: Standing) -> dict[str, Any]:
    """An experiment as it stands, for programs."""
    return {
        "name": now_is.name,
        "question": now_is.question,
        "totals": now_is.totals,
        "gpu_hours": now_is.hours._asdict(),
        "notes": list(now_is.notes),
        "runs": [_row_as_json(row) for row in now_is.rows],
    }


def _row_as_json(row: Row) -> dict[str, Any]:
    state = row.state
    return {
        "variant": row.ref.variant,
        "game": row.ref.game,
        "seed": row.ref.seed,
        "config_hash": row.ref.config_hash,
        "path": str(state.folder),
        "state": row.label,
        "job": state.job,
        "reason": state.reason,
        "epoch": state.progress.epoch,
        "num_epochs": row.ref.num_epochs,
        "epoch_s": state.progress.epoch_s,
        "eta_s": row.eta_s if state.status == "running" else None,
        "score": state.progress.score,
        "failures": state.failures,
        "error": state.error,
        "log": str(state.log) if state.log else None,
    }


def show_logs(logs: Sequence[Path], num_lines: int, follow: bool) -> None:
    """The end of each log, of several with its name; with `follow` what is added to them, until Ctrl-C."""
    with ExitStack() as stack:
        files = {log: stack.enter_context(log.open("rb")) for log in logs}
        last: Path | None = logs[0] if len(logs) == 1 else None
        for log, file in files.items():
            text = file.read().decode(errors="replace")
            last = _show_part(log, "\n".join(text.splitlines()[-num_lines:]) + "\n", last)
        while follow:
            time.sleep(0.5)
            for log, file in files.items():
                last = _show_part(log, file.read().decode(errors="replace"), last)


def _show_part(log: Path, text: str, last: Path | None) -> Path | None:
    """Print what a log says, after its name if another one spoke last; the one that now did."""
    if not text:
        return last
    if log != last:
        print(f"==> {log} <==")
    print(text, end="", flush=True)
    return log
