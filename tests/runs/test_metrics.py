"""The naming law, rewinding, and trackers that may not be installed."""

from __future__ import annotations

import importlib
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from remctl.errors import UserError
from remctl.runs.layout import RunFolder
from remctl.runs.metrics import MetricsLog, comparable, epoch_of, is_timing, open_trackers
from remctl.runs.trackers import TensorBoard


@pytest.mark.parametrize("name", ["collection_s", "env_steps_per_s", "peak_memory_mb", "world_model/epoch_s"])
def test_times_rates_and_memory_are_known_by_name(name: str) -> None:
    assert is_timing(name)


@pytest.mark.parametrize("name", ["world_model/loss", "num_steps", "steps", "entropy", "s", "mb", "return_mean"])
def test_all_else_is_comparable(name: str) -> None:
    assert not is_timing(name)


def test_comparable_drops_timing_also_inside() -> None:
    entry = {"epoch": 1, "loss": 0.5, "total_s": 2.0, "phases": {"tokenizer_s": 1.0, "loss": 2}, "memory_mb": 3}
    assert comparable(entry) == {"epoch": 1, "loss": 0.5, "phases": {"loss": 2}}


def test_entries_are_written_and_read(tmp_path: Path) -> None:
    log = MetricsLog(RunFolder(tmp_path))
    log.append(1, {"loss": float("inf"), "name": "x"})
    log.append(2, {"loss": 0.1})
    assert log.entries() == [{"epoch": 1, "loss": None, "name": "x"}, {"epoch": 2, "loss": 0.1}]


def test_the_epoch_is_not_among_the_values(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="epoch"):
        MetricsLog(RunFolder(tmp_path)).append(1, {"epoch": 7})
    assert list(tmp_path.iterdir()) == []


def test_rewind_drops_the_future_of_both_files(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    log = MetricsLog(run)
    assert log.rewind(0) == 0
    for epoch in (1, 2, 3):
        log.append(epoch, {"loss": epoch})
        log.append_episodes(epoch, [{"return": 1.0}, {"return": 2.0}])
    run.episodes.write_bytes(run.episodes.read_bytes() + b'{"epoch": 3, "ret')
    assert log.rewind(2) == 1 + 2
    assert [entry["epoch"] for entry in log.entries()] == [1, 2]
    assert run.episodes.read_text().count("\n") == 4
    assert log.rewind(2) == 0
    assert log.rewind(0) == 2 + 4
    assert log.entries() == []


def test_no_episodes_no_file(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    MetricsLog(run).append_episodes(1, [])
    assert not run.episodes.exists()


class Recorder:
    def __init__(self) -> None:
        self.calls: list[Any] = []

    def log(self, epoch: int, values: Any) -> None:
        self.calls.append((epoch, dict(values)))

    def close(self) -> None:
        self.calls.append("close")


def test_trackers_see_what_is_written(tmp_path: Path) -> None:
    tracker = Recorder()
    log = MetricsLog(RunFolder(tmp_path), [tracker])
    log.append(4, {"loss": 1.0})
    log.close()
    assert tracker.calls == [(4, {"loss": 1.0}), "close"]


def test_trackers_see_a_test_at_the_epoch_that_was_tested(tmp_path: Path) -> None:
    tracker = Recorder()
    of_test = {"test/of_epoch": 2, "test/return_mean": 7.0}
    MetricsLog(RunFolder(tmp_path), [tracker]).append(4, {"loss": 1.0, "test/wall_s": 0.5, **of_test})
    assert tracker.calls == [(4, {"loss": 1.0, "test/wall_s": 0.5}), (2, of_test)]


@pytest.mark.parametrize(
    ("name", "epoch"),
    [("test/return_mean", 2), ("test/of_epoch", 2), ("test/wall_s", 4), ("loss", 4), ("final_test/x", 4)],
)
def test_what_a_test_found_is_of_the_epoch_that_was_tested(name: str, epoch: int) -> None:
    assert epoch_of({"epoch": 4, "test/of_epoch": 2}, name) == epoch
    assert epoch_of({"epoch": 4}, name) == 4  # by versions that tested in the same epoch only


# --- trackers ---


@pytest.mark.parametrize(("name", "extra"), [("tensorboard", "tb"), ("wandb", "wandb")])
def test_a_missing_extra_is_named_with_its_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, f"{name}.summary.writer.event_file_writer", None)
    with pytest.raises(UserError, match=rf"pip install 'remctl\[{extra}\]'"):
        open_trackers(RunFolder(tmp_path), [name])
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_tracker_is_named_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown tracker 'tensorbord': did you mean 'tensorboard'"):
        open_trackers(RunFolder(tmp_path), ["tensorbord"])


def test_no_trackers(tmp_path: Path) -> None:
    assert open_trackers(RunFolder(tmp_path), []) == []


class FakeWandb(types.ModuleType):
    """Records what would go to W&B."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.axes: dict[str, str | None] = {}
        self.inits: list[dict[str, Any]] = []
        self.logged: list[Any] = []

    def Settings(self, **settings: Any) -> dict[str, Any]:  # noqa: N802 - its name there
        return settings

    def init(self, **arguments: Any) -> FakeWandb:
        self.inits.append(arguments)
        return self

    def define_metric(self, name: str, step_metric: str | None = None) -> None:
        self.axes[name] = step_metric

    def log(self, values: dict[str, float], step: int) -> None:
        self.logged.append((step, values))

    def finish(self) -> None:
        self.logged.append("finish")


def test_wandb_is_offline_and_one_run_per_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    for epoch in (1, 2):
        (tracker,) = open_trackers(RunFolder(tmp_path), ["wandb"])
        tracker.log(epoch, {"loss": 0.5, "nan": float("nan"), "name": "x"})
        tracker.close()
    first, second = fake.inits
    assert first["mode"] == "offline"
    assert first["id"] == second["id"]
    assert first["dir"] == str(tmp_path)
    assert fake.logged == [(1, {"loss": 0.5}), "finish", (2, {"loss": 0.5}), "finish"]


def test_wandb_knows_the_configuration_and_whose_seeds_belong_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    folders = [tmp_path / "size" / "rem" / "Pong" / f"seed_{seed}" for seed in (0, 1)]
    for seed, folder in enumerate(folders):
        folder.mkdir(parents=True)
        open_trackers(RunFolder(folder), ["wandb"], {"seed": seed, "world_model": {"num_layers": 3}})
    assert [init["group"] for init in fake.inits] == ["size/rem/Pong", "size/rem/Pong"]
    assert [init["name"] for init in fake.inits] == ["size/rem/Pong/seed_0", "size/rem/Pong/seed_1"]
    assert fake.inits[1]["config"] == {"seed": 1, "world_model": {"num_layers": 3}}


def test_wandb_shows_a_late_test_against_its_epoch_and_never_steps_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    log = MetricsLog(RunFolder(tmp_path), open_trackers(RunFolder(tmp_path), ["wandb"]))
    log.append(4, {"loss": 1.0, "test/of_epoch": 2})
    assert fake.axes == {"test/wall_s": None, "test/background_wall_s": None, "test/*": "test/of_epoch"}
    assert fake.logged == [(4, {"loss": 1.0}), (4, {"test/of_epoch": 2})]


def test_wandb_mode_of_the_environment_is_respected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.setenv("WANDB_MODE", "online")
    open_trackers(RunFolder(tmp_path), ["wandb"])
    assert (fake.inits[0]["mode"], fake.inits[0]["resume"]) == ("online", "allow")


def test_tensorboard_reads_what_was_logged_and_hides_the_lost_future(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    accumulator = importlib.import_module("tensorboard.backend.event_processing.event_accumulator")
    for epochs in ((1, 2, 3), (3, 4)):
        tracker = TensorBoard(RunFolder(tmp_path), {})
        for epoch in epochs:
            tracker.log(epoch, {"loss": epoch + len(epochs), "done": True, "name": "x"})
        tracker.close()
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert events.Tags()["scalars"] == ["loss", "done"]
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 4), (2, 5), (3, 5), (4, 6)]
