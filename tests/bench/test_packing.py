"""Processes side by side: what is counted, how cores are shared, that one that dies is said to, and that none is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from remctl import cli
from remctl.bench import packing, packing_worker
from remctl.bench.measure import Measured
from remctl.bench.packing import epoch_s, mix, mixes_per_epoch, threads_each, together_s
from remctl.bench.packing_messages import Begin, Failed, Job, Ready, Rest, Rested, Worked
from remctl.bench.packing_pool import Pool, WorkerDiedError
from remctl.bench.result import Result, read
from remctl.bench.suites import Group, Packed, groups, what_was_scaled
from remctl.bench.tables import tables
from remctl.config import resolve
from remctl.errors import Interrupted
from tests.tiny import TINY

CPU = torch.device("cpu")
CONFIG = resolve("Catch", "quick", sets=TINY)
MIX = {"tokenizer": 1, "world_model": 1, "controller": 1}
SETS = [part for text in TINY for part in ("--set", text)]
PACKING = [
    "bench",
    "--suite",
    "packing",
    "--scale",
    "reduced",
    "--game",
    "Catch",
    "--preset",
    "quick",
    "--device",
    "cpu",
]
TIMES = ["tokenizer", "world_model", "controller"]


def is_there(pid: int) -> bool:
    """Whether it runs; one that ended and that nobody waits for does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def gone(pids: list[int], within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    while any(map(is_there, pids)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return not any(map(is_there, pids))


def nothing() -> None:
    """A check that never leaves."""


# --- arithmetic and plans


@pytest.mark.parametrize(
    ("steps", "turn", "turns"),
    [((200, 200, 100), (2, 2, 1), 100), ((7, 7, 7), (1, 1, 1), 7), ((25, 120, 80), (2, 11, 7), 225 / 20)],
)
def test_a_turn_has_an_epochs_proportions(
    steps: tuple[int, int, int], turn: tuple[int, int, int], turns: float
) -> None:
    sets = [f"{name}.training.steps_per_epoch={n}" for name, n in zip(TIMES, steps, strict=True)]
    config = resolve("Catch", "quick", sets=sets)
    assert mix(config) == dict(zip(TIMES, turn, strict=True))
    assert mixes_per_epoch(config) == pytest.approx(turns)
    assert sum(mix(config).values()) <= packing.MAX_MIX + 1


def test_rates_of_processes_add_up() -> None:
    """100 turns are an epoch: 5 turns in 10 s are an epoch in 200 s, and one of 200 s and one of 100 s make 3 in 200 s."""
    own = [epoch_s(Worked(5, 10.0, None), 100), epoch_s(Worked(10, 10.0, None), 100)]
    assert own == pytest.approx([200.0, 100.0])
    assert together_s(own) == pytest.approx(200 / 3)
    assert together_s([60.0] * 4) == pytest.approx(15.0)


def test_cores_are_shared_out_and_every_process_has_one_thread() -> None:
    assert [threads_each(16, n) for n in (1, 2, 3, 8, 16, 32)] == [16, 8, 5, 2, 1, 1]


def test_the_plan_of_the_suite() -> None:
    (full,), (reduced,) = (groups("packing", scale, None, resolve("Pong")) for scale in ("full", "reduced"))  # type: ignore[arg-type]
    assert full.packed is not None
    assert reduced.packed is not None
    assert (full.packed.processes, reduced.packed.processes) == ((1, 2, 4, 8), (1, 2))
    assert full.subjects[0].config == resolve("Pong")
    assert {getattr(reduced.subjects[0].config, name).training.batch_size for name in TIMES} == {4}
    said = " ".join(what_was_scaled(("packing",), "reduced", None))
    assert "1 and 2 processes" in said
    assert "batches of 4" in said
    assert "batches" not in what_was_scaled(("packing",), "reduced", 8)[1]


@pytest.mark.parametrize(
    ("error", "text", "out_of_memory"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried\nmore"),
            "OutOfMemoryError: CUDA out of memory. Tried",
            True,
        ),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9"), "RuntimeError: [enforce", True),
        (RuntimeError("CUBLAS_STATUS_ALLOC_FAILED"), "RuntimeError: CUBLAS", True),
        (MemoryError(), "MemoryError", True),
        (ValueError("no such game"), "ValueError: no such game", False),
    ],
)
def test_an_error_says_whether_memory_was_short(error: Exception, text: str, out_of_memory: bool) -> None:
    told = packing_worker.failed(error)
    assert isinstance(told, Failed)
    assert told.error.startswith(text)
    assert "\n" not in told.error
    assert told.out_of_memory == out_of_memory


class Scripted:
    """A pipe whose other end sends `messages`, the second one only after `patience` glances."""

    def __init__(self, messages: list[object], patience: int) -> None:
        self.messages, self.patience, self.sent = messages, patience, list[object]()

    def recv(self) -> object:
        if not self.messages:
            raise EOFError
        return self.messages.pop(0)

    def poll(self) -> bool:
        self.patience -= 1
        return self.patience < 0

    def send(self, message: object) -> None:
        self.sent.append(message)


def test_a_process_goes_on_working_until_it_is_told_to_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn of two steps to warm up, one that is measured, and five steps while others still measure."""
    done: list[int] = []
    monkeypatch.setattr(packing_worker, "steps_of", lambda job: [lambda: done.append(1), lambda: done.append(2)])
    pipe = Scripted([Begin(torch.get_num_threads(), 0.0), Rest()], 5)
    with pytest.raises(EOFError):
        packing_worker.serve(pipe, Job(CONFIG, "cpu", MIX, 0))  # type: ignore[arg-type]
    assert done == [1, 2] * 4 + [1]
    assert [type(message) for message in pipe.sent] == [Ready, Worked, Rested]
    assert pipe.sent[1].mixes == 1  # type: ignore[attr-defined]


def test_no_two_processes_begin_at_the_same_step() -> None:
    turns = [
        packing_worker.steps_of(Job(CONFIG, "cpu", {"tokenizer": 1, "controller": 1}, first)) for first in (0, 1, 2)
    ]
    names = [[step.args[0] for step in turn] for turn in turns]  # type: ignore[attr-defined]
    assert names == [["tokenizer", "controller"], ["controller", "tokenizer"], ["tokenizer", "controller"]]


# --- measured


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("packing")
    assert cli.run([*PACKING, *SETS, "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def result(finished: Path) -> Result:
    return read(finished / "bench.json")


def test_one_and_two_processes(result: Result) -> None:
    assert [(c.name, c.phase, len(c.seconds)) for c in result.cases] == [
        ("1 process", "epoch", 6),
        ("2 processes", "epoch", 6),
    ]
    assert result.complete
    assert result.cases[0].ratio is None
    two = result.cases[1]
    assert two.ratio is not None
    assert two.ratio.to == "1 process"
    assert {c.calibration for c in result.cases} == {result.device.calibration}
    cores = packing.usable_cores()
    assert [(p.num_processes, p.num_threads, p.failure) for p in result.packing] == [
        (1, cores, ""),
        (2, max(1, cores // 2), ""),
    ]
    for case, made in zip(result.cases, result.packing, strict=True):
        assert case.name == made.name
        assert [len(each) for each in made.process_seconds] == [made.num_processes] * 6
        assert case.seconds == pytest.approx([together_s(each) for each in made.process_seconds])
        assert made.memory_mb is not None
        assert made.memory_in_all_mb is not None
        assert made.memory_mb <= made.memory_in_all_mb <= made.num_processes * made.memory_mb * 1.001
    assert result.packing[0].mix == MIX


def test_its_table_and_figure(finished: Path, result: Result, capsys: pytest.CaptureFixture[str]) -> None:
    rows = tables(result)["packing"].rows
    assert [row[0] for row in rows] == ["1", "2"]
    assert (finished / "figures" / "bench_packing.png").is_file()
    file = str(finished / "bench.json")
    assert cli.run(["bench", "compare", file, file]) == 0
    said = capsys.readouterr().out
    assert "2 processes" in said
    assert "by all processes together" in said
    assert cli.run(["report", "--bench", file, "--out", str(finished / "report")]) == 0
    assert "side by side" in (finished / "report" / "index.html").read_text()


# --- what goes wrong


def killing(number: int, pools: list[Pool]) -> Callable[[], None]:
    """A check that kills the last of `number` processes, once, as a machine out of memory does."""
    killed: list[int] = []

    def check() -> None:
        workers = pools[-1].workers if pools else []
        if len(workers) == number and not killed:
            killed.append(workers[-1].process.pid)
            os.kill(killed[0], signal.SIGKILL)

    return check


@pytest.fixture
def pools(monkeypatch: pytest.MonkeyPatch) -> list[Pool]:
    """Those that are made."""
    made: list[Pool] = []

    class Known(Pool):
        def __enter__(self) -> Pool:
            made.append(self)
            return self

    monkeypatch.setattr(packing, "Pool", Known)
    return made


class Still:
    """A machine without measurements."""

    device = CPU

    def __init__(self) -> None:
        self.calibration: list[float] = []
        self.calibrate: Callable[[], None] = nothing


def measure(
    processes: tuple[int, ...], rounds: int, check: Callable[[], None], found: Measured | None = None
) -> tuple[Measured, list[str]]:
    (made,) = groups("packing", "reduced", None, CONFIG)
    group = Group("packing", made.subjects, packed=Packed(processes, 0.01))
    found, said = found or Measured(), list[str]()
    packing.measure_packing(group, Still(), rounds, found, said.append, check)  # type: ignore[arg-type]
    return found, said


def test_a_process_that_dies_does_not_fit_and_the_others_are_measured(pools: list[Pool]) -> None:
    found, said = measure((1, 2, 4), 2, killing(2, pools))
    assert [(c.name, len(c.seconds)) for c in found.cases] == [("1 process", 2)]
    assert [p.failure.partition(":")[0] for p in found.packing] == ["", "does not fit", "not tried"]
    assert "SIGKILL" in found.packing[1].failure
    assert any("2 processes: does not fit" in line for line in said)
    assert [p.num_processes for p in found.packing] == [1, 2, 4]


def test_where_not_even_one_lives_there_are_no_cases(pools: list[Pool]) -> None:
    found, _ = measure((1, 2), 2, killing(1, pools))
    assert found.cases == []
    assert [p.failure.partition(":")[0] for p in found.packing] == ["does not fit", "not tried"]


def test_an_error_in_a_process_is_its_reason() -> None:
    with (
        Pool(CONFIG, torch.device("meta"), MIX, nothing) as pool,
        pytest.raises(WorkerDiedError, match=r"^failed: \w+Error: ") as caught,
    ):
        pool.work(1, 1, 0.01)
    assert caught.value.num_processes == 1


def test_a_process_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("remctl.bench.packing_pool.PATIENCE_S", 0.0)
    with Pool(CONFIG, CPU, MIX, nothing) as pool:
        with pytest.raises(WorkerDiedError, match="no answer"):
            pool.work(1, 1, 0.01)
        pids = [w.process.pid for w in pool.workers]
    assert pids
    assert gone(pids, 0)


def test_a_signal_in_a_round_keeps_the_rounds_before_and_leaves_no_process(
    pools: list[Pool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the second round, which goes the other way: two processes were measured again, one was not."""
    pids: list[int] = []
    measured: list[Worked] = []

    def check() -> None:
        pids[:] = [w.process.pid for w in pools[-1].workers] if pools else []
        if len(measured) == 1 + 2 + 2:
            raise Interrupted(signal.SIGTERM)

    def noted(worked: Worked, per_epoch: float) -> float:
        measured.append(worked)
        return epoch_s(worked, per_epoch)

    monkeypatch.setattr(packing, "epoch_s", noted)
    found = Measured()
    with pytest.raises(Interrupted):
        measure((1, 2), 6, check, found)
    assert [len(c.seconds) for c in found.cases] == [1, 1]
    assert [len(p.process_seconds) for p in found.packing] == [1, 1]
    assert len(pids) == 2
    assert gone(pids, 0)


PARENT = """
import sys, time, torch
from remctl.bench.packing_pool import Pool
from remctl.config import resolve
from tests.tiny import TINY
glances = [0] * 1000
def check():
    glances.append(1)
    if len(glances) == 10:  # of 0.1 s each: both are in their window
        print(*(w.process.pid for w in pool.workers), flush=True)
with Pool(resolve("Catch", "quick", sets=TINY), torch.device("cpu"), {"tokenizer": 1}, check) as pool:
    pool.work(2, 1, 0.0)
    glances.clear()
    pool.work(2, 1, 1000.0)
"""


def test_processes_leave_when_their_parent_is_killed() -> None:
    root = Path(__file__).parents[2]
    with subprocess.Popen([sys.executable, "-c", PARENT], cwd=root, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 2
        assert all(map(is_there, pids))
        parent.kill()
    left = not gone(pids, 30)
    for pid in filter(is_there, pids):
        os.kill(pid, signal.SIGKILL)
    assert not left
