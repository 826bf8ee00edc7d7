"""The replay on disk: one append-only, compressed shard per epoch. A shard counts once its epoch's checkpoint exists.

Frames of a game compress to a few per cent. Shards of an epoch that never completed are ignored and written again.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from pathlib import Path

import numpy as np

from remctl.errors import MachineError
from remctl.replay.buffer import Steps
from remctl.runs.files import make_folder, write_atomic
from remctl.runs.layout import RunFolder

FIELDS = ("frames", "actions", "rewards", "ends", "first")


def shard_path(run: RunFolder, epoch: int) -> Path:
    """Where an epoch's steps are."""
    return run.replay / f"epoch_{epoch:06d}.npz"


def save_shard(run: RunFolder, epoch: int, steps: Steps) -> None:
    """Write the steps collected in `epoch`, atomically. Raises MachineError where the disk refuses."""
    data = io.BytesIO()
    np.savez_compressed(data, **{name: getattr(steps, name) for name in FIELDS})
    make_folder(run.replay)
    write_atomic(shard_path(run, epoch), data.getvalue())


def load_shard(run: RunFolder, epoch: int) -> Steps:
    """Read it back; MachineError where it is missing or damaged (the archive carries checksums)."""
    path = shard_path(run, epoch)
    try:
        with np.load(path, allow_pickle=False) as data:
            return Steps(**{name: data[name] for name in FIELDS})
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise MachineError(
            f"{path}: the replay of epoch {epoch} is missing or damaged ({error}): restore the file from a copy, or start "
            "again in another folder with --out"
        ) from None
