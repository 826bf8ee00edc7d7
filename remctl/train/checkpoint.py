"""Checkpoints: the last two complete generations of a run, each a folder that appears whole or not at all.

A generation whose agent is still being tested is kept beside them.

    checkpoints/epoch_000012/agent.pt       state_dicts of the networks: all that evaluation needs
                             trainer.pt     everything else that the next epoch depends on
                             manifest.json  {format, epoch, config_hash, precisions, files: {name: {sha256, bytes}}}

A generation is written under a temporary name, flushed, and renamed; only then are older ones removed. Reading changes
nothing: a damaged generation is reported and passed over, and goes when the next one is safely on the disk.

Files hold tensors and primitives only and are read with `weights_only=True`: a checkpoint cannot run code.
"""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import re
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from remctl.errors import MachineError, UserError
from remctl.runs import files
from remctl.runs.layout import RunFolder
from remctl.runs.metrics import why_no_checkpoint

FORMAT = 1
NUM_GENERATIONS = 2
AGENT, TRAINER, MANIFEST = "agent.pt", "trainer.pt", "manifest.json"
_MAX_MANIFEST_BYTES = 1 << 20
_PRIMITIVES = (type(None), bool, int, float, str, bytes, torch.dtype)
# `.old` is a generation that its own re-made version is about to replace: complete, but second to it.
_GENERATION = re.compile(r"^epoch_(\d{6,})(\.old)?$")

Log = Callable[[str], None]


@dataclass(frozen=True)
class Checkpoint:
    """What one generation holds, on the CPU unless asked otherwise. `trainer` is empty when only the agent was read.

    `precisions` that its epochs were computed in, the last one last; none where the version that wrote it kept none.
    """

    epoch: int
    config_hash: str
    precisions: tuple[str, ...]
    agent: dict[str, Any]
    trainer: dict[str, Any] = field(default_factory=dict)


class _DamageError(Exception):
    """One generation cannot be used; the message says which file and why."""


# --- writing ---


def save(
    run: RunFolder,
    epoch: int,
    config_hash: str,
    agent: dict[str, Any],
    trainer: dict[str, Any],
    also_keep: Collection[int] = (),
    precisions: Sequence[str] = (),
) -> None:
    """Saves one generation after `epoch` complete epochs; durable on return. Only for the holder of the run's lock.

    `agent`, `trainer`: nested dicts, lists and tuples of tensors and primitives. Keeps this generation, the newest one before
    it and those of the epochs `also_keep`, and removes any after it (of a future that this run has left).
    Raises `TypeError` naming the entry that could not be read back; `MachineError`, the earlier generations then being as
    they were, or this one already complete.
    """
    about = {"epoch": epoch, "config_hash": config_hash, "precisions": list(precisions)}
    contents = {AGENT: _plain(agent, "agent"), TRAINER: _plain(trainer, "trainer")}
    files.make_folder(run.checkpoints)
    files.remove_stale(run.checkpoints)
    final = run.checkpoints / f"epoch_{epoch:06d}"
    scratch = files.temporary(final)
    with files.named_errors("writing", final):
        try:
            _write_generation(scratch, about, contents)
            _put_in_place(scratch, final)
        except BaseException:
            files.discard(scratch)
            raise
    with files.named_errors("clearing", run.checkpoints):
        _prune(run, epoch, also_keep)


def _plain(value: Any, name: str) -> Any:
    """A copy of the tree that can be read back, without what a view of a larger tensor would drag along."""
    if isinstance(value, torch.Tensor):
        return _compact(value.detach())
    if isinstance(value, dict):
        return {_primitive(key, f"a key of {name}"): _plain(item, f"{name}.{key}") for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_plain(item, f"{name}[{i}]") for i, item in enumerate(value))
    return _primitive(value, name)


def _primitive(value: Any, name: str) -> Any:
    if type(value) not in _PRIMITIVES:  # not isinstance: a numpy float64 is a float, and cannot be read back
        raise TypeError(f"{name} is {type(value).__module__}.{type(value).__qualname__}: no tensor and no primitive")
    return value


def _compact(tensor: torch.Tensor) -> torch.Tensor:
    whole = tensor.untyped_storage().nbytes() <= tensor.numel() * tensor.element_size()
    return tensor if whole else tensor.clone()


def _write_generation(folder: Path, about: dict[str, Any], contents: dict[str, Any]) -> None:
    folder.mkdir()
    written = {name: _write_tensors(folder / name, value) for name, value in contents.items()}
    manifest = {"format": FORMAT, **about, "files": written}
    with files.durable(folder / MANIFEST) as file:
        file.write(json.dumps(manifest, indent=2).encode() + b"\n")
    files.sync_folder(folder)


def _write_tensors(path: Path, value: Any) -> dict[str, Any]:
    with files.durable(path) as file:
        sink = _Sink(file)
        torch.save(value, sink)  # type: ignore[arg-type]  # needs nothing of a file but these two methods
        if sink.failure:
            raise sink.failure
    return {"sha256": file.sha256, "bytes": file.num_bytes}


class _Sink:
    """Keeps the first failure to itself: torch's C++ writer would turn it into an error about positions."""

    def __init__(self, file: files.DurableFile) -> None:
        self._file = file
        self.failure: BaseException | None = None

    def write(self, data: memoryview) -> int:
        """Passes `data` on until the first failure; `failure` is to be raised at the end."""
        if self.failure is None:
            try:
                self._file.write(data)
            except BaseException as error:
                self.failure = error
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""


def _put_in_place(scratch: Path, final: Path) -> None:
    """A folder cannot be renamed over another: one of the same epoch steps aside, still readable, until it is done."""
    if final.exists():
        aside = final.with_name(final.name + ".old")
        files.remove(aside)
        files.rename(final, aside)
    files.rename(scratch, final)
    files.sync_folder(final.parent)


def _prune(run: RunFolder, epoch: int, also_keep: Collection[int]) -> None:
    """Each generation leaves by one rename, so that none is ever seen half-removed."""
    found = generations(run)
    past = [path for path in found if _epoch_of(path) <= epoch and not path.name.endswith(".old")]
    for path in found:
        if path not in past[:NUM_GENERATIONS] and not (path in past and _epoch_of(path) in also_keep):
            _remove(path)


def _remove(generation: Path) -> None:
    files.rename(generation, files.temporary(generation))
    files.remove(files.temporary(generation))


def drop_after(run: RunFolder, epoch: int) -> None:
    """Removes the generations after `epoch`: of a future that cannot be gone on from. Only for the holder of the lock.

    Raises `MachineError`.
    """
    with files.named_errors("clearing", run.checkpoints):
        for path in generations(run):
            if _epoch_of(path) > epoch:
                _remove(path)
        files.sync_folder(run.checkpoints)


# --- reading ---


def generations(run: RunFolder) -> list[Path]:
    """Folders of the generations, newest first; whether they are intact is not looked at. Raises `MachineError`."""
    with files.named_errors("reading", run.checkpoints):
        found = list(run.checkpoints.iterdir()) if run.checkpoints.exists() else []
    complete = [path for path in found if _GENERATION.match(path.name)]
    return sorted(complete, key=lambda path: (_epoch_of(path), not path.name.endswith(".old")), reverse=True)


def _epoch_of(folder: Path) -> int:
    match = _GENERATION.match(folder.name)
    assert match, folder
    return int(match[1])


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr)


def load_latest(run: RunFolder, log: Log = _to_stderr, before: int | None = None) -> Checkpoint | None:
    """The newest intact generation, or None for a run that has none yet. Changes nothing on the disk.

    `before`: the newest one of an earlier epoch. One line to `log` for each damaged generation passed over. Raises
    `MachineError` when generations exist and none is intact (a run is never silently started again); `UserError` for a
    format this version does not know.
    """
    return _newest_intact(run, (AGENT, TRAINER), "cpu", log, before)


def load_agent(
    run: RunFolder, epoch: int | None = None, log: Log = _to_stderr, device: str | torch.device = "cpu"
) -> Checkpoint:
    """Weights only, for evaluation: of this epoch, or of the newest intact generation; may run beside training.

    Raises `UserError` for a run without checkpoints and for an epoch that is not kept; else like `load_latest`.
    """
    if epoch is not None:
        return _agent_of_epoch(run, epoch, device)
    if checkpoint := _newest_intact(run, (AGENT,), device, log):
        return checkpoint
    raise UserError(f"{run.path} {why_no_checkpoint(run)}")


def _agent_of_epoch(run: RunFolder, epoch: int, device: str | torch.device) -> Checkpoint:
    found = {_epoch_of(path): path for path in reversed(generations(run))}
    if epoch not in found:
        kept = ", ".join(map(str, sorted(found))) or "none"
        raise UserError(f"{run.path} has no checkpoint of epoch {epoch}: kept are {kept}")
    try:
        return _read(found[epoch], (AGENT,), device)
    except _DamageError as damage:
        raise MachineError(f"the checkpoint {found[epoch]} is damaged ({damage}): choose another epoch") from damage


def _newest_intact(
    run: RunFolder, names: tuple[str, ...], device: str | torch.device, log: Log, before: int | None = None
) -> Checkpoint | None:
    found = _earlier(run, before)
    damages: list[str] = []
    for folder in found:
        try:
            checkpoint = _read(folder, names, device)
        except _DamageError as damage:
            damages.append(f"{folder.name}: {damage}")
            continue
        for line in damages:
            log(f"damaged checkpoint {line}; using {folder.name}")
        return checkpoint
    if not found:
        return None
    if _earlier(run, before) != found:  # training went on while this was reading, and removed what was being read
        return _newest_intact(run, names, device, log, before)
    raise MachineError(
        f"no intact checkpoint in {run.checkpoints} ({'; '.join(damages)}): "
        "restore the folder from a copy, or move the run away to train it from the start"
    )


def _earlier(run: RunFolder, before: int | None) -> list[Path]:
    return [path for path in generations(run) if before is None or _epoch_of(path) < before]


def _read(folder: Path, names: tuple[str, ...], device: str | torch.device) -> Checkpoint:
    manifest = _manifest(folder)
    parts = [_read_tensors(folder / name, manifest["files"][name], device) for name in names]
    return Checkpoint(manifest["epoch"], manifest["config_hash"], tuple(manifest.get("precisions", ())), *parts)


def _manifest(folder: Path) -> dict[str, Any]:
    data = _bytes_of(folder / MANIFEST, lambda size: size <= _MAX_MANIFEST_BYTES, f"at most {_MAX_MANIFEST_BYTES}")
    try:
        manifest = json.loads(data)
    except (ValueError, RecursionError):
        raise _DamageError(f"{MANIFEST} is not JSON") from None
    if not isinstance(manifest, dict) or type(manifest.get("format")) is not int:
        raise _DamageError(f"{MANIFEST} says no format")
    if manifest["format"] != FORMAT:
        raise UserError(
            f"{folder} has checkpoint format {manifest['format']}, this remctl reads format {FORMAT}: "
            "use the version that wrote it"
        )
    if not _is_complete(manifest) or manifest["epoch"] != _epoch_of(folder):
        raise _DamageError(f"{MANIFEST} does not describe this generation")
    return manifest


def _is_complete(manifest: dict[str, Any]) -> bool:
    described = manifest.get("files")
    return (
        type(manifest.get("epoch")) is int
        and isinstance(manifest.get("config_hash"), str)
        and isinstance(manifest.get("precisions", []), list)
        and isinstance(described, dict)
        and all(files.is_described(described.get(name)) for name in (AGENT, TRAINER))
    )


def _bytes_of(path: Path, is_right_size: Callable[[int], bool], expected: str) -> bytes:
    """Reads once, so that what is checked is what is used; nothing special that blocks, nothing of a wrong size."""
    try:
        if not path.is_file():
            raise _DamageError(f"{path.name} is missing")
        size = path.stat().st_size
        if not is_right_size(size):
            raise _DamageError(f"{path.name} has {size} bytes, not {expected}")
        return path.read_bytes()
    except OSError as error:
        raise _DamageError(f"{path.name} cannot be read ({error.strerror})") from error


def _read_tensors(path: Path, expected: dict[str, Any], device: str | torch.device) -> dict[str, Any]:
    data = _bytes_of(path, lambda size: size == expected["bytes"], str(expected["bytes"]))
    if hashlib.sha256(data).hexdigest() != expected["sha256"]:
        raise _DamageError(f"{path.name} does not match its checksum")
    return _unpickled(path, data, device)


def _unpickled(path: Path, data: bytes, device: str | torch.device) -> dict[str, Any]:
    try:
        value = torch.load(io.BytesIO(data), map_location=device, weights_only=True)
    except pickle.UnpicklingError as error:
        raise _DamageError(f"{path.name} holds more than tensors and primitives: refused") from error
    except Exception as error:  # a stranger's file can fail in any way inside torch's reader
        raise _DamageError(f"{path.name} cannot be read as tensors ({type(error).__name__})") from error
    if not isinstance(value, dict):
        raise _DamageError(f"{path.name} holds no dict")
    return value
