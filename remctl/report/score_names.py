"""What the columns of score files are called, and which of them may be ignored.

A column is the algorithm, the game, the seed, the step or the score. Any other one is ignored, but only where it cannot tell
two methods, or two moments of one run, apart.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from remctl.errors import UserError
from remctl.games import find_game

WRITE = 'write {"Pong": [score per run, ...]}'
ALGORITHM = ("algorithm", "algo", "alg", "agent", "agent_name", "method", "model", "approach", "algorithm_name")
GAME = (
    *("game", "env", "environment", "task", "env_id", "env_name", "environment_id", "environment_name", "game_id"),
    *("game_name", "task_id", "task_name", "gym_id", "rom"),
)
SEED = (
    *(
        "seed",
        "random_seed",
        "rng_seed",
        "seed_number",
        "seed_num",
        "seed_no",
        "seed_idx",
        "seed_index",
        "seed_id",
        "rng",
    ),
    *("run", "trial", "replicate", "repetition", "rep", "run_id", "run_idx", "run_index", "run_number", "trial_id"),
)
OTHER_SEED = re.compile(r"([a-z]+_)*seed(_(number|num|no|nr|idx|index|id|value))?|replica(_id)?")
ROLES = {"algorithm": ALGORITHM, "game": GAME, "seed": SEED}
SCORE = re.compile(
    r"((mean|avg|average|final|last|eval|evaluation|test|raw|episode|episodic|game|total|sum)_)*"
    r"(score|return|reward)s?(_(mean|avg|average|final))?"
)
STEP = re.compile(
    r"((global|env|environment|time|train|training|trainer|agent|gradient|grad|learner|total|num|n|number_of|max|cumulative)_?)*"
    r"(step|timestep|epoch|iteration|iter|frame|update|checkpoint|ckpt|generation)s?(_(id|idx|index|num|number|count|total|k|m))?"
    r"|episode"
)
MOMENT = re.compile(rf"({STEP.pattern})_?\d+[km]?|\d+[km]?_?({STEP.pattern})")  # `step_100`, `100k_steps`
SEED_TEXT = re.compile(r"(?:(?:seed|run|trial|rep|replicate|repetition|s|r)[ _#-]*)?(\d+)(?:\.0*)?", re.IGNORECASE)
NAMELESS = re.compile(r"|unnamed_\d+(_\d+)?|index|level_\d+")  # pandas' index, once or twice through a file

# Parts of names of statistics, and what else stands in such a name.
SPREAD = re.compile(
    r"st(d|dev|ddev|derr)|s(d|em|e)|sigma|dev(iation)?|errors?|var(iance)?|ci(95)?|confidence|interval|iqr"
    r"|low(er)?|high|upper|min(imum)?|max(imum)?|q\d+|quartile|percentile"
)
STATISTIC = re.compile(rf"{SPREAD.pattern}|mean|avg|average|median|iqm|gap|count|hns|normali[sz]ed|superhuman")
ABOUT_SCORES = re.compile(
    r"(score|return|reward)s?|human|random|record|test|eval|final|raw|game|over|standard|of|the|bootstrap(ped)?|\d+"
)
OF_ONE_METHOD = re.compile(r".+_(st(d|dev|ddev|derr)|sem|ci(95)?|hns|normali[sz]ed)")
COUNT = re.compile(
    r"(n|num|number_of|no_of|total)_?(seed|run|trial|replicate|sample)s?|seeds|runs|trials|(seed|run)s?_count|n"
)
# Names of methods: one algorithm has one on all games.
LABEL = re.compile(
    r"name|variant|policy|exp|experiment|exp_name|experiment_name|baseline|label|legend|split|arm|ablation"
)
# Lists of these are the episodes of one run, unless a word says that each is a run's mean.
EPISODES = re.compile(
    r"(?=(?:.*_)?(?:episod(?:e|es|ic)|returns?|rewards?)(?:_|$))"
    r"(?:(?:episod(?:e|es|ic)|returns?|rewards?|scores?|results?|values?|games?|lists?|all|per|by|each|the|of|in|test|eval|evaluation"
    r"|train|training|raw|clipped|unclipped|total|sum|cumulative|final|last|undiscounted|discounted|\d+)(?:_|$))+"
)
SUMMARY = re.compile(r"(.+_)?(sum|total|overall|all|all_games|aggregate|summary|optimality_gap|interquartile_mean)")
# What differs between the runs of one method; with a seed, these are no methods and no moments.
OF_A_RUN = re.compile(
    r"(.*_)?(path|file|folder|dir|host|hostname|hardware|device|gpu|node|date|time|timestamp|duration|runtime|seconds|hours|length)"
    r"|.*_(s|sec|h|hns)|hns|(num|n)_(test_|eval_)?(episodes|games)|episodes|config_hash|remctl_version|version|commit"
)


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
    episodes: str = ""  # the key around it that means the episodes of a run
    ignored: Mapping[str, Any] = field(default_factory=dict)  # columns that are none of these
    write: str = WRITE

    @property
    def where(self) -> str:
        """The place for people: `a.json: 'Pong' entry 2`, `a.csv line 3`."""
        return f"{self.place}: {self.trail}" if self.trail else self.place

    def at(self, step: str, **changes: Any) -> Entry:
        """Return the entry one step further inside."""
        return replace(self, trail=f"{self.trail} {step}".lstrip(), **changes)


def plain_name(key: str) -> str:
    """Return a name in lower case, its parts joined by `_`: `Mean Reward` -> `mean_reward`."""
    return re.sub(r"[^a-z0-9]+", "_", re.sub(r"\u00b1|\+/-", " std ", key.lower())).strip("_")


def shown(value: Any) -> str:
    """Return a value for a message, in part if it is long."""
    text = json.dumps(value, default=str)
    return text if len(text) <= 40 else f"{text[:37]}..."


def columns_of(members: Mapping[str, Any]) -> dict[str, str]:
    """Return the keys that name columns, by what they are: algorithm, game, seed, step."""
    plain = {plain_name(key): key for key in members}
    found = {role: next((plain[name] for name in names if name in plain), None) for role, names in ROLES.items()}
    found["seed"] = found["seed"] or next((key for name, key in plain.items() if _is_seed(name)), None)
    found["step"] = next((key for name, key in plain.items() if STEP.fullmatch(name)), None)
    return {role: key for role, key in found.items() if key is not None}


def _is_seed(plain: str) -> bool:
    return not COUNT.fullmatch(plain) and bool(plain in SEED or OTHER_SEED.fullmatch(plain))


def is_statistic(key: str) -> bool:
    """Whether a key names a statistic or a normalised score (`std`, `REM_std`, `human_normalized`), not a method."""
    if OF_ONE_METHOD.fullmatch(plain_name(key)):
        return True
    parts = plain_name(key).split("_")
    rest = [part for part in parts if not STATISTIC.fullmatch(part)]
    return len(rest) < len(parts) and all(map(ABOUT_SCORES.fullmatch, rest))


def is_summary(name: str) -> bool:
    """Whether the name of a row or column means a summary over games (`Mean`, `IQM`, `Overall`), not a game."""
    return is_statistic(name) or SUMMARY.fullmatch(plain_name(name)) is not None


def refuse_lost_columns(rows: Iterable[Entry]) -> None:
    """Raise UserError for an ignored column that says that rows are aggregates, or that differs between rows.

    Rows that differ in it may be of other methods or moments. Games must be named as `find_game` returns them.
    """
    rows = list(rows)
    for row in rows:
        _refuse_aggregate(row)
    for column in dict.fromkeys(column for row in rows for column in row.ignored):
        plain = plain_name(column)
        if SCORE.fullmatch(plain) or is_statistic(plain):
            continue  # another number of the same run
        if not NAMELESS.fullmatch(plain) or not _are_row_numbers([row.ignored.get(column) for row in rows]):
            _refuse_differing(column, [row for row in rows if row.seed is None or not _is_of_a_run(plain)])


def _refuse_differing(column: str, rows: Iterable[Entry]) -> None:
    first: dict[tuple[str, ...], Entry] = {}
    is_label = LABEL.fullmatch(plain_name(column)) is not None
    for row in rows:
        value = row.ignored.get(column)
        if isinstance(value, str) and find_game(value.strip()) == row.game:
            continue  # the game once more
        other = first.setdefault((row.algorithm,) if is_label else (row.algorithm, row.game), row)
        before = other.ignored.get(column)
        if before is not value and _text(before) != _text(value):
            raise UserError(
                f"{row.where}: {column!r} is {shown(value)} here and {shown(before)} at {other.where}; call it algorithm, "
                "seed or step if it is one, keep the rows of one value, or remove it"
            )


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _refuse_aggregate(row: Entry) -> None:
    if row.seed is not None:
        return
    for column, value in row.ignored.items():
        plain = plain_name(column)
        parts = plain.split("_")
        has_spread = is_statistic(plain) and any(map(SPREAD.fullmatch, parts))
        is_of_several = has_spread or COUNT.fullmatch(plain) or {"seed", "seeds"}.intersection(parts)
        if is_of_several and (isinstance(value, list) or not row.in_list):
            raise UserError(
                f"{row.place}: {column!r} says that the score is a mean of several runs; give one score per run, with its seed"
            )


def _is_of_a_run(plain: str) -> bool:
    return bool(_is_seed(plain) or STEP.fullmatch(plain) or OF_A_RUN.fullmatch(plain))


def _are_row_numbers(values: list[Any]) -> bool:
    return all(str(value).isdecimal() for value in values) and len({str(value) for value in values}) == len(values)
