"""`remctl report` and `remctl scores export`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from remctl.commands.options import ReportSpec, check_folder

if TYPE_CHECKING:
    from remctl.report.results import Results

scores_app = typer.Typer(help="Export the scores of finished runs.")


def register(app: typer.Typer) -> None:
    """Add `report` and `scores` to the command line."""
    app.command()(report)
    app.add_typer(scores_app, name="scores")


Folders = Annotated[
    list[str] | None,
    typer.Argument(metavar="RUN_OR_DIR", help="Experiments by name, run folders, or folders of them."),
]


def report(
    runs: Folders = None,
    spec: ReportSpec = None,
    scores: Annotated[
        list[str] | None,
        typer.Option("--scores", metavar="NAME=FILE", help="A file of scores (JSON, CSV, TSV, npz); repeatable."),
    ] = None,
    bench: Annotated[
        list[Path] | None, typer.Option("--bench", metavar="FILE", help="A bench.json of remctl bench; repeatable.")
    ] = None,
    published: Annotated[
        bool | None, typer.Option("--published/--no-published", help="Show the paper's Tables 1 and 8 next to ours.")
    ] = None,
    games: Annotated[
        str | None, typer.Option(metavar="GAMES", help="atari_100k, ablation_subset, or A,B,C; by default all.")
    ] = None,
    control: Annotated[
        str | None, typer.Option(metavar="NAME", help="The algorithm that the others are compared to.")
    ] = None,
    missing: Annotated[
        str | None,
        typer.Option(
            metavar="POLICY", help="If runs are missing or uneven: common-games (compare those that all have) or fail."
        ),
    ] = None,
    ragged: Annotated[
        str | None,
        typer.Option(
            metavar="POLICY",
            help="If an algorithm has more runs of some games: use all, or equalise (by a seeded draw).",
        ),
    ] = None,
    reps: Annotated[int | None, typer.Option(help="Bootstrap repetitions.", show_default="50000")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the bootstrap.", show_default="0")] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder for the report.", show_default="runs/report", callback=check_folder),
    ] = None,
    formats: Annotated[
        str, typer.Option("--format", metavar="LIST", help="all, or some of csv,md,tex,png,pdf,svg,html.")
    ] = "all",
) -> None:
    """Compare runs, published scores and benchmarks: tables, figures and one HTML page."""
    from remctl.progress import alive
    from remctl.report.spec import read_spec
    from remctl.report.write import make_report, parse_formats
    from remctl.shipped import find
    from remctl.sweep.named import folder

    chosen = parse_formats(formats)
    file = find("reports", spec) if spec else None
    folders = tuple(str(folder(name, Path("runs"))) for name in runs) if runs else None
    files = tuple(scores) if scores else None
    benchmarks = tuple(str(path) for path in bench) if bench else None
    sources: dict[str, Any] = {"runs": folders, "scores": files, "bench": benchmarks, "published": published}
    choices = {"games": games, "control": control, "missing": missing, "ragged": ragged, "reps": reps, "seed": seed}
    target = out or Path("runs/report", *([file.stem] if file else []))
    asked = read_spec(file, sources | choices)
    with alive("computing intervals, drawing figures"):
        results = make_report(asked, target, chosen, shlex.join(["remctl", *sys.argv[1:]]))
    _say(results, target, "html" in chosen)


def _say(results: Results, folder: Path, has_page: bool) -> None:
    from remctl.commands.output import show
    from remctl.report.cells import count

    for note in results.notes:
        show(note)
    over = count(len(results.games), "game") if results.games else "no aggregate"
    raw = f", {len(results.raw_games)} raw" if results.raw_games else ""
    scores = [f"{count(len(results.algorithms), 'algorithm')}, {over}{raw}"] if results.algorithms else []
    speed = [count(len(results.benchmarks), "benchmark")] if results.benchmarks else []
    show(f"{results.title}: {', '.join(scores + speed)}")
    print(folder / "index.html" if has_page else folder)


@scores_app.command()
def export(
    runs: Folders = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A .csv or .json file; by default CSV is printed.")
    ] = None,
    algorithm: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only this algorithm; a JSON file holds just one.")
    ] = None,
) -> None:
    """Write the scores of finished runs: algorithm,game,seed,score or {"Game": [...]}."""
    from remctl.commands.before_start import aside
    from remctl.report.export import export_scores
    from remctl.sweep.named import folder

    text, notes = export_scores(tuple(folder(name, Path("runs")) for name in runs or ()), out, algorithm)
    print(text if out is None else f"{out}\n", end="")
    for note in notes:
        aside(note)
