"""What can be played: the Atari 100K games, other ALE games, the toys, and Gymnasium ids; and scores to compare with.

The 26 games, their human and random scores and the published results are those of the paper's Table 1. For other
environments, data/reference_scores.csv has a random and a reference score, each with its source.
Importing this module is cheap: no torch, and ale-py only once a name beyond the 26 is looked up.
"""

from __future__ import annotations

import csv
import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Literal

from remctl.errors import UserError

Kind = Literal["toy", "atari", "gym"]

GYM_PREFIX = "gym:"
HUMAN = "human"
TOYS = ("Catch",)
ATARI_100K = (
    "Alien",
    "Amidar",
    "Assault",
    "Asterix",
    "BankHeist",
    "BattleZone",
    "Boxing",
    "Breakout",
    "ChopperCommand",
    "CrazyClimber",
    "DemonAttack",
    "Freeway",
    "Frostbite",
    "Gopher",
    "Hero",
    "Jamesbond",
    "Kangaroo",
    "Krull",
    "KungFuMaster",
    "MsPacman",
    "Pong",
    "PrivateEye",
    "Qbert",
    "RoadRunner",
    "Seaquest",
    "UpNDown",
)
ABLATION_SUBSET = (
    "Assault",
    "Asterix",
    "ChopperCommand",
    "CrazyClimber",
    "DemonAttack",
    "Gopher",
    "Krull",
    "RoadRunner",
)

_TABLE_1 = "paper, Table 1"
_ANY_GAME = "give an Atari game in CamelCase such as MsPacman, Catch, or gym:ID for a Gymnasium environment"
# For two players only: ALE ships the ROMs but has no rules for one player, and ends the whole process on loading one.
_TWO_PLAYER_ROMS = frozenset({"combat", "joust", "maze_craze", "warlords"})


@dataclass(frozen=True)
class Scores:
    """One row of Table 1: mean raw game scores (unclipped rewards summed over a game); `published` is by agent."""

    random: float
    human: float
    published: Mapping[str, float]


@cache
def scores() -> Mapping[str, Scores]:
    """Table 1 of the paper, by game, in the table's (alphabetical) order."""
    return MappingProxyType({row["game"]: _scores_of(row) for row in _rows("table1_atari100k.csv")})


def _rows(name: str) -> csv.DictReader[str]:
    return csv.DictReader((files("remctl") / "data" / name).read_text(encoding="utf-8").splitlines())


def _scores_of(row: Mapping[str, str]) -> Scores:
    numbers = {column: float(value) for column, value in row.items() if column != "game"}
    return Scores(random=numbers.pop("random"), human=numbers.pop("human"), published=MappingProxyType(numbers))


@dataclass(frozen=True)
class Reference:
    """The scores that normalised scores count from: `random` play is 0, `score` is 1; raw means over episodes.

    `name` says whose `score` is: `human`, `optimal play`, or an agent, trained for `num_steps` environment steps (None: not
    trained). `random_source` and `source`: a citation, an address, or how the number was computed.
    """

    random: float
    score: float
    name: str
    num_steps: int | None
    random_source: str
    source: str

    @property
    def label(self) -> str:
        """`human`, `PPO, 100,000 steps`."""
        return self.name if self.num_steps is None else f"{self.name}, {self.num_steps:,} steps"

    @property
    def span(self) -> float:
        """A difference of 1 between normalised scores, in raw scores."""
        return self.score - self.random

    def normalized(self, score: float) -> float:
        """(score - random) / (reference - random)."""
        return (score - self.random) / self.span


@cache
def references() -> Mapping[str, Reference]:
    """Every game that has reference scores: Atari 100K, then the other environments."""
    human = {g: Reference(row.random, row.human, HUMAN, None, _TABLE_1, _TABLE_1) for g, row in scores().items()}
    return MappingProxyType(human | {row["game"]: _reference_of(row) for row in _rows("reference_scores.csv")})


def _reference_of(row: Mapping[str, str]) -> Reference:
    return Reference(
        random=float(row["random"]),
        score=float(row["score"]),
        name=row["reference"],
        num_steps=int(row["num_steps"]) if row["num_steps"] else None,
        random_source=row["random_source"],
        source=row["source"],
    )


def find_reference(game: str) -> Reference | None:
    """The reference scores of a game, None if there are none. `gym:MODULE:ID` has those of `gym:ID`."""
    return references().get(re.sub(rf"^{GYM_PREFIX}.*:", GYM_PREFIX, game))


def reference_scores(game: str) -> Reference:
    """The reference scores of a game. Raises UserError if there are none."""
    found = find_reference(game)
    if found is None:
        raise UserError(
            f"{game} has no reference scores to normalise by; `remctl list games` shows the games that have"
        )
    return found


def normalized(game: str, score: float) -> float:
    """(score - random) / (reference - random). Raises UserError for a game without reference scores."""
    return reference_scores(game).normalized(score)


def reference_name(of_games: Iterable[str]) -> str:
    """Whose score is 1 on those of the games that have reference scores: `human`, else, or if they differ, `reference`."""
    names = {found.name for game in of_games if (found := find_reference(game))}
    return HUMAN if names <= {HUMAN} else "reference"


@cache
def atari_games() -> tuple[str, ...]:
    """The CamelCase names of all single-player games whose ROM ale-py ships, sorted."""
    return tuple(sorted(_rom_ids()))


def rom_id(game: str) -> str:
    """ale-py's snake_case ROM name of a CamelCase game: MsPacman -> ms_pacman. Raises KeyError for another name."""
    return _rom_ids()[game]


@cache
def _rom_ids() -> dict[str, str]:
    from ale_py import roms

    return {_camel_case(rom): rom for rom in roms.get_all_rom_ids() if rom not in _TWO_PLAYER_ROMS}


def _camel_case(rom: str) -> str:
    return rom.title().replace("_", "")  # as Gymnasium names its ids: tic_tac_toe_3d -> TicTacToe3D


def kind(game: str) -> Kind:
    """Which family of environments a (checked) game name belongs to."""
    if game.startswith(GYM_PREFIX):
        return "gym"
    return "toy" if game in TOYS else "atari"


def check_game(name: str) -> str:
    """Return `name` if it can be played, else raise a UserError naming the nearest games.

    Accepted: the 26 games of Atari 100K, any other ALE game in CamelCase, `Catch`, and `gym:ID` for a Gymnasium
    environment (whether that id exists is found out when the environment is made).
    """
    if name in ATARI_100K or name in TOYS or _is_gym(name) or name in _rom_ids():
        return name
    raise UserError(f"unknown game {name!r}: {_advice(name)}")


def find_game(name: str) -> str | None:
    """Return the game that a name means, however it is spelled: `ALE/Pong-v5`, `pong`, `James Bond`; None if it is none."""
    if name in ATARI_100K or name in TOYS or _is_gym(name):
        return name
    key = _key(name)
    return next((known for names in (_cheap_keys, _all_keys) if (known := names().get(key))), None)


def refuse_unknown(names: Iterable[str]) -> None:
    """Raise a UserError that lists every name of no game, each with its advice."""
    unknown = {name: _advice(name) for name in dict.fromkeys(names) if find_game(name) is None}
    if len(unknown) == 1:
        raise UserError("".join(f"unknown game {name!r}: {advice}" for name, advice in unknown.items()))
    if unknown:
        listed = [f"{name!r} ({advice})" if advice != _ANY_GAME else repr(name) for name, advice in unknown.items()]
        raise UserError(f"{len(unknown)} unknown games: {', '.join(listed)}; {_ANY_GAME}")


@cache
def _cheap_keys() -> dict[str, str]:
    return {_key(game): game for game in (*TOYS, *ATARI_100K)}


@cache
def _all_keys() -> dict[str, str]:
    return {_key(game): game for game in (*TOYS, *atari_games())}


def _is_gym(name: str) -> bool:
    env_id = name.removeprefix(GYM_PREFIX)
    return env_id != name and env_id != "" and not re.search(r"\s", env_id)


def _advice(name: str) -> str:
    if _key(name) in {_key(_camel_case(rom)) for rom in _TWO_PLAYER_ROMS}:
        return "it takes two players, and one agent plays here; choose another game"
    nearest = _nearest(name)
    if nearest:
        return f"did you mean {' or '.join(nearest)}?"
    if re.search(r"-v\d+$", name) and _is_gym(GYM_PREFIX + name):
        return f"did you mean {GYM_PREFIX}{name}?"
    return _ANY_GAME


def _nearest(name: str) -> list[str]:
    by_key, key = _all_keys(), _key(name)
    if key in by_key:
        return [by_key[key]]
    return [by_key[near] for near in difflib.get_close_matches(key, by_key, n=3, cutoff=0.6)]


def _key(name: str) -> str:
    """What is left of a name once case, punctuation and the usual decoration of Atari ids are taken off."""
    decoration = (
        r"^(gym:)?(ale[_-]py:)?((ALE|Atari([ _-]?100k)?)[/_ .:-])?|(-ram)?(NoFrameskip|Deterministic)?([-_]v\d+)?$"
    )
    bare = re.sub(decoration, "", name.strip(), flags=re.IGNORECASE)
    return re.sub(r"[^a-z0-9]", "", bare.lower())


def folder_name(game: str) -> str:
    """A file system's name for a game: `gym:ALE/Pong-v5` -> `gym_ALE_Pong-v5`; other names stay as they are."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", game)
