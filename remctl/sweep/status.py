"""What an experiment's runs are doing, from its record alone (no spec is read)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from remctl.errors import MachineError, UserError
from remctl.sweep.hours import Hours, epoch_s, estimate
from remctl.sweep.observe import OPEN, RunState, observe
from remctl.sweep.plan import Rules
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


def experiments(out: Path) -> list[str]:
    """Names of the experiments under `out` that were launched by a spec."""
    return sorted(path.parent.name for path in out.glob(f"*/{EXPERIMENT}"))


def standing(out: Path, name: str, records: Records | None = None) -> Standing:
    """Raises UserError for an unknown name, MachineError for a damaged experiment; an unreachable scheduler is noted."""
    out = out.absolute()
    if name not in experiments(out):
        names = ", ".join(experiments(out))
        there = f"known: {names}" if names else "there is none yet; start one with `remctl ablate`"
        raise UserError(f"no experiment {name!r} in {out}: {there}")
    records = records or read_records(out)
    experiment = read_experiment(out, name)
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
    hours = estimate([(row.ref, row.state) for row in rows], experiment["preset"], packing(known))
    return Standing(name, experiment["question"], rows, hours, known, records.notes, records.is_blind)


def packing(known: Iterable[Submission]) -> dict[str, int]:
    """How many runs share a GPU, by submission."""
    return {s.id: s.options.get("runs_per_gpu", 1) for s in known}


def choose(rows: Iterable[Row], chosen: Sequence[str]) -> list[Row]:
    """The rows that are named: each name is a part of a run's path, such as rem/Pong/seed_0; all without any name.

    Raises UserError for a name that no run has.
    """
    rows = list(rows)
    for name in chosen:
        if not any(_is_part(name, row) for row in rows):
            raise UserError(
                f"no run {name!r} in this experiment: name one as {rows[0].ref.path}, or a part such as seed_0"
            )
    return [row for row in rows if not chosen or any(_is_part(name, row) for name in chosen)]


def _is_part(name: str, row: Row) -> bool:
    return f"/{name.strip('/')}/" in f"/{row.ref.path}/" or row.ref.variant == name
