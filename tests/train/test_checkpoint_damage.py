"""Checkpoints that were damaged, come from another version, or from a stranger."""

from __future__ import annotations

import hashlib
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from remctl.errors import MachineError, UserError
from remctl.runs.layout import RunFolder
from remctl.train import checkpoint
from remctl.train.checkpoint import AGENT, MANIFEST, TRAINER
from tests.runs.test_files import names_in
from tests.train.test_checkpoint import flip_a_bit, folder_of, forbid, is_generation, save


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run with the generations of epochs 2 and 3."""
    run = RunFolder(tmp_path)
    for epoch in (2, 3):
        save(run, epoch)
    return run


# --- damage ---


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def make_special(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def make_zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


DAMAGES: list[Callable[[Path], None]] = [truncate, flip_a_bit, Path.unlink, make_special, make_folder, make_zeros]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("name", [AGENT, TRAINER])
def test_a_damaged_newest_is_reported_and_the_one_before_it_used(
    run: RunFolder, name: str, damage: Callable[[Path], None]
) -> None:
    damage(folder_of(run, 3) / name)
    lines: list[str] = []
    assert is_generation(checkpoint.load_latest(run, lines.append), 2)
    (line,) = lines
    for part in ("epoch_000003", name, "using epoch_000002"):
        assert part in line


def edited(**changes: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda manifest: {**manifest, **changes}


def without(name: str) -> Callable[[dict[str, Any]], Any]:
    return lambda manifest: {key: value for key, value in manifest.items() if key != name}


@pytest.mark.parametrize(
    "edit",
    [
        edited(epoch=7),
        edited(epoch="3"),
        edited(config_hash=None),
        edited(files={}),
        edited(files={AGENT: {}, TRAINER: {}}),
        edited(files={AGENT: {"bytes": 10**30, "sha256": ""}, TRAINER: {"bytes": -1, "sha256": ""}}),
        edited(format="1"),
        edited(format=True),
        without("format"),
        without("files"),
        lambda manifest: [manifest],
        lambda manifest: None,
    ],
)
def test_a_manifest_that_does_not_describe_its_generation_is_damage(
    run: RunFolder, edit: Callable[[dict[str, Any]], Any]
) -> None:
    path = folder_of(run, 3) / MANIFEST
    path.write_text(json.dumps(edit(json.loads(path.read_text()))))
    lines: list[str] = []
    assert is_generation(checkpoint.load_latest(run, lines.append), 2)
    assert len(lines) == 1


def test_a_manifest_of_absurd_size_is_not_even_read(run: RunFolder) -> None:
    with (folder_of(run, 3) / MANIFEST).open("wb") as file:
        file.truncate(1 << 40)
    lines: list[str] = []
    assert is_generation(checkpoint.load_latest(run, lines.append), 2)
    assert "manifest.json has 1099511627776 bytes" in lines[0]


@pytest.mark.parametrize("text", [b"", b"{", b"[" * 100_000, b"\xff\xfe"])
def test_a_manifest_that_is_not_json_is_damage(run: RunFolder, text: bytes) -> None:
    (folder_of(run, 3) / MANIFEST).write_bytes(text)
    lines: list[str] = []
    assert is_generation(checkpoint.load_latest(run, lines.append), 2)
    assert MANIFEST in lines[0]


def test_a_manifest_that_would_block_its_reader_is_damage(run: RunFolder) -> None:
    make_special(folder_of(run, 3) / MANIFEST)
    signal.signal(signal.SIGALRM, lambda signum, frame: pytest.fail("blocked"))
    signal.alarm(5)
    try:
        assert is_generation(checkpoint.load_latest(run, lambda line: None), 2)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)


def test_a_missing_manifest_is_damage(run: RunFolder) -> None:
    (folder_of(run, 3) / MANIFEST).unlink()
    assert is_generation(checkpoint.load_latest(run, lambda line: None), 2)


def test_a_run_without_an_intact_generation_is_never_started_again(run: RunFolder) -> None:
    truncate(folder_of(run, 2) / TRAINER)
    (folder_of(run, 3) / AGENT).unlink()
    with pytest.raises(MachineError) as caught:
        checkpoint.load_latest(run, lambda line: None)
    for part in (str(run.checkpoints), "epoch_000003: agent.pt is missing", "epoch_000002: trainer.pt has", "restore"):
        assert part in str(caught.value)
    assert checkpoint.load_agent(run, log=lambda line: None).epoch == 2, "evaluation needs no trainer.pt"
    flip_a_bit(folder_of(run, 2) / AGENT)
    with pytest.raises(MachineError):
        checkpoint.load_agent(run, log=lambda line: None)


@pytest.mark.parametrize("number", [0, 2, 99])
def test_another_format_is_refused_with_a_sentence_and_not_passed_over(run: RunFolder, number: int) -> None:
    path = folder_of(run, 3) / MANIFEST
    path.write_text(json.dumps({"format": number, "anything": "else"}))
    with pytest.raises(UserError, match=f"format {number}, this remctl reads format 1: use the version") as caught:
        checkpoint.load_latest(run, forbid)
    assert caught.value.exit_code == 2


def test_a_damaged_generation_is_made_again(run: RunFolder) -> None:
    truncate(folder_of(run, 3) / AGENT)
    save(run, 3)
    assert is_generation(checkpoint.load_latest(run, forbid), 3)
    assert names_in(run.checkpoints) == ["epoch_000002", "epoch_000003"]


def test_a_damaged_generation_ahead_of_the_run_is_removed_with_the_next_save(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    for epoch in (2, 5):
        save(run, epoch)
    truncate(folder_of(run, 5) / AGENT)
    save(run, 3)
    assert names_in(run.checkpoints) == ["epoch_000002", "epoch_000003"]
    assert is_generation(checkpoint.load_latest(run, forbid), 3)


def test_a_replaced_generation_is_used_until_its_successor_is_there(run: RunFolder) -> None:
    folder_of(run, 3).rename(run.checkpoints / "epoch_000003.old")
    assert is_generation(checkpoint.load_latest(run, forbid), 3)
    save(run, 4)
    assert is_generation(checkpoint.load_latest(run, forbid), 4)
    assert names_in(run.checkpoints) == ["epoch_000002", "epoch_000004"]


def test_names_that_are_no_generations_are_left_alone(run: RunFolder) -> None:
    for name in ("epoch_12", "epoch_000009-copy", "notes", "epoch_000009.older"):
        (run.checkpoints / name).mkdir()
    save(run, 4)
    assert is_generation(checkpoint.load_latest(run, forbid), 4)
    assert (run.checkpoints / "epoch_000009-copy").is_dir()


# --- strangers ---


class Payload:
    """Creates a file when it is unpickled without care."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def plant(run: RunFolder, epoch: int, name: str, value: Any) -> None:
    """Puts `value` into a generation, with a manifest that fits."""
    folder = folder_of(run, epoch)
    torch.save(value, folder / name)
    data = (folder / name).read_bytes()
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    (folder / MANIFEST).write_text(json.dumps(manifest))


@pytest.mark.parametrize("name", [AGENT, TRAINER])
def test_a_checkpoint_cannot_run_code(run: RunFolder, tmp_path: Path, name: str) -> None:
    target = tmp_path / "created"
    plant(run, 3, name, {"x": Payload(target)})
    lines: list[str] = []
    assert is_generation(checkpoint.load_latest(run, lines.append), 2)
    assert f"{name} holds more than tensors and primitives: refused" in lines[0]
    plant(run, 2, name, {"x": Payload(target)})
    with pytest.raises(MachineError, match="refused"):
        checkpoint.load_latest(run, lambda line: None)
    assert not target.exists()
    torch.load(folder_of(run, 3) / name, weights_only=False)
    assert target.exists(), "the payload would not have created anything: this test cannot fail"


def test_a_file_that_is_no_dict_is_damage(run: RunFolder) -> None:
    plant(run, 3, AGENT, [1, 2])
    assert is_generation(checkpoint.load_latest(run, lambda line: None), 2)
