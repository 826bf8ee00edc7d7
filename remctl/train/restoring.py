"""Which generation a start of a run continues from: the newest intact one whose epoch left its shard of the replay."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple, get_args

from remctl.config import Precision, RunConfig, config_hash, precision_of_schema_1, same_run
from remctl.errors import MachineError, UserError
from remctl.replay.store import load_shard, shard_path
from remctl.runs import provenance
from remctl.runs.layout import RunFolder
from remctl.train import checkpoint

Log = Callable[[str], None]


class Restorable(NamedTuple):
    """The generation to continue from, None for a run that has none; whether it is the newest intact one."""

    checkpoint: checkpoint.Checkpoint | None
    is_newest: bool


def restorable(run: RunFolder, config: RunConfig, log: Log) -> Restorable:
    """Read the generation from which a run of `config` continues; changes nothing on the disk, and says to `log` why.

    Where what the last epoch collected is lost, that is the generation before it: the epoch is run again. Raises UserError
    for a checkpoint of another configuration, MachineError where all checkpoints, or the replay, are lost.
    """
    newest = checkpoint.load_latest(run, log)
    if newest is None:
        return Restorable(None, True)
    refuse_other_hash(run, newest.config_hash, config)
    if newest.epoch > config.collection.last_epoch:
        return Restorable(newest, True)
    try:
        load_shard(run, newest.epoch)
    except MachineError:
        earlier = _generation_before(run, newest, log)
        if earlier is None:
            raise
        log(f"{shard_path(run, newest.epoch)} is missing or damaged; using epoch_{earlier.epoch:06d}")
        return Restorable(earlier, False)
    return Restorable(newest, True)


def precision_before(run: RunFolder, loaded: checkpoint.Checkpoint | None) -> Precision | None:
    """Return what the generation of a run that is loaded was computed in; None if there is none, or nothing says so.

    A start that trained no epoch changes nothing. Earlier versions kept it with their starts, or in the configuration.
    """
    if loaded is None:
        return None
    found: Any = loaded.precisions[-1] if loaded.precisions else None
    found = found or provenance.last_device(run).get("precision") or precision_of_schema_1(run.config)
    return found if found in get_args(Precision) else None


def _generation_before(run: RunFolder, newest: checkpoint.Checkpoint, log: Log) -> checkpoint.Checkpoint | None:
    with suppress(MachineError):
        earlier = checkpoint.load_latest(run, log, before=newest.epoch)
        return earlier if earlier and earlier.config_hash == newest.config_hash else None
    return None


def refuse_other_hash(run: RunFolder, found: str, config: RunConfig) -> None:
    """UserError where a checkpoint of configuration `found` is not of `config`, with what the difference comes from."""
    now = config_hash(config)
    if same_run(found, now, run.config):
        return
    raise UserError(
        f"{run.path}: its checkpoint belongs to configuration {found}, not to {now}: restore its config.yaml, or choose "
        "another --name or --out"
    )
