"""Sentences about what is missing, uneven or not comparable, and the policies that refuse it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from remctl.config import RunConfig, differing, from_yaml
from remctl.errors import UserError
from remctl.games import HUMAN, reference_name, reference_scores
from remctl.report.cells import span
from remctl.report.results import Algorithm, MissingRun, RunScore
from remctl.runs.code import Code
from remctl.runs.layout import RunFolder

FEW_RUNS = 10  # with 5 runs of 8 games about 91% of intervals hold what they should, of one game 86%
MAX_NAMED = 6


def common_games(algorithms: Sequence[Algorithm], games: tuple[str, ...]) -> tuple[str, ...]:
    """The games that every algorithm has."""
    return tuple(game for game in games if all(game in a.means for a in algorithms))


def refuse_missing(algorithms: Sequence[Algorithm], games: tuple[str, ...], missing: Sequence[MissingRun]) -> None:
    """UserError, with what is missing, unless every algorithm has equally many runs of every game and none is missing."""
    for algorithm in algorithms:
        lacking = [game for game in games if game not in algorithm.means]
        if lacking:
            raise UserError(_refusal(f"{algorithm.name} has no score on {some(lacking)}"))
        counts = run_counts(algorithm, games)
        if len(set(counts.values())) > 1:
            raise UserError(_refusal(f"{algorithm.name} has {_spread(counts)}"))
    each = {a.name: min(counts.values()) for a in algorithms if (counts := run_counts(a, games))}
    if len(set(each.values())) > 1:
        raise UserError(_refusal(f"Runs per game differ, {some([f'{name} {n}' for name, n in each.items()])}"))
    if missing:
        first = missing[0]
        raise UserError(_refusal(f"{first.path} is missing ({first.reason}), and {len(missing) - 1} more"))


def _refusal(what: str) -> str:
    return f"{what}, and --missing fail allows none: finish them, choose other --games, or use --missing common-games"


def run_counts(algorithm: Algorithm, games: Sequence[str]) -> dict[str, int]:
    """Runs per game; empty for published means."""
    counts = Counter(run.game for run in algorithm.runs)
    return {game: counts[game] for game in games if game in counts}


def some(names: Sequence[str]) -> str:
    """`A, B, C and 23 more`."""
    listed = ", ".join(names[:MAX_NAMED])
    return listed if len(names) <= MAX_NAMED else f"{listed} and {len(names) - MAX_NAMED} more"


def _spread(counts: dict[str, int]) -> str:
    by_count: dict[int, list[str]] = {}
    for game, count in counts.items():
        by_count.setdefault(count, []).append(game)
    usual = max(by_count, key=lambda n: len(by_count[n]))
    rest = [f"{n} on {some(games)}" for n, games in sorted(by_count.items()) if n != usual]
    return f"{usual} runs per game but {', '.join(rest)}"


def notes_on(
    algorithms: Sequence[Algorithm],
    games: tuple[str, ...],
    common: tuple[str, ...],
    raw_games: tuple[str, ...],
    missing: Sequence[MissingRun],
    ragged: str,
) -> list[str]:
    """All that a reader must know before comparing the columns."""
    return [
        *_games_notes(algorithms, games, common, raw_games),
        *missing_notes(missing),
        *_count_notes(algorithms, common, raw_games, ragged),
        *_interval_notes(algorithms, (*common, *raw_games)),
        *_origin_notes(algorithms),
        *_version_notes(algorithms),
    ]


def _games_notes(
    algorithms: Sequence[Algorithm], games: tuple[str, ...], common: tuple[str, ...], raw_games: tuple[str, ...]
) -> list[str]:
    notes = []
    if common != games:
        lacking = [
            f"{a.label} has no score on {some([g for g in games if g not in a.means])}"
            for a in algorithms
            if any(g not in a.means for g in games)
        ]
        notes.append(
            f"Aggregates go over {len(common)} of {len(games)} games, those that all have: {'; '.join(lacking)}."
        )
    if common:
        one = len(common) == 1
        which = f"game, {common[0]}" if one else f"{len(common)} games"
        notes.append(f"Aggregates, profiles and differences of every column go over the same {which}.")
    if reference_name(common) != HUMAN:
        notes.append(f"Normalized scores: 0 is random play, 1 is {'; '.join(_references(common))}.")
    if raw_games:
        notes.append(f"{some(raw_games)}: no reference scores, so raw scores per game only, in no aggregate.")
    return notes


def _references(games: Iterable[str]) -> list[str]:
    """What 1 means on which games: `human on Pong`, `PPO, 100,000 steps on gym:MiniGrid-Unlock-v0`."""
    of: dict[str, list[str]] = {}
    for game in games:
        of.setdefault(reference_scores(game).label, []).append(game)
    return [f"{label} on {some(on)}" for label, on in of.items()]


def missing_notes(missing: Sequence[MissingRun]) -> list[str]:
    """Return the sentence that says how many runs are missing, which, and why; none if none is."""
    if not missing:
        return []
    seeds = ["" if m.seed is None else f" seed {m.seed}" for m in missing]
    listed = some([f"{m.algorithm} {m.game}{seed} ({m.reason})" for m, seed in zip(missing, seeds, strict=True)])
    return [f"{len(missing)} run{'' if len(missing) == 1 else 's'} missing, not scored: {listed}."]


def _count_notes(
    algorithms: Sequence[Algorithm], common: tuple[str, ...], raw_games: tuple[str, ...], ragged: str
) -> list[str]:
    notes = []
    every = {a.label: run_counts(a, (*common, *raw_games)) for a in algorithms if a.runs}
    for label, counts in every.items():
        if len(set(counts.values())) > 1:
            notes.append(f"{label} has {_spread(counts)}.")
    uneven = any(len(set(run_counts(a, common).values())) > 1 for a in algorithms)
    if uneven and ragged == "all":
        notes.append("Uneven runs: every run is used, every game counts the same (a game's runs share its weight).")
    elif uneven:
        notes.append(
            "Uneven runs: of each game as many as the algorithm has of its least, by a draw with the report's seed, are used; "
            "another algorithm may have more."
        )
    totals = {label: span(counts.values()) for label, counts in every.items() if counts}
    if len(set(totals.values())) > 1:
        notes.append(f"Runs per game differ: {', '.join(f'{label} {n}' for label, n in totals.items())}.")
    return notes


def _interval_notes(algorithms: Sequence[Algorithm], games: tuple[str, ...]) -> list[str]:
    fewest = {a.label: min(counts.values()) for a in algorithms if (counts := run_counts(a, games))}
    single = [label for label, n in fewest.items() if n == 1]
    few = [label for label, n in fewest.items() if 1 < n < FEW_RUNS]
    notes = []
    if single:
        notes.append(f"One run of a game shows no spread, so no interval over such games: {some(single)}.")
    if few:
        notes.append(
            f"Bootstrap intervals from fewer than {FEW_RUNS} runs per game tend to be too narrow: {some(few)}."
        )
    return notes


def _origin_notes(algorithms: Sequence[Algorithm]) -> list[str]:
    imported = [(a, run) for a in algorithms for run in a.runs if run.imported]
    labels = dict.fromkeys(a.label for a, _ in imported)
    sources = some([f"{run.game} seed {run.seed} from {run.imported}" for _, run in imported])
    notes = [f"Imported, not trained here: {', '.join(labels)}: {sources}."] if imported else []
    published = [a.label for a in algorithms if a.origin == "published"]
    if published:
        listed = ", ".join(published)
        notes.append(f"Published, not run here: {listed}. Means of 5 runs, which bear no interval and no IQM.")
    return notes


def _version_notes(algorithms: Sequence[Algorithm]) -> list[str]:
    ours = [a for a in algorithms if a.origin in ("ours", "imported")]
    notes = _code_notes(ours)
    runs = [run for a in ours for run in a.runs]
    computed = {p: sum(run.precision == p for run in runs) for p in sorted({r.precision for r in runs if r.precision})}
    if len(computed) > 1 or any(" + " in precision for precision in computed):
        listed = ", ".join(f"{count} in {precision}" for precision, count in computed.items())
        notes.append(f"Runs were computed in several precisions: {listed}.")
    for algorithm in ours:
        notes += _configuration_notes(algorithm)
    return notes


def _code_notes(ours: Iterable[Algorithm]) -> list[str]:
    """A sentence that says which runs were made by which code, if not all by the same."""
    groups: list[tuple[tuple[Code, ...], list[tuple[Algorithm, RunScore]]]] = []
    for algorithm in ours:
        for run in algorithm.runs:
            found = next((members for codes, members in groups if _are_same(codes, run.codes)), None)
            if found is None:
                groups.append((run.codes, found := []))
            found.append((algorithm, run))
    if len(groups) < 2 and not any(len(codes) > 1 for codes, _ in groups):
        return []
    versions = Counter(code.version for codes, _ in groups if len(codes) == 1 for code in codes)
    listed = [f"{_code_names(codes, versions)}: {_named_runs(members)}" for codes, members in groups]
    return [f"Runs were made by several versions of remctl: {'; '.join(listed)}."]


def _are_same(a: tuple[Code, ...], b: tuple[Code, ...]) -> bool:
    return len(a) == len(b) and not any(x.is_other(y) for x, y in zip(a, b, strict=True))


def _code_names(codes: tuple[Code, ...], versions: Counter[str]) -> str:
    """Versions, with the digest of the sources where two of the same name are not the same code."""
    names = [
        f"{c.version} (sources {c.sources})" if versions[c.version] > 1 and c.sources else c.version for c in codes
    ]
    return ", resumed by ".join(names) or "unknown"


def _named_runs(members: Sequence[tuple[Algorithm, RunScore]]) -> str:
    """All runs of an algorithm by its label, others one by one."""
    by_algorithm: dict[str, list[str]] = {}
    for algorithm, run in members:
        by_algorithm.setdefault(algorithm.label, []).append(f"{algorithm.label} {run.game} seed {run.seed}")
    sizes = {algorithm.label: len(algorithm.runs) for algorithm, _ in members}
    parts: list[str] = []
    for label, names in by_algorithm.items():
        parts += [f"{label} (all {len(names)})"] if len(names) == sizes[label] else names
    return some(parts)


def _configuration_notes(algorithm: Algorithm) -> list[str]:
    """A sentence if the seeds of one game were not run with one configuration."""
    first: dict[str, tuple[RunConfig, str]] = {}
    for run in algorithm.runs:
        try:
            config = from_yaml(RunFolder(Path(run.path)).config)
        except UserError:  # lost, or of a newer remctl
            continue
        known, path = first.setdefault(run.game, (config, run.path))
        changed = [key for key in differing(known, config) if key != "seed"]
        if changed:
            return [
                f"{algorithm.label}: seeds of {run.game} have different configurations ({changed[0]}): {path} and {run.path}."
            ]
    return []
