"""Find the folders of recorded runs, also after folders were renamed or copied: a run is known by its configuration."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property
from pathlib import Path

from remctl.config import known_hashes
from remctl.errors import MachineError
from remctl.runs.layout import RunFolder, find_runs


class Places:
    """The runs below `out`, a folder of experiments. It is searched once, and only if a run is not where it should be."""

    def __init__(self, out: Path) -> None:
        self.out = out

    def find(self, experiment: Path, recorded: str, config_hash: str) -> Path:
        """Return the folder of the run that `experiment` records as `recorded`, relative to `out`.

        It searches below `experiment` itself, which may be a copy or renamed, and where the run is recorded. Only then it
        searches all runs of the same game and seed. Finished runs come first. If there is none, it returns where the run
        would go.
        """

        def is_it(path: Path) -> bool:
            return config_hash in known_hashes(path / "config.yaml")

        found = list(filter(is_it, self._known(experiment, recorded)))
        found = found or list(filter(is_it, self._by_tail.get(Path(recorded).parts[-2:], ())))
        done = [path for path in found if RunFolder(path).is_done]
        return next(iter(done or found), None) or self._planned(experiment, recorded)

    def _known(self, experiment: Path, recorded: str) -> Iterator[Path]:
        """Yield the place below the experiment, then the recorded one."""
        yield experiment.joinpath(*Path(recorded).parts[1:])
        yield self.out / recorded

    def _planned(self, experiment: Path, recorded: str) -> Path:
        """Return where a new run goes: as recorded, unless that experiment was renamed to this one."""
        own, there = self._known(experiment, recorded)
        return there if self.out.joinpath(*Path(recorded).parts[:1]).exists() else own

    @cached_property
    def _by_tail(self) -> dict[tuple[str, ...], list[Path]]:
        found: dict[tuple[str, ...], list[Path]] = {}
        with suppress(MachineError):  # a folder without permission to read
            for run in find_runs(self.out):
                found.setdefault(run.path.parts[-2:], []).append(run.path)
        return found
