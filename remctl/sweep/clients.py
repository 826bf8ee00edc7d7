"""SLURM's own commands: what they are asked, whatever the user's environment says, and how their answers are read.

Each of them takes options from environment variables too: SQUEUE_* and SACCT_* filter what is shown, so that jobs would look
lost and be submitted again; SBATCH_* go before the options in a job's script; SLURM_* are left by the job that a command runs
in, or name another cluster (SLURM_CLUSTERS). None of them is passed on but those that say where the controller is and who
asks. What a job should get stands in its profile; another cluster is chosen with SLURM_CONF.

A site may have put a program of its own in the place of a command, which prints more, or something else. Answers are therefore
asked for with a mark in each line.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence

from remctl.errors import MachineError
from remctl.programs import Answer, ask_program

TIMEOUT_S = 60
FILTERS = re.compile(r"(SBATCH|SQUEUE|SACCT|SINFO|SCANCEL|SCONTROL|SRUN|SALLOC|SLURM|SUBMITIT)_")
KEPT = ("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT")
MARK = "remctl|"
_NO_CONTROLLER = re.compile(
    r"unable to contact|connection|connect failure|communication|timed out|not responding|is down", re.IGNORECASE
)
_DENIED = re.compile(r"denied|not permitted|privilege", re.IGNORECASE)


def has_slurm() -> bool:
    """Whether jobs can be submitted from here."""
    return shutil.which("sbatch") is not None and shutil.which("squeue") is not None


def environment() -> dict[str, str]:
    """The environment without what changes the meaning of SLURM's commands."""
    return {name: value for name, value in os.environ.items() if name in KEPT or not FILTERS.match(name)}


def unused_wishes() -> list[str]:
    """Names of variables by which the user asks sbatch for something, in vain: to be said before a job is refused for it."""
    return sorted(name for name in os.environ if name.startswith("SBATCH_"))


def answer(*command: str, timeout_s: float | None = None) -> Answer:
    """What one of SLURM's commands says, also if it fails. Raises MachineError if it is missing or takes too long."""
    return ask_program(*command, timeout_s=timeout_s or TIMEOUT_S, env=environment())


def ask(*command: str) -> str:
    """The output of one of SLURM's commands. Raises MachineError, one line, if it fails, is missing, or takes too long."""
    said = answer(*command)
    if said.status != 0:
        words = " ".join((said.err or said.out).split())[-300:]
        raise MachineError(f"{command[0]} failed ({words or f'exit status {said.status}'}): {_remedy(words)}")
    return said.out


def _remedy(words: str) -> str:
    if _DENIED.search(words):
        return "another user's, or not allowed to you: ask the owner, or an operator of the cluster"
    if not words or _NO_CONTROLLER.search(words):
        return "is the SLURM controller up? try again later"
    return "mend that, and try again"


def settings() -> dict[str, str]:
    """The cluster's own settings, such as ClusterName. Raises MachineError like `ask`."""
    pairs = (line.partition("=") for line in ask("scontrol", "show", "config").splitlines())
    return {name.strip(): value.strip() for name, equals, value in pairs if equals}


def ask_rows(*command: str, fields: Sequence[str]) -> list[list[str]]:
    """What squeue or sinfo prints in these `fields` (%j, ...), row by row; the first row may be the headings.

    Raises MachineError like `ask`, and for an answer of another form: to take that for no rows would be to lose jobs.
    """
    text = ask(*command, "-o", MARK + "|".join(fields))
    marked = marked_rows(text, len(fields))
    if not marked or any(len(row) != len(fields) for row in marked):
        shown = next(iter(text.split("\n")), "").strip()[:80]
        raise MachineError(
            f"{command[0]} answers in a form that was not asked for ({shown!r}): put SLURM's own {command[0]} on the PATH"
        )
    return marked


def marked_rows(text: str, num_fields: int) -> list[list[str]]:
    """The fields of the lines with the mark; fewer than asked for in one of another form."""
    lines = (line.partition(MARK)[2].split("|", num_fields - 1) for line in text.splitlines() if MARK in line)
    return [[cell.strip() for cell in row] for row in lines]


def job_number(text: str) -> str | None:
    """The job's id in the answer of `sbatch --parsable` (`7` or `7;cluster`), or of one that ignores the option."""
    for line in reversed(text.splitlines()):
        found = re.fullmatch(r"(\d+)(;\S+)?", line.strip()) or re.search(r"Submitted batch job (\d+)", line)
        if found:
            return found[1]
    return None
