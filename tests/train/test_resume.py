"""Resume: whatever interrupts a run, the finished one is the same to the bit."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
import torch

from remctl.config import RunConfig, resolve
from remctl.errors import Interrupted, MachineError, UserError
from remctl.progress import Reporter, StopFlag
from remctl.runner import prepare_torch
from remctl.runs.files import read_jsonl
from remctl.runs.layout import RunFolder
from remctl.runs.metrics import MetricsLog, comparable
from remctl.train import checkpoint
from remctl.train.acting import Policy
from remctl.train.collector import Collector
from remctl.train.trainer import Trainer
from tests.tiny import TINY


def tiny(*sets: str, game: str = "Catch", seed: int = 0) -> RunConfig:
    return resolve(game, "quick", sets=(*TINY, *sets), seed=seed)


class InterruptingReporter(Reporter):
    """Raises after `limit` steps of any loop, as a signal would."""

    def __init__(self, limit: int | None = None) -> None:
        super().__init__(StopFlag(), quiet=True)
        self.left = limit

    def track(self, steps: Iterable[int], name: str, total: int) -> Iterator[int]:
        for step in steps:
            if self.left is not None:
                self.left -= 1
                if self.left < 0:
                    raise Interrupted(signal.SIGTERM)
            yield step


def train(folder: Path, config: RunConfig, limit: int | None = None) -> Trainer:
    folder.mkdir(exist_ok=True, parents=True)
    run = RunFolder(folder)
    prepare_torch(config)
    trainer = Trainer(config, run, torch.device("cpu"), InterruptingReporter(limit), MetricsLog(run))
    trainer.resume()
    trainer.run()
    return trainer


def outcome(folder: Path) -> tuple:
    """Everything that must not depend on interruptions."""
    run = RunFolder(folder)
    loaded = checkpoint.load_latest(run)
    assert loaded is not None
    return (
        [comparable(e) for e in read_jsonl(run.metrics)],
        read_jsonl(run.episodes),
        loaded.epoch,
        loaded.agent,
        {k: v for k, v in loaded.trainer.items() if k != "wall_s"},
    )


def outcome_of(trainer: Trainer) -> tuple:
    return outcome(trainer.folder.path)


def assert_same(a: object, b: object, path: str = "") -> None:
    """Equal to the bit, with the place named where not."""
    assert type(a) is type(b), path
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), path
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), path
        for key in a:
            assert_same(a[key], b[key], f"{path}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), path
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{path}[{i}]")
    else:
        assert a == b, path


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple:
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(folder, tiny())
    return outcome(folder)


def test_a_run_is_a_function_of_configuration_and_seed(uninterrupted: tuple, tmp_path: Path) -> None:
    train(tmp_path / "again", tiny())
    assert_same(outcome(tmp_path / "again"), uninterrupted)
    train(tmp_path / "other", tiny(seed=1))
    assert outcome(tmp_path / "other")[0] != uninterrupted[0]


@pytest.mark.parametrize("limit", [10, 81, 83, 85, 87, 110, 115, 137, 160])
def test_interrupted_anywhere_the_run_ends_the_same(limit: int, uninterrupted: tuple, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        train(tmp_path, tiny(), limit)
    train(tmp_path, tiny())
    assert_same(outcome(tmp_path), uninterrupted)


def test_a_chain_of_interruptions_ends_the_same(uninterrupted: tuple, tmp_path: Path) -> None:
    attempts = 0
    while True:
        attempts += 1
        try:
            train(tmp_path, tiny(), limit=95)
            break
        except Interrupted:
            continue
    assert attempts >= 2
    assert_same(outcome(tmp_path), uninterrupted)


def test_a_damaged_newest_checkpoint_costs_one_epoch_and_no_bit(uninterrupted: tuple, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        train(tmp_path, tiny(), limit=150)
    newest = checkpoint.generations(RunFolder(tmp_path))[0] / "agent.pt"
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes(data)
    train(tmp_path, tiny())
    assert_same(outcome(tmp_path), uninterrupted)


def test_a_clock_that_goes_backwards_changes_nothing(
    uninterrupted: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wall time runs backwards by an hour at every look, and file times say that the oldest checkpoint is the newest."""
    backwards = iter(range(2_000_000_000, 0, -3600))
    monkeypatch.setattr(time, "time", lambda: float(next(backwards)))
    monkeypatch.setattr(time, "time_ns", lambda: next(backwards) * 10**9)
    with pytest.raises(Interrupted):
        train(tmp_path, tiny(), limit=150)
    generations = checkpoint.generations(RunFolder(tmp_path))
    for age, generation in enumerate(generations):
        for path in (generation, *generation.iterdir()):
            os.utime(path, (10**9 + age, 10**9 + age))
    newest = checkpoint.load_latest(RunFolder(tmp_path))
    assert newest is not None
    assert generations[0].name == f"epoch_{newest.epoch:06d}"
    train(tmp_path, tiny())
    assert_same(outcome(tmp_path), uninterrupted)


def test_a_run_whose_checkpoints_were_lost_is_not_started_again(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        train(tmp_path, tiny(), limit=150)
    shutil.rmtree(tmp_path / "checkpoints")
    before = (tmp_path / "metrics.jsonl").read_bytes()
    with pytest.raises(MachineError, match="3 epochs .* no checkpoint .*: restore"):
        train(tmp_path, tiny())
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


def test_lost_metrics_are_said_and_training_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Interrupted):
        train(tmp_path, tiny(), limit=150)
    (tmp_path / "metrics.jsonl").unlink()
    run = RunFolder(tmp_path)
    reporter = InterruptingReporter()
    said: list[str] = []
    reporter.log = said.append  # type: ignore[method-assign]
    trainer = Trainer(tiny(), run, torch.device("cpu"), reporter, MetricsLog(run))
    trainer.resume()
    assert any("metrics.jsonl lacks epochs 1-3" in line for line in said)


def test_c_still_trains_on_fresh_tokens_once_m_is_frozen(tmp_path: Path) -> None:
    frozen = ("world_model.training.stop_after_epoch=1", "tokenizer.training.stop_after_epoch=1")
    train(tmp_path / "whole", tiny(*frozen))
    with pytest.raises(Interrupted):
        train(tmp_path / "cut", tiny(*frozen), limit=115)
    assert_same(outcome_of(train(tmp_path / "cut", tiny(*frozen))), outcome(tmp_path / "whole"))


@pytest.mark.parametrize("sets", [("training.precision=bf16",), ("collection.epsilon=0.5", "world_model.dropout=0.5")])
def test_other_precision_and_more_chance_resume_to_the_bit_too(sets: tuple[str, ...], tmp_path: Path) -> None:
    train(tmp_path / "whole", tiny(*sets))
    with pytest.raises(Interrupted):
        train(tmp_path / "cut", tiny(*sets), limit=115)
    assert_same(outcome_of(train(tmp_path / "cut", tiny(*sets))), outcome(tmp_path / "whole"))


def test_atari_resumes_in_the_middle_of_a_game_to_the_bit(tmp_path: Path) -> None:
    few = ("evaluation.every_epochs=9", "tokenizer.warmup=fixed", "tokenizer.grid_size=8", "training.num_epochs=3")
    train(tmp_path / "whole", tiny(*few, game="Breakout"))
    with pytest.raises(Interrupted):
        train(tmp_path / "cut", tiny(*few, game="Breakout"), limit=115)
    assert_same(outcome_of(train(tmp_path / "cut", tiny(*few, game="Breakout"))), outcome(tmp_path / "whole"))


def test_collection_acts_as_configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """C acts from the epoch after its first training on, with the collection's temperature and epsilon."""
    policies: list[Policy] = []
    collect = Collector.collect
    monkeypatch.setattr(
        Collector, "collect", lambda self, n, policy, *a: policies.append(policy) or collect(self, n, policy, *a)
    )
    sets = ("controller.training.start_after_epoch=1", "collection.temperature=0.3", "collection.epsilon=0.2")
    train(tmp_path, tiny(*sets, "evaluation.every_epochs=9"))
    assert [p.trained for p in policies] == [False, False, True, True]
    assert {(p.temperature, p.epsilon, p.executed_action_to_controller) for p in policies} == {(0.3, 0.2, True)}


def test_tests_begin_when_c_has_been_trained(tmp_path: Path) -> None:
    train(tmp_path, tiny("controller.training.start_after_epoch=2", "evaluation.every_epochs=1"))
    tested = [e["epoch"] for e in read_jsonl(RunFolder(tmp_path).metrics) if "test/return_mean" in e]
    assert tested == [3, 4]


def test_another_configuration_never_resumes_a_checkpoint_even_without_a_config_file(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        train(tmp_path, tiny(), limit=115)
    before = sorted((p.name, p.stat().st_mtime_ns) for p in tmp_path.rglob("*") if p.is_file())
    with pytest.raises(UserError, match="belongs to configuration"):
        train(tmp_path, tiny("controller.discount=0.5"))
    assert sorted((p.name, p.stat().st_mtime_ns) for p in tmp_path.rglob("*") if p.is_file()) == before


@pytest.mark.parametrize("component", ["world_model", "controller"])
def test_a_diverged_run_ends_with_the_component_named(component: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"diverged in epoch \\d: {component}/"):
        train(tmp_path, tiny(f"{component}.training.learning_rate=1e30"))


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGUSR2, signal.SIGINT])
def test_a_signal_sets_a_flag_and_the_loop_leaves(signum: int) -> None:
    with StopFlag().listening() as stop:
        os.kill(os.getpid(), signum)
        with pytest.raises(Interrupted) as caught:
            for _ in Reporter(stop, quiet=True).track(range(3), "x", 3):
                pass
    assert caught.value.signum == signum


def command(folder: Path, *sets: str) -> list[str]:
    settings = [part for s in (*TINY, *sets) for part in ("--set", s)]
    return [
        sys.executable,
        "-m",
        "remctl",
        "train",
        "--game",
        "Catch",
        "--preset",
        "quick",
        "--out",
        str(folder),
        *settings,
    ]


def wait_for(condition, process: subprocess.Popen, timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_kill_9_in_the_middle_of_an_epoch_by_the_command_itself(uninterrupted: tuple, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "quick" / "rem" / "Catch" / "seed_0")
    process = subprocess.Popen(command(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for(lambda: (run.checkpoints / "epoch_000001").exists(), process)
    time.sleep(0.05)
    process.kill()
    process.communicate()
    assert not run.is_done
    done = subprocess.run(command(tmp_path), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "resuming after epoch" in done.stdout
    metrics, episodes, *rest = outcome(run.path)
    assert_same((metrics, [e for e in episodes if e["kind"] != "final"], *rest), uninterrupted)
    again = subprocess.run(command(tmp_path), capture_output=True, text=True, timeout=120, check=False)
    assert again.returncode == 0
    assert "finished already" in again.stdout


def test_sigterm_leaves_within_seconds_and_two_on_one_folder_are_refused(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "quick" / "rem" / "Catch" / "seed_0")
    long = "training.num_epochs=10000"
    process = subprocess.Popen(command(tmp_path, long), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: (run.checkpoints / "epoch_000001").exists(), process)
    second = subprocess.run(command(tmp_path, long), capture_output=True, text=True, timeout=60, check=False)
    assert second.returncode == 1
    assert str(process.pid) in second.stderr
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=10)
    assert process.returncode == 128 + signal.SIGTERM
    assert "Traceback" not in errors
    other = subprocess.run(
        command(tmp_path, "controller.discount=0.9", long), capture_output=True, text=True, check=False
    )
    assert other.returncode == 2
    assert "controller.discount is 0.995 there, 0.9 here" in other.stderr
