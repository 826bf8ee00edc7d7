"""Checkpoints against kills, damage, a full disk and strangers.

The state under test holds every kind of value that training saves; `state(epoch)` differs in each of them.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from remctl.errors import CAUSES, MachineError, UserError
from remctl.runs import files
from remctl.runs.layout import RunFolder
from remctl.runs.metrics import why_no_checkpoint
from remctl.train import checkpoint
from remctl.train.checkpoint import AGENT, MANIFEST, TRAINER, Checkpoint
from tests.runs.test_files import ROOT, boundaries, fail_at, killed_in_child, names_in

# A kill is no power cut: flushing hundreds of copies to a disk would only take time.
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def agent_of(epoch: int) -> dict[str, Any]:
    return {"world_model": {"weight": torch.full((3, 4), float(epoch)), "table": torch.arange(5) + epoch}}


def trainer_of(epoch: int) -> dict[str, Any]:
    return {
        "optimizers": {"world_model": {"state": {0: {"step": torch.tensor(float(epoch))}}, "lr": 0.1 * epoch}},
        "generator": torch.Generator().manual_seed(epoch).get_state(),
        "numpy": {"state": {"state": 2**127 + epoch, "inc": -(2**70)}, "bit_generator": "PCG64"},
        "environment": [b"\x00\xff" + bytes([epoch]), (epoch, None, True), "ball"],
        "half": torch.full((2,), 0.1 * epoch, dtype=torch.bfloat16),
    }


def save(run: RunFolder, epoch: int) -> None:
    checkpoint.save(run, epoch, "hash", agent_of(epoch), trainer_of(epoch))


def same(a: Any, b: Any) -> bool:
    """Equal values, types and dtypes, all the way down."""
    if type(a) is not type(b):
        return False
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def is_generation(found: Checkpoint | None, epoch: int) -> bool:
    return (
        found is not None
        and (found.epoch, found.config_hash) == (epoch, "hash")
        and same(found.agent, agent_of(epoch))
        and same(found.trainer, trainer_of(epoch))
    )


def forbid(line: str) -> None:
    raise AssertionError(f"nothing is damaged, yet: {line}")


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run with the generations of epochs 2 and 3."""
    run = RunFolder(tmp_path)
    for epoch in (2, 3):
        save(run, epoch)
    return run


def folder_of(run: RunFolder, epoch: int) -> Path:
    return run.checkpoints / f"epoch_{epoch:06d}"


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


# --- undamaged ---


def test_what_was_saved_is_loaded_to_the_bit(run: RunFolder) -> None:
    assert is_generation(checkpoint.load_latest(run, forbid), 3)


def test_a_run_without_checkpoints_has_none(tmp_path: Path) -> None:
    assert checkpoint.load_latest(RunFolder(tmp_path), forbid) is None
    assert checkpoint.load_latest(RunFolder(tmp_path / "gone"), forbid) is None
    assert names_in(tmp_path) == []


def test_two_generations_are_kept_and_stale_temporaries_removed(run: RunFolder) -> None:
    (run.checkpoints / ".tmp-1-epoch_000004").mkdir()
    (run.checkpoints / ".tmp-1-epoch_000004" / AGENT).write_text("half")
    save(run, 4)
    assert names_in(run.checkpoints) == ["epoch_000003", "epoch_000004"]
    assert names_in(folder_of(run, 4)) == [AGENT, MANIFEST, TRAINER]


def test_a_generation_that_is_still_needed_is_kept_beside_them_but_none_of_the_future(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    for epoch in range(1, 8):
        save(run, epoch)
    checkpoint.save(run, 5, "hash", agent_of(5), trainer_of(5))
    assert names_in(run.checkpoints) == ["epoch_000005"]
    for epoch in (6, 7, 8):
        checkpoint.save(run, epoch, "hash", agent_of(epoch), trainer_of(epoch), also_keep=(5, 9))
    assert names_in(run.checkpoints) == ["epoch_000005", "epoch_000007", "epoch_000008"]
    checkpoint.save(run, 4, "hash", agent_of(4), trainer_of(4), also_keep=(5,))
    assert names_in(run.checkpoints) == ["epoch_000004"]


def test_generations_are_ordered_by_number_not_by_name(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    for epoch in (999_999, 1_000_000):
        checkpoint.save(run, epoch, "hash", {}, {})
    found = checkpoint.load_latest(run, forbid)
    assert found is not None
    assert found.epoch == 1_000_000


def test_the_manifest_describes_the_files(run: RunFolder) -> None:
    manifest = json.loads((folder_of(run, 3) / MANIFEST).read_text())
    described = {
        name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
        for name in (AGENT, TRAINER)
        for data in [(folder_of(run, 3) / name).read_bytes()]
    }
    assert manifest == {"format": 1, "epoch": 3, "config_hash": "hash", "precisions": [], "files": described}


def test_loading_changes_nothing_on_the_disk(run: RunFolder) -> None:
    (folder_of(run, 3) / AGENT).write_bytes(b"damaged")
    (run.checkpoints / ".tmp-1-epoch_000004").mkdir()
    before = snapshot(run)
    assert checkpoint.load_latest(run, lambda line: None)
    assert checkpoint.load_agent(run, log=lambda line: None)
    assert snapshot(run) == before


def snapshot(run: RunFolder) -> dict[str, Any]:
    return {str(path): (path.stat().st_mtime_ns, path.is_dir() or path.read_bytes()) for path in run.path.rglob("*")}


def test_files_and_folders_are_flushed_before_they_count(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    real_fsync, real_replace = os.fsync, os.replace

    def fsync(fd: int) -> None:
        events.append(f"fsync {Path(os.readlink(f'/proc/self/fd/{fd}')).name}")
        real_fsync(fd)

    def replace(source: Path, target: Path) -> None:
        events.append(f"rename {Path(target).name}")
        real_replace(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    save(run, 4)
    scratch = f".tmp-{os.getpid()}-epoch_000004"
    flushed = [f"fsync {name}" for name in (AGENT, TRAINER, MANIFEST, scratch)]
    assert events[:6] == [*flushed, "rename epoch_000004", "fsync checkpoints"]
    assert events[6:] == [f"rename .tmp-{os.getpid()}-epoch_000002"]


def test_a_view_does_not_drag_its_whole_tensor_along(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    frames = torch.arange(1_000_000)
    checkpoint.save(run, 1, "hash", {}, {"frame": frames[7:9], "turned": torch.ones(2, 3).T})
    assert (folder_of(run, 1) / TRAINER).stat().st_size < 10_000
    found = checkpoint.load_latest(run)
    assert found is not None
    assert found.trainer["frame"].tolist() == [7, 8]
    assert found.trainer["turned"].stride() == (1, 3)


def test_parameters_are_saved_as_tensors(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    layer = torch.nn.Linear(2, 3)
    checkpoint.save(run, 1, "hash", {"layer": layer.state_dict(keep_vars=True)}, {})
    weight = checkpoint.load_agent(run).agent["layer"]["weight"]
    assert type(weight) is torch.Tensor
    assert torch.equal(weight, layer.weight)


@pytest.mark.parametrize("value", [np.float64(1), np.zeros(2), np.int64(1), {1, 2}, object(), np.random.default_rng(0)])
def test_what_could_not_be_read_back_is_refused_before_anything_is_written(run: RunFolder, value: Any) -> None:
    before = snapshot(run)
    with pytest.raises(TypeError, match=r"trainer\.environment\[1\]\.x is "):
        checkpoint.save(run, 4, "hash", {}, {"environment": [0, {"x": value}]})
    with pytest.raises(TypeError, match="key of agent"):
        checkpoint.save(run, 4, "hash", {np.str_("a"): 1}, {})
    assert snapshot(run) == before


# --- killed ---


def test_a_kill_at_any_boundary_of_save_leaves_the_newest_or_the_one_before() -> None:
    """In a process of its own: this one may have threads, which a fork does not survive."""
    code = "from tests.train.test_checkpoint import check_kills as check; check()"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=120)


def check_kills() -> None:
    assert check_kills_of_save(first=2, last=3, saved=4) > 60
    assert check_kills_of_save(first=3, last=3, saved=3) > 60  # made again, and there is no other


def check_kills_of_save(first: int, last: int, saved: int) -> int:
    """Number of boundaries. Every second one is enough: on the disk, after one step is before the next."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as name:
        template = RunFolder(Path(name) / "template")
        for epoch in range(first, last + 1):
            save(template, epoch)
        index = 0
        while killed_in_child_saving(template, RunFolder(Path(name) / str(index)), saved, index, last):
            index += 2
    return index


def killed_in_child_saving(template: RunFolder, run: RunFolder, epoch: int, index: int, last: int) -> bool:
    shutil.copytree(template.path, run.path)
    killed = killed_in_child(lambda: save(run, epoch), index)
    found = checkpoint.load_latest(run, forbid)
    assert is_generation(found, epoch) or (killed and is_generation(found, last)), index
    save(run, epoch)
    assert is_generation(checkpoint.load_latest(run, forbid), epoch), index
    expected = sorted({folder_of(run, last).name, folder_of(run, epoch).name})
    assert names_in(run.checkpoints) == expected, index
    return killed


def test_a_kill_during_the_first_save_leaves_no_checkpoint(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    (run.checkpoints / ".tmp-1-epoch_000001").mkdir(parents=True)
    assert checkpoint.load_latest(run, forbid) is None


# --- the machine refuses ---


@pytest.fixture
def in_memory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=MEMORY) as name:
        yield Path(name)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_an_error_at_any_boundary_of_save_is_named_and_loses_nothing(
    in_memory: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    template = RunFolder(in_memory / "template")
    for epoch in (2, 3):
        save(template, epoch)
    copy = RunFolder(in_memory / "copy")
    shutil.copytree(template.path, copy.path)
    names = boundaries(lambda: save(copy, 4), monkeypatch)
    done = names.index("before rename epoch_000004") + 1
    for index, name in enumerate(names):
        run = RunFolder(in_memory / str(index))
        shutil.copytree(template.path, run.path)
        with monkeypatch.context() as patch:
            patch.setattr(files, "boundary", fail_at(index, code))
            with pytest.raises(MachineError, match=f"^{CAUSES[code][0]} while .*{run.checkpoints}"):
                save(run, 4)
        assert is_generation(checkpoint.load_latest(run, forbid), 4 if index >= done else 3), name
        if index < done:
            assert names_in(run.checkpoints) == ["epoch_000002", "epoch_000003"], name


def test_a_really_full_disk_loses_nothing_and_is_given_back_its_space(tmp_path: Path) -> None:
    """In a user namespace of its own, where a small file system can be mounted without rights."""
    small = tmp_path / "small"
    small.mkdir()
    code = "from tests.train.test_checkpoint import check_full_disk as check; check()"
    script = (
        f"mount -t tmpfs -o size=1m none {small} || exit 77; cd {ROOT} && exec {sys.executable} -c '{code}' {small}"
    )
    if shutil.which("unshare") is None:
        pytest.skip("no unshare")
    done = subprocess.run(["unshare", "-rm", "sh", "-c", script], capture_output=True, text=True, timeout=60)
    if done.returncode != 0 and ("unshare" in done.stderr or done.returncode == 77):
        pytest.skip("may not mount a file system here")
    assert done.returncode == 0, done.stderr


def check_full_disk() -> None:
    run = RunFolder(Path(sys.argv[1]) / "run")
    for epoch in (2, 3):
        save(run, epoch)
    with pytest.raises(MachineError, match="^disk full while writing .*; the last checkpoint is intact$"):
        checkpoint.save(run, 4, "hash", {"large": torch.zeros(1_000_000)}, {})
    assert is_generation(checkpoint.load_latest(run, forbid), 3)
    save(run, 4)
    assert is_generation(checkpoint.load_latest(run, forbid), 4)


def test_an_interruption_while_writing_tensors_comes_out_as_it_went_in(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(name: str) -> None:
        if name == "after write agent.pt":
            raise KeyboardInterrupt

    monkeypatch.setattr(files, "boundary", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save(run, 4)
    assert names_in(run.checkpoints) == ["epoch_000002", "epoch_000003"]


# --- evaluation ---


def test_the_agent_alone_is_loaded_of_the_newest_or_of_an_epoch(run: RunFolder) -> None:
    (folder_of(run, 3) / TRAINER).unlink()
    newest = checkpoint.load_agent(run, log=forbid)
    assert (newest.epoch, newest.trainer) == (3, {})
    assert same(newest.agent, agent_of(3))
    assert same(checkpoint.load_agent(run, epoch=2).agent, agent_of(2))


def test_an_agent_that_is_not_there_is_named(run: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no checkpoint of epoch 1: kept are 2, 3"):
        checkpoint.load_agent(run, epoch=1)
    with pytest.raises(UserError, match="no checkpoint yet"):
        checkpoint.load_agent(RunFolder(tmp_path / "gone"))


def test_a_damaged_epoch_that_was_asked_for_is_not_replaced_by_another(run: RunFolder) -> None:
    flip_a_bit(folder_of(run, 3) / AGENT)
    with pytest.raises(MachineError, match="agent.pt does not match its checksum"):
        checkpoint.load_agent(run, epoch=3)


def test_damage_is_said_on_stderr_by_default(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    flip_a_bit(folder_of(run, 3) / AGENT)
    assert checkpoint.load_agent(run).epoch == 2
    assert "epoch_000003: agent.pt does not match its checksum; using epoch_000002" in capsys.readouterr().err


@pytest.fixture
def reader_overtaken(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """Training saves two epochs between a reader's look at the folder and its first read."""
    real = checkpoint._read
    calls = iter(range(1000))

    def read(*arguments: Any) -> Checkpoint:
        if next(calls) == 0:
            for epoch in (4, 5):
                save(run, epoch)
        return real(*arguments)

    monkeypatch.setattr(checkpoint, "_read", read)
    return run


def test_evaluation_beside_training_finds_the_new_generations(reader_overtaken: RunFolder) -> None:
    found = checkpoint.load_agent(reader_overtaken, log=forbid)
    assert same(found.agent, agent_of(5))


def test_a_run_that_lost_its_checkpoints_is_not_told_to_train_on(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "seed_0")
    run.path.mkdir()
    run.metrics.write_text('{"epoch": 1}\n')
    assert why_no_checkpoint(run) == "has no checkpoint yet: train it for at least one epoch"
    lost = rf"has lost its checkpoints: restore {run.checkpoints} from a copy, or train it again under another --name"
    run.metrics.write_text('{"epoch": 1}\n{"epoch": 2}\n')
    with pytest.raises(UserError, match=lost):
        checkpoint.load_agent(run)
    run.metrics.unlink()
    run.result.write_text("{}")
    with pytest.raises(UserError, match=lost):
        checkpoint.load_agent(run)
