"""What an experiment's runs are doing, from its record alone (no spec is read)."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from remctl.config import RunConfig, config_hash, from_yaml, known_hashes
from remctl.config.resolve import suggestion
from remctl.errors import MachineError, UserError
from remctl.paths import user_path
from remctl.runs.layout import RunFolder, find_runs
from remctl.shipped import find
from remctl.sweep.device import Device, device_for
from remctl.sweep.hours import Hours, config_at, epoch_s, estimate, evidence, read_config
from remctl.sweep.observe import OPEN, RunState, damaged, observe
from remctl.sweep.plan import Rules
from remctl.sweep.profile import Profile, read_profile
from remctl.sweep.records import EXPERIMENT, RunRef, Submission, read_experiment, refs_of, submissions
from remctl.sweep.schedulers import States, job_states, unknown_states

LABELS = ("running", "queued", "preempted", "unknown", "failed", "blocked", "stopped", "cancelled", "to do", "done")


@dataclass(frozen=True)
class Row:
    """One run of an experiment."""

    ref: RunRef
    state: RunState

    @property
    def label(self) -> str:
        """What the state is called: a run that waits for its second start was preempted."""
        if self.state.status == "queued" and self.state.requeued:
            return "preempted"
        if self.state.status == "stopped" and self.state.cancelled:
            return "cancelled"
        return "to do" if self.state.status == "absent" else self.state.status

    @property
    def eta_s(self) -> float | None:
        """Seconds of training that are left at its present rate."""
        seconds = epoch_s(self.state.progress)
        return None if seconds is None else seconds * (self.ref.num_epochs - self.state.progress.epoch)

    @property
    def note(self) -> str:
        """The last error and where its log is, or why a run waits."""
        if self.state.status == "failed":
            return (
                f"{self.state.error} [{self.state.failures} of {Rules().max_failures}] {self.state.log or ''}".rstrip()
            )
        return self.state.reason


@dataclass(frozen=True)
class Standing:
    """An experiment as it stands. `notes`: what could not be found out; `is_blind`: SLURM did not answer."""

    name: str
    question: str
    rows: list[Row]
    hours: Hours
    known: list[Submission]
    notes: tuple[str, ...] = ()
    is_blind: bool = False

    @property
    def is_open(self) -> bool:
        """Whether anything still goes on."""
        return any(row.state.status in OPEN for row in self.rows)

    @property
    def totals(self) -> dict[str, int]:
        """Number of runs by label, the most active first."""
        counts = Counter(row.label for row in self.rows)
        return {label: counts[label] for label in sorted(counts, key=LABELS.index)}


@dataclass(frozen=True)
class Records:
    """All that is recorded and scheduled under a folder of runs, looked at once."""

    out: Path
    known: list[Submission]
    jobs: States
    notes: tuple[str, ...]
    is_blind: bool


def read_records(out: Path) -> Records:
    """Damaged records and a scheduler that does not answer are noted, so that the rest can be seen."""
    out = out.absolute()
    notes: list[str] = []
    known = submissions(out, damaged=notes)
    try:
        return Records(out, known, job_states(known, out), tuple(notes), is_blind=False)
    except MachineError as error:
        return Records(out, known, unknown_states(known), (*notes, str(error)), is_blind=True)


def standing(out: Path, name: str, records: Records | None = None, part: str = "") -> Standing:
    """Of an experiment that a spec launched, or of runs started by hand in a folder of that name; or of a part of it alone.

    Raises UserError for an unknown name or part, MachineError for a damaged experiment; an unreachable scheduler is noted.
    """
    out = out.absolute()
    records = records or read_records(out)
    if is_by_hand(out, name):
        refs, unreadable = _runs_by_hand(out, name)
        experiment = {"question": "runs started by hand"}
    else:
        experiment, unreadable = read_experiment(out, name), []
        refs = refs_of(out, name, experiment)
    asked = {ref.config_hash for ref in refs}
    left = {ref.config_hash: ref for s in records.known if s.path.parents[1].name == name for t in s.tasks for ref in t}
    places = {ref.config_hash: out / ref.path for ref in (*left.values(), *refs)}
    known = [s for s in records.known if any(ref.config_hash in places for task in s.tasks for ref in task)]
    states = observe(places, known, records.jobs)
    rows = [Row(ref, states[ref.config_hash]) for ref in refs]
    rows += [  # what the spec asks for no more, but still goes on
        Row(ref, states[h]) for h, ref in left.items() if h not in asked and states[h].status in OPEN
    ]
    device = device_of(known[-1] if known else None)
    finished = cache(lambda: evidence(out, device))
    config_of = partial(_config_of, known, places)
    runs = [(row.ref, row.state) for row in rows]
    rows = choose([*rows, *unreadable], [part] if part else ())
    counted = {row.ref.config_hash for row in rows}
    hours = estimate(runs, packing(known), config_of, device, finished, counted)
    return Standing(name, experiment["question"], rows, hours, known, records.notes, records.is_blind)


def device_of(submission: Submission | None) -> Device:
    """What its runs are computed on; this machine for runs that no one submitted."""
    profile = Profile()
    if submission is None or submission.executor == "local":
        return device_for("local", profile)
    with suppress(UserError):  # gone
        profile = read_profile(find("slurm", submission.options.get("profile", "default")))
    return device_for("slurm", profile)


def _config_of(known: Iterable[Submission], places: Mapping[str, Path], ref: RunRef) -> RunConfig | None:
    """From the run's folder, else from what was handed over with it."""
    found = read_config(RunFolder(places[ref.config_hash]))
    files = (s.config(ref) for s in known if found is None)
    return found or next(filter(None, map(config_at, files)), None)


def is_by_hand(out: Path, name: str) -> bool:
    """Whether no spec launched what lies there."""
    return not (out / name / EXPERIMENT).is_file()


def _runs_by_hand(out: Path, name: str) -> tuple[list[RunRef], list[Row]]:
    """The runs in a folder, and those whose config.yaml cannot be read. Raises UserError if there is none of either."""
    refs, unreadable = list[RunRef](), list[Row]()
    for run in find_runs(out / name):
        try:
            refs.append(_ref(out, run, from_yaml(run.config)))
        except UserError:  # of a newer remctl, or damaged
            variant, game, seed = ("?", "?", *run.path.relative_to(out).parts)[-3:]
            number = int(seed.removeprefix("seed_")) if seed.removeprefix("seed_").isdecimal() else 0
            known = known_hashes(run.config) if run.is_done else ()
            ref = RunRef(variant, game, number, known[0] if known else "", str(run.path.relative_to(out)), 0)
            if known:  # the hash that it states: it is finished, and counted everywhere
                refs.append(ref)
            else:
                unreadable.append(Row(ref, damaged(run)))
    if not refs and not unreadable:
        raise UserError(f"no experiment {name!r} in {out}, and no run with a config.yaml")
    return refs, unreadable


def _ref(out: Path, run: RunFolder, config: RunConfig) -> RunRef:
    path = str(run.path.relative_to(out))
    return RunRef(config.variant, config.game, config.seed, config_hash(config), path, config.training.num_epochs)


def packing(known: Iterable[Submission]) -> dict[str, int]:
    """How many runs share a GPU, by submission."""
    return {s.id: s.options.get("runs_per_gpu", 1) for s in known}


def choose(rows: Iterable[Row], chosen: Sequence[str]) -> list[Row]:
    """The rows that are named: each name is a part of a run's path, such as rem/Pong/seed_0; all without any name.

    Raises UserError for a name that no run has, with the nearest parts.
    """
    rows = list(rows)
    for name in chosen:
        if not any(_is_part(name, row) for row in rows):
            raise UserError(f"no run {name!r} in this experiment: {_near(name, rows)}")
    return [row for row in rows if not chosen or any(_is_part(name, row) for name in chosen)]


def chosen_in(standing: Standing, part: str, chosen: Sequence[str]) -> list[str]:
    """The paths of those of the `chosen` runs that lie in a part of an experiment; none if both are empty, as for all.

    Whole paths of runs outside the part are added to it, as a shell makes them of `seed_*`. Raises UserError for a part or a
    name that no run has.
    """
    if not part and not chosen:
        return []
    inside = choose(standing.rows, [part] if part else ())
    more = [name for name in chosen if not any(_is_part(name, row) for row in inside)]
    more = [name for name in more if any(_is_path(name, row) for row in standing.rows)]
    found = choose(inside, [name for name in chosen if name not in more])
    return [row.ref.path for row in [*found, *(choose(standing.rows, more) if more else ())]]


def _near(name: str, rows: Sequence[Row]) -> str:
    paths = [Path(row.ref.path) for row in rows]
    parts = {part for path in paths for part in path.parts[1:]} | {str(Path(*path.parts[1:])) for path in paths}
    near = suggestion(name.strip("/"), sorted(parts))
    return near if near.startswith("did you mean") else f"name one as {rows[0].ref.path}, or a part such as seed_0"


def _is_part(name: str, row: Row) -> bool:
    """Whether a path or a part of one means this run; the experiment's own name counts only as the beginning of a path."""
    part, path = f"/{name.strip('/')}/", f"/{row.ref.path}/"
    within = path[path.index("/", 1) :]
    return part in within or _is_path(name, row) or row.ref.variant == name


def _is_path(name: str, row: Row) -> bool:
    """Whether a path from the folder of runs or the working folder leads to this run, into it, or to a folder around it."""
    part = name.strip("/")
    if "/" in part and f"/{row.ref.path}/".startswith(f"/{part}/"):
        return True
    place, folder = Path(os.path.normpath(user_path(name).absolute())), row.state.folder
    return place == folder or place in folder.parents or folder in place.parents
