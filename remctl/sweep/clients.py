"""Run SLURM's own commands independently of the user's environment, and read their answers.

Each command also takes options from environment variables. SQUEUE_* and SACCT_* filter what is shown, so jobs would look lost
and be submitted again. SBATCH_* override the options in a job's script. SLURM_* come from the job in which the command runs, or
name another cluster (SLURM_CLUSTERS). Only those that say where the controller is and who asks are passed on. A profile says
what a job gets; SLURM_CONF chooses another cluster.

A site may have replaced a command by a program that prints more, or something else. Every line of an answer is therefore asked
for with a mark.
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
    """Return whether jobs can be submitted from here."""
    return shutil.which("sbatch") is not None and shutil.which("squeue") is not None


def environment() -> dict[str, str]:
    """Return the environment without the variables that change what SLURM's commands do."""
    return {name: value for name, value in os.environ.items() if name in KEPT or not FILTERS.match(name)}


def unused_wishes() -> list[str]:
    """Return the user's variables for sbatch, which are ignored. The user should know before a job is refused."""
    return sorted(name for name in os.environ if name.startswith("SBATCH_"))


def answer(*command: str, timeout_s: float | None = None) -> Answer:
    """Return what one of SLURM's commands prints, even if it fails. Raises MachineError if it is missing or too slow."""
    return ask_program(*command, timeout_s=timeout_s or TIMEOUT_S, env=environment())


def ask(*command: str) -> str:
    """Return the output of one of SLURM's commands. Raises MachineError if it fails, is missing, or takes too long."""
    said = answer(*command)
    if said.status != 0:
        words = " ".join((said.err or said.out).split())[-300:]
        raise MachineError(f"{command[0]} failed ({words or f'exit status {said.status}'}): {remedy(words)}")
    return said.out


def remedy(words: str) -> str:
    """Return what to do after a command of SLURM's failed with these words."""
    if _DENIED.search(words):
        return "it is another user's, or you lack the permission: ask the owner, or an operator of the cluster"
    if not words or _NO_CONTROLLER.search(words):
        return "is the SLURM controller up? try again later"
    return "fix that, and try again"


def settings() -> dict[str, str]:
    """Return the cluster's own settings, such as ClusterName. Raises MachineError like `ask`."""
    pairs = (line.partition("=") for line in ask("scontrol", "show", "config").splitlines())
    return {name.strip(): value.strip() for name, equals, value in pairs if equals}


def ask_rows(*command: str, fields: Sequence[str]) -> list[list[str]]:
    """Return the rows that squeue or sinfo prints in these `fields` (%j, ...). The first row may be the headings.

    Raises MachineError like `ask`, and for an answer of another form, because reading it as no rows would lose jobs.
    """
    text = ask(*command, "-o", MARK + "|".join(fields))
    marked = marked_rows(text, len(fields))
    if not marked or any(len(row) != len(fields) for row in marked):
        shown = next(iter(text.split("\n")), "").strip()[:80]
        raise MachineError(
            f"{command[0]} answers in another form than asked for ({shown!r}): put SLURM's own {command[0]} on the PATH"
        )
    return marked


def marked_rows(text: str, num_fields: int) -> list[list[str]]:
    """Return the fields of each marked line. A line of another form has fewer fields."""
    lines = (line.partition(MARK)[2].split("|", num_fields - 1) for line in text.splitlines() if MARK in line)
    return [[cell.strip() for cell in row] for row in lines]


def job_number(text: str) -> str | None:
    """Return the job's id that `sbatch --parsable` prints (`7` or `7;cluster`), or an sbatch that ignores the option."""
    for line in reversed(text.splitlines()):
        found = re.fullmatch(r"(\d+)(;\S+)?", line.strip()) or re.search(r"Submitted batch job (\d+)", line)
        if found:
            return found[1]
    return None
