"""The local queue: a process of its own that starts runs as slots get free, at most so many at once, GPUs handed out.

    python -m remctl.sweep.local SUBMISSION OUT

It holds the lock of its submission for as long as it lives. Of the queues in one folder of runs one works, the others wait.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from textwrap import shorten

from remctl.errors import MachineError, UserError
from remctl.programs import ask_program
from remctl.runs.cores import usable_cores
from remctl.runs.files import make_folder
from remctl.runs.lock import exclusive_within, open_lock, try_exclusive
from remctl.sweep.job import LEAVING, POLL_S, Pool, Slot, supervised
from remctl.sweep.records import LAST_WORDS, Submission, read_submission
from remctl.sweep.schedulers import QUEUE_LOCK

NVIDIA_SMI_S = 60
QUEUES_LOCK = ".local-queue"  # in the folder of runs
PATIENCE_S = 1.0  # a glance of `remctl status` is over by then


def visible_gpus(say: Callable[[str], None] = lambda line: None) -> list[str]:
    """The GPUs that runs may use, as CUDA_VISIBLE_DEVICES names them, without loading torch.

    An nvidia-smi that fails, as one without its driver does, counts none beyond those that it lists; `say` gets a line.
    Raises MachineError if nvidia-smi is there and cannot be asked.
    """
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [gpu.strip() for gpu in given.split(",") if gpu.strip() and gpu.strip() != "-1"]
    if shutil.which("nvidia-smi") is None:
        return []
    try:
        said = ask_program("nvidia-smi", "-L", timeout_s=NVIDIA_SMI_S)
    except MachineError as error:  # there may be GPUs: to crawl on the CPU instead is nothing to guess
        raise MachineError(f"{error}; or name the GPUs in CUDA_VISIBLE_DEVICES (empty: none)") from None
    found = re.findall(r"^GPU (\d+):", said.out, re.MULTILINE)
    if said.status != 0:
        lines = [line for line in f"{said.err}\n{said.out}".splitlines() if not re.match(r"GPU \d+:|\s+MIG ", line)]
        words = shorten(" ".join(lines), 120, placeholder=" ...") or f"exit status {said.status}"
        go = f"the GPUs that it lists ({', '.join(found)}) alone" if found else "the CPU"
        say(f"note: nvidia-smi failed ({words}): runs go to {go}")
    return found


def slots(gpus: list[str], runs_per_gpu: int, max_parallel: int | None, num_cores: int) -> list[Slot]:
    """Where runs can go: `runs_per_gpu` on each GPU, or on the CPU one per two cores; `max_parallel` overrides the number.

    The cores are shared out evenly. With more slots than places on GPUs, none is left without one: GPUs are shared further.
    """
    places = [gpu for _ in range(runs_per_gpu) for gpu in gpus]
    count = max_parallel or len(places) or max(1, num_cores // 2)
    threads = max(1, num_cores // count)
    if not places:
        return [Slot("", "cpu", threads)] * count
    return [Slot(places[i % len(places)], "cuda", threads) for i in range(count)]


def start_queue(submission: Submission, out: Path) -> int:
    """Start the queue in the background and leave it; it is alive, for everybody to see, when this returns its process id.

    Raises MachineError where the folder cannot be locked or written.
    """
    make_folder(submission.path)
    fd = open_lock(submission.path / QUEUE_LOCK)
    try:
        if not exclusive_within(fd, submission.path / QUEUE_LOCK, PATIENCE_S):
            raise MachineError(f"{submission.path}: another queue works on it: see `remctl status`")
        with submission.queue_log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "remctl.sweep.local", str(submission.path), str(out)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=(fd,),  # the lock goes with it
            )
    finally:
        os.close(fd)
    return process.pid


def main(arguments: list[str]) -> None:
    """The process of a queue."""
    path, out = map(Path, arguments)
    submission = read_submission(path)
    options = submission.options
    room = slots(
        visible_gpus(partial(print, flush=True)), options["runs_per_gpu"], options["max_parallel"], usable_cores()
    )
    runs = [
        run for number in range(len(submission.tasks)) for run in supervised(submission, number, out, "local queue")
    ]
    pool = Pool(runs, room)
    for signum in LEAVING:
        signal.signal(signum, lambda *_: setattr(pool, "stopping", True))
    turn = open_lock(out / QUEUES_LOCK)
    while not pool.stopping and not try_exclusive(turn, out / QUEUES_LOCK):
        time.sleep(POLL_S)
    pool.work()
    if options.get("report") and not pool.stopping:
        subprocess.run(options["report"], check=False, stdin=subprocess.DEVNULL)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(f"{LAST_WORDS}{error}")
