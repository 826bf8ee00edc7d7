"""What a file of scores holds, whatever its shape, as one entry per run.

Objects of JSON, rows of a table and archives of arrays are walked in the same way. A key is the name of a column (`env_id`,
`episode_return`), a game however it is spelled, a seed (`3`, `seed_3`), or else the name of an algorithm.
"""

from __future__ import annotations

import csv
import io
import json
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from remctl.errors import UserError
from remctl.games import find_game, refuse_unknown

ENDINGS = (".csv", ".tsv", ".json", ".jsonl", ".npz")
WRITE = 'write {"Pong": [score per run, ...]}'
ALGORITHM = ("algorithm", "algo", "alg", "agent", "agent_name", "method", "model", "approach")
GAME = (
    *("game", "env", "environment", "task", "env_id", "env_name", "environment_id", "environment_name", "game_id"),
    *("game_name", "task_id", "task_name", "gym_id", "rom"),
)
SEED = ("seed", "run", "trial", "replicate", "repetition", "rep", "seed_id", "run_id", "run_idx", "run_number")
ROLES = {"algorithm": ALGORITHM, "game": GAME, "seed": SEED}
SCORE = re.compile(
    r"((mean|avg|average|final|last|eval|evaluation|test|raw|episode|episodic|game|total|sum)_)*"
    r"(score|return|reward)s?(_(mean|avg|average|final))?"
)
STEP = re.compile(r"((global|env|environment|time|train|training)_?)?(step|epoch|iteration|frame|update)s?|episode")
WRAPPERS = ("data", "results")
SEED_TEXT = re.compile(r"(?:(?:seed|run|trial|rep|replicate|repetition|s|r)[ _#-]*)?(\d+)(?:\.0*)?", re.IGNORECASE)
NAMELESS = re.compile(r"|unnamed_\d+|index|level_\d+")  # pandas' index, once or twice through a file


@dataclass(frozen=True)
class Entry:
    """One run, or the way to it. `place` is the file, in a table with the line, `trail` the keys within."""

    place: str
    trail: str = ""
    algorithm: str = ""
    game: str = ""
    seed: Any = None
    step: Any = None
    score: Any = None
    key: str = ""  # the last one that is neither game nor seed
    is_run: bool = False  # a number is one run's score here, not the mean of several
    in_list: bool = False

    @property
    def where(self) -> str:
        """The place for people: `a.json: 'Pong' entry 2`, `a.csv line 3`."""
        return f"{self.place}: {self.trail}" if self.trail else self.place

    def at(self, step: str, **changes: Any) -> Entry:
        """Return the entry one step further inside."""
        return replace(self, trail=f"{self.trail} {step}".lstrip(), **changes)


def read_entries(path: str, ending: str, data: bytes) -> list[Entry]:
    """Return the runs in a file's content, in its order. Raises UserError naming the file, the place and the fix."""
    try:
        found = list(_entries(path, ending, data))
    except RecursionError:
        raise UserError(f"{path}: not JSON of scores (nested too deeply); {WRITE}") from None
    unknown = [entry for entry in found if find_game(entry.game) is None]
    try:
        refuse_unknown(entry.game for entry in unknown)
    except UserError as error:
        one = len({entry.game for entry in unknown}) == 1
        raise UserError(f"{unknown[0].place if one else path}: {error}") from None
    spelled: dict[tuple[str, str | None], str] = {}
    for entry in found:
        other = spelled.setdefault((entry.algorithm, find_game(entry.game)), entry.game)
        if other != entry.game:
            raise UserError(f"{entry.place}: {entry.game!r} and {other!r} are one game; keep one of them, or one name")
    return [replace(entry, game=find_game(entry.game) or "") for entry in found]


def _entries(path: str, ending: str, data: bytes) -> Iterator[Entry]:
    if ending == ".npz":
        yield from _walk(_arrays(path, data), Entry(path))
        return
    text = _text(path, data)
    if ending in (".csv", ".tsv"):
        for line, row in _rows(path, text):
            yield from _walk(row, Entry(f"{path} line {line}", is_run=True))
    elif ending == ".jsonl":
        for number, content in enumerate(text.split("\n"), 1):
            if content.strip():
                place = f"{path} line {number}"
                yield from _walk(_json(place, content), Entry(place))
    else:
        yield from _walk(_json(path, text), Entry(path))


# --- the walk


def _walk(value: Any, at: Entry) -> Iterator[Entry]:
    if isinstance(value, dict):
        yield from _object(value, replace(at, in_list=False))
    elif isinstance(value, list):
        yield from _list(value, at)
    elif not at.game and not at.key:
        raise UserError(f"{at.place}: not an object of games; {WRITE}")
    else:
        entry = replace(at, game=at.game or at.key, score=value)
        if not at.is_run and value is not None and find_game(entry.game):
            raise UserError(f"{at.where} is {shown(value)}, not a list; write one score per run: [12.0, 15.5]")
        yield entry


def _list(values: list[Any], at: Entry) -> Iterator[Entry]:
    if at.in_list and not at.game:
        raise UserError(f'{at.where} is an array without the names of its games; write {{"REM": {{"Pong": [...]}}}}')
    if at.in_list:
        raise UserError(f"{at.where} is {shown(values)}, not a number; give the run's mean score, or remove it")
    if not values:
        yield from _walk(None, at)
    for number, value in enumerate(values, 1):
        yield from _walk(value, at.at(f"entry {number}", is_run=True, in_list=True))


def _object(members: dict[str, Any], at: Entry) -> Iterator[Entry]:
    columns = _columns(members)
    if isinstance(members.get("columns"), list) and isinstance(members.get("data"), list):  # pandas' orient="split"
        members = _transposed(members["columns"], members["data"], at)
        columns = _columns(members)
    if any(isinstance(members[key], list | dict) for role, key in columns.items() if role in ROLES):
        yield from _walk(_records(members, at), at)
        return
    cells = {role: members[key] for role, key in columns.items()}
    if "algorithm" in cells:
        at = replace(at, algorithm=_named(cells["algorithm"], at))
    at = replace(at, game=str(cells.get("game", at.game)).strip(), seed=cells.get("seed", at.seed))
    at = replace(at, step=cells.get("step", at.step))
    score = _score_key(members, at)
    if score is not None:
        yield from _walk(members[score], replace(at, is_run=at.is_run or not isinstance(members[score], list | dict)))
        return
    rest = [(key, value) for key, value in members.items() if key not in columns.values()]
    if not members and at.game:
        yield from _walk(None, at)
    elif not rest:
        raise UserError(f"{at.where}: holds no {'score' if members else 'game'}; {WRITE}")
    for key, value in rest:
        yield from _member(key, value, at)


def _member(key: str, value: Any, at: Entry) -> Iterator[Entry]:
    seed = SEED_TEXT.fullmatch(key.strip())
    if not at.game and find_game(key):
        yield from _walk(value, at.at(repr(key), game=key))
    elif seed and at.seed is None:
        yield from _walk(value, at.at(repr(key), seed=key, is_run=True))
    elif isinstance(value, list | dict):
        yield from _walk(value, at.at(repr(key), algorithm=f"{at.algorithm}/{key}".lstrip("/"), key=key))
    elif at.game:
        raise UserError(f"{at.where}: what is {key!r}? Call the column of scores score, others game, seed, algorithm")
    else:
        yield from _walk(value, at.at(repr(key), key=key))


def _columns(members: Mapping[str, Any]) -> dict[str, str]:
    """The keys that name columns, by what they are: algorithm, game, seed, step."""
    plain = {_plain(key): key for key in members}
    found = {role: next((plain[name] for name in names if name in plain), None) for role, names in ROLES.items()}
    found["step"] = next((key for name, key in plain.items() if STEP.fullmatch(name)), None)
    return {role: key for role, key in found.items() if key is not None}


def _score_key(members: Mapping[str, Any], at: Entry) -> str | None:
    plain = {_plain(key): key for key in members}
    named = [name for name in plain if SCORE.fullmatch(name)]
    named = ["score"] if "score" in named else named
    if len(named) > 1:
        raise UserError(f"{at.place}: several columns of scores ({', '.join(named)}): call the one to be read score")
    wrappers = [name for name in WRAPPERS if name in plain and isinstance(members[plain[name]], list | dict)]
    return next((plain[name] for name in (*named, *wrappers)), None)


def _named(value: Any, at: Entry) -> str:
    if value is None or not str(value).strip():
        raise UserError(f"{at.where}: the algorithm is empty; give its name")
    return str(value).strip()


def _records(members: dict[str, Any], at: Entry) -> list[dict[str, Any]]:
    """A table that was written column by column, as pandas does, row by row."""
    import pandas as pd

    try:
        return pd.DataFrame(members).astype(object).to_dict("records")
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{at.place}: columns that do not fit together ({error}); give every row each column") from None


def _transposed(columns: list[Any], rows: list[Any], at: Entry) -> dict[str, Any]:
    if not all(isinstance(row, list) and len(row) == len(columns) for row in rows):
        raise UserError(f"{at.place}: rows of data that do not fit the columns; give every row each column")
    return {str(name): [row[i] for row in rows] for i, name in enumerate(columns)}


def _plain(key: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", key.lower()).strip("_")


def shown(value: Any) -> str:
    """A value for a message, in part if it is long."""
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


# --- files


def _text(path: str, data: bytes) -> str:
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: byte {error.start} is not UTF-8 text; save the file as UTF-8") from None


def _arrays(path: str, data: bytes) -> dict[str, Any]:
    import numpy as np

    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return {name: arrays[name].tolist() for name in arrays.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, AttributeError, TypeError) as error:
        raise UserError(f"{path}: not arrays by game ({error}); write numpy.savez(file, Pong=[...])") from None


def _json(where: str, text: str) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        twice = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
        if twice is not None:
            raise UserError(f"{where}: {twice!r} stands there {names.count(twice)} times; keep one entry per game")
        return dict(pairs)

    try:
        return json.loads(text, object_pairs_hook=unique)
    except ValueError as error:
        raise UserError(f"{where}: not JSON ({error}); {WRITE}") from None


def _rows(path: str, text: str) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a table with the number of their line; separated by commas, semicolons or tabs, as the header is."""
    header = text.lstrip("\n").partition("\n")[0]
    separator = max(",;\t", key=header.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True, skipinitialspace=True)
    try:
        lines = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise UserError(f"{path} line {reader.line_num}: not CSV ({error}); quote the cells that hold commas") from None
    columns = [cell.strip() for cell in lines[0][1]] if lines else []
    rows = lines[1:]
    for line, row in rows:
        if len(row) != len(columns):
            raise UserError(f"{path} line {line}: has more or fewer cells than the header; give one cell per column")
    names = _index_named(columns, [row for _, row in rows])
    _check_header(path, columns, names)
    if not rows:
        raise UserError(f"{path}: holds no scores below its header; add one line per run")
    has_points = any(re.fullmatch(r"-?\d+\.\d+", cell) for _, row in rows for cell in row)
    numbers = _point if separator == ";" and not has_points else str
    for line, row in rows:
        yield line, {name: numbers(cell.strip()) for name, cell in zip(names, row, strict=True) if name}


def _index_named(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The columns with what pandas' nameless ones hold: games, seeds, algorithms, or "" for mere numbers of the rows."""
    names = list(columns)
    for i, column in enumerate(columns):
        if NAMELESS.fullmatch(_plain(column)):
            cells = [row[i].strip() for row in rows]
            if all(cell.isdecimal() or not cell for cell in cells):
                names[i] = ""
            elif all(map(find_game, cells)):
                names[i] = "game"
            else:
                names[i] = "seed" if all(map(SEED_TEXT.fullmatch, cells)) else "algorithm"
    return names


def _check_header(path: str, columns: Sequence[str], names: Sequence[str]) -> None:
    used = [_plain(name) for name in names if name]
    columns_of = _columns(dict.fromkeys(names, ""))
    has_scores = any(SCORE.fullmatch(name) for name in used) or any(map(SEED_TEXT.fullmatch, names))
    if len(set(used)) < len(used) or not (("game" in columns_of and has_scores) or any(map(find_game, names))):
        raise UserError(
            f"{path} line 1: the columns are {shown(','.join(columns))}; write algorithm,game,seed,score or game,seed,score"
        )


def _point(cell: str) -> str:
    return cell.replace(",", ".") if re.fullmatch(r"-?\d+,\d+", cell) else cell
