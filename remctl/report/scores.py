"""Scores from files, in the shapes that `remctl.report.score_files` knows, and back into files.

Every entry is checked; a bad one is a UserError of one line that names the file, the entry and the fix. One that says that
there is no score (`null`, `nan`, an empty cell or list) is a missing run. What `remctl scores export` writes is read too.
"""

from __future__ import annotations

import csv
import io
import json
import stat
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from remctl.errors import UserError
from remctl.paths import refuse_nowhere, user_path
from remctl.report.numbers import is_number
from remctl.report.results import Algorithm, MissingRun, RunScore
from remctl.report.score_files import ENDINGS, read_entries
from remctl.report.score_names import SEED_TEXT, Entry, shown
from remctl.report.score_tables import MINUS
from remctl.runs.files import named_errors

MAX_BYTES = 64 << 20
MAX_SEED_DIGITS = 18
MAX_STEPS = 4  # named in a note
COLUMNS = ("algorithm", "game", "seed", "score")
UNNAMED = ""
# As pandas, R and spreadsheets write it
NO_SCORE = frozenset(("", "nan", "-nan", "null", "none", "nil", "na", "n/a", "n.a.", "<na>", "#na", "#n/a"))
NO_SCORE |= {"-", "--", "---", "\u2013", "\u2014", "\u2212"}


@dataclass(frozen=True)
class ScoreFile:
    """What `--scores NAME=FILE` names; `name` is None where only FILE was given."""

    name: str | None
    path: Path


def parse_option(text: str) -> ScoreFile:
    """`NAME=FILE` or `FILE`. Raises UserError for an empty part."""
    name, separator, path = text.partition("=")
    if not separator:
        name, path = "", text
    if not path.strip() or (separator and not name.strip()):
        raise UserError(f"--scores: given {text!r}; write NAME=FILE, such as IRIS=scores/iris.json")
    return ScoreFile(name.strip() or None, user_path(path.strip()))


class FoundScores(NamedTuple):
    """The runs in a score file by algorithm, sorted by game and seed, and those that it says have no score.

    `notes`: what a reader must know before comparing them.
    """

    runs: dict[str, tuple[RunScore, ...]]
    missing: tuple[MissingRun, ...]
    notes: tuple[str, ...] = ()


def read_scores(file: ScoreFile) -> FoundScores:
    """Read a score file.

    A name given with the file names its only algorithm, and goes before the names of several (`NAME/algorithm`). Raises
    UserError naming file, entry and fix; MachineError where the file cannot be read.
    """
    entries = read_entries(str(file.path), file.path.suffix.lower(), _read(file.path))
    count = len({entry.algorithm for entry in entries})
    runs: dict[str, list[RunScore]] = {}
    missing = []
    first: dict[tuple[str, str, int | None], Entry] = {}
    for entry in entries:
        name, seed = _named(file, entry.algorithm, count), _seed(entry)
        same = first.setdefault((name, entry.game, seed), entry)
        if same is not entry:
            _refuse_second(entry, same, seed)
        score = _score(entry)
        if score is None:
            reason = "no score in the file" if entry.score in (None, "") else f"{shown(entry.score)} in the file"
            missing.append(MissingRun(name, entry.game, seed, entry.where, reason))
        else:
            runs.setdefault(name, []).append(RunScore(entry.game, seed, score, entry.where))
    if not runs:
        raise UserError(f"{file.path}: no run has a score; give one score per run")
    sorted_runs = {name: _sorted(scores) for name, scores in runs.items()}
    return FoundScores(sorted_runs, tuple(missing), tuple(_step_notes(file.path, entries)))


def _step_notes(path: Path, entries: Iterable[Entry]) -> list[str]:
    """A sentence if the scores are of several steps; each of a run is refused, so these are the last of each."""
    steps = list(dict.fromkeys(str(entry.step) for entry in entries if entry.step is not None))
    if len(steps) < 2:
        return []
    listed = ", ".join(steps[:MAX_STEPS]) + (f" and {len(steps) - MAX_STEPS} more" if len(steps) > MAX_STEPS else "")
    return [f"{path}: its scores are of several steps ({listed}), and are compared as they are."]


def _named(file: ScoreFile, name: str, count: int) -> str:
    if name == UNNAMED and file.name is None:
        raise UserError(f"{file.path} names no algorithm: write --scores NAME={file.path}")
    if file.name is None or name == UNNAMED:
        return name or str(file.name)
    return file.name if count == 1 else f"{file.name}/{name}"


def _sorted(runs: Iterable[RunScore]) -> tuple[RunScore, ...]:
    return tuple(sorted(runs, key=lambda run: (run.game, -1 if run.seed is None else run.seed)))


def _read(path: Path) -> bytes:
    if path.suffix.lower() not in ENDINGS and not path.is_dir():
        raise UserError(f"{path}: scores are read from {', '.join(ENDINGS)} files; rename or convert it")
    refuse_nowhere(path)
    if path.is_dir():
        raise UserError(f"{path} is a folder: give a file of scores, or the folder as an argument of its own")
    with named_errors("reading", path):
        if not stat.S_ISREG(path.stat().st_mode):
            raise UserError(f"{path} is not a file but a device or a pipe: write the scores to a file and give that")
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise UserError(f"{path} is larger than {MAX_BYTES >> 20} MB: this is not a file of scores")
    return data


# --- entries


def _refuse_second(entry: Entry, first: Entry, seed: int | None) -> None:
    """Runs without a seed may be many; rows that are moments of one run are none."""
    if seed is None:
        if entry.step != first.step:
            raise UserError(
                f"{entry.where}: rows of several steps or episodes; keep the last of each run, with its seed"
            )
        return
    of = f"{entry.algorithm!r} on " if entry.algorithm else ""
    keep = "one of them" if entry.step == first.step else "the last step of each run"
    raise UserError(f"{entry.where}: seed {seed} of {of}{entry.game} is at {first.where} already; keep {keep}")


def _seed(entry: Entry) -> int | None:
    if entry.seed is None:
        return None
    found = SEED_TEXT.fullmatch(str(entry.seed).strip())
    if found is None or not found[1].isascii() or len(found[1]) > MAX_SEED_DIGITS:
        raise UserError(
            f"{entry.where}: seed is {shown(entry.seed)}; give a whole number from 0, at most {MAX_SEED_DIGITS} digits"
        )
    return int(found[1])


def _score(entry: Entry) -> float | None:
    """The score; None where the file says that there is none."""
    what = entry.where if entry.trail else f"{entry.where}: score"
    value = entry.score
    if str(value).strip().lower() in NO_SCORE:
        return None
    if isinstance(value, str):
        with suppress(ValueError):
            value = float(MINUS.sub("-", value.strip()).replace("_", "x"))  # 1_000 is Python's, not a number's
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UserError(f"{what} is {shown(value)}, not a number; give the run's mean score, or remove it")
    if not is_number(value):
        raise UserError(
            f"{what} is {shown(value)}; a score is a finite number below 1e12: repeat that run, or remove it"
        )
    return float(value)


# --- writing


def scores_csv(algorithms: Iterable[Algorithm]) -> str:
    """`algorithm,game,seed,score`, one line per run; runs without a seed are numbered from 0 within their game."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for algorithm in algorithms:
        for run, seed in _seeded(algorithm.runs):
            writer.writerow((algorithm.name, run.game, seed, repr(run.score)))
    return text.getvalue()


def _seeded(runs: Sequence[RunScore]) -> list[tuple[RunScore, int]]:
    counts: dict[str, int] = {}
    numbered = []
    for run in runs:
        index = counts[run.game] = counts.get(run.game, -1) + 1
        numbered.append((run, index if run.seed is None else run.seed))
    return numbered


def scores_json(algorithms: Sequence[Algorithm]) -> str:
    """`{"Game": [score per run, ...]}` of one algorithm. Raises UserError for several: the format names none."""
    if len(algorithms) != 1:
        names = ", ".join(algorithm.name for algorithm in algorithms)
        raise UserError(
            f"JSON holds the scores of one algorithm, found {names or 'none'}: choose with --algorithm, or use CSV"
        )
    games: dict[str, list[float]] = {}
    for run in algorithms[0].runs:
        games.setdefault(run.game, []).append(run.score)
    return json.dumps(games, indent=2) + "\n"
