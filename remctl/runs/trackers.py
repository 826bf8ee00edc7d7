"""TensorBoard and Weights & Biases beside `metrics.jsonl`: optional extras, imported only when asked for.

Neither holds anything that counts. TensorBoard's own writer is used, which needs no torch. W&B stays offline unless
WANDB_MODE says otherwise.
"""

from __future__ import annotations

import importlib
import math
import os
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Protocol

from remctl.errors import MachineError, UserError
from remctl.runs.files import named_errors, write_atomic
from remctl.runs.layout import RunFolder

Value = float | int | str | bool | None
Opener = Callable[[RunFolder, Mapping[str, Any]], "Tracker"]


class Tracker(Protocol):
    """Another place to which metrics go."""

    def log(self, epoch: int, values: Mapping[str, Value]) -> None:
        """Shows values of one epoch; one that was shown already may get further ones, and an earlier one too."""

    def close(self) -> None:
        """Finishes; nothing is logged afterwards."""


def open_trackers(run: RunFolder, names: Sequence[str], config: Mapping[str, Any] | None = None) -> list[Tracker]:
    """The trackers of these names (`tensorboard`, `wandb`), writing below the run folder, which must exist.

    `config`: what the run is, nested and JSON-compatible, for those that can tell runs apart by it. Raises `UserError` for an
    unknown name and for an extra that is not installed, before any is opened.
    """
    openers = [_opener(name) for name in names]
    return [opener(run, config or {}) for opener in openers]


def _opener(name: str) -> Opener:
    if name not in _TRACKERS:
        near = get_close_matches(name, _TRACKERS, n=1, cutoff=0.3)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise UserError(f"unknown tracker {name!r}: {hint}known are {', '.join(_TRACKERS)}")
    module, extra, opener = _TRACKERS[name]
    try:
        importlib.import_module(module)
    except ImportError as error:
        remedy = f"install it with: pip install 'remctl[{extra}]'"
        raise UserError(f"tracker {name!r} needs the package {module.partition('.')[0]!r}: {remedy}") from error
    return opener


def _numbers(values: Mapping[str, Value]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items() if isinstance(value, int | float)}


class TensorBoard:
    """Event files in `<run>/tensorboard`. What an interrupted start logged after its last checkpoint is hidden."""

    def __init__(self, run: RunFolder, config: Mapping[str, Any]) -> None:
        folder = run.path / "tensorboard"
        with named_errors("writing", folder):
            writer = importlib.import_module("tensorboard.summary.writer.event_file_writer")
            self._writer = writer.EventFileWriter(str(folder))
        self._events = importlib.import_module("tensorboard.compat.proto.event_pb2")
        self._summaries = importlib.import_module("tensorboard.compat.proto.summary_pb2")
        self._started = False

    def log(self, epoch: int, values: Mapping[str, Value]) -> None:
        """Adds one scalar per number; text is left out."""
        if not self._started:
            self._add(epoch, session_log=self._events.SessionLog(status=self._events.SessionLog.START))
            self._started = True
        scalars = [self._summaries.Summary.Value(tag=tag, simple_value=x) for tag, x in _numbers(values).items()]
        self._add(epoch, summary=self._summaries.Summary(value=scalars))
        self._writer.flush()

    def _add(self, epoch: int, **content: Any) -> None:
        self._writer.add_event(self._events.Event(wall_time=time.time(), step=epoch, **content))

    def close(self) -> None:
        """Flushes and closes the event file."""
        self._writer.close()


class WeightsAndBiases:
    """One W&B run per run folder, however often it is started; files in `<run>/wandb`.

    Its group is experiment/variant/game, whose seeds W&B can so average.
    """

    def __init__(self, run: RunFolder, config: Mapping[str, Any]) -> None:
        wandb = importlib.import_module("wandb")
        mode = os.environ.get("WANDB_MODE", "offline")
        place = run.path.absolute().parts[-4:]
        with named_errors("writing", run.path / "wandb"):
            self._run: Any = wandb.init(
                project=os.environ.get("WANDB_PROJECT", "remctl"),
                name="/".join(place),
                group="/".join(place[:-1]),
                config=dict(config),
                allow_val_change=True,  # a resume may have other settings of `runtime`
                id=_wandb_id(run.path / "wandb_id.txt"),
                dir=str(run.path),
                mode=mode,
                resume=None if mode == "offline" else "allow",
                settings=wandb.Settings(console="off", silent=True, x_disable_stats=True, disable_git=True),
            )
        for name in ("test/wall_s", "test/background_wall_s"):  # of the epoch that waits for it, or it ends in
            self._run.define_metric(name)
        self._run.define_metric("test/*", step_metric="test/of_epoch")
        self._step = 0

    def log(self, epoch: int, values: Mapping[str, Value]) -> None:
        """Logs the finite numbers at step `epoch`, or at the last one: W&B's steps never go back."""
        self._step = max(self._step, epoch)
        self._run.log({name: x for name, x in _numbers(values).items() if math.isfinite(x)}, step=self._step)

    def close(self) -> None:
        """Finishes the W&B run."""
        self._run.finish()


def _wandb_id(path: Path) -> str:
    """Kept in the run folder, so that a resumed or moved run stays one run for W&B."""
    if not path.exists():
        write_atomic(path, uuid.uuid4().hex[:12] + "\n")
    with named_errors("reading", path):
        text = path.read_text(encoding="ascii", errors="replace").strip()
    if not text.isalnum():
        raise MachineError(f"{path} is damaged: remove it to start a new W&B run")
    return text


_TRACKERS: dict[str, tuple[str, str, Opener]] = {
    "tensorboard": ("tensorboard.summary.writer.event_file_writer", "tb", TensorBoard),
    "wandb": ("wandb", "wandb", WeightsAndBiases),
}
