"""`remctl init` and `remctl list specs`: the specs and profiles that come with remctl."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from remctl.commands.options import Json, check_folder
from remctl.errors import UserError

if TYPE_CHECKING:
    from remctl.shipped import Kind

KIND_NAMES: dict[Kind, str] = {"ablations": "ablation", "reports": "report", "slurm": "profile"}


def init(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="[DIR]",
            help="Target folder; by default the working folder.",
            show_default=False,
            callback=check_folder,
        ),
    ] = Path(),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that you have changed.")] = False,
) -> None:
    """Copy the ablation specs, the report specs and the SLURM profiles, with their README, for editing."""
    from remctl.shipped import KINDS, copy_into

    written, kept = copy_into(folder, overwrite=overwrite)
    where = "/, ".join(KINDS[:-1]) + f"/ and {KINDS[-1]}/"
    differing = ", ".join(str(path.relative_to(folder)) for path in kept)
    print(
        f"{len(written) or 'no'} files written into {where} of {folder.absolute()}"
        + (
            f"; kept, because they differ from the shipped ones: {differing} (--overwrite replaces them)"
            if kept
            else ""
        )
    )


def specs(json: Json = False) -> None:
    """The specs and profiles found here: your own first, then those that come with remctl."""
    from remctl.commands.output import show, show_json, table
    from remctl.shipped import KINDS, available

    rows = [_row(kind, name, path) for kind in KINDS for name, path in available(kind).items()]
    if json:
        show_json(rows)
        return
    show(table(("spec", "what it is"), [(row["spec"], _described(row)) for row in rows]))


def _described(row: dict[str, Any]) -> str:
    runs = f", {row['runs']} runs" if row["runs"] else ""
    own = "" if row["from"] == "remctl" else f" from {row['from']}"
    return f"{row['kind']}{own}{runs}: {row['question']}"


def _row(kind: Kind, name: str, path: Path) -> dict[str, Any]:
    from remctl.shipped import folder

    try:
        question, runs = _content(kind, path)
    except UserError as error:
        question, runs = f"unreadable: {error}", None
    origin = "remctl" if path.parent.resolve() == folder(kind) else f"{kind}/"
    return {"spec": name, "kind": KIND_NAMES[kind], "runs": runs, "from": origin, "question": question}


def _content(kind: Kind, path: Path) -> tuple[str, int | None]:
    """The question of a file, or what a profile asks for; the number of runs of an ablation."""
    from remctl.report.spec import read_spec as read_report
    from remctl.sweep.profile import read_profile
    from remctl.sweep.spec import read_spec

    if kind == "ablations":
        spec = read_spec(path)
        return spec.question, len(spec.variants) * len(spec.games) * len(spec.seeds)
    if kind == "reports":
        report = read_report(path, {})
        return report.question or report.title, None
    return read_profile(path).summary, None


def register(app: typer.Typer, lists: typer.Typer) -> None:
    """Add `init`, and `specs` to what can be listed."""
    app.command()(init)
    lists.command()(specs)
