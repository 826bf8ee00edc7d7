"""One process of the suite packing: an agent of its own that takes training steps when it is told to.

    python -m remctl.bench.packing_worker FD

FD is its end of a pipe of `remctl.bench.packing_pool`, which sends a Job, then Begin and Rest in turns, and gets Ready, then
Worked and Rested. It ends when the other end does: at the latest after the steps of one turn.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection

import torch

from remctl.bench.measure import make_workload
from remctl.bench.packing_messages import Failed, Job, Ready, Rested, Worked
from remctl.bench.timing import MB, status_mb, synchronize
from remctl.config import RunConfig
from remctl.errors import one_line
from remctl.replay.buffer import ReplayBuffer
from remctl.runner import prepare_torch
from remctl.train.trainer import capacity

OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "alloc_failed")  # as torch, CUDA and its libraries put it
Step = Callable[[], object]


def steps_of(job: Job) -> list[Step]:
    """The steps of one turn, in the order of an epoch."""
    device = torch.device(job.device)
    prepare_torch(job.config)
    load = make_workload(job.config, device)
    work = {name: load.fast_step(name) for name in job.mix}
    steps = [work[name] for name, count in job.mix.items() for _ in range(count)]
    first = job.first % len(steps)  # the processes of a real machine are not in step either
    return steps[first:] + steps[:first]


def whole_replay(config: RunConfig, device: torch.device) -> ReplayBuffer:
    """An empty one as large as a run's. Not filled, it takes room on a GPU, and hardly any on the host."""
    return ReplayBuffer(capacity(config), config.environment.frame_size, config.tokenizer.tokens_per_obs, device)


def serve(connection: Connection, job: Job) -> None:
    """Until the other end closes, which raises EOFError."""
    device = torch.device(job.device)
    _replay = whole_replay(job.config, device)  # held: it takes its room on the device
    steps = steps_of(job)
    _turn(steps, device)
    connection.send(Ready())
    while True:
        work = connection.recv()
        torch.set_num_threads(work.threads)
        connection.send(_measured(steps, device, connection, work.window_s))
        _until_told(steps, device, connection)
        connection.recv()
        connection.send(Rested())


def _turn(steps: Sequence[Step], device: torch.device) -> None:
    for step in steps:
        step()
    synchronize(device)


def _measured(steps: Sequence[Step], device: torch.device, connection: Connection, window_s: float) -> Worked:
    """Whole turns, as the first one that ends after the window is the last."""
    begin, mixes = time.perf_counter(), 0
    while True:
        _turn(steps, device)
        mixes += 1
        seconds = time.perf_counter() - begin
        if seconds >= window_s:
            return Worked(mixes, seconds, _memory_mb(device))
        if connection.poll():  # nothing is said in a window: the other end is gone
            raise EOFError


def _until_told(steps: Sequence[Step], device: torch.device, connection: Connection) -> None:
    """Others are still measuring, and nobody's window may be quieter at its end."""
    while True:
        for step in steps:
            if connection.poll():
                synchronize(device)
                return
            step()
        synchronize(device)


def _memory_mb(device: torch.device) -> float | None:
    """On the GPU what torch held of it, without the context; else resident memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device) / MB
    try:
        return status_mb("VmHWM")
    except OSError:
        return None


def failed(error: BaseException) -> Failed:
    """What is told of it: one line."""
    short = isinstance(error, MemoryError) or any(words in str(error).lower() for words in OUT_OF_MEMORY)
    return Failed(one_line(error), short)


def main(fd: int) -> int:
    """The process; its exit status."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, who ends this process
    connection = Connection(fd)
    try:
        serve(connection, connection.recv())
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return 0  # nobody is there any more
    except Exception as error:
        connection.send(failed(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
