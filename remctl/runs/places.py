"""Where runs lie. Records name a run's folder as it was; folders are renamed and copied since. What lies in a folder counts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property
from pathlib import Path

from remctl.config import known_hashes
from remctl.errors import MachineError
from remctl.runs.layout import RunFolder, find_runs


class Places:
    """The runs below `out`, a folder of experiments. They are searched once, and only if some record asks for it."""

    def __init__(self, out: Path) -> None:
        self.out = out

    def find(self, experiment: Path, recorded: str, config_hash: str) -> Path:
        """The folder of the run of this configuration that `experiment` records as `recorded`, relative to `out`.

        It is looked for below `experiment` itself (which may be a copy, or renamed), where it is recorded, and then among
        all of the same game and seed; a finished one goes first. Without any, where it would be.
        """

        def is_it(path: Path) -> bool:
            return config_hash in known_hashes(path / "config.yaml") and not RunFolder(path).is_imported

        found = list(filter(is_it, self._known(experiment, recorded)))
        found = found or list(filter(is_it, self._by_tail.get(Path(recorded).parts[-2:], ())))
        done = [path for path in found if RunFolder(path).is_done]
        return next(iter(done or found), None) or self._planned(experiment, recorded)

    def _known(self, experiment: Path, recorded: str) -> Iterator[Path]:
        """Below the experiment, then as recorded."""
        yield experiment.joinpath(*Path(recorded).parts[1:])
        yield self.out / recorded

    def _planned(self, experiment: Path, recorded: str) -> Path:
        """Where a run goes that was not begun: as recorded, unless that experiment was renamed to this one."""
        own, there = self._known(experiment, recorded)
        return there if self.out.joinpath(*Path(recorded).parts[:1]).exists() else own

    @cached_property
    def _by_tail(self) -> dict[tuple[str, ...], list[Path]]:
        found: dict[tuple[str, ...], list[Path]] = {}
        with suppress(MachineError):  # a folder that may not be read
            for run in find_runs(self.out):
                found.setdefault(run.path.parts[-2:], []).append(run.path)
        return found
