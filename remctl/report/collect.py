"""Everything read in, named, ordered, and cut to the games asked for: what the statistics start from."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from remctl.errors import UserError
from remctl.games import ATARI_100K, find_reference
from remctl.paths import user_path
from remctl.report.colors import coloured
from remctl.report.published import SOURCES, TABLE_GAMES, TABLES, published
from remctl.report.results import Algorithm, MissingRun, Origin, RunScore
from remctl.report.runs import FoundRuns, RunGroup, read_runs
from remctl.report.scores import parse_option, read_scores
from remctl.report.spec import ReportSpec, in_order

DEFAULT_CONTROL = "rem"
RAW = ": raw scores per game only, in no aggregate."
ALTERED = (
    "run with environment.arguments, or another environment.frame_skip or time_limit_test_frames than the preset's"
)


@dataclass(frozen=True)
class Collected:
    """All algorithms, the control first, each with the runs on the games asked for.

    `games` are asked for or found, with reference scores; `raw_games` those without, and those that no
    published column has. `experiments`: question and control come from the experiment's own file where the spec says nothing.
    """

    algorithms: tuple[Algorithm, ...]
    games: tuple[str, ...]
    raw_games: tuple[str, ...]
    control: str | None
    question: str
    missing: tuple[MissingRun, ...]
    notes: tuple[str, ...]


def collect(spec: ReportSpec) -> Collected:
    """Read all that a spec names. Raises UserError for bad input and where nothing is left to report, MachineError."""
    notes: list[str] = []
    found = _found_runs(spec, notes)
    ours, missing = _our_algorithms(found, notes)
    files, unscored = _from_files(spec, notes)
    own, missing = _distinct([*ours, *files]), [*missing, *unscored]
    games = _games(spec, own)
    paper = _covering(published(spec.published), games, notes)
    algorithms = _cut([*own, *_renamed(paper, own)], games)
    if not algorithms:
        notes += _no_scores(missing, spec)
    control = _control(spec, found, algorithms, missing, notes)
    notes += _published_control(control, algorithms)
    ordered = sorted(algorithms, key=lambda a: a.name != control)
    altered = {run.game for a in algorithms for run in a.runs if run.is_altered and find_reference(run.game)}
    notes += [f"{game}: {ALTERED}, so its reference scores do not apply{RAW}" for game in in_order(altered)]
    unpublished = {g for g in games if paper and find_reference(g) and not any(g in a.means for a in paper)} - altered
    notes += [f"{game}: no published scores to compare with{RAW}" for game in in_order(unpublished)]
    raw_games = tuple(g for g in games if g in altered or g in unpublished or find_reference(g) is None)
    return Collected(
        algorithms=tuple(coloured(_labelled(ordered))),
        games=tuple(g for g in games if g not in raw_games),
        raw_games=raw_games,
        control=control,
        question=spec.question or found.question,
        missing=tuple(m for m in missing if spec.selected is None or m.game in spec.selected),
        notes=tuple(notes),
    )


# --- run folders


def _found_runs(spec: ReportSpec, notes: list[str]) -> FoundRuns:
    there = []
    for name in spec.runs:
        path = user_path(name)
        if path.exists() or not spec.runs_optional:
            there.append(path)
        else:
            notes.append(f"{path} does not exist yet: none of its runs is in this report.")
    found = read_runs(there)
    notes += found.notes
    return found


def _our_algorithms(found: FoundRuns, notes: list[str]) -> tuple[list[Algorithm], list[MissingRun]]:
    groups = _without_copies(found.groups)
    names = _group_names(groups)
    missing = [replace(m, algorithm=name) for name, group in zip(names, groups, strict=True) for m in group.missing]
    made = []
    for name, group in zip(names, groups, strict=True):
        if group.runs:
            made.append(_ours(name, group))
        else:
            notes.append(f"{name} has no finished run yet and is left out.")
    return made, missing


def _without_copies(groups: Sequence[RunGroup]) -> list[RunGroup]:
    """Without variants that are, run for run, another experiment's of the same name."""
    kept: dict[tuple[str, frozenset[str]], RunGroup] = {}
    for group in groups:
        paths = [run.path for run in group.runs] + [run.path for run in group.missing]
        places = frozenset(str(Path(path).resolve()) for path in paths)
        kept.setdefault((group.variant, places), group)
    return list(kept.values())


def _group_names(groups: Sequence[RunGroup]) -> list[str]:
    """The variant; with its experiment, or all of its folder, where that is not enough to tell two apart."""
    names = [group.variant for group in groups]
    for prefix in ("experiment", "source"):
        counts = Counter(names)
        longer = [f"{getattr(group, prefix)}/{group.variant}" for group in groups]
        names = [long if counts[name] > 1 else name for name, long in zip(names, longer, strict=True)]
    return names


def _ours(name: str, group: RunGroup) -> Algorithm:
    runs = tuple(sorted(group.runs, key=lambda run: (run.game, run.seed or 0)))
    for a, b in zip(runs, runs[1:], strict=False):
        if (a.game, a.seed) == (b.game, b.seed):
            raise UserError(
                f"{name}: seed {a.seed} of {a.game} is there twice, {a.path} and {b.path}; leave one of them out"
            )
    label = group.label if name == group.variant else f"{group.label} ({name.removesuffix('/' + group.variant)})"
    origin: Origin = "imported" if any(run.imported for run in runs) else "ours"
    return Algorithm(name, label, origin, group.source, 0, runs, means_of(runs))


def means_of(runs: Iterable[RunScore]) -> dict[str, float]:
    """Mean raw score per game."""
    scores: dict[str, list[float]] = {}
    for run in runs:
        scores.setdefault(run.game, []).append(run.score)
    return {game: sum(values) / len(values) for game, values in scores.items()}


# --- score files


def _from_files(spec: ReportSpec, notes: list[str]) -> tuple[list[Algorithm], list[MissingRun]]:
    files = [parse_option(text) for text in spec.scores]
    found = [(file, read_scores(file)) for file in files]
    notes += [note for _, scores in found for note in scores.notes]
    made = [
        Algorithm(name, name, "file", str(file.path), 0, runs, means_of(runs))
        for file, scores in found
        for name, runs in scores.runs.items()
    ]
    return made, [run for _, scores in found for run in scores.missing]


def _distinct(algorithms: list[Algorithm]) -> list[Algorithm]:
    counts = Counter(a.name for a in algorithms)
    for name, count in counts.items():
        if count > 1:
            places = " and ".join(a.source for a in algorithms if a.name == name)
            raise UserError(f"{name!r} names scores from {places}; give one of them another NAME in --scores NAME=FILE")
    return algorithms


# --- names


def _renamed(paper: list[Algorithm], own: Sequence[Algorithm]) -> list[Algorithm]:
    """Published agents as `paper/NAME` where the name is taken."""
    taken = {a.name for a in own}
    return [replace(a, name=f"paper/{a.name}") if a.name in taken else a for a in paper]


def _labelled(algorithms: list[Algorithm]) -> list[Algorithm]:
    """Labels that tell algorithms apart."""
    counts = Counter(a.label for a in algorithms)
    suffix = {"published": "paper", "file": "file", "ours": "ours", "imported": "imported"}
    made = [replace(a, label=f"{a.label} ({suffix[a.origin]})") if counts[a.label] > 1 else a for a in algorithms]
    counts = Counter(a.label for a in made)
    return [replace(a, label=a.name) if counts[a.label] > 1 else a for a in made]


def _control(
    spec: ReportSpec, found: FoundRuns, algorithms: Sequence[Algorithm], missing: Sequence[MissingRun], notes: list[str]
) -> str | None:
    """The control's name among the algorithms: as asked for, as the experiment says, else `rem` if that is there."""
    wanted = spec.control or found.control
    names = [a.name for a in algorithms]
    matches = _matches(wanted or DEFAULT_CONTROL, names)
    if len(matches) == 1:
        return matches[0]
    if spec.control is not None and not _matches(spec.control, [m.algorithm for m in missing]):
        near = difflib.get_close_matches(spec.control, names, n=1)
        hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(names)}"
        raise UserError(f"--control: {'several are' if matches else 'no algorithm is'} called {spec.control!r}; {hint}")
    if wanted is not None:
        notes.append(f"The control {wanted} has no finished run: nothing is compared to it.")
    return None


def _published_control(control: str | None, algorithms: Sequence[Algorithm]) -> list[str]:
    if any(a.name == control and a.origin == "published" for a in algorithms) and any(a.runs for a in algorithms):
        return [f"The control {control} is published: its means bear no differences and no probability of improvement."]
    return []


def _matches(wanted: str, names: Sequence[str]) -> list[str]:
    return [n for n in names if n == wanted] or [n for n in names if n.endswith(f"/{wanted}")]


# --- games


def _games(spec: ReportSpec, own: Sequence[Algorithm]) -> tuple[str, ...]:
    """Those asked for, else all that our runs and the files have, else those of the first published table."""
    tables = [TABLE_GAMES[table] for table in TABLES if table in spec.published]
    return spec.selected or in_order({game for a in own for game in a.means}) or (tables[0] if tables else ())


def _covering(paper: list[Algorithm], games: tuple[str, ...], notes: list[str]) -> list[Algorithm]:
    """Published agents that have every Atari 100K game asked for: one that has not would shrink what ours are compared on."""
    wanted = {g for g in games if g in ATARI_100K}
    kept = [a for a in paper if wanted and wanted <= a.means.keys()]
    for source in SOURCES.values():
        dropped = [a.label for a in paper if a.source == source and a not in kept]
        if dropped:
            notes.append(
                f"Published scores of the {source} ({', '.join(dropped)}) are left out: they do not cover all of the games "
                "compared here; --games ablation_subset compares on Table 8's games."
            )
    return kept


def _cut(algorithms: list[Algorithm], games: tuple[str, ...]) -> list[Algorithm]:
    """Only the scores on `games`, and only algorithms that have any."""
    cut = [
        replace(
            a,
            runs=tuple(run for run in a.runs if run.game in games),
            means={game: mean for game, mean in a.means.items() if game in games},
        )
        for a in algorithms
    ]
    return [a for a in cut if a.means]


def _no_scores(missing: Sequence[MissingRun], spec: ReportSpec) -> list[str]:
    """Beside benchmarks a report may have none; it says so where some were asked for."""
    if not spec.bench:
        raise UserError(_nothing(missing, spec))
    return [f"There are no scores: {_nothing(missing, spec)}."] if spec.runs or spec.scores or spec.published else []


def _nothing(missing: Sequence[MissingRun], spec: ReportSpec) -> str:
    if missing:
        first = missing[0]
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        if first.is_imported:
            return f"{first.path}: imported, and not tested yet{more}: run `remctl eval {first.path}`, then report"
        return f"{first.path}: not finished ({first.reason}){more}: run the same train command again, then report"
    if spec.runs or spec.scores or spec.published:
        return f"no score on the games asked for ({', '.join(spec.selected or ())[:60]}): choose others with --games"
    return "nothing to report on: give run folders, --scores NAME=FILE, --published, --bench FILE or --spec"
