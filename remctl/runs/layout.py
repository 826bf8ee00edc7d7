"""Where everything of a run lies. The run folder is the only contract between training and the rest.

<out>/<experiment>/<variant>/<game>/seed_<n>/
    config.yaml       resolved configuration          provenance.json   one entry per start
    metrics.jsonl     entries by epoch, one each *    episodes.jsonl    every return
    checkpoints/      complete generations only       replay/           append-only
    media/            pictures and videos             result.json       written last: its presence means done
    imported.json     only in a run made by `remctl import`: where its weights came from
    bundle.json       only in a bundle: its checksums     agent.safetensors    the weights, instead of checkpoints/
    lock              held while a process runs       train.log         what was said
    requests.jsonl    what users asked of its jobs

* two where an epoch ends with an earlier one's test beside its own: see `remctl.runs.metrics`
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from remctl.errors import UserError, machine_error


@dataclass(frozen=True)
class RunFolder:
    """The names inside one run folder. Nothing is created or read by asking for a name."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def provenance(self) -> Path:
        return self.path / "provenance.json"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def episodes(self) -> Path:
        return self.path / "episodes.jsonl"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def replay(self) -> Path:
        return self.path / "replay"

    @property
    def media(self) -> Path:
        return self.path / "media"

    @property
    def result(self) -> Path:
        return self.path / "result.json"

    @property
    def imported(self) -> Path:
        return self.path / "imported.json"

    @property
    def is_imported(self) -> bool:
        """Whether `remctl import` made it: it has no optimisers or replay, so nothing resumes it."""
        return self.imported.is_file()

    @property
    def manifest(self) -> Path:
        return self.path / "bundle.json"

    @property
    def agent(self) -> Path:
        return self.path / "agent.safetensors"

    @property
    def is_bundle(self) -> bool:
        """Whether it was made by `remctl export`, whatever it has lost since: nothing is ever written into it."""
        lost_manifest = os.path.lexists(self.agent) and not self.checkpoints.exists()
        return os.path.lexists(self.manifest) or lost_manifest

    @property
    def can_train(self) -> bool:
        """Whether more training is possible: not without optimisers and replay."""
        return not (self.is_imported or self.is_bundle)

    @property
    def lock(self) -> Path:
        return self.path / "lock"

    @property
    def log(self) -> Path:
        return self.path / "train.log"

    @property
    def requests(self) -> Path:
        return self.path / "requests.jsonl"

    @property
    def is_done(self) -> bool:
        """Whether the run is finished: `result.json` is written last, and atomically."""
        return self.result.is_file()


def run_path(out: Path, experiment: str, variant: str, game_folder: str, seed: int) -> Path:
    """`out/experiment/variant/game_folder/seed_<n>`. Raises `UserError` for a name that would leave its place."""
    names = [_folder_name(name) for name in (experiment, variant, game_folder)]
    if seed < 0:
        raise UserError(f"seed is {seed}: give a whole number from 0")
    return out.joinpath(*names, f"seed_{seed}")


def _folder_name(name: str) -> str:
    if not name or name.startswith(".") or not name.isprintable() or "/" in name or os.sep in name:
        raise UserError(f"{name!r} cannot name a folder: give a name without '/' that does not start with '.'")
    return name


def find_runs(root: Path) -> list[RunFolder]:
    """Return every run's folder at or below `root`, sorted by path; none if `root` does not exist.

    A run has a `config.yaml`, or has lost it and is known by its other files: any of them in a `seed_<n>`, elsewhere two.
    Does not look inside a run for further runs, nor into hidden folders, and follows no links. Raises `MachineError` for a
    folder it may not read.
    """
    runs = []
    for folder, subfolders, names in os.walk(root, onerror=_unreadable if root.exists() else None):
        if "config.yaml" in names or _lost_its_config(Path(folder), names):
            runs.append(RunFolder(Path(folder)))
            subfolders.clear()
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
    return sorted(runs, key=lambda run: run.path)


def _lost_its_config(folder: Path, names: list[str]) -> bool:
    left = {"result.json", "metrics.jsonl", "provenance.json"}.intersection(names)
    return len(left) >= (1 if folder.name.startswith("seed_") else 2)


def _unreadable(error: OSError) -> NoReturn:
    raise machine_error(error, "reading", Path(error.filename)) from error
