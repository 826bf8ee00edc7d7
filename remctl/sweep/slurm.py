"""To SLURM: one job array per submission, checked before anything is submitted. submitit runs the tasks on the nodes."""

from __future__ import annotations

import re
import shlex
import sys
import uuid
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from remctl.errors import MachineError, UserError
from remctl.runs.files import discard, make_folder, named_errors, write_atomic
from remctl.shipped import PREFIX, reference
from remctl.sweep.clients import MARK, answer, ask, job_number, marked_rows, remedy, settings
from remctl.sweep.job import Task
from remctl.sweep.profile import Profile, minutes
from remctl.sweep.records import Chunk, Submission, add_chunk
from remctl.sweep.schedulers import adopt

NO_LIMIT = 1_000_000  # of timeouts and preemptions: a run that makes progress is never given up
PROBE_S = 20
SIGNAL = "USR2"  # submitit's, which an environment variable could change
DEFAULT_MAX_ARRAY_SIZE = 1001
SCRIPTS = "slurm"  # submitit's folder in that of a submission
SITES_OWN = ("account", "partition", "qos")  # without which a site may take no job
# What SLURM calls the things that keys of a profile ask for
_GPU = r"gres|generic resource|gpus?"
_NOUNS = {"time": "time limit|timelimit|--time", "cpus": "cpus?|processors", "memory_gb": "memory|mem"}
_NOUNS |= {"constraint": "features?|constraints?", "exclude": "node name|exclude", "gpus": _GPU, "gpu_type": _GPU}
_IS_WRONG = re.compile(
    r"invalid|no such|unknown|not permitted|not available|not valid|denie[ds]|must|specif|satisfied|requested|required|missing",
    re.IGNORECASE,
)


def check(profile: Profile, where: Path) -> None:
    """Have SLURM judge the profile without submitting anything.

    Raises UserError naming the file and the key that is refused; MachineError with SLURM's words for what is about no key,
    and if the controller does not answer.
    """
    ask("scontrol", "ping")
    recorded = reference("slurm", where)
    is_own = not recorded.startswith(PREFIX)
    name, to_mend = (where, "there") if is_own else (recorded, "in a profile of your own (--profile FILE)")
    flags = profile.flags()
    refusal = _refusal(flags.values())
    if refusal is not None:
        keys = _named(flags, refusal) or _making_the_difference(flags, refusal)
        if not keys:
            raise MachineError(f"sbatch takes no job ({refusal}): {remedy(refusal)}")
        given = " ".join(flag for key in keys for flag in flags.get(key, ())) or "a job without them"
        raise UserError(
            f"{name}: {', '.join(keys)}: SLURM refuses {given} ({refusal}): see sinfo, and change that {to_mend}"
        )
    limit = time_limit_min(profile.partition)
    if limit is not None and profile.time > limit:  # accepted, and never started
        raise UserError(
            f"{name}: time: {profile.time} minutes are more than the partition's limit of {limit}: lower that {to_mend}"
        )


def _named(flags: Mapping[str, Sequence[str]], words: str) -> list[str]:
    """The keys of a profile that SLURM's words are about: those given, and those that a site may insist on."""
    if not _IS_WRONG.search(words):
        return []
    options = (*SITES_OWN, *(key for key in flags if key not in SITES_OWN))
    about = {key: _NOUNS.get(key) or re.escape(key.removeprefix("extra.")) for key in options}
    return [key for key, noun in about.items() if re.search(rf"\b({noun})\b", words, re.IGNORECASE)]


def _making_the_difference(flags: Mapping[str, Sequence[str]], words: str) -> list[str]:
    """The first key with which SLURM says these words; none if it says them without any, or another time."""
    given: list[Sequence[str]] = []
    if _refusal(given) == words:
        return []
    for key, more in flags.items():
        given.append(more)
        if _refusal(given) == words:
            return [key]
    return []


def _refusal(flags: Iterable[Iterable[str]]) -> str | None:
    """SLURM's words against a job with these flags; None if it would take it. Raises MachineError without an answer."""
    given = [flag for of_one_key in flags for flag in of_one_key]
    said = answer("sbatch", "--test-only", "--ntasks=1", *given, "--wrap=true")
    if said.status == 0:
        return None
    lines = (said.err or said.out).splitlines()
    lines = [line for line in lines if "error" in line.lower()] or lines
    text = lines[-1] if lines else f"exit status {said.status}"
    return re.sub(r"^(sbatch|allocation): (error|failure): |Batch job submission failed: ", "", text).strip()


def time_limit_min(partition: str | None) -> int | None:
    """The longest time limit of a partition, by default the cluster's; None for infinite or unknown.

    Lines of another form than the one asked for say nothing. Raises MachineError.
    """
    for row in marked_rows(ask("sinfo", "-h", "-o", f"{MARK}%P|%l"), num_fields=2):
        name, limit = (*row, "")[:2]
        if name.rstrip("*") == partition or (partition is None and name.endswith("*")):
            try:
                return minutes(limit if limit.count(":") == 2 else f"00:{limit:0>5}") or None
            except ValueError:
                return None
    return None


def check_folder(folder: Path) -> None:
    """Raises UserError for a folder in which SLURM would write its logs elsewhere: their names are patterns."""
    path = str(folder)
    if "%" in path or "\\" in path or not path.isprintable():
        raise UserError(
            f"--out {path!r}: SLURM replaces % and \\ and characters that cannot be printed: "
            "choose a folder and a name without them"
        )


def probe(folder: Path, profile: Profile) -> str | None:
    """Have a node look for a file in `folder`. None if it sees it; what could not be found out, in words.

    Raises UserError where the node does not see the folder: its jobs would fail without a log.
    """
    make_folder(folder)
    file = folder / f".probe-{uuid.uuid4().hex}"
    write_atomic(file, "")
    flags = [
        flag
        for key in ("partition", "account", "qos", "constraint", "exclude")
        for flag in profile.flags().get(key, [])
    ]
    command = [
        "srun",
        "--quiet",
        f"--immediate={PROBE_S}",
        "--job-name=remctl-probe",
        "--ntasks=1",
        "--time=1",
        "--chdir=/",
    ]
    look = f"test -f {shlex.quote(str(file))}; echo {file.name}=$?"  # what a wrapper shows of the command is no answer
    try:
        said = answer(*command, *flags, "sh", "-c", look, timeout_s=3 * PROBE_S)
    except MachineError:
        return f"whether the nodes see {folder} was not probed: no node answered in time"
    finally:
        discard(file)
    if f"{file.name}=1" in said.out:
        with suppress(OSError):  # what else is in it stays
            folder.rmdir()
        raise UserError(
            f"--out {folder}: the cluster's nodes do not see this folder: choose one on a shared file system"
        )
    if f"{file.name}=0" in said.out:
        return None
    return f"whether the nodes see {folder} was not probed ({' '.join(said.err.split())[:160] or 'no free node'})"


def max_array_size() -> int:
    """Tasks an array may have on this cluster. Raises MachineError if the controller does not answer."""
    given = settings().get("MaxArraySize", "")
    return max(1, int(given)) if given.isdigit() else DEFAULT_MAX_ARRAY_SIZE


def submit(submission: Submission, profile: Profile, out: Path) -> Submission:
    """Submit all its tasks; returns it with the job ids, each on the disk as soon as it is known.

    Raises MachineError with SLURM's words where it refuses.
    """
    from submitit.core.utils import DelayedSubmission

    folder = submission.path / SCRIPTS
    make_folder(folder)
    num_tasks, limit = len(submission.tasks), max_array_size()
    for number in range(num_tasks):
        delayed = DelayedSubmission(Task(submission.path, number, out, profile.cpus, profile.device_of_runs))
        delayed.set_timeout(profile.time, NO_LIMIT)
        with named_errors("writing", folder):
            delayed.dump(folder / f"task_{number}.pkl")
    for first in range(0, num_tasks, limit):
        count = min(limit, num_tasks - first)
        script = folder / f"submission_{first}.sh"
        write_atomic(script, _script(submission, profile, folder, first, count))
        submission = _submit_array(submission, script, first, count)
    return submission


def _submit_array(submission: Submission, script: Path, first: int, count: int) -> Submission:
    """By the id in sbatch's answer; without one, under the job's name: sbatch may submit and then hang, fail or chatter."""
    try:
        said = ask("sbatch", "--parsable", str(script))
        job = job_number(said)
        if job is None:
            raise MachineError(f"sbatch printed no job id ({' '.join(said.split())[:200]!r}): see `squeue --me`")
    except MachineError as error:
        found = _found(submission)
        if found is None:
            raise error from None
        return found
    return add_chunk(submission, Chunk(job, first, count))


def _found(submission: Submission) -> Submission | None:
    """The submission with the ids of jobs that are there although sbatch did not say so; None without any."""
    try:
        found = adopt(submission)
    except MachineError:
        return None
    return found if found.num_known_tasks > submission.num_known_tasks else None


def _script(submission: Submission, profile: Profile, folder: Path, first: int, count: int) -> str:
    """An array of tasks, or a plain job for a single one. Each finds its own pickle, so that nobody has to hand it over."""
    from submitit.slurm.slurm import _make_sbatch_string

    number = f"$(({first} + ${{SLURM_ARRAY_TASK_ID:-0}}))"
    job = "${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}"
    mine = f"{shlex.quote(f'{folder}/')}{job}_submitted.pkl"  # from a second start on, what submitit put there
    keep = f"[ -e {mine} ] || ln -s task_{number}.pkl {mine}"
    command = f"{_python()} -u -m submitit.core._submit {shlex.quote(str(folder))}"
    parameters = _parameters(submission, profile)
    parameters |= {"setup": [*profile.setup_script, keep], "map_count": count if count > 1 else None}
    return str(_make_sbatch_string(command=command, folder=folder, **parameters)) + "\n"


def script(submission: Submission, profile: Profile) -> str:
    """Return what `submit` would hand to sbatch, of the first array if SLURM's limit splits it. Needs no SLURM."""
    try:
        limit = max_array_size()
    except MachineError:
        limit = DEFAULT_MAX_ARRAY_SIZE
    return _script(submission, profile, submission.path / SCRIPTS, 0, min(len(submission.tasks), limit))


def _python() -> str:
    """Python, deaf to SLURM's warning until submitit listens for it: in the seconds before, it would kill the job."""
    return f'bash -c \'trap "" {SIGNAL}; exec "$0" "$@"\' {shlex.quote(sys.executable)}'


def _parameters(submission: Submission, profile: Profile) -> dict[str, Any]:
    """submitit's names for its own settings; everything else as sbatch's flags."""
    flags = [flag.removeprefix("--").partition("=") for key in profile.flags().values() for flag in key]
    others = {name: value or True for name, _, value in flags if name != "time"}
    return {
        "job_name": submission.job_name,
        "time": profile.time,
        "signal_delay_s": profile.signal_delay_s,
        "array_parallelism": profile.max_parallel,
        "srun_args": [f"--cpus-per-task={profile.cpus}"],  # since SLURM 22.05 srun does not take it from sbatch
        "additional_parameters": {"requeue": True, "signal": f"{SIGNAL}@{profile.signal_delay_s}", **others},
    }


def submit_after(jobs: Sequence[str], command: Sequence[str], name: str, folder: Path, profile: Profile) -> str:
    """A job without GPU that runs `command` once all of `jobs` have ended, however; returns its id. Raises MachineError."""
    flags = [flag for key in ("partition", "account", "qos") for flag in profile.flags().get(key, [])]
    after = [f"--dependency=afterany:{':'.join(jobs)}"] if jobs else []
    script = "\n".join([*profile.setup_script, shlex.join(command)])
    options = [f"--job-name={name}", f"--output={folder / 'report.log'}", "--ntasks=1", "--time=60"]
    options += ["--mem=4G"] if profile.memory else []
    return job_number(ask("sbatch", "--parsable", *options, *flags, *after, f"--wrap={script}")) or "of unknown number"


def cancel(job_ids: Sequence[str]) -> None:
    """scancel. Raises MachineError."""
    if job_ids:
        ask("scancel", *job_ids)
