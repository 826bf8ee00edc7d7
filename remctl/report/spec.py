"""What a report is made from: a spec such as `reports/paper.yaml`, with whatever the command line gives laid over it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from remctl.config import yaml12
from remctl.errors import UserError
from remctl.games import ABLATION_SUBSET, ATARI_100K, find_game, refuse_unknown
from remctl.report.published import TABLES, Table
from remctl.report.results import FIGURES, Figure, FigureName
from remctl.runs.files import named_errors

GAME_SETS = {"atari_100k": ATARI_100K, "ablation_subset": ABLATION_SUBSET}
DEFAULT_CURVES = (
    "collect/return_mean",
    "test/return_mean",
    "world_model/observation_loss",
    "test/world_model_observation_loss",
)
DEFAULT_CAPTIONS: dict[FigureName, str] = {
    "aggregates": "Aggregate metrics of normalized scores",
    "performance_profile": "Performance profiles",
    "probability_of_improvement": "Probability of improvement",
    "differences": "Differences from the control",
    "per_game": "Scores per game",
    "learning_curves": "Learning curves",
    "observation_loss": "World model's observation loss, training and test",
    "timing": "Training times",
}


class ReportSpec(BaseModel):
    """One report. `runs` are folders, relative to where remctl is run; `scores` are NAME=FILE or FILE,
    `bench` files that `remctl bench` wrote.

    `runs_optional`: a folder that is not there yet is said in the report, not refused.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str = "Report"
    question: str = ""
    runs: tuple[str, ...] = ()
    runs_optional: bool = False
    scores: tuple[str, ...] = ()
    bench: tuple[str, ...] = ()
    published: tuple[Table, ...] = ()
    epoch_times: bool = Field(default=False, description="the paper's epoch times beside ours")
    games: str | tuple[str, ...] | None = Field(default=None, description="a set, games, or all that there are")
    control: str | None = None
    missing: Literal["common-games", "fail"] = "common-games"
    ragged: Literal["all", "equalise"] = "all"
    reps: int = Field(default=50_000, ge=100, le=10_000_000)
    seed: int = Field(default=0, ge=0, lt=2**32)
    bold_among: tuple[str, ...] = ()
    curves: tuple[str, ...] = DEFAULT_CURVES
    figures: dict[FigureName, str] = Field(default_factory=lambda: dict(DEFAULT_CAPTIONS))

    @field_validator("games")
    @classmethod
    def _known_games(cls, value: str | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
        try:
            selected_games(value)
        except UserError as error:
            raise ValueError(str(error)) from None
        return value

    @property
    def selected(self) -> tuple[str, ...] | None:
        """The games asked for, in the paper's order; None for all that there are."""
        return selected_games(self.games)

    @property
    def wanted_figures(self) -> tuple[Figure, ...]:
        """Figures in their usual order, each with its caption."""
        return tuple(Figure(name, self.figures[name]) for name in FIGURES if name in self.figures)


def selected_games(games: str | tuple[str, ...] | None) -> tuple[str, ...] | None:
    """`atari_100k`, `ablation_subset`, `A,B,C` or several of those as games, each once. Raises UserError for others."""
    if games is None:
        return None
    words = [w.strip() for part in ([games] if isinstance(games, str) else games) for w in part.split(",")]
    named = [game for word in words for game in GAME_SETS.get(word, (word,))]
    refuse_unknown(named)
    return in_order({find_game(game) or game for game in named})


def in_order(games: set[str]) -> tuple[str, ...]:
    """Atari 100K in the paper's order, then the others by name."""
    return (*(g for g in ATARI_100K if g in games), *sorted(games - set(ATARI_100K)))


def read_spec(path: Path | None, given: dict[str, Any]) -> ReportSpec:
    """The spec in `path` (none: the defaults) with the values of `given` over it; a value of None does not count.

    Raises UserError for a file that is no spec, naming key, value and what is allowed.
    """
    content = {} if path is None else _load(path)
    given = {name: value for name, value in given.items() if value is not None}
    if "published" in given:
        content |= {"published": TABLES if given.pop("published") else (), "epoch_times": True}
    _check(content, "" if path is None else f"{path}: ")
    if "runs" in given:
        given["runs_optional"] = False
    return _check(content | given, "--")


def _check(content: dict[str, Any], where: str) -> ReportSpec:
    try:
        return ReportSpec.model_validate(content)
    except ValidationError as error:
        raise UserError(where + _describe(error)) from None


def _load(path: Path) -> dict[str, Any]:
    with named_errors("reading", path):
        data = path.read_bytes()
    try:
        content = yaml12.load(data.decode())
    except (ValueError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not YAML ({error})") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds {str(content)[:40]!r}, not a mapping of keys such as title, runs, games")
    return content


def _describe(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in first["loc"] if not str(part).startswith(("tuple", "str")))
    if first["type"] == "extra_forbidden":
        return f"unknown key {key!r}; known: {', '.join(ReportSpec.model_fields)}"
    message = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    return f"{key}: given {str(first['input'])[:40]!r}; {'' if 'did you mean' in message else 'allowed: '}{message}"
