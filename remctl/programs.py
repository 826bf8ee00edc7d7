"""Other people's programs (squeue, nvidia-smi, git, pip): any of them may be missing, hang, or print what nobody asked for."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from typing import NamedTuple

from remctl.errors import MachineError

DEATH_S = 1.0  # a process in the kernel's hands (a dead disk, a stuck driver) does not even die


class Answer(NamedTuple):
    """Exit status and everything printed; bytes that are not UTF-8 are replaced."""

    status: int
    out: str
    err: str


def ask_program(*command: str, timeout_s: float, env: Mapping[str, str] | None = None) -> Answer:
    """Run a program that asks nothing back, and return what it says, also if it fails.

    Raises MachineError, one line, if it cannot be started or takes longer than `timeout_s` seconds; then it is killed
    with everything that it started.
    """
    name = command[0]
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=env,
            start_new_session=True,
        )
    except OSError as error:
        if shutil.which(name) is None:
            raise MachineError(f"{name} is not on the PATH: install it, or load the module that has it") from None
        raise MachineError(f"{name} cannot be started ({error.strerror}): see `command -v {name}`") from None
    try:
        out, err = process.communicate(timeout=timeout_s)
    except BaseException as error:
        _kill(process)
        if isinstance(error, subprocess.TimeoutExpired):
            raise MachineError(f"{name} did not answer within {timeout_s:g} s: try again later") from None
        raise
    return Answer(process.returncode, out.decode(errors="replace"), err.decode(errors="replace"))


def _kill(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):
        process.wait(DEATH_S)
    for pipe in (process.stdout, process.stderr):
        if pipe:
            pipe.close()
