"""The processes of the suite packing, seen from their parent: started, set to work together, and ended whatever happens."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import IO, Any, Self

import torch

from remctl.bench.packing_messages import Begin, Failed, Job, Ready, Rest, Rested, Worked
from remctl.config import RunConfig

POLL_S = 0.1
PATIENCE_S = 1800.0  # for an answer: a turn of the published agents on a few processor cores takes minutes
END_S = 10.0


class WorkerDiedError(Exception):
    """A process ended, or stopped answering, while `num_processes` of them were wanted; the message says why."""

    def __init__(self, num_processes: int, reason: str) -> None:
        super().__init__(reason)
        self.num_processes = num_processes


@dataclass
class Worker:
    """One process, our end of its pipe, and what it wrote to stderr."""

    process: subprocess.Popen[bytes]
    connection: Connection
    log: IO[bytes]

    def end(self) -> None:
        """Kill it, by its id, and wait until it is gone."""
        self.connection.close()
        self.process.kill()
        self.process.wait()
        self.log.close()


class Pool:
    """Processes that train side by side; leaving the context ends all of them.

    A parent that is killed leaves nothing behind either: its end of every pipe closes, and the processes leave.
    `check` is called while waiting, and may raise to leave.
    """

    def __init__(self, config: RunConfig, device: torch.device, mix: dict[str, int], check: Callable[[], None]) -> None:
        self.config, self.device, self.mix, self.check = config, device, mix, check
        self.workers: list[Worker] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self.workers:
            worker.end()
        self.workers.clear()

    def work(self, number: int, threads: int, window_s: float) -> list[Worked]:
        """What each of the first `number` processes did while all of them worked; missing ones are started, the others sleep.

        Raises WorkerDiedError, and what `check` raises.
        """
        while len(self.workers) < number:
            self._start(number)
        at_work = self.workers[:number]
        self._tell(at_work, Begin(threads, window_s))
        done = self._answers(at_work, Worked)
        self._tell(at_work, Rest())
        self._answers(at_work, Rested)
        return done

    def _start(self, number: int) -> None:
        """One more of `number`: those that are there sleep until it is ready."""
        ours, theirs = Pipe()
        with theirs:
            log = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the process
            command = [sys.executable, "-m", "remctl.bench.packing_worker", str(theirs.fileno())]
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,  # a terminal's Ctrl-C is for the parent alone
            )
        self.workers.append(Worker(process, ours, log))
        self._tell(self.workers[-1:], Job(self.config, str(self.device), self.mix, len(self.workers) - 1), number)
        self._answers(self.workers[-1:], Ready, number)

    def _tell(self, workers: Sequence[Worker], message: object, number: int | None = None) -> None:
        """The last is told a fraction of a millisecond after the first."""
        for worker in workers:
            try:
                worker.connection.send(message)
            except OSError:
                raise WorkerDiedError(number or len(workers), self._reason(worker)) from None

    def _answers(self, workers: Sequence[Worker], kind: type[Any], number: int | None = None) -> list[Any]:
        """One answer of each."""
        number = number or len(workers)
        answers: dict[int, Any] = {}
        deadline = time.monotonic() + PATIENCE_S
        while len(answers) < len(workers):
            self.check()
            waiting = {w.connection: i for i, w in enumerate(workers) if i not in answers}
            for connection in wait(list(waiting), POLL_S):
                i = waiting[connection]  # type: ignore[index]
                answers[i] = self._answer(workers[i], number)
                assert isinstance(answers[i], kind), (answers[i], kind)
            if time.monotonic() > deadline:
                raise WorkerDiedError(number, f"no answer within {PATIENCE_S:g} s")
        return [answers[i] for i in range(len(workers))]

    def _answer(self, worker: Worker, number: int) -> Any:
        try:
            answer = worker.connection.recv()
        except (EOFError, OSError):
            raise WorkerDiedError(number, self._reason(worker)) from None
        if isinstance(answer, Failed):
            raise WorkerDiedError(number, f"{'does not fit' if answer.out_of_memory else 'failed'}: {answer.error}")
        return answer

    def _reason(self, worker: Worker) -> str:
        """Of a process whose pipe is closed."""
        with suppress(subprocess.TimeoutExpired):
            worker.process.wait(END_S)
        status = worker.process.returncode
        if status is not None and status < 0:
            name = signal.Signals(-status).name
            return (
                f"does not fit: killed by {name}, as one out of memory is" if name == "SIGKILL" else f"killed by {name}"
            )
        worker.log.seek(0)
        lines = worker.log.read().decode(errors="replace").splitlines()
        last = next((line.strip()[:200] for line in reversed(lines) if line.strip()), "")
        return f"failed: {last or f'exit status {status}'}"
