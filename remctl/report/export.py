"""Our runs' scores in the formats that `remctl report --scores` reads."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from remctl.errors import UserError
from remctl.report.collect import collect
from remctl.report.notes import missing_notes
from remctl.report.scores import scores_csv, scores_json
from remctl.report.spec import ReportSpec
from remctl.runs.files import make_folder, write_atomic


class Exported(NamedTuple):
    """The content of the file, and sentences on which runs are not in it."""

    text: str
    notes: tuple[str, ...]


def export_scores(runs: tuple[Path, ...], out: Path | None, algorithm: str | None) -> Exported:
    """Return the scores of all finished runs, or of one algorithm, as CSV or by `out`'s ending JSON; written to `out` if given.

    Raises UserError for a name or an ending that is none and where no run is finished, MachineError.
    """
    if not runs:
        raise UserError("nothing to export: give run folders or a folder of them, such as runs/quick")
    kind = ".csv" if out is None else out.suffix.lower()
    if kind not in (".csv", ".json"):
        raise UserError(f"--out {out}: give a name that ends in .csv or .json")
    collected = collect(ReportSpec(runs=tuple(str(path) for path in runs)))
    found = collected.algorithms
    chosen = [a for a in found if algorithm in (None, a.name)]
    if not chosen:
        raise UserError(f"--algorithm: no finished run of {algorithm!r}; there are {', '.join(a.name for a in found)}")
    text = scores_json(chosen) if kind == ".json" else scores_csv(chosen)
    if out is not None:
        make_folder(out.parent)
        write_atomic(out, text)
    missing = [run for run in collected.missing if algorithm in (None, run.algorithm)]
    return Exported(text, tuple(missing_notes(missing)))
