"""Runs whose folder was damaged, belongs to another configuration, or was written by another version."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from remctl import runner
from remctl.config import to_yaml
from remctl.config.stored import SCHEMA
from remctl.errors import Interrupted, MachineError, UserError
from remctl.runs.code import this_code
from remctl.runs.layout import RunFolder
from remctl.runs.metrics import MetricsLog
from remctl.train import checkpoint
from remctl.train.trainer import Trainer
from tests.train.support import InterruptingReporter, assert_same, outcome, tiny, train


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("interrupted")
    with pytest.raises(Interrupted):
        train(folder, tiny(), limit=150)
    return folder


@pytest.fixture
def cut(interrupted: Path, tmp_path: Path) -> RunFolder:
    """A run that was interrupted in its fourth epoch."""
    run = RunFolder(shutil.copytree(interrupted, tmp_path / "run"))
    assert [p.name for p in checkpoint.generations(run)] == ["epoch_000003", "epoch_000002"]
    return run


def resumed(run: RunFolder) -> list[str]:
    """Train on to the end; what was said."""
    reporter, said = InterruptingReporter(), []
    reporter.log = said.append  # type: ignore[method-assign]
    trainer = Trainer(tiny(), run, torch.device("cpu"), reporter, MetricsLog(run))
    trainer.resume()
    trainer.run()
    return said


def contents(run: RunFolder) -> dict[str, bytes]:
    return {str(p.relative_to(run.path)): p.read_bytes() for p in run.path.rglob("*") if p.is_file()}


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 4] ^= 1  # within the frames of a shard
    path.write_bytes(data)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-50])


DAMAGES = pytest.mark.parametrize("damage", [flip_a_bit, truncate, Path.unlink], ids=lambda damage: damage.__name__)
Damage = Callable[[Path], None]


@DAMAGES
@pytest.mark.parametrize("name", ["agent.pt", "trainer.pt", "manifest.json"])
def test_a_damaged_newest_checkpoint_costs_one_epoch_and_no_bit(
    name: str, damage: Damage, cut: RunFolder, uninterrupted: tuple
) -> None:
    damage(checkpoint.generations(cut)[0] / name)
    said = resumed(cut)
    assert [line for line in said if "damaged checkpoint epoch_000003" in line and "using epoch_000002" in line]
    assert "resuming after epoch 2 of 4" in said
    assert_same(outcome(cut.path), uninterrupted)


@DAMAGES
def test_a_damaged_newest_shard_costs_one_epoch_and_no_bit(
    damage: Damage, cut: RunFolder, uninterrupted: tuple
) -> None:
    damage(cut.replay / "epoch_000003.npz")
    said = resumed(cut)
    assert [line for line in said if "epoch_000003.npz is missing or damaged; using epoch_000002" in line]
    assert "resuming after epoch 2 of 4" in said
    assert_same(outcome(cut.path), uninterrupted)


def test_the_checkpoint_of_a_damaged_shard_does_not_come_back_with_the_shard(
    cut: RunFolder, uninterrupted: tuple
) -> None:
    """Its epoch is run again and interrupted when the new shard is there: another one than that checkpoint knows."""
    truncate(cut.replay / "epoch_000003.npz")
    with pytest.raises(Interrupted):
        train(cut.path, tiny(), limit=21)
    assert (cut.replay / "epoch_000003.npz").exists()
    assert [p.name for p in checkpoint.generations(cut)] == ["epoch_000002"]
    assert "resuming after epoch 2 of 4" in resumed(cut)
    assert_same(outcome(cut.path), uninterrupted)


@DAMAGES
def test_a_damaged_older_shard_is_an_error_and_nothing_is_dropped(damage: Damage, cut: RunFolder) -> None:
    damage(cut.replay / "epoch_000002.npz")
    before = contents(cut)
    with pytest.raises(
        MachineError, match=r"epoch_000002\.npz: the replay of epoch 2 is missing or damaged .*: restore"
    ):
        resumed(cut)
    assert contents(cut) == before
    truncate(cut.replay / "epoch_000003.npz")
    before = contents(cut)
    with pytest.raises(MachineError, match="the replay of epoch 2 is missing or damaged"):
        resumed(cut)
    assert contents(cut) == before


def test_a_damaged_shard_without_a_checkpoint_before_it_is_an_error(cut: RunFolder) -> None:
    shutil.rmtree(cut.checkpoints / "epoch_000002")
    truncate(cut.replay / "epoch_000003.npz")
    with pytest.raises(MachineError, match="the replay of epoch 3 is missing or damaged .*: restore"):
        resumed(cut)


def test_a_run_whose_checkpoints_were_lost_is_not_started_again(cut: RunFolder) -> None:
    shutil.rmtree(cut.checkpoints)
    before = contents(cut)
    with pytest.raises(MachineError, match="3 epochs .* no checkpoint .*: restore"):
        resumed(cut)
    assert contents(cut) == before


def test_lost_metrics_are_said_and_training_goes_on(cut: RunFolder) -> None:
    cut.metrics.unlink()
    assert any("metrics.jsonl lacks epochs 1-3" in line for line in resumed(cut))


# --- another configuration, another version


def test_another_configuration_never_resumes_a_checkpoint_even_without_a_config_file(cut: RunFolder) -> None:
    before = contents(cut)
    with pytest.raises(UserError, match="belongs to configuration .*: restore its config.yaml"):
        train(cut.path, tiny("controller.discount=0.5"))
    assert contents(cut) == before


def of_another_configuration(run: RunFolder) -> None:
    """Checkpoints that say so."""
    for generation in checkpoint.generations(run):
        manifest = json.loads((generation / "manifest.json").read_text())
        (generation / "manifest.json").write_text(json.dumps(manifest | {"config_hash": "0123456789ab"}))


def test_a_run_of_a_newer_version_is_refused_with_the_remedy(cut: RunFolder) -> None:
    cut.config.write_text(to_yaml(tiny()).replace(f"schema: {SCHEMA}", f"schema: {SCHEMA + 1}"))
    before = contents(cut)
    with pytest.raises(UserError, match=rf"written by a newer remctl \(schema {SCHEMA + 1}.*\): update remctl"):
        runner.refuse_other_configuration(cut, tiny())
    assert contents(cut) == before


def test_a_refused_start_leaves_no_trace_in_the_provenance(tmp_path: Path) -> None:
    arguments = {"out": tmp_path, "experiment": "x", "device": "cpu", "command": [], "quiet": True}
    config = tiny("training.num_epochs=1")
    run = runner.train(config, **arguments)
    run.result.unlink()
    of_another_configuration(run)
    before = run.provenance.read_text()
    with pytest.raises(UserError, match="checkpoint belongs to configuration 0123456789ab"):
        runner.train(config, **arguments)
    assert run.provenance.read_text() == before


# --- the end of a run


def test_a_finish_that_was_killed_before_its_result_leaves_no_second_final_episodes(tmp_path: Path) -> None:
    arguments = {"out": tmp_path, "experiment": "x", "device": "cpu", "command": [], "quiet": True}
    run = runner.train(tiny("training.num_epochs=1"), **arguments)
    result, episodes = json.loads(run.result.read_text()), run.episodes.read_text()
    assert len(result["returns"]) == 5, "final_episodes, where a test has 3"
    run.result.unlink()
    runner.train(tiny("training.num_epochs=1"), **arguments)
    assert run.episodes.read_text() == episodes
    assert json.loads(run.result.read_text())["returns"] == result["returns"]


def test_a_resume_by_other_code_is_said_and_recorded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = {"out": tmp_path, "experiment": "x", "device": "cpu", "command": []}
    config = tiny("training.num_epochs=1", "evaluation.final_episodes=1")
    run = runner.train(config, **arguments)
    (start,) = json.loads(run.provenance.read_text())
    assert (start["remctl"], start["sources"]) == this_code()
    assert "other code" not in run.log.read_text()
    run.provenance.write_text(json.dumps([start | {"remctl": "0.1.0", "sources": "another"}]))
    run.result.unlink()
    capsys.readouterr()
    runner.train(config, **arguments)
    assert f"begun by other code (remctl 0.1.0), resumed by {this_code().version}" in capsys.readouterr().out
    assert [entry["remctl"] for entry in json.loads(run.provenance.read_text())] == ["0.1.0", this_code().version]

    result = json.loads(run.result.read_text())
    assert (result["remctl_version"], result["sources"]) == this_code()
    runner.train(config, **arguments)
    assert "finished already, score" in capsys.readouterr().out
    run.result.write_text(json.dumps(result | {"remctl_version": "0.1.0", "sources": "another"}))
    runner.train(config, **arguments)
    assert "finished already by other code (remctl 0.1.0), score" in capsys.readouterr().out
