"""`runtime.threads`: how many, why, and for how long."""

import json
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from remctl import runner
from remctl.errors import Interrupted
from remctl.runs.cores import Cores
from remctl.runs.layout import RunFolder
from remctl.train import threads, waiting
from remctl.train.threads import Choice, candidates, choose, fewest
from tests.train.support import InterruptingReporter, tiny

pytestmark = pytest.mark.usefixtures("threads_as_before")
TWO = Cores(2)


@pytest.mark.parametrize(
    ("cores", "busy", "number", "said"),
    [
        (TWO, 0.0, 2, "2 threads: 2 cores, others use 0.0"),
        (TWO, 0.4, 2, "2 threads: 2 cores, others use 0.4"),
        (TWO, 0.9, 1, "1 thread: 2 cores, others use 0.9 (runtime.threads=2 takes all)"),
        (TWO, 2.0, 1, "1 thread: 2 cores, others use 2.0 (runtime.threads=2 takes all)"),
        (TWO, None, 2, "2 threads: 2 cores"),
        (Cores(16), 3.2, 13, "13 threads: 16 cores, others use 3.2 (runtime.threads=16 takes all)"),
        (Cores(16, quota=4.0), 3.2, 4, "4 threads: 4 cores of 16 (CPU quota 4), others use 3.2"),
        (Cores(16, allotted=2), 14.2, 2, "2 threads: 16 cores, 2 allotted, others use 14.2"),  # others of one queue
        (Cores(16, allotted=1), None, 1, "1 thread: 16 cores, 1 allotted"),
    ],
)
def test_auto_takes_what_is_free(cores: Cores, busy: float | None, number: int, said: str) -> None:
    choice = choose("auto", None, cores, busy)
    assert (choice.number, str(choice)) == (number, said)


def test_a_resume_keeps_its_number_while_there_are_so_many_cores() -> None:
    assert str(choose("auto", 1, TWO, None)) == "1 thread: as before"
    assert str(choose("auto", 2, TWO, None)) == "2 threads: as before"
    fewer = choose("auto", 8, Cores(8, allotted=2), None)
    assert fewer.number == 2
    assert fewer.reason == "8 cores, 2 allotted, 8 before: sums are rounded differently, not the same to the bit"


def test_a_number_asked_for_wins_and_says_what_it_changes() -> None:
    assert str(choose(3, None, Cores(4), None)) == "3 threads: runtime.threads=3"
    assert str(choose(3, 3, Cores(4), None)) == "3 threads: runtime.threads=3"
    assert "runtime.threads=1, 2 before: sums are rounded differently" in str(choose(1, 2, TWO, None))


def test_of_many_cores_a_small_network_takes_as_many_as_make_it_faster() -> None:
    assert candidates(16) == [16, 8, 4, 2]
    assert candidates(12) == [12, 8, 4, 2]
    assert candidates(3) == [3, 2]
    choice = Choice(16, "16 cores")
    assert fewest(choice, {16: 9.0, 8: 5.1, 4: 5.2, 2: 8.0}) == Choice(4, "16 cores; more are no faster")
    assert fewest(choice, {16: 5.0, 8: 5.5}) == choice


def of_a_trainer(tmp_path: Path, reporter: InterruptingReporter, before: int | None = None, *sets: str) -> Any:
    config = tiny("runtime.threads=auto", *sets)
    made = runner.Trainer(config, RunFolder(tmp_path), torch.device("cpu"), reporter, SimpleNamespace())  # type: ignore[arg-type]
    made.num_threads_before = before
    return made


def settled(trainer: Any, monkeypatch: pytest.MonkeyPatch, cores: Cores, busy: float | None = 0.0) -> str:
    lines: list[str] = []
    monkeypatch.setattr(threads, "cores_here", lambda: cores)
    monkeypatch.setattr(trainer.reporter, "log", lines.append)
    threads.settle(trainer, SimpleNamespace(others=lambda: busy))  # type: ignore[arg-type]
    (line,) = lines
    assert line.startswith(f"{torch.get_num_threads()} thread")
    return line


def test_many_free_cores_are_timed_and_few_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds: dict[int, float] = {4: 2.0, 2: 1.0}
    asked: list[list[int]] = []
    monkeypatch.setattr(threads, "time_steps", lambda _, numbers: asked.append(list(numbers)) or seconds)
    trainer = of_a_trainer(tmp_path, InterruptingReporter())
    assert settled(trainer, monkeypatch, Cores(4)).startswith("2 threads: 4 cores, others use 0.0; more are no faster")
    assert asked == [[4, 2]]
    assert settled(trainer, monkeypatch, TWO, busy=1.0).startswith("1 thread: 2 cores, others use 1.0")
    assert settled(trainer, monkeypatch, Cores(4), busy=2.0).startswith("2 threads: 4 cores, others use 2.0")
    trainer.num_threads_before = 4
    assert settled(trainer, monkeypatch, Cores(4), busy=3.0) == "4 threads: as before"
    assert len(asked) == 1


def test_steps_are_timed_with_each_number_and_the_agent_is_left_as_it_was(tmp_path: Path) -> None:
    trainer = of_a_trainer(tmp_path, InterruptingReporter())
    before = {name: value.clone() for name, value in trainer.agent.state_dict()["world_model"].items()}
    seconds = threads.time_steps(trainer, [2, 1])
    assert list(seconds) == [2, 1]
    assert min(seconds.values()) > 0
    assert torch.get_num_threads() == 1
    assert all(torch.equal(value, before[name]) for name, value in trainer.agent.state_dict()["world_model"].items())
    trainer.reporter.stop.signum = 15
    with pytest.raises(Interrupted):
        threads.time_steps(trainer, [1])


def test_a_run_says_records_and_keeps_its_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Begun beside a busy core with one thread, it resumes so on an idle machine; then as it is told."""
    monkeypatch.setattr(threads, "cores_here", lambda: TWO)
    busy = [1.0]
    monkeypatch.setattr(runner, "Load", lambda: SimpleNamespace(others=lambda: busy[0]))
    commit = runner.Trainer._commit

    def cut_off(self: Any, epoch: int, *rest: Any) -> None:
        commit(self, epoch, *rest)
        if epoch < 3:
            raise Interrupted(15)

    monkeypatch.setattr(runner.Trainer, "_commit", cut_off)

    def start(asked: str) -> RunFolder:
        return runner.train(
            tiny(f"runtime.threads={asked}"), out=tmp_path, experiment="e", device="cpu", command=[], quiet=True
        )

    with pytest.raises(Interrupted):
        start("auto")
    busy[0] = 0.0
    with pytest.raises(Interrupted):
        start("auto")
    run = start("2")
    entries = json.loads(run.provenance.read_text())
    assert [entry["device"]["threads"] for entry in entries] == [1, 1, 2]
    assert json.loads(run.result.read_text())["device"]["threads"] == 2
    log = run.log.read_text()
    assert "1 thread: 2 cores, others use 1.0" in log
    assert "1 thread: as before" in log
    assert "2 threads: runtime.threads=2, 1 before: sums are rounded differently" in log


# --- waiting


@pytest.mark.parametrize(
    ("busy", "num_threads", "num_cores", "expected"),
    [
        (None, 2, 2, False),
        (0.1, 2, 2, False),
        (0.9, 2, 2, True),
        (10.0, 4, 16, False),  # they fit beside each other
        (13.0, 4, 16, True),
    ],
)
def test_crowded_is_where_threads_share_cores(
    busy: float | None, num_threads: int, num_cores: int, expected: bool
) -> None:
    assert waiting.is_crowded(busy, num_threads, num_cores) is expected


def num_tasks() -> int:
    return len(os.listdir("/proc/self/task"))


def falls_to(number: int) -> bool:
    """A thread that was joined may be listed for a moment more."""
    deadline = time.monotonic() + 10
    while num_tasks() > number and time.monotonic() < deadline:
        time.sleep(0.01)
    return num_tasks() == number


needs_gnu_openmp = pytest.mark.skipif(not waiting.has_gnu_openmp(), reason="torch computes with another OpenMP")


@needs_gnu_openmp
def test_an_idle_team_is_larger_than_the_machine_and_leaves_nothing() -> None:
    torch.set_num_threads(2)
    before, number = num_tasks(), len(os.sched_getaffinity(0))
    for _ in range(2):
        team = waiting.IdleTeam(number + 1)
        assert num_tasks() >= before + 1 + number
        team.end()
        assert falls_to(before)


@needs_gnu_openmp
def test_a_team_stands_by_for_as_long_as_others_are_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    load = iter([0.0, 1.0, 1.0, 0.0, 1.0])

    class Team:
        def __init__(self, size: int) -> None:
            made.append("begin")

        def end(self) -> None:
            made.append("end")

    class Over:
        """Not before the load is read out."""

        def wait(self, seconds: float) -> bool:
            made.append("look")
            return len([what for what in made if what == "look"]) > 5

    monkeypatch.setattr(waiting, "IdleTeam", Team)
    monkeypatch.setattr(waiting, "Load", lambda: SimpleNamespace(others=lambda at_least_s: next(load)))
    monkeypatch.setattr(waiting, "cores_here", lambda: TWO)
    waiting._watch(Over(), 2)  # type: ignore[arg-type]
    assert made == ["look", "look", "begin", "look", "look", "end", "look", "begin", "look", "end"]


@needs_gnu_openmp
def test_a_run_of_several_threads_watches_and_one_of_one_does_not() -> None:
    for number, watches in ((1, 0), (2, 1)):
        torch.set_num_threads(number)
        before = num_tasks()
        with waiting.yielding():
            assert num_tasks() == before + watches
        assert falls_to(before)


def test_more_threads_than_cores_are_said_to_be_slow() -> None:
    said = str(choose(1024, None, TWO, None))
    assert said == "1024 threads: runtime.threads=1024 on 2 cores: steps take far longer than with runtime.threads=2"
    assert "far longer" in str(choose(2, None, Cores(8, quota=1.0), None))
    assert "far longer" not in str(choose(8, None, Cores(8, allotted=2), None))
