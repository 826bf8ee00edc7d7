"""Rows of score files that are tables: CSV and TSV, as pandas, R and spreadsheets write them."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence

from remctl.errors import UserError
from remctl.games import find_game
from remctl.report.score_names import NAMELESS, SCORE, SEED_TEXT, columns_of, plain_name, shown

WRITE = "write algorithm,game,seed,score or game,seed,score"
SEPARATOR_LINE = re.compile(r'\s*"?sep=(.)"?[,;\s]*\n', re.IGNORECASE)  # Excel's
MINUS = re.compile(r"^[\u2212\u2013\ufe63\uff0d](?=[\d.])")  # as word processors and plots write it


def read_rows(path: str, text: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Return the rows with the number of their line; separated by commas, semicolons or tabs, as the header is.

    Excel's line `sep=;` before the header is followed, comments (`# ...`) before it are skipped. Raises UserError naming the
    line and the fix.
    """
    whole, told = text, SEPARATOR_LINE.match(text)
    text = _without_comments(text[told.end() if told else 0 :])
    skipped = whole[: len(whole) - len(text)].count("\n")
    header = text.lstrip("\r\n").partition("\n")[0]
    separator = told[1] if told else max(",;\t", key=header.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True, skipinitialspace=True)
    try:
        lines = [(reader.line_num + skipped, row) for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise UserError(
            f"{path} line {reader.line_num + skipped}: not CSV ({error}); quote the cells that hold commas"
        ) from None
    columns = [cell.strip() for cell in lines[0][1]] if lines else []
    rows = [(line, [MINUS.sub("-", cell.strip()) for cell in row]) for line, row in lines[1:]]
    for line, row in rows:
        if len(row) != len(columns):
            raise UserError(f"{path} line {line}: has more or fewer cells than the header; give one cell per column")
    _refuse_no_header(path, columns, [row for _, row in rows])
    names = _index_named(columns, [row for _, row in rows])
    _check_header(path, columns, names)
    if not rows:
        raise UserError(f"{path}: holds no scores below its header; add one line per run")
    has_points = any(re.fullmatch(r"-?\d+\.\d+", cell) for _, row in rows for cell in row)
    numbers = _point if separator == ";" and not has_points else str
    for line, row in rows:
        yield line, {name: numbers(cell) for name, cell in zip(names, row, strict=True) if name}


def _without_comments(text: str) -> str:
    """The text from its header on, which may itself begin with `#`, as numpy writes it."""
    while found := re.match(r'\s*"?#[^\n]*(\n|$)', text):
        cells, below = (
            re.split(r"[,;\t]", line.strip()) for line in (found[0], text[found.end() :].partition("\n")[0])
        )
        if len(cells) == len(below) and _is_header(cells):
            break
        text = text[found.end() :]
    return text


def _index_named(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The columns with what pandas' nameless ones hold: games, seeds, algorithms, or "" for mere numbers of the rows."""
    names = list(columns)
    for i, column in enumerate(columns):
        if NAMELESS.fullmatch(plain_name(column)) and (plain_name(column) or not column):
            cells = [row[i] for row in rows]
            if all(cell.isdecimal() or not cell for cell in cells):
                names[i] = "seed" if _are_seeds(column, cells, names) else ""
            elif all(map(find_game, cells)):
                names[i] = "game"
            else:
                names[i] = "seed" if all(map(SEED_TEXT.fullmatch, cells)) else "algorithm"
    return names


def _are_seeds(column: str, cells: Sequence[str], names: Sequence[str]) -> bool:
    """Whether the numbers of a nameless column are the runs within each game, not those of the rows."""
    if "seed" in columns_of(dict.fromkeys(names, "")):
        return False
    return len(set(cells)) < len(cells) or re.fullmatch(r"level_[1-9]\d*", plain_name(column)) is not None


def _refuse_no_header(path: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Raise UserError if the first line holds a game and its score instead of names of columns."""
    are_games = [i for i, column in enumerate(columns) if find_game(column)]
    has_game_below = any(find_game(row[i]) for row in rows for i in are_games)
    if are_games and (has_game_below or any(re.fullmatch(r"-?\d+\.\d+", column) for column in columns) or not rows):
        raise UserError(f"{path} line 1: {shown(','.join(columns))} is no header; {WRITE} above it")


def _check_header(path: str, columns: Sequence[str], names: Sequence[str]) -> None:
    used = [plain_name(name) for name in names if name]
    if len(set(used)) < len(used) or not _is_header(names):
        raise UserError(f"{path} line 1: the columns are {shown(','.join(columns))}; {WRITE}")


def _is_header(names: Sequence[str]) -> bool:
    """Whether they name columns of scores: a game's and a score's or seeds' one, or games."""
    has_scores = any(SCORE.fullmatch(plain_name(name)) for name in names) or any(map(SEED_TEXT.fullmatch, names))
    has_games = "game" in columns_of(dict.fromkeys(names, "")) and has_scores
    return has_games or any(map(find_game, names))


def _point(cell: str) -> str:
    return cell.replace(",", ".") if re.fullmatch(r"-?\d+,\d+", cell) else cell
