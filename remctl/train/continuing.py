"""A longer run that begins with all that a shorter one did: `remctl train --continue`.

An epoch is a function of configuration, seed and epoch (`trainer`), and nothing in it asks how many are to come. Up to its
tenth epoch a run of 20 therefore is the run of 10, and what is copied here is the longer run's own past: it has the hash, and
ends with the numbers, of one that was trained for 20 epochs from the start.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from remctl.config import RunConfig, build, config_hash, differing, from_yaml, same_run
from remctl.config.resolve import NOT_OVERRIDES, parse_set
from remctl.errors import MachineError, UserError
from remctl.replay.store import shard_path
from remctl.runs.files import make_folder, named_errors, read_jsonl, truncate_jsonl, write_atomic
from remctl.runs.imported import refuse_imported
from remctl.runs.layout import RunFolder
from remctl.runs.metrics import why_no_checkpoint
from remctl.train import checkpoint
from remctl.train.testing import untested

LENGTHS = ("training.num_epochs", "collection.last_epoch")


def longer(source: RunFolder, sets: Iterable[str]) -> RunConfig:
    """Return a run's configuration with KEY=VALUE of `sets`. Raises UserError unless that is the same run, only longer."""
    refuse_imported(source, "there is nothing to continue; train a new run")
    before = from_yaml(source.config)
    for label in (key for key in NOT_OVERRIDES if any(text.partition("=")[0].strip() == key for text in sets)):
        raise UserError(f"--continue: with another {label} it would be another run: train a new run, with --{label}")
    config = build(dict(map(parse_set, sets)), over=before)
    others = sorted(differing(before, config).keys() - set(LENGTHS))
    if others:
        raise UserError(
            f"--continue: with another {others[0]} it would be another run from its first epoch on; only "
            f"{' and '.join(LENGTHS)} may change (and `runtime`): train a new run"
        )
    if config.training.num_epochs <= before.training.num_epochs:
        raise UserError(
            f"--continue: {source.path} has {before.training.num_epochs} epochs: add --set training.num_epochs=... with more"
        )
    return config


def adopt(source: RunFolder, run: RunFolder, config: RunConfig) -> None:
    """Copy what `source` has done into the folder of the longer run, unless that has begun; its checkpoint comes last.

    Raises UserError where `source` has no checkpoint, or collected in other epochs than the longer run would; MachineError.
    """
    if source.path.resolve() == run.path.resolve():
        raise UserError(f"--continue: {run.path} is the run itself: choose another --name or --out")
    if checkpoint.generations(run):
        return
    before, loaded = from_yaml(source.config), checkpoint.load_latest(source)
    if loaded is None:
        raise UserError(f"{source.path} {why_no_checkpoint(source)}; or train the longer run from the start")
    if not same_run(loaded.config_hash, config_hash(before), source.config):
        raise UserError(f"{source.path}: its checkpoint belongs to another configuration: restore its config.yaml")
    collected, wanted = (min(c.collection.last_epoch, loaded.epoch) for c in (before, config))
    if collected != wanted:
        raise UserError(
            f"--continue: {source.path} collected until epoch {collected}, and with this collection.last_epoch would have "
            f"until {wanted}: train a new run"
        )
    shards = [shard_path(source, epoch) for epoch in range(1, collected + 1)]
    for path in (*shards, source.metrics, source.episodes, source.provenance):
        copy = run.path / path.relative_to(source.path)
        make_folder(copy.parent)
        with named_errors("reading", path):
            data = path.read_bytes()
        write_atomic(copy, data)
    truncate_jsonl(run.episodes, lambda entry: entry.get("kind") != "final")
    waiting = _waiting_for_its_test(source, config, loaded)
    for made in (*waiting, loaded):  # a kill between the two costs the epochs between them
        kept = [other.epoch for other in waiting]
        checkpoint.save(run, made.epoch, config_hash(config), made.agent, made.trainer, kept, made.precisions)


def _waiting_for_its_test(
    source: RunFolder, config: RunConfig, loaded: checkpoint.Checkpoint
) -> list[checkpoint.Checkpoint]:
    """An earlier generation whose test `source` had under way, or not begun, after the epoch of `loaded`; mostly none."""
    entries = [entry for entry in read_jsonl(source.metrics) if entry.get("epoch", 0) <= loaded.epoch]
    epoch = untested(config, loaded.epoch, entries)
    if epoch is None or epoch == loaded.epoch:
        return []
    with suppress(MachineError):  # damaged or gone: the longer run says that the test stays missing
        found = checkpoint.load_latest(source, before=epoch + 1)
        return [found] if found and (found.epoch, found.config_hash) == (epoch, loaded.config_hash) else []
    return []
