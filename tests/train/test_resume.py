"""Resume: whatever interrupts a run, the finished one is the same to the bit."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from remctl.errors import Interrupted
from remctl.progress import Reporter
from remctl.runs.layout import RunFolder
from remctl.stopping import StopFlag
from remctl.sweep.job import end_with_parent
from remctl.train import checkpoint
from tests.tiny import TINY, TINY_IRIS
from tests.train.support import assert_same, outcome, outcome_of, tiny, train


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


@pytest.mark.usefixtures("threads_as_before")
def test_with_several_threads_the_run_ends_the_same(tmp_path: Path) -> None:
    """Layers wide enough to be shared out."""
    wide = ("world_model.embed_dim=128", "tokenizer.embed_dim=128", "tokenizer.channels=[32]", "training.num_epochs=2")
    config = tiny(*wide, "runtime.threads=2")
    train(tmp_path / "whole", config)
    with pytest.raises(Interrupted):
        train(tmp_path / "cut", config, limit=95)
    resumed = train(tmp_path / "cut", config)
    assert torch.get_num_threads() == 2
    assert_same(outcome_of(resumed), outcome(tmp_path / "whole"))


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


def test_c_still_trains_on_fresh_tokens_once_m_is_frozen(tmp_path: Path) -> None:
    frozen = ("world_model.training.stop_after_epoch=1", "tokenizer.training.stop_after_epoch=1")
    train(tmp_path / "whole", tiny(*frozen))
    with pytest.raises(Interrupted):
        train(tmp_path / "cut", tiny(*frozen), limit=115)
    assert_same(outcome_of(train(tmp_path / "cut", tiny(*frozen))), outcome(tmp_path / "whole"))


@pytest.mark.parametrize(
    ("variant", "sets"),
    [
        ("rem", ("runtime.precision=bf16",)),
        ("rem", ("collection.epsilon=0.5", "world_model.dropout=0.5")),
        ("iris", TINY_IRIS),
    ],
    ids=["bf16", "chance", "iris"],
)
def test_other_precision_more_chance_and_iris_resume_to_the_bit_too(
    variant: str, sets: tuple[str, ...], tmp_path: Path
) -> None:
    config = tiny(*sets, variant=variant)
    train(tmp_path / "whole", config)
    with pytest.raises(Interrupted):
        train(tmp_path / "cut", config, limit=115)
    assert_same(outcome_of(train(tmp_path / "cut", config)), outcome(tmp_path / "whole"))


def test_atari_resumes_in_the_middle_of_a_game_to_the_bit(tmp_path: Path) -> None:
    few = ("evaluation.every_epochs=9", "tokenizer.warmup=fixed", "tokenizer.grid_size=8", "training.num_epochs=3")
    train(tmp_path / "whole", tiny(*few, game="Breakout"))
    with pytest.raises(Interrupted):
        train(tmp_path / "cut", tiny(*few, game="Breakout"), limit=115)
    assert_same(outcome_of(train(tmp_path / "cut", tiny(*few, game="Breakout"))), outcome(tmp_path / "whole"))


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGUSR2, signal.SIGINT])
def test_a_signal_sets_a_flag_and_the_loop_leaves(signum: int) -> None:
    with StopFlag().listening() as stop:
        os.kill(os.getpid(), signum)
        with pytest.raises(Interrupted) as caught:
            for _ in Reporter(stop, quiet=True).track(range(3), "x", 3):
                pass
    assert caught.value.signum == signum


PIPES: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "preexec_fn": end_with_parent}


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
    process = subprocess.Popen(command(tmp_path), **PIPES)
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


@pytest.mark.timing
def test_sigterm_leaves_within_seconds_and_two_on_one_folder_are_refused(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "quick" / "rem" / "Catch" / "seed_0")
    long = "training.num_epochs=10000"
    process = subprocess.Popen(command(tmp_path, long), text=True, **PIPES)
    wait_for(lambda: (run.checkpoints / "epoch_000001").exists(), process)
    second = subprocess.run(command(tmp_path, long), capture_output=True, text=True, timeout=60, check=False)
    assert second.returncode == 75  # try again later
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
