"""Reports made up from a seed, for the tests of figures and page: the numbers hang together and mean nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any
from zlib import crc32

import numpy as np

from remctl.games import ABLATION_SUBSET, ATARI_100K, normalized, reference_scores, scores
from remctl.report import results as r
from remctl.runs.code import Code

SKILL = {"rem": 1.3, "no_pop": 1.25, "separate_embeddings": 1.0, "tokenizer_4x4": 0.7, "no_action_inputs": 0.9}
LABELS = {
    "rem": "REM",
    "no_pop": "No POP",
    "separate_embeddings": "Separate M emb.",
    "tokenizer_4x4": "4x4 tokenizer",
    "no_action_inputs": "C w/o action inputs",
}
HARDWARE = "NVIDIA H200"
EPOCHS = tuple(range(50, 601, 50))
REPS, SEED = 2000, 0
ABLATION_FIGURES = tuple(r.Figure(name, f"Figure of {name.replace('_', ' ')}.") for name in r.FIGURES)


def results(
    *,
    games: tuple[str, ...] = ABLATION_SUBSET,
    raw_games: tuple[str, ...] = (),
    variants: tuple[str, ...] = tuple(SKILL),
    num_runs: int = 5,
    published: tuple[str, ...] = (),
    control: str | None = "rem",
    labels: Mapping[str, str] = MappingProxyType({}),
    **changes: Any,
) -> r.Results:
    """Runs of ours for every variant on every game, published columns of Table 1 beside them."""
    rng = np.random.default_rng(1)
    ours = tuple(
        _algorithm(rng, name, labels.get(name, LABELS[name]), i, (*games, *raw_games), num_runs)
        for i, name in enumerate(variants)
    )
    printed = tuple(_published(name, len(ours) + i, games) for i, name in enumerate(published))
    algorithms = (*printed, *ours)
    value = {
        "title": "Ablations of REM",
        "question": "What does each part of REM contribute?",
        "command": "remctl report --runs runs/ablations --control rem --out reports/ablations",
        "remctl_version": "0.1.0",
        "games": games,
        "raw_games": raw_games,
        "game_set": "ablation_subset" if games == ABLATION_SUBSET else "atari_100k" if games == ATARI_100K else "other",
        "control": control,
        "reps": REPS,
        "seed": SEED,
        "missing_policy": "common-games",
        "ragged": "equalise",
        "bold_among": (),
        "figures": ABLATION_FIGURES,
        "algorithms": algorithms,
        "game_scores": tuple(_game_score(rng, a, g) for a in algorithms for g in (*games, *raw_games) if g in a.means),
        "aggregates": tuple(row for a in algorithms for row in _aggregates(rng, a, games)),
        "printed": tuple(
            r.Printed(name, metric, v, "paper, Table 1")
            for name in published
            for metric, v in (("iqm", 0.5), ("optimality_gap", 0.51))
        ),
        "profiles": tuple(_profile(a, games) for a in ours if games),
        "improvements": _improvements(rng, ours, games, raw_games, control, num_runs),
        "differences": _differences(rng, ours, games, control, num_runs) if control else (),
        "curves": tuple(c for a in ours for g in (*games, *raw_games) for c in _curves(rng, a.name, g, num_runs)),
        "timings": tuple(t for i, a in enumerate(ours) for t in _timings(a.name, i, num_runs)),
        "benchmarks": (),
        "missing": (r.MissingRun("no_pop", "Gopher", 5, "runs/ablations/no_pop/Gopher/seed_5", "epoch 120 of 600"),),
        "notes": ("Gopher has 4 runs of No POP; every algorithm is cut to 4 runs on it.",),
    }
    return r.Results(**{**value, **changes})


def _algorithm(
    rng: np.random.Generator, name: str, label: str, color: int, games: tuple[str, ...], num_runs: int
) -> r.Algorithm:
    runs = []
    for game in games:
        known = game in ATARI_100K
        low, span = _scale(game)
        level = SKILL[name] * math.exp(0.9 * math.sin(sum(map(ord, game)))) if known else min(SKILL[name] / 1.4, 1)
        runs += [
            _run(name, game, seed, low + span * level * float(rng.lognormal(0, 0.25)))
            for seed in range(1, num_runs + 1)
        ]
    means = {g: float(np.mean([run.score for run in runs if run.game == g])) for g in games}
    return r.Algorithm(name, label, "ours", "runs/ablations", color, tuple(runs), means)


def _scale(game: str) -> tuple[float, float]:
    """Random score, and from there to the human one; made up for other games."""
    row = reference_scores(game) if game in ATARI_100K else None
    return (-1.0, 2.0) if row is None else (row.random, row.score - row.random)


def _run(name: str, game: str, seed: int, score: float) -> r.RunScore:
    path = f"runs/ablations/{name}/{game}/seed_{seed}"
    return r.RunScore(game, seed, score, path, 100, f"{crc32(name.encode()):08x}", (Code("0.1.0"),), "paper", HARDWARE)


def _published(name: str, color: int, games: tuple[str, ...]) -> r.Algorithm:
    means = {g: scores()[g].published[name] for g in games}
    return r.Algorithm(name, name, "published", "paper, Table 1", color, (), means)


def _interval(rng: np.random.Generator, values: list[float]) -> tuple[float | None, float | None]:
    if len(values) < 2:
        return None, None
    means = rng.choice(values, (400, len(values))).mean(axis=1)
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


def _game_score(rng: np.random.Generator, algorithm: r.Algorithm, game: str) -> r.GameScore:
    runs = [run for run in algorithm.runs if run.game == game]
    values = [run.score for run in runs]
    mean = algorithm.means[game]
    norm = normalized(game, mean) if game in ATARI_100K else None
    superhuman = None if norm is None else norm >= 1
    seeds = tuple(run.seed for run in runs)
    interval = _interval(rng, values)
    num = len(values) or 5
    return r.GameScore(algorithm.name, game, mean, *interval, norm, superhuman, num, num, tuple(values), seeds)


def _normalized(algorithm: r.Algorithm, games: tuple[str, ...]) -> list[float]:
    return [normalized(g, algorithm.means[g]) for g in games]


def _aggregates(rng: np.random.Generator, algorithm: r.Algorithm, games: tuple[str, ...]) -> list[r.Aggregate]:
    if not games:
        return []
    values = np.sort(_normalized(algorithm, games))
    quarter = len(values) // 4
    metrics: dict[r.Metric, float] = {
        "mean": float(values.mean()),
        "median": float(np.median(values)),
        "iqm": float(values[quarter : len(values) - quarter].mean()),
        "optimality_gap": float((1 - np.minimum(values, 1)).mean()),
        "superhuman": float((values >= 1).sum()),
    }
    rows = []
    num_runs = len(algorithm.runs) // len(games)
    for metric, value in metrics.items():
        if algorithm.runs or metric in ("mean", "median", "superhuman"):
            has_interval = num_runs > 1 and metric != "superhuman"
            half = value * float(rng.uniform(0.07, 0.12)) if has_interval else None
            low, high = (None, None) if half is None else (value - half, value + 1.2 * half)
            rows.append(r.Aggregate(algorithm.name, metric, value, low, high, len(games), num_runs or 5, REPS, SEED))
    return rows


def _profile(algorithm: r.Algorithm, games: tuple[str, ...]) -> r.Profile:
    values = np.array([normalized(run.game, run.score) for run in algorithm.runs if run.game in games])
    taus = np.linspace(0, 8, 161)
    fractions = (values > taus[:, None]).mean(axis=1)
    band = 1.96 * np.sqrt(fractions * (1 - fractions) / max(len(values), 1))
    low, high = np.clip(fractions - band, 0, 1), np.clip(fractions + band, 0, 1)
    has_band = len(values) > len(games)
    return r.Profile(
        algorithm.name,
        tuple(taus.tolist()),
        tuple(fractions.tolist()),
        tuple(low.tolist()) if has_band else None,
        tuple(high.tolist()) if has_band else None,
    )


def _improvements(
    rng: np.random.Generator,
    ours: tuple[r.Algorithm, ...],
    games: tuple[str, ...],
    raw_games: tuple[str, ...],
    control: str | None,
    num_runs: int,
) -> tuple[r.Improvement, ...]:
    pairs = [(a, b) for i, a in enumerate(ours) for b in ours[i + 1 :] if control in (None, a.name)]
    rows = []
    for group, among in [(None, games)] * bool(games) + [(g, (g,)) for g in raw_games]:
        for a, b in pairs:
            wins = [_wins(a, b, game) for game in among]
            p = float(np.mean(wins))
            half = 0.08 if num_runs > 1 else None
            low, high = (None, None) if half is None else (max(p - half, 0.0), min(p + half, 1.0))
            rows.append(r.Improvement(a.name, b.name, group, p, low, high, len(among), num_runs, num_runs))
    return tuple(rows)


def _wins(a: r.Algorithm, b: r.Algorithm, game: str) -> float:
    first = np.array([run.score for run in a.runs if run.game == game])
    second = np.array([run.score for run in b.runs if run.game == game])
    return float((first[:, None] > second[None]).mean())


def _differences(
    rng: np.random.Generator, ours: tuple[r.Algorithm, ...], games: tuple[str, ...], control: str, num_runs: int
) -> tuple[r.Difference, ...]:
    value = {(row.algorithm, row.metric): row.value for a in ours for row in _aggregates(rng, a, games)}
    rows = []
    for a in ours[1:]:
        for metric in ("mean", "median", "iqm", "optimality_gap") if games else ():
            d = value[a.name, metric] - value[control, metric]
            half = 0.22 if num_runs > 1 else math.nan
            separated = abs(d) > half
            rows.append(
                r.Difference(
                    a.name,
                    control,
                    metric,
                    None,
                    d,
                    *((d - half, d + half) if num_runs > 1 else (None, None)),
                    "game and seed",
                    separated,
                    0 if separated else 7,
                    (d > 0) != (metric == "optimality_gap"),
                    len(games),
                    num_runs,
                )
            )
    return tuple(rows)


def _curves(rng: np.random.Generator, name: str, game: str, num_runs: int) -> list[r.Curve]:
    progress = np.array(EPOCHS) / EPOCHS[-1]
    low, span = _scale(game)
    steps = tuple(200.0 * e for e in EPOCHS)
    noise = rng.normal(0, 0.04, (4, len(EPOCHS)))
    shapes = {
        "test/return_mean": low + span * SKILL[name] * (progress**0.7 + noise[0]),
        "collect/return_mean": low + span * SKILL[name] * (0.9 * progress**0.8 + noise[1]),
        "world_model/observation_loss": 0.9 / SKILL[name] + 1.4 * np.exp(-5 * progress) + 0.2 * noise[2],
        "test/world_model_observation_loss": 1.0 / SKILL[name] + 1.4 * np.exp(-5 * progress) + 0.4 * noise[3],
    }
    curves = []
    for metric, values in shapes.items():
        spread = 0.1 * span if "return" in metric else 0.05
        std = tuple((spread * (0.5 + rng.random(len(EPOCHS)))).tolist()) if num_runs > 1 else (0.0,) * len(EPOCHS)
        curves.append(
            r.Curve(name, game, metric, EPOCHS, steps, tuple(values.tolist()), std, (num_runs,) * len(EPOCHS))
        )
    return curves


def _timings(name: str, index: int, num_runs: int) -> list[r.Timing]:
    seconds = {
        "collect": 3.0,
        "tokenizer": 12.0,
        "world_model": 39.0 - 3 * index,
        "controller": 20.0 + 25 * (index == 1),
    }
    rows = [r.Timing(name, "ours", HARDWARE, phase, s, 600 * s, num_runs) for phase, s in seconds.items()]
    rows.append(r.Timing(name, "ours", HARDWARE, "epoch", sum(seconds.values()), 600 * sum(seconds.values()), num_runs))
    rows.append(r.Timing(name, "ours", HARDWARE, "run", None, 600 * sum(seconds.values()) + 900, num_runs))
    if index == 0:
        rows += [
            r.Timing("IRIS", "published", "NVIDIA RTX 4090", phase, s, None, 0)
            for phase, s in (("tokenizer", 34.0), ("world_model", 55.0), ("controller", 309.0))
        ]
    return rows
