"""Scores from files: JSON `{"Game": [score per run, ...]}`, CSV `algorithm,game,seed,score` or `game,seed,score`.

Every entry is checked; a bad one is a UserError of one line that names the file, the entry and the fix. The same formats
are written by `remctl scores export`.
"""

from __future__ import annotations

import csv
import io
import json
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from remctl.errors import UserError
from remctl.games import check_game
from remctl.report.numbers import is_number
from remctl.report.results import Algorithm, RunScore
from remctl.runs.files import named_errors

MAX_BYTES = 64 << 20
MAX_SEED_DIGITS = 18
COLUMNS = ("algorithm", "game", "seed", "score")
UNNAMED = ""


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
    return ScoreFile(name.strip() or None, Path(path))


def read_scores(file: ScoreFile) -> dict[str, tuple[RunScore, ...]]:
    """The runs in a score file by algorithm, sorted by game and seed.

    A name given with the file names its only algorithm, and goes before the names of several (`NAME/algorithm`). Raises
    UserError naming file, entry and fix; MachineError where the file cannot be read.
    """
    ending = file.path.suffix.lower()
    if ending not in (".json", ".csv") and not file.path.is_dir():
        raise UserError(f"{file.path}: scores are read from .json and .csv files; rename or convert it")
    text = _read_text(file.path)
    runs = {UNNAMED: _parse_json(file.path, text)} if ending == ".json" else _parse_csv(file.path, text)
    return {_named(file, name, len(runs)): _sorted(scores) for name, scores in runs.items()}


def _named(file: ScoreFile, name: str, count: int) -> str:
    if name == UNNAMED and file.name is None:
        raise UserError(f"{file.path} names no algorithm: write --scores NAME={file.path}")
    if file.name is None or name == UNNAMED:
        return name or str(file.name)
    return file.name if count == 1 else f"{file.name}/{name}"


def _sorted(runs: Iterable[RunScore]) -> tuple[RunScore, ...]:
    return tuple(sorted(runs, key=lambda run: (run.game, -1 if run.seed is None else run.seed)))


def _read_text(path: Path) -> str:
    if path.is_dir():
        raise UserError(
            f"{path} is a folder: give a .json or .csv file of scores, or the folder as an argument of its own"
        )
    with named_errors("reading", path):
        if not stat.S_ISREG(path.stat().st_mode):
            raise UserError(f"{path} is not a file but a device or a pipe: write the scores to a file and give that")
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise UserError(f"{path} is larger than {MAX_BYTES >> 20} MB: this is not a file of scores")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: byte {error.start} is not UTF-8 text; save the file as UTF-8") from None


# --- JSON


def _parse_json(path: Path, text: str) -> list[RunScore]:
    entries = _json_object(path, text)
    if not entries:
        raise UserError(f'{path}: holds no game; write {{"Pong": [score per run, ...]}}')
    return [run for game, scores in entries for run in _json_game(path, game, scores)]


def _json_object(path: Path, text: str) -> list[tuple[str, Any]]:
    try:
        value = json.loads(text, object_pairs_hook=_Pairs)
    except (ValueError, RecursionError) as error:
        raise UserError(f'{path}: not JSON ({error}); write {{"Pong": [score per run, ...]}}') from None
    if not isinstance(value, _Pairs):
        raise UserError(f'{path}: not an object of games; write {{"Pong": [score per run, ...]}}')
    names = [name for name, _ in value]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{path}: {name!r} stands there {names.count(name)} times; keep one entry per game")
    return value


class _Pairs(list[tuple[str, Any]]):
    """A JSON object with the entries that a dict would silently drop."""


def _json_game(path: Path, game: str, scores: Any) -> list[RunScore]:
    where = f"{path}: {game!r}"
    _check_game(str(path), game)
    if isinstance(scores, _Pairs) or not isinstance(scores, list):
        raise UserError(f"{where} is {_shown(scores)}, not a list; write one score per run: [12.0, 15.5]")
    if not scores:
        raise UserError(f"{where} is an empty list; give its scores or remove the game")
    return [
        RunScore(game, None, _json_number(f"{where} entry {i + 1}", score), f"{path} {game} entry {i + 1}")
        for i, score in enumerate(scores)
    ]


def _json_number(where: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UserError(f"{where} is {_shown(value)}, not a number; give the run's mean score, or remove it")
    return _finite(where, value)


# --- CSV


def _parse_csv(path: Path, text: str) -> dict[str, list[RunScore]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), restkey="", strict=True)
    try:
        rows = [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise UserError(f"{path} line {reader.line_num}: not CSV ({error}); quote the cells that hold commas") from None
    _check_header(path, reader.fieldnames or ())
    if not rows:
        raise UserError(f"{path}: holds no scores below its header; add one line per run")
    runs: dict[str, list[RunScore]] = {}
    seen: dict[tuple[str, str, int], int] = {}
    for line, row in rows:
        name, run = _csv_run(path, line, row)
        first = seen.setdefault((name, run.game, run.seed or 0), line)
        if first != line:
            raise UserError(
                f"{path} line {line}: seed {run.seed} of {_of(name)}{run.game} is on line {first} already; keep one of them"
            )
        runs.setdefault(name, []).append(run)
    return runs


def _check_header(path: Path, columns: Sequence[str]) -> None:
    needed = set(COLUMNS[1:])
    if not needed <= set(columns) or len(set(columns)) < len(columns):
        raise UserError(
            f"{path} line 1: the columns are {_shown(','.join(columns))}; write algorithm,game,seed,score or game,seed,score"
        )


def _csv_run(path: Path, line: int, row: dict[str, Any]) -> tuple[str, RunScore]:
    where = f"{path} line {line}"
    if "" in row or None in row.values():
        raise UserError(f"{where}: has more or fewer cells than the header; give one cell per column")
    name = row["algorithm"].strip() if "algorithm" in row else UNNAMED
    if "algorithm" in row and not name:
        raise UserError(f"{where}: the algorithm is empty; give its name")
    game = row["game"].strip()
    _check_game(where, game)
    score = _csv_number(f"{where}: score", row["score"])
    return name, RunScore(game, _csv_seed(where, row["seed"]), score, where)


def _csv_seed(where: str, text: str) -> int:
    digits = text.strip()
    if not (digits.isascii() and digits.isdigit() and len(digits) <= MAX_SEED_DIGITS):
        raise UserError(
            f"{where}: seed is {_shown(text)}; give a whole number from 0, at most {MAX_SEED_DIGITS} digits"
        )
    return int(text)


def _csv_number(where: str, text: str) -> float:
    try:
        value = float(text.replace("_", "x"))  # 1_000 is Python's, not a number's
    except ValueError:
        raise UserError(
            f"{where} is {_shown(text)}, not a number; give the run's mean score, or remove the line"
        ) from None
    return _finite(where, value)


# --- both


def _finite(where: str, value: float) -> float:
    if not is_number(value):
        raise UserError(
            f"{where} is {_shown(value)}; a score is a finite number below 1e12: repeat that run, or remove it"
        )
    return float(value)


def _check_game(where: str, game: str) -> None:
    try:
        check_game(game)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def _of(name: str) -> str:
    return f"{name!r} on " if name else ""


def _shown(value: Any) -> str:
    text = json.dumps(dict(value) if isinstance(value, _Pairs) else value)
    return text if len(text) <= 40 else f"{text[:37]}..."


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
