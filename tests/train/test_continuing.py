"""A run trained for longer is the run that was as long from the start; a finished run is inspected from elsewhere."""

import json
import sys
from pathlib import Path

import pytest

from remctl import runner
from remctl.cli import run as cli
from remctl.config import RunConfig, from_yaml
from remctl.errors import MachineError, UserError
from remctl.runs.files import read_json, read_jsonl
from remctl.runs.layout import RunFolder
from remctl.train import checkpoint
from remctl.train.continuing import longer
from tests.runs.test_metrics import FakeWandb
from tests.train.support import assert_same, outcome, tiny

SHORT = ("training.num_epochs=2",)


def finished(out: Path, config: RunConfig, **more: object) -> RunFolder:
    given = {"out": out, "experiment": "e", "device": "cpu", "command": ["x"], "quiet": True} | more
    return runner.train(config, **given)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return finished(tmp_path_factory.mktemp("short"), tiny(*SHORT))


@pytest.mark.parametrize("sets", [(), ("collection.last_epoch=3",)])
def test_to_the_bit(sets: tuple[str, ...], short: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = finished(tmp_path / "whole", tiny(*sets))
    given = [part for text in ("training.num_epochs=4", *sets) for part in ("--set", text)]
    line = ["train", "--continue", str(short.path), *given, "--out", str(tmp_path), "--quiet"]
    before = {path: path.read_bytes() for path in short.path.rglob("*") if path.is_file()}
    save, calls = checkpoint.save, []

    def killed(*args: object, **more: object) -> None:
        calls.append(args)
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save", killed)  # when all is copied but what makes it count
    assert cli(line) == 130
    monkeypatch.setattr(checkpoint, "save", save)
    assert cli(line) == cli(line) == 0  # once more: it is finished, and says so
    made = RunFolder(tmp_path / "e_4_epochs" / "rem" / "Catch" / "seed_0")
    assert_same(outcome(made.path), outcome(whole.path))
    assert_same(
        {k: v for k, v in read_json(made.result).items() if k != "wall_s"},
        {k: v for k, v in read_json(whole.result).items() if k != "wall_s"},
    )
    assert from_yaml(made.config) == from_yaml(whole.config)
    assert len(read_json(made.provenance)) == 2
    assert {path: path.read_bytes() for path in short.path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((), "has 2 epochs: add --set training.num_epochs=... with more"),
        (("training.num_epochs=2",), "has 2 epochs: add"),
        (
            ("training.num_epochs=9", "world_model.dropout=0.3"),
            "with another world_model.dropout it would be another run",
        ),
    ],
)
def test_what_is_not_only_longer_is_refused(given: tuple[str, ...], message: str, short: RunFolder) -> None:
    with pytest.raises(UserError) as caught:
        longer(short, given)
    assert message in str(caught.value)


def test_other_refusals(short: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = ("--set", "training.num_epochs=4", "--quiet")
    line = ("train", "--continue", str(short.path), *more)
    assert cli([*line, "--game", "Pong"]) == 2
    assert "--continue gives the whole configuration" in capsys.readouterr().err
    assert cli([*line, "--set", "collection.last_epoch=1", "--out", str(tmp_path)]) == 2
    assert "collected until epoch 2, and with this collection.last_epoch would have until 1" in capsys.readouterr().err
    assert cli([*line, "--out", str(short.path.parents[3]), "--name", "e"]) == 2
    assert "belongs to another configuration" in capsys.readouterr().err
    (tmp_path / "config.yaml").write_bytes(short.config.read_bytes())
    assert cli(["train", "--continue", str(tmp_path), *more, "--out", str(tmp_path), "--name", "x"]) == 2
    assert "has no checkpoint" in capsys.readouterr().err


# --- what a run leaves besides


def test_entries_say_when_they_were_made(short: RunFolder) -> None:
    first, second = read_jsonl(short.metrics)
    assert 1.7e9 < first["time/unix_s"] < second["time/unix_s"]
    assert first["epoch/wall_s"] >= first["time/training_s"] > 0
    assert second["time/training_s"] > first["time/training_s"]


def test_wandb_is_told_what_the_run_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    run = finished(tmp_path, tiny("training.num_epochs=1", "runtime.trackers=[wandb]"))
    (init,) = fake.inits
    config = init["config"]
    assert (config["game"], config["world_model"]["num_layers"]) == ("Catch", 1)
    assert config["config_hash"] == read_json(run.result)["config_hash"]
    assert init["group"] == "e/rem/Catch"
    json.dumps(config)


# --- inspect


def test_inspect_leaves_a_run_alone_that_it_may_not_write_to(short: RunFolder, tmp_path: Path) -> None:
    there = {path: path.read_bytes() for path in short.path.rglob("*") if path.is_file()}
    result = runner.inspect(short.path, "cpu", tmp_path / "out", 7)
    assert result["diagnosis"]["horizon_steps"] == 7
    assert read_json(tmp_path / "out" / "diagnosis.json")["horizon_steps"] == 7
    assert {Path(figure).parent for figure in result["figures"]} == {tmp_path / "out"}
    assert {path: path.read_bytes() for path in short.path.rglob("*") if path.is_file()} == there


def test_inspect_says_before_it_plays_that_it_may_not_write(
    short: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(path: Path) -> None:
        raise MachineError(f"read-only file system while writing {path}: make it writable or choose another folder")

    monkeypatch.setattr(runner, "refuse_target", refused)
    monkeypatch.setattr(runner, "play", None)
    with pytest.raises(MachineError, match="read-only file system .*; --out DIR writes elsewhere"):
        runner.inspect(short.path, "cpu")
    with pytest.raises(MachineError, match="another folder$"):
        runner.inspect(short.path, "cpu", tmp_path)
