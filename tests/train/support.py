"""Whole runs in seconds, interrupted where a test wants it, and what must be the same of two of them."""

import signal
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch

from remctl.config import RunConfig, resolve
from remctl.errors import Interrupted
from remctl.progress import Reporter
from remctl.runner import prepare_torch
from remctl.runs.files import read_jsonl
from remctl.runs.layout import RunFolder
from remctl.runs.metrics import MetricsLog, comparable
from remctl.stopping import StopFlag
from remctl.train import checkpoint
from remctl.train.trainer import Trainer
from tests.tiny import TINY


def tiny(*sets: str, game: str = "Catch", seed: int = 0, variant: str = "rem") -> RunConfig:
    return resolve(game, "quick", variant, sets=(*TINY, *sets), seed=seed)


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
