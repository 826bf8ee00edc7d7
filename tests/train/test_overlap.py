"""Tests beside training: the same results as in turn, whatever happens to either process."""

import multiprocessing
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from remctl.config import to_yaml
from remctl.errors import Interrupted, MachineError
from remctl.runs.files import read_jsonl, write_json
from remctl.runs.layout import RunFolder
from remctl.runs.metrics import MetricsLog, is_timing
from remctl.sweep.job import end_with_parent
from remctl.train import checkpoint, overlap
from remctl.train.background import LEFT_TO_THE_TRAINER, BackgroundTests
from remctl.train.continuing import adopt, longer
from remctl.train.testing import Findings, is_due, overlaps, untested
from remctl.train.trainer import Trainer
from tests.train.support import InterruptingReporter, assert_same, outcome, tiny, train
from tests.train.test_resume import command, wait_for

SETS = ("training.num_epochs=5", "runtime.overlap_tests=on")
ON, OFF = tiny(*SETS), tiny(SETS[0])
IN_EPOCH_4, IN_EPOCH_5 = 150, 175  # steps after which a run is interrupted
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def overlapped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("overlapped"), ON).folder.path


@pytest.fixture(scope="module")
def in_turn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("in_turn"), OFF).folder.path


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In epoch 4, with which the test of epoch 2 would have been logged."""
    return cut(tmp_path_factory.mktemp("interrupted"), IN_EPOCH_4, ["epoch_000003", "epoch_000002"])


def cut(folder: Path, limit: int, generations: list[str]) -> Path:
    with pytest.raises(Interrupted):
        train(folder, ON, limit)
    assert multiprocessing.active_children() == []
    assert [p.name for p in checkpoint.generations(RunFolder(folder))] == generations
    return folder


def of_tests(folder: Path) -> dict[int, Any]:
    """What each epoch's test found: metrics without times, and episodes without the epoch they are logged with."""
    run, found = RunFolder(folder), dict[int, Any]()
    for entry in read_jsonl(run.metrics):
        if "test/of_epoch" in entry:
            values = {k: v for k, v in entry.items() if k.startswith("test/") and not is_timing(k)}
            assert entry["test/of_epoch"] not in found
            found[entry["test/of_epoch"]] = (values, [])
    for episode in read_jsonl(run.episodes):
        if episode["kind"] == "test":
            found[episode["of_epoch"]][1].append({k: v for k, v in episode.items() if k != "epoch"})
    return found


def of_training(folder: Path) -> tuple:
    """Everything else that must not depend on when tests are played."""
    metrics, episodes, *rest = outcome(folder)
    trained = [{k: v for k, v in entry.items() if not k.startswith("test/")} for entry in metrics]
    return trained, [e for e in episodes if e["kind"] != "test"], *rest


def logged_with(folder: Path) -> dict[int, int]:
    """Epoch that was tested to epoch of the entry."""
    entries = read_jsonl(RunFolder(folder).metrics)
    return {e["test/of_epoch"]: e["epoch"] for e in entries if "test/of_epoch" in e}


# --- the same results


def test_overlapped_tests_find_the_same_to_the_bit_and_training_is_none_the_wiser(
    overlapped: Path, in_turn: Path
) -> None:
    assert (logged_with(in_turn), logged_with(overlapped)) == ({2: 2, 4: 4}, {2: 4, 4: 5})
    assert len(of_tests(in_turn)[2][1]) == OFF.evaluation.num_episodes
    assert_same(of_tests(overlapped), of_tests(in_turn))
    assert_same(of_training(overlapped), of_training(in_turn))
    own_time = [e["test/background_wall_s"] for e in read_jsonl(RunFolder(overlapped).metrics) if e["epoch"] in (4, 5)]
    assert min(own_time) > 0
    assert [p.name for p in checkpoint.generations(RunFolder(overlapped))] == ["epoch_000005", "epoch_000004"]


def test_two_tests_of_the_last_epoch_have_an_entry_each(tmp_path: Path, uninterrupted: tuple) -> None:
    folder = train(tmp_path, tiny("runtime.overlap_tests=on")).folder.path
    tested = [(e["epoch"], e.get("test/of_epoch")) for e in read_jsonl(RunFolder(folder).metrics)]
    assert tested == [(1, None), (2, None), (3, None), (4, 2), (4, 4)]
    found, expected = of_tests(folder), [e for e in uninterrupted[0] if "test/of_epoch" in e]
    for entry in expected:
        values = {k: v for k, v in entry.items() if k.startswith("test/")}
        assert_same(found[entry["test/of_epoch"]][0], values)


# --- interrupted


def test_a_test_that_was_under_way_is_played_again(interrupted: Path, overlapped: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(interrupted, tmp_path / "run")
    train(folder, ON)
    assert_same(outcome(folder), outcome(overlapped))


def test_going_back_by_an_epoch_takes_the_test_that_was_logged_with_it_back_too(
    overlapped: Path, tmp_path: Path
) -> None:
    folder = cut(tmp_path, IN_EPOCH_5, ["epoch_000004", "epoch_000003", "epoch_000002"])
    (folder / "checkpoints" / "epoch_000004" / "agent.pt").unlink()
    train(folder, ON)
    assert_same(outcome(folder), outcome(overlapped))


def test_a_run_goes_on_without_overlapping(interrupted: Path, in_turn: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(interrupted, tmp_path / "run")
    train(folder, OFF)
    assert_same(of_tests(folder), of_tests(in_turn))
    metrics, *rest = of_training(folder)
    assert_same(([e for e in metrics if e.keys() != {"epoch"}], *rest), of_training(in_turn))


@pytest.mark.parametrize("overlap", ["on", "off"])
def test_a_longer_run_plays_the_test_that_was_under_way(
    overlap: str, interrupted: Path, overlapped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, run = RunFolder(shutil.copytree(interrupted, tmp_path / "short")), RunFolder(tmp_path / "long")
    source.config.write_text(to_yaml(ON))
    write_json(source.provenance, [])
    config = longer(source, ["training.num_epochs=6", f"runtime.overlap_tests={overlap}"])
    save, epochs = checkpoint.save, []

    def killed(*args: Any, **more: Any) -> None:
        epochs.append(args[1])
        if len(epochs) == 2:
            raise KeyboardInterrupt
        save(*args, **more)

    monkeypatch.setattr(checkpoint, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        adopt(source, RunFolder(tmp_path / "killed"), config)
    monkeypatch.setattr(checkpoint, "save", save)
    assert epochs == [2, 3]
    adopt(source, run, config)
    assert [p.name for p in checkpoint.generations(run)] == ["epoch_000003", "epoch_000002"]
    for folder in (run.path, tmp_path / "killed"):
        train(folder, config)
        found = of_tests(folder)
        assert found.keys() == {2, 4, 6}
        assert_same({epoch: found[epoch] for epoch in (2, 4)}, of_tests(overlapped))


def test_a_test_whose_checkpoint_is_gone_stays_missing_and_that_is_said(interrupted: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(interrupted, tmp_path / "run")
    shutil.rmtree(folder / "checkpoints" / "epoch_000002")
    reporter, said = InterruptingReporter(), list[str]()
    reporter.log = said.append  # type: ignore[method-assign]
    trainer = Trainer(OFF, RunFolder(folder), CPU, reporter, MetricsLog(RunFolder(folder)))
    trainer.resume()
    assert [line for line in said if line.startswith("the test of epoch 2 stays missing: ")]
    trainer.run()
    assert list(of_tests(folder)) == [4]


# --- processes


def state_of(pid: int) -> str:
    """A letter of proc(5), `Z` also for a process that is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def start(folder: Path) -> tuple[subprocess.Popen, list[int]]:
    """A run by the command itself, with a test of some ten seconds under way; and the processes that it has started."""
    long = ("evaluation.num_episodes=2000", "evaluation.num_envs=1", "evaluation.every_epochs=1")
    process = subprocess.Popen(
        command(folder, "runtime.overlap_tests=on", *long),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=end_with_parent,
    )
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    wait_for(lambda: any(is_testing(int(pid)) for pid in children.read_text().split()), process)
    return process, [int(pid) for pid in children.read_text().split()]


def is_testing(pid: int) -> bool:
    """Whether it has begun to serve: it ignores signals that no other process of a run ignores."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:  # of another kind, and gone
        return False
    ignored = int(status.split("SigIgn:")[1].split()[0], 16)
    return bool(ignored >> (signal.SIGUSR2 - 1) & 1)


def are_gone(pids: list[int], timeout_s: float = 5) -> bool:
    deadline = time.monotonic() + timeout_s
    while any(state_of(pid) != "Z" for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@pytest.mark.timing
def test_kill_9_ends_the_background_too(tmp_path: Path) -> None:
    process, children = start(tmp_path)
    process.kill()
    process.wait()  # for it alone: the other one has the same standard error
    assert are_gone(children)
    process.communicate()


@pytest.mark.timing
def test_ctrl_c_to_both_processes_is_no_failure(tmp_path: Path) -> None:
    process, children = start(tmp_path)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGINT
    assert "Traceback" not in errors
    assert are_gone(children)


@pytest.fixture
def background(tmp_path: Path) -> Any:
    """Of a run that has no checkpoint, so that every test in it fails."""
    tests = BackgroundTests(ON, RunFolder(tmp_path), 3, CPU)
    tests.hand_in(2)
    yield tests
    tests.close()
    assert multiprocessing.active_children() == []


def look() -> None:
    """No signal has come."""


def test_a_failed_test_is_one_line_with_a_remedy_and_signals_are_the_trainers(background: BackgroundTests) -> None:
    for signum in LEFT_TO_THE_TRAINER:
        os.kill(background._process.pid, signum)
    said = (
        r"the test of epoch 2 failed in its process \(UserError: .* has no checkpoint of epoch 2: .*overlap_tests=off"
    )
    with pytest.raises(MachineError, match=said) as caught:
        background.collect(2, look)
    assert "\n" not in str(caught.value)


def test_a_process_that_was_killed_is_named_and_nothing_hangs(background: BackgroundTests) -> None:
    background._process.kill()
    with pytest.raises(MachineError, match="epoch 2 was ended by signal 9, probably for want of memory: .*=off"):
        background.collect(2, look)


def test_a_process_that_died_with_nothing_to_do_is_started_again(background: BackgroundTests) -> None:
    background._process.kill()
    background._process.join()
    background.hand_in(4)
    with pytest.raises(MachineError, match="the test of epoch 4 failed in its process"):
        background.collect(4, look)


def test_a_signal_to_both_processes_is_an_interruption(background: BackgroundTests) -> None:
    background._process.terminate()

    def check() -> None:
        if not background._process.is_alive():
            raise Interrupted(signal.SIGTERM)

    with pytest.raises(Interrupted):
        background.collect(2, check)


def test_starting_it_leaves_the_signals_of_this_process_alone(background: BackgroundTests) -> None:
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()) & set(LEFT_TO_THE_TRAINER)


# --- when


def test_auto_is_in_turn_on_a_cpu_and_overlapped_on_a_gpu() -> None:
    modes = {mode: tiny(f"runtime.overlap_tests={mode}") for mode in ("auto", "on", "off")}
    assert {mode: overlaps(config, CPU) for mode, config in modes.items()} == {"auto": False, "on": True, "off": False}
    gpu = {mode: overlaps(config, torch.device("cuda")) for mode, config in modes.items()}
    assert gpu == {"auto": True, "on": True, "off": False}


@pytest.mark.parametrize(
    ("epoch", "logged", "owed"),
    [
        (1, [], None),
        (2, [], 2),
        (3, [], 2),
        (3, [{"epoch": 2, "test/return_mean": 1.0}], None),  # in turn, and by versions that could not but
        (4, [{"epoch": 4, "test/return_mean": 1.0, "test/of_epoch": 2}], 4),
        (4, [{"epoch": 2, "test/return_mean": None, "test/of_epoch": 2}, {"epoch": 4, "test/return_mean": 1.0}], None),
        (5, [], None),  # no epoch is left to log it
    ],
)
def test_what_a_start_owes_follows_from_the_log(epoch: int, logged: list[dict[str, Any]], owed: int | None) -> None:
    assert untested(ON, epoch, [{"epoch": 1}, *logged]) == owed


class Recorder:
    """In the place of the other process: one test at a time."""

    def __init__(self, *arguments: object) -> None:
        self.in_flight: int | None = None

    def hand_in(self, epoch: int) -> None:
        assert self.in_flight is None
        self.in_flight = epoch

    def collect(self, epoch: int, check: Callable[[], None]) -> Findings:
        assert self.in_flight == epoch
        self.in_flight = None
        return Findings({"test/of_epoch": epoch}, [])


@pytest.mark.parametrize("mode", ["on", "off"])
@pytest.mark.parametrize("every", [1, 2, 3, 5])
@pytest.mark.parametrize("num_epochs", [1, 4, 6, 7])
def test_every_test_that_is_due_is_logged_once_and_the_last_epoch_leaves_none(
    mode: str, every: int, num_epochs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = (f"evaluation.every_epochs={every}", f"training.num_epochs={num_epochs}", f"runtime.overlap_tests={mode}")
    monkeypatch.setattr(overlap, "BackgroundTests", Recorder)
    monkeypatch.setattr(overlap, "run_test", lambda agent, loss, epoch, *a: Findings({"test/of_epoch": epoch}, []))
    config: Any = tiny(*sets)
    agent: Any = SimpleNamespace(config=config, device=CPU)
    tests = overlap.RunTests(agent, None, RunFolder(Path()), 3, InterruptingReporter())  # type: ignore[arg-type]
    logged: dict[int, int] = {}
    for epoch in range(1, num_epochs + 1):
        found = [int(t.metrics["test/of_epoch"]) for t in tests.tested(epoch)]
        assert tests.any_logged_with(epoch) == bool(found)
        assert len(found) < 2 or epoch == num_epochs
        logged |= dict.fromkeys(found, epoch)
        tests.committed(epoch)
    due = [epoch for epoch in range(1, num_epochs + 1) if is_due(config, epoch)]
    assert list(logged) == due
    late = {epoch: min(epoch + every, num_epochs) if mode == "on" else epoch for epoch in due}
    assert logged == late
    assert tests.needed == ()
