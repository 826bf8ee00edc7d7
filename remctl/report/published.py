"""What the paper prints: Table 1 (26 games, six agents), Table 8 (8 games, REM and its ablations), its epoch times.

The scores are means of 5 runs. They bear per-game scores, mean, median and the number of superhuman games, and no interval.
"""

from __future__ import annotations

import csv
from collections.abc import Collection
from functools import cache
from importlib.resources import files
from typing import Literal, get_args

from remctl.games import ABLATION_SUBSET, ATARI_100K
from remctl.report.results import METRICS, Algorithm, Printed, Timing
from remctl.variants import label_of

Table = Literal["table1", "table8"]
TABLES: tuple[Table, ...] = get_args(Table)
TABLE_GAMES: dict[str, tuple[str, ...]] = {"table1": ATARI_100K, "table8": ABLATION_SUBSET}
SOURCES = {"table1": "paper, Table 1", "table8": "paper, Table 8"}
NUM_RUNS = 5
TOKEN_BASED = ("IRIS", "REM")
_FILES = {"table1": "table1_atari100k.csv", "table8": "table8_ablations.csv"}
_NOT_AGENTS = {"game", "random", "human"}
_TIMES = {"tokenizer_s": "tokenizer", "world_model_s": "world_model", "actor_critic_s": "controller"}


@cache
def _rows(name: str) -> tuple[dict[str, str], ...]:
    text = (files("remctl") / "data" / name).read_text(encoding="utf-8")
    return tuple(csv.DictReader(text.splitlines()))


def published(tables: Collection[str]) -> list[Algorithm]:
    """The agents of the given tables. Table 8's `rem` is Table 1's `REM`, and left out where that is given too."""
    made = [a for table in TABLES if table in tables for a in _agents(table)]
    return [a for a in made if not (a.name == "rem" and "table1" in tables)]


def _agents(table: Table) -> list[Algorithm]:
    rows = _rows(_FILES[table])
    return [
        Algorithm(
            name=name,
            label=label_of(name),
            origin="published",
            source=SOURCES[table],
            color=0,
            runs=(),
            means={row["game"]: float(row[name]) for row in rows},
        )
        for name in rows[0]
        if name not in _NOT_AGENTS
    ]


def printed(algorithm: Algorithm, name: str, games: tuple[str, ...]) -> list[Printed]:
    """The paper's IQM and optimality gap of `name` over exactly `games`, from the table that is over those.

    REM stands in both tables, as `REM` and as `rem`.
    """
    table = next((t for t in TABLES if set(TABLE_GAMES[t]) == set(games)), None)
    if table is None:
        return []
    names = {name, "rem"} if name == "REM" else {name}
    found = [r for r in _rows("paper_aggregates.csv") if r["table"] == table and r["algorithm"] in names]
    if not found:
        return []
    (row,) = found
    return [
        Printed(algorithm.name, metric, float(row[metric]), SOURCES[table])
        for metric in METRICS
        if metric in ("iqm", "optimality_gap")
    ]


def epoch_times() -> list[Timing]:
    """The paper's seconds per epoch, by agent and phase."""
    return [
        Timing(_agent(row), "published", row["hardware"], phase, float(row[column]), None, 0)
        for row in _rows("epoch_times.csv")
        for column, phase in _TIMES.items()
    ]


def _agent(row: dict[str, str]) -> str:
    return f"{row['agent']} ({row['configuration']})"
