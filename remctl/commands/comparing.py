"""`remctl config diff`: two configurations, wherever they stand, key by key."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from remctl.commands.output import table
from remctl.config import RunConfig, differing, from_yaml, keys, resolve
from remctl.config.presets import DESCRIPTIONS
from remctl.config.resolve import one_of, read_mapping, suggestion
from remctl.errors import UserError
from remctl.explain import plain
from remctl.runs.layout import RunFolder, find_runs
from remctl.shipped import available, find
from remctl.sweep.named import experiment_names
from remctl.sweep.spec import read_spec, wanted_runs
from remctl.sweep.wanted import Spec
from remctl.variants import VARIANTS

ORDINARY_GAME = "Pong"
RUNS = Path("runs")


@dataclass(frozen=True)
class Side:
    """What stands on one side. `own`: its configuration, if it has a game of its own; else it is resolved for a game."""

    given: str
    own: RunConfig | None = None
    spec: Spec | None = None
    variant: str = "rem"
    preset: str = "paper"
    file: Path | None = None

    @property
    def games(self) -> tuple[str, ...]:
        """Those that it says itself; none if it stands for any game."""
        return (self.own.game,) if self.own else self.spec.games if self.spec else ()

    def configuration(self, game: str | None) -> RunConfig:
        """As it is, else for `game`. Raises UserError for a game that its spec does not have."""
        if self.own is not None:
            return self.own
        if self.spec is None:
            return resolve(game or ORDINARY_GAME, self.preset, self.variant, self.file)
        game = one_of(game or self.spec.games[0], self.spec.games, f"game of {self.given}")
        return next(r.config for r in wanted_runs(self.spec) if (r.variant, r.game) == (self.variant, game))


def of_run(given: str) -> RunConfig:
    """The configuration of a run: its folder, with or without `runs/`, or its config.yaml. Raises UserError for others."""
    for path in (Path(given), RUNS / given):
        file = path if path.is_file() else RunFolder(path).config
        if file.is_file():
            return from_yaml(file)
    raise UserError(_not_found(given))


def side(given: str) -> Side:
    """A preset, a variant, a variant of a spec (SPEC:VARIANT), a run, or a file. Raises UserError for anything else."""
    if given in DESCRIPTIONS:
        return Side(given, preset=given)
    if given in VARIANTS:
        return Side(given, variant=given)
    for path in (Path(given), RUNS / given):
        if path.is_file() and "preset" not in read_mapping(path, "give a file of configuration keys"):
            return Side(given, file=path)
        if path.is_file() or RunFolder(path).config.is_file():
            return Side(given, own=of_run(str(path)))
    spec, colon, variant = given.rpartition(":")
    if colon and spec:
        read = read_spec(find("ablations", spec))
        return Side(given, spec=read, variant=one_of(variant, [v.name for v in read.variants], f"variant of {spec}"))
    raise UserError(_not_found(given))


def _not_found(given: str) -> str:
    for path in (Path(given), RUNS / given):
        runs = find_runs(path) if given and path.is_dir() else []
        if runs:
            return f"{given} holds {len(runs)} runs: name one, such as {runs[0].path}"
    if given in available("ablations"):
        names = [variant.name for variant in read_spec(find("ablations", given)).variants]
        return f"{given} is a spec: name one of its variants, such as {given}:{names[-1]}"
    known = list(dict.fromkeys([*DESCRIPTIONS, *VARIANTS, *available("ablations"), *experiment_names(RUNS)]))
    near = suggestion(given, known)
    advice = (
        near if near.startswith("did you mean") else "give a run's folder, a file, a preset, a variant or SPEC:VARIANT"
    )
    return f"no configuration {given!r}: {advice}"


def compared(first: str, second: str, game: str | None) -> tuple[RunConfig, RunConfig]:
    """Both configurations, for `game`, else for the game that one of them has. Raises UserError."""
    a, b = side(first), side(second)
    if game is not None and a.own is not None and b.own is not None:
        raise UserError("--game: both sides name a game already; leave it out")
    common = [g for g in a.games or b.games if not b.games or g in b.games]
    game = game or next(iter(common), None)
    return a.configuration(game), b.configuration(game)


def difference_rows(a: RunConfig, b: RunConfig) -> dict[str, dict[str, Any]]:
    """Every key with another value: {key: {a, b, identity}}; `identity`: whether it makes them different runs."""
    x, y, different = keys(a), keys(b), differing(a, b)
    return {k: {"a": x[k], "b": y[k], "identity": k in different} for k in x if x[k] != y[k]}


def difference_table(rows: dict[str, dict[str, Any]]) -> Table:
    """Key, one value, the other; a key on which no result depends is marked."""
    cells = [(key if row["identity"] else f"{key} *", plain(row["a"]), plain(row["b"])) for key, row in rows.items()]
    return table(("key", "A", "B"), cells)


def verdict(a: RunConfig, b: RunConfig, rows: dict[str, dict[str, Any]]) -> str:
    """Return how many keys differ, and whether the configurations are those of one run."""
    count = "no key differs" if not rows else "1 key differs" if len(rows) == 1 else f"{len(rows)} keys differ"
    one = "the same run" if not differing(a, b) else "different runs"
    marked = "" if all(row["identity"] for row in rows.values()) else " (* makes no difference to a result)"
    return f"{count}{marked}: {one}"
