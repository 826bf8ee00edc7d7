"""Everything that a report shows, as plain frozen values: tables, figures and the HTML page read nothing else.

`remctl.report.tables.display_tables(results)` gives every table as cells with marks (best, second), the same for Markdown,
LaTeX and HTML.

Conventions that hold everywhere below:

- `name` is what identifies an algorithm (unique within a report, the `algorithm` column of every CSV file); `label` is what
  people read. Both may come from a file: escape them (HTML, LaTeX, Markdown) wherever they are shown.
- Scores are raw game scores unless a name says `normalized`: (score - random) / (reference - random). The reference is
  the human score on Atari 100K, else see `remctl.games.references`. Games without reference scores are shown raw.
- A score of a run is the mean return of its final test episodes.
- An interval is `ci_low`, `ci_high`: 95%, percentile, stratified bootstrap (runs are resampled within each game) of `reps`
  repetitions with generator seed `seed`. Both are None where the data bear none: published means, or a single run.
- Tuples of rows are in the order in which they are shown: algorithms in report order, games alphabetical within Atari
  100K and then the others, metrics in the order of METRICS.
- Epochs count from 1. Durations end in `_s`, in seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, get_args

from remctl.bench.result import Result
from remctl.games import HUMAN, reference_name
from remctl.runs.code import Code

Origin = Literal["ours", "imported", "published", "file"]
Metric = Literal["mean", "median", "iqm", "optimality_gap", "superhuman"]
FigureName = Literal[
    "aggregates",
    "performance_profile",
    "probability_of_improvement",
    "differences",
    "per_game",
    "learning_curves",
    "observation_loss",
    "timing",
]

METRICS: tuple[Metric, ...] = get_args(Metric)
METRIC_LABELS: Mapping[str, str] = MappingProxyType(
    {
        "mean": "Mean",
        "median": "Median",
        "iqm": "IQM",
        "optimality_gap": "Optimality gap",
        "superhuman": "#Superhuman",
    }
)
LOWER_IS_BETTER: frozenset[str] = frozenset({"optimality_gap"})
FIGURES: tuple[FigureName, ...] = get_args(FigureName)
CONFIDENCE = 0.95


@dataclass(frozen=True)
class RunScore:
    """One finished run. What a score file does not tell is None.

    `seed` of a JSON list of scores is None. `path` is the run folder, or the file with the entry (`scores.csv line 3`), as it
    was given on the command line. `hardware` is the device's name, e.g. `NVIDIA H200`.
    """

    game: str
    seed: int | None
    score: float
    path: str
    num_episodes: int | None = None
    config_hash: str | None = None
    codes: tuple[Code, ...] = ()  # of every start and of the result
    preset: str | None = None
    hardware: str | None = None
    precision: str | None = None
    imported: str | None = None  # the file its weights came from
    is_altered: bool = False  # not the environment that others published scores of

    @property
    def remctl_version(self) -> str | None:
        """Version of the code; all of them, joined by ' + ', if it was resumed by another."""
        return " + ".join(code.version for code in self.codes) or None


@dataclass(frozen=True)
class Algorithm:
    """One column of the comparison.

    `origin`: `ours` was run with remctl; `imported` are weights that others trained, tested with remctl; `published` are the
    means printed in the paper; `file` was read from a score file, which does not say who made it. `source`: where from, for
    people: `runs/smoke`, `paper, Table 1`, `scores/REM.json`.
    `color` is an index into the figures' palette, the same for an agent in every report; ours and the published of one
    agent share it, no others.

    `runs`: every finished run of it, also those that took no part in the aggregates (see `GameScore.num_used`); empty for
    `published`. `means`: raw mean score per game over all of `runs`, or as published (each of 5 runs).
    """

    name: str
    label: str
    origin: Origin
    source: str
    color: int
    runs: tuple[RunScore, ...]
    means: Mapping[str, float]

    @property
    def origin_label(self) -> str:
        """Origin and source for a table's column: `ours (runs/smoke)`, `published (paper, Table 1)`."""
        return f"{self.origin} ({self.source})"


@dataclass(frozen=True)
class GameScore:
    """An algorithm on one game: a row of per_game.csv.

    `mean` is raw, over all `num_runs` runs; its interval resamples them. `scores` (num_runs raw scores) and `seeds` are
    parallel, sorted by seed; empty for published means, whose `num_runs` is the paper's 5. `normalized` is None for a game
    without reference scores. `num_used`: how many of the runs take part in the aggregates (0: the game does not).
    `is_superhuman`: normalized >= 1; None where there is no human score.
    """

    algorithm: str
    game: str
    mean: float
    ci_low: float | None
    ci_high: float | None
    normalized: float | None
    is_superhuman: bool | None
    num_runs: int
    num_used: int
    scores: tuple[float, ...]
    seeds: tuple[int | None, ...]


@dataclass(frozen=True)
class Aggregate:
    """A row of aggregates.csv: one metric of the normalized scores over `Results.games`.

    Published means bear mean, median and superhuman only. `num_runs` is the number of runs per game in use (the fewest,
    where `Results.ragged` is `all`). `value` of superhuman is a whole number. `reps` is 0 where there is no interval.
    """

    algorithm: str
    metric: Metric
    value: float
    ci_low: float | None
    ci_high: float | None
    num_games: int
    num_runs: int
    reps: int
    seed: int


@dataclass(frozen=True)
class Printed:
    """An aggregate as the paper prints it, which nobody can recompute from the published means (IQM, optimality gap).

    Only there when `Results.games` are exactly the games of the paper's table. Never in aggregates.csv.
    """

    algorithm: str
    metric: Metric
    value: float
    source: str


@dataclass(frozen=True)
class Profile:
    """Performance profile: fraction of runs with a normalized score above tau, averaged over games, with pointwise bands.

    `taus`, `fractions`, `ci_low`, `ci_high` have the same length; all algorithms share the same taus. `ci_low` and `ci_high`
    are None for a single run per game. Published means have no profile.
    """

    algorithm: str
    taus: tuple[float, ...]
    fractions: tuple[float, ...]
    ci_low: tuple[float, ...] | None
    ci_high: tuple[float, ...] | None

    def interval_at(self, index: int) -> tuple[float | None, float | None]:
        """Low and high end of the band at `taus[index]`."""
        if self.ci_low is None or self.ci_high is None:
            return None, None
        return self.ci_low[index], self.ci_high[index]


@dataclass(frozen=True)
class Improvement:
    """P(better > than) on a game drawn at random, ties counted half: a row of probability_of_improvement.csv.

    `game` is None over all of `Results.games`; a name for a game without reference scores, on raw scores. With a control,
    `better` is the control as in the paper's Figure 9 and `than` each other algorithm; without, all pairs in report order.
    """

    better: str
    than: str
    game: str | None
    probability: float
    ci_low: float | None
    ci_high: float | None
    num_games: int
    num_runs_better: int
    num_runs_than: int


@dataclass(frozen=True)
class Difference:
    """Algorithm minus control in one metric: a row of differences.csv.

    `metric` is one of METRICS but superhuman with `game` None (over `Results.games`), or `raw_mean` (raw score) with the
    name of a game. `pairing`: `game and seed` where both have the same seeds, which are then resampled together; else
    `game`. `separated`: the interval excludes 0; None without an interval. `more_seeds`: how many more runs per game both
    would need to separate them with a probability of 80%, if the true difference is the observed one; 0 where they are
    separated; None where that cannot be said (no interval, no difference, or more than 1000). `is_better`: whether `value`
    favours the algorithm; None where it is 0.
    """

    algorithm: str
    control: str
    metric: str
    game: str | None
    value: float
    ci_low: float | None
    ci_high: float | None
    pairing: str
    separated: bool | None
    more_seeds: int | None
    is_better: bool | None
    num_games: int
    num_runs: int


@dataclass(frozen=True)
class Curve:
    """One metric of metrics.jsonl over training, of one algorithm on one game.

    `metric` e.g. `test/return_mean`, `collect/return_mean`, `world_model/observation_loss` (training) and
    `test/world_model_observation_loss` (test): the last two are the paper's Figure 15. All tuples are of one length E:
    `epochs` are those at which any run measured it; `mean` and `std` (sample standard deviation, 0 for one run) go over the
    `num_runs` runs that did; `env_steps` is the mean number of environment steps by then, NaN where unknown. A
    test is at the epoch whose agent was tested. Unfinished runs are not in it.
    """

    algorithm: str
    game: str
    metric: str
    epochs: tuple[int, ...]
    env_steps: tuple[float, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    num_runs: tuple[int, ...]


@dataclass(frozen=True)
class Timing:
    """Time of one phase on one kind of hardware; different hardware never shares a row.

    `phase`: collect, tokenizer, encode, world_model, controller, test, epoch (all of an epoch), final_test, media, or `run`
    (all of a run). `epoch_s`: median seconds per epoch in which the phase ran, over all such epochs of all runs; None for
    phases outside epochs (final_test, media, run). `total_s`: mean over runs of the whole phase. Published epoch times have
    `origin` published, `epoch_s` only, `num_runs` 0, and the agent's name in `algorithm` (it may not be among
    `Results.algorithms`).
    """

    algorithm: str
    origin: Origin
    hardware: str
    phase: str
    epoch_s: float | None
    total_s: float | None
    num_runs: int


@dataclass(frozen=True)
class Benchmark:
    """One bench.json, with everything in it. `name` is unique within the report, `path` as it was given."""

    name: str
    path: str
    result: Result


@dataclass(frozen=True)
class MissingRun:
    """A run that was expected or begun and has no score. `reason` for people: `epoch 120 of 600`, `not started`.

    `seed` is None where a score file tells none. `is_imported`: others trained it, and only its test is missing.
    """

    algorithm: str
    game: str
    seed: int | None
    path: str
    reason: str
    is_imported: bool = False


@dataclass(frozen=True)
class Figure:
    """A figure that the report asks for; `caption` may name the paper's number. Skip one that has nothing to show."""

    name: FigureName
    caption: str


@dataclass(frozen=True)
class Results:
    """The whole report.

    `games`: those the aggregates, profiles, improvements and differences are over, all with reference scores, the same for
    every algorithm; may be empty. `raw_games`: those without reference scores, shown raw. `game_set`: `atari_100k` (26),
    `ablation_subset` (8) or `other`. `missing_policy` and `ragged` are the policies in force (`common-games` | `fail`; `all` |
    `equalise`). `bold_among`: names of the algorithms among which the best is bold (Table 1: token-based ones), then the
    best of all is underlined; empty: the best is bold, the second underlined. `notes`: sentences about missing and ragged
    data and what was left out, in the order to be shown. `command`: the command line that makes this report.
    """

    title: str
    question: str
    command: str
    remctl_version: str
    games: tuple[str, ...]
    raw_games: tuple[str, ...]
    game_set: str
    control: str | None
    reps: int
    seed: int
    missing_policy: str
    ragged: str
    bold_among: tuple[str, ...]
    figures: tuple[Figure, ...]
    algorithms: tuple[Algorithm, ...]
    game_scores: tuple[GameScore, ...]
    aggregates: tuple[Aggregate, ...]
    printed: tuple[Printed, ...]
    profiles: tuple[Profile, ...]
    improvements: tuple[Improvement, ...]
    differences: tuple[Difference, ...]
    curves: tuple[Curve, ...]
    timings: tuple[Timing, ...]
    benchmarks: tuple[Benchmark, ...]
    missing: tuple[MissingRun, ...]
    notes: tuple[str, ...]

    @property
    def normalized(self) -> str:
        """What to call scores that aggregates go over: `human-normalized`, `normalized` if a reference is not human."""
        return "human-normalized" if reference_name(self.games) == HUMAN else "normalized"

    def algorithm(self, name: str) -> Algorithm:
        """The algorithm of that name. Raises KeyError."""
        return {a.name: a for a in self.algorithms}[name]

    def label(self, name: str) -> str:
        """Its label, or the name itself where it is not among the algorithms (published timings)."""
        return {a.name: a.label for a in self.algorithms}.get(name, name)
