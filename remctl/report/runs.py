"""Scores from run folders: which runs there are, whose they are, which are missing.

A run counts once it has a `result.json`. A folder with an `experiment.json` (written by the launcher of ablations) says
itself which runs belong to it, where they lie, and what its variants are called; any other folder is searched for runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from remctl.config import precision_of_schema_1, same_run, yaml12
from remctl.errors import MachineError, UserError
from remctl.games import check_game
from remctl.report.experiments import EXPERIMENT_FILE, Experiment, ExperimentRun, read_experiment
from remctl.report.numbers import is_count, is_number
from remctl.report.results import MissingRun, RunScore
from remctl.runs.code import distinct
from remctl.runs.files import named_errors, read_jsonl
from remctl.runs.imported import imported_from
from remctl.runs.layout import RunFolder, find_runs
from remctl.runs.places import Places, is_nameless, why_nameless
from remctl.runs.provenance import starts
from remctl.runs.result import damaged_result
from remctl.runs.result import read_result as result_of
from remctl.variants import label_of


@dataclass
class RunGroup:
    """The runs of one variant of one experiment; becomes one algorithm. `source` is the experiment's folder."""

    experiment: str
    variant: str
    label: str
    source: str
    runs: list[RunScore] = field(default_factory=list)
    missing: list[MissingRun] = field(default_factory=list)


@dataclass(frozen=True)
class FoundRuns:
    """What lies in the given folders. `question` and `control` are those of the only experiment.json, if there is one."""

    groups: tuple[RunGroup, ...]
    question: str
    control: str | None
    notes: tuple[str, ...]


def read_runs(paths: Sequence[Path]) -> FoundRuns:
    """Everything in the given run folders, experiments and folders of those; nothing counts twice.

    Raises UserError for a path without runs and for a run in the wrong place, MachineError for a file that cannot be
    read or is damaged.
    """
    search = _Search()
    for path in paths:
        search.add_experiments(path)
    for path in paths:
        search.add_others(path)
    search.say_what_was_left_out()
    known = search.experiments
    return FoundRuns(
        groups=tuple(search.groups.values()),
        question=known[0].question if len(known) == 1 else "",
        control=known[0].control if len(known) == 1 else None,
        notes=tuple(search.notes),
    )


class _Search:
    """Gathers groups over several paths, which may overlap: experiments first, then the runs that none of them lists."""

    def __init__(self) -> None:
        self.groups: dict[tuple[Path, str], RunGroup] = {}
        self.experiments: list[Experiment] = []
        self.folders: dict[Path, Path] = {}  # of the experiments, resolved, as they were given
        self.unlisted: dict[Path, list[RunFolder]] = {}  # runs within them that they do not list
        self.notes: list[str] = []
        self.seen: set[Path] = set()
        self.places: dict[Path, Places] = {}

    def add_experiments(self, path: Path) -> None:
        if not path.exists():
            raise UserError(f"{path}: no such folder; give run folders or a folder of them, such as runs/quick")
        if not path.is_dir():
            raise UserError(f"{path} is a file, and no run: remctl report takes score files as --scores NAME={path}")
        experiments = sorted(
            file.parent for file in (path / EXPERIMENT_FILE, *path.glob(f"*/{EXPERIMENT_FILE}")) if file.is_file()
        )
        if not experiments and not find_runs(path):
            raise UserError(f"{path}: no runs there (no config.yaml); give run folders or a folder of them")
        for folder in experiments:
            if folder.resolve() not in self.folders:
                self.folders[folder.resolve()] = folder
                self.add_experiment(read_experiment(folder))

    def add_others(self, path: Path) -> None:
        """Runs below `path` that no experiment lists; those within an experiment only where `path` lies within it too."""
        whole = path.resolve()
        around = [folder for folder in self.folders if folder.is_relative_to(whole)]
        for run in find_runs(path):
            place = run.path.resolve()
            folder = next((f for f in around if f in place.parents), None)
            if folder is None:
                self.add_run(run)
            elif place not in self.seen:
                self.unlisted.setdefault(folder, []).append(run)

    def add_run(self, run: RunFolder) -> None:
        if self.is_seen(run):
            return
        folder = _ancestor(run.path, 3)
        try:
            about, result = _describe(run), _finished(run)
        except UserError as error:  # a damaged run is missing, and the others are compared
            about = _by_place(run)
            _miss(
                self.group(folder.resolve().name, about.variant, folder, None, run.is_imported), run, about, str(error)
            )
        else:
            _add(self.group(folder.resolve().name, about.variant, folder, None, run.is_imported), run, about, result)

    def add_experiment(self, experiment: Experiment) -> None:
        self.experiments.append(experiment)
        for name, label in experiment.labels.items():
            self.group(experiment.name, name, experiment.folder, label)
        for entry in experiment.runs:
            self.add_entry(experiment, entry)

    def add_entry(self, experiment: Experiment, entry: ExperimentRun) -> None:
        root = _ancestor(experiment.folder, 1)
        places = self.places.setdefault(root, Places(root))
        run = RunFolder(places.find(experiment.folder, entry.path, entry.config_hash))
        self.seen.add(run.path.resolve())
        group = self.group(experiment.name, entry.variant, experiment.folder, None)
        about = _About(entry.variant, entry.game, entry.seed)
        if run.is_imported:  # in the place of one that was to be trained
            _miss(group, run, about, "weights imported from elsewhere are in its place")
            return
        try:
            result = _finished(run)
        except UserError as error:
            _miss(group, run, about, str(error))
            return
        if result is not None and not same_run(result.get("config_hash"), entry.config_hash, run.config):
            reason = f"the run there has configuration {result.get('config_hash')}, not {entry.config_hash}"
            _miss(group, run, about, reason)
            return
        _add(group, run, about, result)

    def group(
        self, experiment: str, variant: str, folder: Path, label: str | None, is_imported: bool = False
    ) -> RunGroup:
        label = label or label_of(variant)
        if is_imported:  # no column of its own runs, whatever else is in the folder
            variant, label = f"{variant}-imported", f"{label} (imported)"
        made = RunGroup(experiment, variant, label, str(folder))
        return self.groups.setdefault((folder.resolve(), variant), made)

    def is_seen(self, run: RunFolder) -> bool:
        place = run.path.resolve()
        if place in self.seen:
            return True
        self.seen.add(place)
        return False

    def say_what_was_left_out(self) -> None:
        for folder, runs in self.unlisted.items():
            extra = {place: run for run in runs if (place := run.path.resolve()) not in self.seen}
            if extra:
                first, *more = extra.values()
                self.notes.append(
                    f"{self.folders[folder]} also holds runs that its {EXPERIMENT_FILE} does not list, {len(extra)} left "
                    f"out here: {first.path}{' and others' if more else ''}."
                )


def _ancestor(path: Path, steps: int) -> Path:
    """The folder `steps` above, written as the user wrote it where that is long enough."""
    short = path.parts and ".." not in path.parts and len(path.parts) > steps
    return path.parents[steps - 1] if short else path.resolve().parents[steps - 1]


# --- one run


@dataclass(frozen=True)
class _About:
    variant: str
    game: str
    seed: int


def _add(group: RunGroup, run: RunFolder, about: _About, result: dict[str, Any] | None) -> None:
    if result is None:
        try:
            _miss(group, run, about, progress(run), run.is_imported)
        except MachineError as error:
            _miss(group, run, about, str(error))
        return
    _expect(run, result, about)
    group.runs.append(
        RunScore(
            game=about.game,
            seed=about.seed,
            score=float(result["score"]),
            path=str(run.path),
            num_episodes=result.get("num_episodes"),
            config_hash=result.get("config_hash"),
            codes=distinct(starts(run)) or distinct([result]),
            preset=result.get("preset"),
            hardware=hardware(run, result),
            precision=precision(run, result),
            imported=imported_from(run),
            has_arguments=_has_arguments(run),
        )
    )


def _has_arguments(run: RunFolder) -> bool:
    """None are known where config.yaml is damaged or lost: a finished run counts by the hash that it states."""
    try:
        environment = _config(run).get("environment")
    except UserError:
        return False
    return isinstance(environment, dict) and bool(environment.get("arguments"))


def _miss(group: RunGroup, run: RunFolder, about: _About, reason: str, is_imported: bool = False) -> None:
    group.missing.append(MissingRun(group.variant, about.game, about.seed, str(run.path), reason, is_imported))


def _expect(run: RunFolder, result: dict[str, Any], about: _About) -> None:
    if (result["game"], result["seed"]) != (about.game, about.seed):
        raise UserError(
            f"{run.result}: holds {result['game']} seed {result['seed']}, expected {about.game} seed {about.seed}; "
            "move the run to its own folder"
        )


def _finished(run: RunFolder) -> dict[str, Any] | None:
    """Its result, None before its end. Raises UserError where nothing says whose it is, else like `read_result`."""
    if is_nameless(run):
        raise UserError(why_nameless(run))
    return read_result(run) if run.is_done else None


def read_result(run: RunFolder) -> dict[str, Any]:
    """A finished run's result.json. Raises MachineError for a damaged one, UserError for a score that is no number."""
    result = result_of(run, "score", "game", "seed")
    score = result["score"]
    if not is_number(score):
        raise UserError(
            f"{run.result}: score is {score!r:.40}, not a number below 1e12: remove it, and the same command tests the "
            "trained agent again"
        )
    if not isinstance(result["game"], str) or not is_count(result["seed"]):
        raise MachineError(damaged_result(run, "game or seed"))
    try:
        check_game(result["game"])
    except UserError as error:
        raise UserError(f"{run.result}: {error}") from None
    return result


def hardware(run: RunFolder, result: dict[str, Any]) -> str | None:
    """Name of the device; all of them, joined by ' + ', where the run went from one to another."""
    devices = [start.get("device") for start in starts(run)]
    names = [device.get("name") for device in [*devices, result.get("device")] if isinstance(device, dict)]
    return " + ".join(dict.fromkeys(str(name) for name in names if name)) or None


def precision(run: RunFolder, result: dict[str, Any]) -> str | None:
    """bf16 or fp32; both, joined by ' + ', if the run changed it."""
    device = result.get("device")
    stated = device.get("precision") if isinstance(device, dict) else None
    return str(stated) if stated else precision_of_schema_1(run.config)


def progress(run: RunFolder) -> str:
    """How far an unfinished run got: `not started`, `epoch 120 of 600`."""
    if run.is_imported:
        return "imported, not tested: remctl eval"
    if not run.config.is_file():
        return "not started"
    epochs = [entry["epoch"] for entry in read_jsonl(run.metrics) if isinstance(entry.get("epoch"), int)]
    training = _config(run).get("training")
    total = training.get("num_epochs") if isinstance(training, dict) else None
    return f"epoch {max(epochs, default=0)}" + (f" of {total}" if total else "")


def _by_place(run: RunFolder) -> _About:
    """Whose run it is by its folder's names."""
    seed, game, variant = run.path.name.removeprefix("seed_"), run.path.parents[0].name, run.path.parents[1].name
    return _About(variant, game, int(seed) if seed.isdecimal() else 0)


def _describe(run: RunFolder) -> _About:
    """Whose run it is: from result.json, or from config.yaml while there is none."""
    if is_nameless(run) or not run.config.is_file():
        raise UserError(why_nameless(run))
    if run.is_done:
        result = read_result(run)
        return _About(str(result.get("variant") or run.path.parents[1].name), result["game"], result["seed"])
    config = _config(run)
    game, seed = config.get("game"), config.get("seed")
    if not isinstance(game, str) or not is_count(seed):
        raise UserError(f"{run.config}: names no game and seed; move the folder away, it is not a run")
    return _About(str(config.get("variant") or run.path.parents[1].name), game, seed)


def _config(run: RunFolder) -> dict[str, Any]:
    with named_errors("reading", run.config):
        text = run.config.read_text(encoding="utf-8", errors="replace")
    try:
        value = yaml12.load(text)
    except ValueError as error:
        raise UserError(f"{run.config}: not YAML ({error}); restore it from a copy or move the run away") from None
    return value if isinstance(value, dict) else {}
