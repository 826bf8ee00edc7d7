"""What a file of scores holds, whatever its shape, as one entry per run.

Objects of JSON, rows of a table and archives of arrays are walked in the same way. A key is the name of a column (`env_id`,
`episode_return`), a game however it is spelled, a seed (`3`, `seed_3`), or else the name of an algorithm.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from remctl.errors import UserError
from remctl.games import find_game, refuse_unknown
from remctl.report import score_tables
from remctl.report.score_names import (
    EPISODES,
    MOMENT,
    ROLES,
    SCORE,
    SEED_TEXT,
    WRITE,
    Entry,
    columns_of,
    is_statistic,
    is_summary,
    plain_name,
    refuse_lost_columns,
    shown,
)

ENDINGS = (".csv", ".tsv", ".json", ".jsonl", ".npz")
WRAPPERS = ("data", "results")


def read_entries(path: str, ending: str, data: bytes) -> list[Entry]:
    """Return the runs in a file's content, in its order. Raises UserError naming the file, the place and the fix."""
    try:
        found = list(_entries(path, ending, data))
    except RecursionError:
        raise UserError(f"{path}: not JSON of scores (nested too deeply); {WRITE}") from None
    unknown = [entry for entry in found if find_game(entry.game) is None]
    _refuse_summaries(unknown)
    try:
        refuse_unknown(entry.game for entry in unknown)
    except UserError as error:
        one = len({entry.game for entry in unknown}) == 1
        raise UserError(f"{unknown[0].place if one else path}: {error}") from None
    spelled: dict[tuple[str, str | None], Entry] = {}
    for entry in found:
        other = spelled.setdefault((entry.algorithm, find_game(entry.game)), entry)
        if other.game != entry.game and None in (other.seed, entry.seed):  # with seeds, no run is there twice
            raise UserError(
                f"{entry.place}: {entry.game!r} and {other.game!r} are one game; keep one of them, or one name"
            )
    named = [replace(entry, game=find_game(entry.game) or "") for entry in found]
    refuse_lost_columns(named)
    return named


def _refuse_summaries(unknown: Iterable[Entry]) -> None:
    named = {entry.game: entry for entry in unknown if is_summary(entry.game)}
    if named:
        what = ", ".join(map(repr, named))
        are = "is a summary over games, not a game: leave it out" if len(named) == 1 else "are no games: leave them out"
        raise UserError(f"{next(iter(named.values())).place}: {what} {are}")


def _entries(path: str, ending: str, data: bytes) -> Iterator[Entry]:
    if ending == ".npz":
        yield from _walk(_arrays(path, data), Entry(path))
        return
    text = _text(path, data)
    if ending in (".csv", ".tsv"):
        for line, row in score_tables.read_rows(path, text):
            yield from _walk(row, Entry(f"{path} line {line}", is_run=True, write=score_tables.WRITE))
    elif ending == ".jsonl" or _is_json_lines(text):
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
        raise UserError(f"{at.place}: not an object of games; {at.write}")
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
    if values and at.episodes:
        raise _of_episodes(at)
    if not values:
        yield from _walk(None, at)
    for number, value in enumerate(values, 1):
        yield from _walk(value, at.at(f"entry {number}", is_run=True, in_list=True))


def _object(members: dict[str, Any], at: Entry) -> Iterator[Entry]:
    members = {"seed" if plain_name(k) == "seeds" and isinstance(v, list) else k: v for k, v in members.items()}
    columns = columns_of(members)
    if isinstance(members.get("columns"), list) and isinstance(members.get("data"), list):  # pandas' orient="split"
        members = _transposed(members["columns"], members["data"], at)
        columns = columns_of(members)
    if any(isinstance(members[key], list | dict) for role, key in columns.items() if role in ROLES):
        yield from _walk(_records(members, at), at)
        return
    cells = {role: members[key] for role, key in columns.items()}
    if "algorithm" in cells:
        at = replace(at, algorithm=_named("algorithm", cells, at))
    if "game" in cells:
        at = replace(at, game=_named("game", cells, at))
    at = replace(at, seed=cells.get("seed", at.seed))
    at = replace(at, step=cells.get("step", at.step))
    score = _score_key(members, at)
    rest = [(key, value) for key, value in members.items() if key not in columns.values()]
    if score is not None and (rows := _parallel(members, score)):
        yield from _walk(rows, at)
    elif score is not None:
        at = replace(at, ignored={**at.ignored, **{key: value for key, value in rest if key != score}})
        at = replace(at, episodes=_episodes(score, at))
        yield from _walk(members[score], replace(at, is_run=at.is_run or not isinstance(members[score], list | dict)))
    else:
        yield from _members(members, rest, at)


def _members(members: dict[str, Any], rest: list[tuple[str, Any]], at: Entry) -> Iterator[Entry]:
    if not members and at.game:
        yield from _walk(None, at)
    elif not rest:
        raise UserError(f"{at.where}: holds no {'score' if members else 'game'}; {at.write}")
    for key, value in rest:
        yield from _member(key, value, at)


def _member(key: str, value: Any, at: Entry) -> Iterator[Entry]:
    seed = SEED_TEXT.fullmatch(key.strip())
    if at.episodes and key.strip().isdecimal():
        raise _of_episodes(at)
    if not at.game and find_game(key):
        yield from _walk(value, at.at(repr(key), game=key))
    elif seed and at.seed is None:
        yield from _walk(value, at.at(repr(key), seed=key, is_run=True))
    elif isinstance(value, list | dict) and is_statistic(key):
        raise UserError(
            f"{at.where}: {key!r} is a statistic or normalised, not an algorithm; give each run's raw score, or rename it"
        )
    elif isinstance(value, list | dict) and MOMENT.fullmatch(plain_name(key)):
        raise UserError(f"{at.where}: {key!r} is a step, not an algorithm; keep the last of each run, with its seed")
    elif isinstance(value, list | dict):
        inside = at.at(repr(key), algorithm=f"{at.algorithm}/{key}".lstrip("/"), key=key)
        yield from _walk(value, replace(inside, episodes=_episodes(key, at)))
    elif at.game:
        raise UserError(f"{at.where}: what is {key!r}? Call the column of scores score, others game, seed, algorithm")
    else:
        yield from _walk(value, at.at(repr(key), key=key))


def _episodes(key: str, at: Entry) -> str:
    """The key if it means the episodes of a run, else the one around it that does."""
    return key if EPISODES.fullmatch(plain_name(key)) else at.episodes


def _of_episodes(at: Entry) -> UserError:
    return UserError(
        f"{at.where}: {at.episodes!r} lists episodes, which are no runs; give one score per run, the mean of its episodes "
        "(if each is a run's, call them scores)"
    )


def _score_key(members: Mapping[str, Any], at: Entry) -> str | None:
    plain = {plain_name(key): key for key in members}
    named = [name for name in plain if SCORE.fullmatch(name)]
    named = ["score"] if "score" in named else named
    if len(named) > 1:
        raise UserError(f"{at.place}: several columns of scores ({', '.join(named)}): call the one to be read score")
    wrappers = [name for name in WRAPPERS if name in plain and isinstance(members[plain[name]], list | dict)]
    return next((plain[name] for name in (*named, *wrappers)), None)


def _named(role: str, cells: Mapping[str, Any], at: Entry) -> str:
    value = cells[role]
    if value is None or not str(value).strip():
        raise UserError(f"{at.where}: the {role} is empty; give its name")
    return str(value).strip()


def _records(members: dict[str, Any], at: Entry) -> list[dict[str, Any]]:
    """A table that was written column by column, as pandas does, row by row."""
    import pandas as pd

    try:
        return pd.DataFrame(members).astype(object).to_dict("records")
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{at.place}: columns that do not fit together ({error}); give every row each column") from None


def _parallel(members: dict[str, Any], score: str) -> list[dict[str, Any]]:
    """The rows, if something else is listed for each of the scores; none if not."""
    scores = members[score]
    if not isinstance(scores, list) or any(isinstance(value, list | dict) for value in scores):
        return []
    lists = {key: value for key, value in members.items() if isinstance(value, list) and len(value) == len(scores)}
    return [
        {**members, **{key: value[i] for key, value in lists.items()}} for i in range(len(scores) * (len(lists) > 1))
    ]


def _transposed(columns: list[Any], rows: list[Any], at: Entry) -> dict[str, Any]:
    if not all(isinstance(row, list) and len(row) == len(columns) for row in rows):
        raise UserError(f"{at.place}: rows of data that do not fit the columns; give every row each column")
    return {str(name): [row[i] for row in rows] for i, name in enumerate(columns)}


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


def _is_json_lines(text: str) -> bool:
    """Whether a text is several values of JSON, one a line, and not one value."""
    lines = [line for line in text.split("\n") if line.strip()]
    try:
        json.loads(lines[0] if len(lines) > 1 else "no JSON")
    except (ValueError, RecursionError):
        return False
    return True


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
