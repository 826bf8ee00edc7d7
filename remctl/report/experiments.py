"""The experiment.json that `remctl ablate` leaves, as reports read it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from remctl.errors import UserError
from remctl.report.numbers import is_count
from remctl.runs.files import read_json

EXPERIMENT_FILE = "experiment.json"


@dataclass(frozen=True)
class ExperimentRun:
    """One run in experiment.json; `path` is relative to the folder of experiments."""

    variant: str
    game: str
    seed: int
    config_hash: str
    path: str


@dataclass(frozen=True)
class Experiment:
    """What experiment.json says; `labels` by variant. `name` is the folder's, which may have been renamed."""

    folder: Path
    name: str
    question: str
    control: str | None
    labels: dict[str, str]
    runs: tuple[ExperimentRun, ...]


def read_experiment(folder: Path) -> Experiment:
    """Read the experiment.json in `folder`. Raises UserError, or MachineError, where it is damaged."""
    file = folder / EXPERIMENT_FILE
    value = read_json(file)
    try:
        entries = tuple(_entry(run) for run in value["runs"])
        labels = {str(v["name"]): str(v.get("label") or v["name"]) for v in value["variants"]}
        question, control = str(value.get("question") or ""), value.get("control")
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise UserError(
            f"{file}: {type(error).__name__} {error}; launch the ablation again, which writes it anew"
        ) from None
    strangers = sorted({entry.variant for entry in entries} - set(labels))
    if strangers:
        raise UserError(f"{file}: runs of the unlisted variant {strangers[0]!r}; launch the ablation again")
    name = folder.resolve().name  # which may be another than when it was launched
    return Experiment(folder, name, question, None if control is None else str(control), labels, entries)


def _entry(run: dict[str, Any]) -> ExperimentRun:
    if not is_count(run["seed"]):
        raise ValueError("seed is no whole number")
    return ExperimentRun(str(run["variant"]), str(run["game"]), run["seed"], str(run["config_hash"]), str(run["path"]))
