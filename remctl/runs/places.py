"""Find the folders of recorded runs, also after folders were renamed or copied, and say whose run lies in one.

A run is known by its configuration.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Literal

from remctl.config import from_yaml, known_hashes
from remctl.config.stored import REMEDY
from remctl.errors import MachineError, UserError
from remctl.runs.bundle import is_intact
from remctl.runs.files import read_jsonl
from remctl.runs.layout import RunFolder, find_runs

AGAIN: Literal["again"] = (
    "again"  # the request by which a launcher keeps a folder for a run that other code has made elsewhere
)


def is_nameless(run: RunFolder) -> bool:
    """Whether it is finished and has no config.yaml that can be read, by which alone every version knows whose score it is.

    One that is not finished finds its identity in its checkpoints too.
    """
    return run.is_done and not known_hashes(run.config)


def why_nameless(run: RunFolder) -> str:
    """What is wrong with the config.yaml of a run, which cannot be read, and what to do."""
    what = "gone"
    if run.config.exists():
        try:
            from_yaml(run.config)
        except UserError as error:
            what = f"damaged ({str(error).removeprefix(f'{run.config}: ').removesuffix(f': {REMEDY}')})"
    return f"{run.config} is {what}: restore it from a copy, or move the run's folder away"


def is_again(run: RunFolder) -> bool:
    """Whether `remctl ablate --same-code` had the run begun there, though other code has made it: it goes before copies."""
    with suppress(MachineError):  # whoever works with the file says so
        return any(entry.get("event") == AGAIN for entry in read_jsonl(run.requests))
    return False


def is_awaited(run: RunFolder) -> bool:
    """Whether it `is_again` and has no configuration yet by which it could be found."""
    return not run.config.exists() and is_again(run)


def _intact(paths: Iterable[Path]) -> list[Path]:
    return [path for path in paths if is_intact(RunFolder(path))]


class Places:
    """The runs below `out`, a folder of experiments. It is searched once, and only if a run is not where it should be."""

    def __init__(self, out: Path) -> None:
        self.out = out

    def find(self, experiment: Path, recorded: str, config_hash: str) -> Path:
        """Return the folder of the run that `experiment` records as `recorded`, relative to `out`.

        It searches below `experiment` itself, which may be a copy or renamed, and where the run is recorded. Only then, and
        only if the run is not to begin again there, it searches all runs of the same game and seed. Finished runs come first,
        damaged bundles last. If there is none, it returns where the run would go.
        """

        def is_it(path: Path) -> bool:
            return config_hash in known_hashes(path / "config.yaml") and not RunFolder(path).is_imported

        known = list(self._known(experiment, recorded))
        here = list(filter(is_it, known))
        found = _intact(here) or [path for path in known if is_awaited(RunFolder(path))]
        found = found or _intact(filter(is_it, self._by_tail.get(Path(recorded).parts[-2:], ()))) or here
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
