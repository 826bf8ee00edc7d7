"""What launching leaves on the disk, so that a launcher may die at any moment and the next one knows.

<out>/<experiment>/
    experiment.json                     question, variants, and where each run of the experiment lies
    .submissions/<id>/submission.json   what was handed to an executor, and under which job ids
                      finals.jsonl      last states of its jobs, for when the scheduler has forgotten them
                      configs/          one resolved configuration per run
                      ...               the executor's own files and logs
    <variant>/<game>/seed_<n>/attempts.jsonl   every start and end of a run, written by its supervisor alone
                              requests.jsonl   what users asked: cancel, retry, and again where --same-code begins it

A submission is written before anything is handed over and completed as job ids come in.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from remctl.config import known_hashes, to_yaml
from remctl.errors import MachineError
from remctl.games import folder_name
from remctl.runs.files import append_line, make_folder, read_json, read_jsonl, write_atomic, write_json
from remctl.runs.layout import RunFolder, run_path
from remctl.runs.places import Places
from remctl.shipped import reference
from remctl.sweep.wanted import Spec, WantedRun

EXPERIMENT, SUBMISSIONS, SUBMISSION, FINALS = "experiment.json", ".submissions", "submission.json", "finals.jsonl"
LAST_WORDS = "remctl: "  # with which a queue that cannot work ends its log
Executor = Literal["slurm", "local"]
Event = Literal["start", "end", "cancel", "retry", "again"]


@dataclass(frozen=True)
class RunRef:
    """One run in a record: its identity, and its folder relative to the runs' root."""

    variant: str
    game: str
    seed: int
    config_hash: str
    path: str
    num_epochs: int


@dataclass(frozen=True)
class Chunk:
    """Tasks first .. first + count - 1 of a submission under one job id: an array, or a plain job for a single task."""

    job: str
    first: int
    count: int

    def job_id(self, task: int) -> str:
        """The id of one task: `123_4` in an array, `123` alone."""
        return f"{self.job}_{task - self.first}" if self.count > 1 else self.job


@dataclass(frozen=True)
class Submission:
    """Runs handed to an executor, a task being the runs that share a GPU. `options`: how, for the next time.

    `chunks`: SLURM's job ids, as far as they are known; none for the local queue. `experiment`: its name at that time.
    `cluster`: SLURM's name of itself, if it was asked.
    """

    path: Path
    executor: Executor
    created: str
    host: str
    tasks: tuple[tuple[RunRef, ...], ...]
    chunks: tuple[Chunk, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    experiment: str = ""
    cluster: str = ""

    @property
    def id(self) -> str:
        """Unique and sorted by time."""
        return self.path.name

    @property
    def job_name(self) -> str:
        """By this the scheduler's jobs are found even if their ids were never written down."""
        name = self.experiment or self.path.parents[1].name  # the folder may be another one by now
        experiment = re.sub(r"[^A-Za-z0-9_.-]", "_", name)[:40]
        return f"remctl-{experiment}-{self.id}"

    @property
    def queue_log(self) -> Path:
        """What a local queue prints."""
        return self.path / "queue.log"

    def slurm_log(self, job: str) -> Path | None:
        """What SLURM kept of a job's output: of its errors, if there are any; None where there is nothing."""
        logs = [self.path / "slurm" / f"{job}_0_log.{kind}" for kind in ("err", "out")]  # as submitit names them
        return next((log for log in logs if log.is_file() and log.stat().st_size), None) if job else None

    @property
    def num_known_tasks(self) -> int:
        """Tasks whose job ids are written down: the first ones."""
        return sum(chunk.count for chunk in self.chunks)

    def config(self, ref: RunRef) -> Path:
        """The resolved configuration of one of its runs, under today's hash or the one of the version that submitted it."""
        named = self.path / "configs" / f"{ref.config_hash}.yaml"
        others = () if named.exists() else named.parent.glob("*.yaml")
        return next((path for path in others if ref.config_hash in known_hashes(path)), named)

    def job_id(self, task: int) -> str | None:
        """The scheduler's id of a task, where it is known."""
        for chunk in self.chunks:
            if chunk.first <= task < chunk.first + chunk.count:
                return chunk.job_id(task)
        return None


def new_submission(
    experiment: Path, executor: Executor, host: str, tasks: Iterable[tuple[RunRef, ...]], options: dict[str, Any]
) -> Submission:
    """A fresh folder for it: submitit takes an old job's result for a new one's where ids are used again."""
    time = datetime.now(UTC)
    path = experiment / SUBMISSIONS / f"{time:%Y%m%d-%H%M%S-%f}-{secrets.token_hex(2)}"
    return Submission(path, executor, now(), host, tuple(tasks), (), options, experiment.name)


def now() -> str:
    """Wall time in UTC, for people."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def write_submission(submission: Submission) -> None:
    """Atomically; raises MachineError."""
    make_folder(submission.path)
    content = asdict(submission)
    del content["path"]
    write_json(submission.path / SUBMISSION, content)


def write_configs(submission: Submission, runs: Iterable[WantedRun]) -> None:
    """The configurations that its tasks read. Raises MachineError."""
    make_folder(submission.path / "configs")
    for run in runs:
        write_atomic(submission.path / "configs" / f"{run.config_hash}.yaml", to_yaml(run.config))


def add_chunk(submission: Submission, chunk: Chunk) -> Submission:
    """The submission with one more job id, on the disk too. Raises MachineError."""
    submission = replace(submission, chunks=(*submission.chunks, chunk))
    write_submission(submission)
    return submission


def read_submission(path: Path) -> Submission:
    """Of a submission's folder. Raises MachineError for one that is damaged."""
    content = read_json(path / SUBMISSION)
    try:
        configs = (path / "configs",)
        tasks = tuple(
            tuple(_moved(path, _known_today(RunRef(**ref), configs)) for ref in task) for task in content.pop("tasks")
        )
        chunks = tuple(Chunk(**chunk) for chunk in content.pop("chunks"))
        return Submission(path=path, tasks=tasks, chunks=chunks, **content)
    except (AttributeError, KeyError, TypeError) as error:
        raise MachineError(
            f"{path / SUBMISSION} is damaged ({error}): restore it from a copy or move it away"
        ) from None


def _moved(submission: Path, ref: RunRef) -> RunRef:
    """`ref` with the place of its run now, if the experiment's folder was renamed since."""
    out, experiment = submission.parents[2], submission.parents[1]
    own = experiment.joinpath(*Path(ref.path).parts[1:])
    was_renamed = own.exists() or not out.joinpath(*Path(ref.path).parts[:1]).exists()
    return replace(ref, path=str(own.relative_to(out))) if was_renamed and not (out / ref.path).exists() else ref


def submissions(out: Path, damaged: list[str] | None = None) -> list[Submission]:
    """All submissions of all experiments under `out`, oldest first.

    Raises MachineError for a damaged one, or, given a list, notes that there and goes on.
    """
    found = []
    for path in sorted(out.glob(f"*/{SUBMISSIONS}/*/{SUBMISSION}"), key=lambda path: path.parent.name):
        try:
            found.append(read_submission(path.parent))
        except MachineError as error:
            if damaged is None:
                raise
            damaged.append(str(error))
    return found


# --- a run ---


def add_attempt(run: RunFolder, event: Event, submission: str, **more: Any) -> None:
    """One line of attempts.jsonl, for the supervisor of a run. Raises MachineError."""
    append_line(run.path / "attempts.jsonl", {"event": event, "submission": submission, "time": now()} | more)


def add_request(run: RunFolder, event: Event, submissions: Iterable[str]) -> None:
    """One line of requests.jsonl: cancel the run, or forgive its failures, in these submissions. Raises MachineError.

    Or that it is begun again, after these, and goes before what other code has made elsewhere.
    """
    make_folder(run.path)
    append_line(run.requests, {"event": event, "submissions": list(submissions), "time": now()})


def attempts(run: RunFolder, submission: str | None = None) -> list[dict[str, Any]]:
    """Entries {event: start | end, submission, time, ...}, in order; of one submission or of all. Raises MachineError."""
    entries = read_jsonl(run.path / "attempts.jsonl")
    return [entry for entry in entries if submission in (None, entry.get("submission"))]


def requested(run: RunFolder, event: Event) -> set[str]:
    """The submissions in which a run was cancelled, or forgiven (retry). Raises MachineError."""
    entries = read_jsonl(run.requests)
    return {submission for entry in entries if entry.get("event") == event for submission in entry["submissions"]}


def log_path(run: RunFolder) -> Path:
    """Where everything that a supervised run prints goes, start after start."""
    return run.path / "job.log"


def last_line(log: Path, max_bytes: int = 4096) -> str:
    """The last line of a log that is not empty, and rather not srun's own, that a task has ended; "" for none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - max_bytes))
            lines = [line.strip()[:300] for line in file.read().decode(errors="replace").splitlines()]
    except OSError:
        return ""
    said = [line for line in reversed(lines) if line]
    return next((line for line in said if not line.startswith("srun: ")), next(iter(said), ""))


def slurm_log(run: RunFolder) -> Path | None:
    """What SLURM kept of the last job that was to start a run, for one that never came to it. Raises MachineError."""
    if len(run.path.absolute().parents) < 4:
        return None  # started by hand, and not below a folder of runs
    out = run.path.absolute().parents[3]
    logs = [
        submission.slurm_log(submission.job_id(number) or "")
        for submission in submissions(out, damaged=[])
        for number, task in enumerate(submission.tasks)
        if any(out / ref.path == run.path.absolute() for ref in task)
    ]
    return next((log for log in reversed(logs) if log), None)


def log_of(folder: Path) -> Path | None:
    """What a run printed: as its supervisor caught it, else as the run itself logged it; None before its start."""
    run = RunFolder(folder)
    return next((log for log in (log_path(run), run.log) if log.is_file()), None)


# --- the experiment ---


def default_path(out: Path, spec_name: str, run: WantedRun) -> Path:
    """Where a run of this experiment goes, unless it was begun elsewhere. Raises UserError for an impossible name."""
    return run_path(out, spec_name, run.variant, folder_name(run.game), run.seed)


def ref_of(out: Path, run: WantedRun, place: Path) -> RunRef:
    """A run as records name it."""
    path, num_epochs = str(place.relative_to(out)), run.config.training.num_epochs
    return RunRef(run.variant, run.game, run.seed, run.config_hash, path, num_epochs)


def write_experiment(out: Path, spec: Spec, places: dict[str, Path], runs: Iterable[WantedRun]) -> None:
    """experiment.json: what is asked, and where the answers lie (also those that another experiment began).

    Left alone where nothing has changed. Raises MachineError.
    """
    content = {
        "name": spec.name,
        "question": spec.question,
        "control": spec.control,
        "spec": reference("ablations", spec.path),
        "preset": spec.preset,
        "sets": list(spec.sets),
        "variants": [{"name": v.name, "label": v.label} for v in spec.variants],
        "runs": [asdict(ref_of(out, run, places[run.config_hash])) for run in runs],
    }
    path = out / spec.name / EXPERIMENT
    with suppress(MachineError):  # missing or damaged: it is derived
        if read_json(path) == content:
            return
    make_folder(path.parent)
    write_json(path, content)


def read_experiment(out: Path, name: str) -> dict[str, Any]:
    """experiment.json. Raises MachineError where there is none or it is damaged."""
    content = read_json(out / name / EXPERIMENT)
    if not isinstance(content, dict) or not {"name", "question", "preset", "runs", "spec"} <= content.keys():
        raise MachineError(f"{out / name / EXPERIMENT} is damaged: run `remctl ablate` with the spec again")
    return content


def refs_of(out: Path, name: str, content: dict[str, Any]) -> list[RunRef]:
    """The runs that the experiment.json of the folder `name` lists, each with its place and hash of today."""
    configs, places = tuple((out / name / SUBMISSIONS).glob("*/configs")), Places(out)
    refs = [RunRef(**ref) for ref in content["runs"]]
    found = [places.find(out / name, ref.path, ref.config_hash) for ref in refs]
    return [
        _known_today(replace(ref, path=os.path.relpath(place, out)), configs, RunFolder(place))
        for ref, place in zip(refs, found, strict=True)
    ]


def _known_today(ref: RunRef, configs: Iterable[Path], run: RunFolder | None = None) -> RunRef:
    """`ref` with the hash by which its configuration, found in its folder or in `configs`, is known today."""
    places = [*([run.config] if run else []), *(folder / f"{ref.config_hash}.yaml" for folder in configs)]
    for path in places:
        known = known_hashes(path)
        if ref.config_hash in known:
            return replace(ref, config_hash=known[0])
    return ref
