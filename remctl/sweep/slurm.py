"""To SLURM with submitit: one job array per submission, checked before anything is submitted."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from remctl.errors import MachineError, UserError
from remctl.runs.files import discard, make_folder, write_atomic
from remctl.sweep.job import Task
from remctl.sweep.profile import Profile, minutes
from remctl.sweep.records import Chunk, Submission, add_chunk
from remctl.sweep.schedulers import SCHEDULER_TIMEOUT_S, ask

NO_LIMIT = 1_000_000  # of timeouts and preemptions: a run that makes progress is never given up
PROBE_S = 20
SIGNAL = "USR2"  # submitit's
DEFAULT_MAX_ARRAY_SIZE = 1001
SCRIPTS = "slurm"  # submitit's folder in that of a submission


def check(profile: Profile, where: Path) -> None:
    """Have SLURM judge the profile without submitting anything.

    Raises UserError naming the file and the key that is refused, MachineError if the controller does not answer.
    """
    ask("scontrol", "ping")
    refusal = _refusal([flag for key in profile.flags().values() for flag in key])
    flags: list[str] = []
    for key, more in (
        profile.flags().items() if refusal else ()
    ):  # the first that makes the difference is the one to mend
        flags += more
        refusal_here = _refusal(flags)
        if refusal_here is not None:
            raise UserError(
                f"{where}: {key}: SLURM refuses {' '.join(more)} ({refusal_here}): see sinfo, and mend the key"
            )
    limit = time_limit_min(profile.partition)
    if limit is not None and profile.time > limit:  # accepted, and never started
        raise UserError(
            f"{where}: time: {profile.time} minutes are more than the partition's limit of {limit}: lower it"
        )


def _refusal(flags: Sequence[str]) -> str | None:
    """SLURM's words against a job with these flags; None if it would take it. Raises MachineError without an answer."""
    command = ["sbatch", "--test-only", "--ntasks=1", *flags, "--wrap=true"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SCHEDULER_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise MachineError(f"sbatch did not answer within {SCHEDULER_TIMEOUT_S} s: try again later") from None
    if done.returncode == 0:
        return None
    lines = [line for line in done.stderr.splitlines() if "error" in line.lower()] or done.stderr.splitlines()
    text = lines[-1] if lines else f"exit status {done.returncode}"
    return re.sub(r"^(sbatch|allocation): (error|failure): |Batch job submission failed: ", "", text).strip()


def time_limit_min(partition: str | None) -> int | None:
    """The longest time limit of a partition, by default the cluster's; None for infinite or unknown. Raises MachineError."""
    for line in ask("sinfo", "-h", "-o", "%P|%l").splitlines():
        name, _, limit = line.partition("|")
        if name.rstrip("*") == partition or (partition is None and name.endswith("*")):
            try:
                return minutes(limit if limit.count(":") == 2 else f"00:{limit}")
            except ValueError:
                return None
    return None


def probe(folder: Path, profile: Profile) -> str | None:
    """Have a node look for a file in `folder`. None if it sees it; what could not be found out, in words.

    Raises UserError where the node does not see the folder: its jobs would fail without a log.
    """
    if "%" in str(folder):
        raise UserError(
            f"--out {folder}: SLURM puts other things in the place of %: choose a folder and a name without it"
        )
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
    look = f"test -f {shlex.quote(str(file))} && echo seen || echo unseen"
    try:
        done = subprocess.run(
            [*command, *flags, "sh", "-c", look], capture_output=True, text=True, timeout=3 * PROBE_S, check=False
        )
    except (subprocess.TimeoutExpired, FileNotFoundError):
        return f"whether the nodes see {folder} was not probed: no node answered in time"
    finally:
        discard(file)
    if "unseen" in done.stdout:
        raise UserError(
            f"--out {folder}: the cluster's nodes do not see this folder: choose one on a shared file system"
        )
    if "seen" in done.stdout:
        return None
    return f"whether the nodes see {folder} was not probed ({' '.join(done.stderr.split())[:160] or 'no free node'})"


def max_array_size() -> int:
    """Tasks an array may have on this cluster. Raises MachineError if the controller does not answer."""
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", ask("scontrol", "show", "config"), re.MULTILINE)
    return int(found[1]) if found else DEFAULT_MAX_ARRAY_SIZE


def submit(submission: Submission, profile: Profile, out: Path) -> Submission:
    """Submit all its tasks; returns it with the job ids, each on the disk as soon as it is known.

    Raises MachineError with SLURM's words where it refuses.
    """
    from submitit import SlurmExecutor
    from submitit.core.utils import FailedJobError

    executor = SlurmExecutor(submission.path / SCRIPTS, max_num_timeout=NO_LIMIT, python=_python())
    executor.update_parameters(**_parameters(submission, profile))
    numbers = range(len(submission.tasks))
    tasks = [Task(submission.path, number, out, profile.cpus, profile.device_of_runs) for number in numbers]
    limit = max_array_size()
    for first in range(0, len(tasks), limit):
        part = tasks[first : first + limit]
        try:
            jobs = executor.submit_array(part)
        except FailedJobError as error:
            raise MachineError(f"SLURM refused the job ({' '.join(str(error).split())[-200:]})") from None
        submission = add_chunk(submission, Chunk(jobs[0].job_id.split("_")[0], first, len(part)))
    return submission


def script(submission: Submission, profile: Profile) -> str:
    """Return what `submit` would hand to sbatch, of the first array if SLURM's limit splits it. Needs no SLURM."""
    from submitit.slurm.slurm import _make_sbatch_string

    folder = submission.path / SCRIPTS
    try:
        limit = max_array_size()
    except MachineError:
        limit = DEFAULT_MAX_ARRAY_SIZE
    count = min(len(submission.tasks), limit)
    command = f"{_python()} -u -m submitit.core._submit {shlex.quote(str(folder))}"
    parameters: dict[str, Any] = _parameters(submission, profile) | ({"map_count": count} if count > 1 else {})
    return str(_make_sbatch_string(command, folder, **parameters))


def _python() -> str:
    """Python, deaf to SLURM's warning until submitit listens for it: in the seconds before, it would kill the job."""
    return f'bash -c \'trap "" {SIGNAL}; exec "$0" "$@"\' {shlex.quote(sys.executable)}'


def _parameters(submission: Submission, profile: Profile) -> dict[str, object]:
    """submitit's names for its own settings; everything else as sbatch's flags."""
    flags = [flag.removeprefix("--").partition("=") for key in profile.flags().values() for flag in key]
    others = {name: value or True for name, _, value in flags if name != "time"}
    return {
        "job_name": submission.job_name,
        "time": profile.time,
        "signal_delay_s": profile.signal_delay_s,
        "array_parallelism": profile.max_parallel,
        "setup": list(profile.setup) or None,
        "srun_args": [f"--cpus-per-task={profile.cpus}"],  # since SLURM 22.05 srun does not take it from sbatch
        "additional_parameters": {"requeue": True, **others},
    }


def submit_after(jobs: Sequence[str], command: Sequence[str], name: str, folder: Path, profile: Profile) -> str:
    """A job without GPU that runs `command` once all of `jobs` have ended, however; returns its id. Raises MachineError."""
    flags = [flag for key in ("partition", "account", "qos") for flag in profile.flags().get(key, [])]
    after = [f"--dependency=afterany:{':'.join(jobs)}"] if jobs else []
    script = "\n".join([*profile.setup, shlex.join(command)])
    options = [f"--job-name={name}", f"--output={folder / 'report.log'}", "--ntasks=1", "--mem=4G", "--time=60"]
    return ask("sbatch", "--parsable", *options, *flags, *after, f"--wrap={script}").strip().partition(";")[0]


def cancel(job_ids: Sequence[str]) -> None:
    """scancel. Raises MachineError."""
    if job_ids:
        ask("scancel", *job_ids)
