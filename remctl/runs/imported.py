"""Runs made by `remctl import`, from a bundle or from published weights.

They have no optimisers or replay, so nothing resumes or continues them, and no ablation counts them as done. A bundle brings
the score of its final test; other weights get one from `remctl eval`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from remctl.errors import MachineError, UserError
from remctl.runs import provenance
from remctl.runs.files import read_json, write_json
from remctl.runs.layout import RunFolder

BUNDLE = "bundle"  # the format of what `remctl export` wrote: a whole run, with the result of its final test


def write_record(
    run: RunFolder, form: str, file: Path, sha256: str, command: Sequence[str], names: Mapping[str, str] | None = None
) -> None:
    """Say in provenance.json and in imported.json where a run's weights came from. Raises `MachineError`.

    `names`: what the file calls tensors that no table lists.
    """
    about = {"format": form, "file": str(file), "sha256": sha256}
    provenance.append(run, provenance.collect(command) | {"imported": about})
    time = datetime.now(UTC).isoformat(timespec="seconds")
    write_json(run.imported, about | {"time": time, "names": dict(names or {})})


def record_of(run: RunFolder) -> dict[str, Any]:
    """What imported.json says: format, file, sha256, time, names. Raises `MachineError` if it cannot be read."""
    entry = read_json(run.imported)
    texts = ("format", "file", "sha256")
    if (
        not isinstance(entry, dict)
        or not all(isinstance(entry.get(name), str) for name in texts)
        or not isinstance(entry.get("names"), dict)
    ):
        raise MachineError(
            f"{run.imported} is damaged: restore it from a copy, or import the weights into another folder"
        )
    return entry


def imported_from(run: RunFolder) -> str | None:
    """Return the file that a run's weights came from, with its digest; None for a run of ours. Raises `MachineError`."""
    if not run.is_imported:
        return None
    entry = record_of(run)
    return f"{Path(entry['file']).name} (sha256 {entry['sha256'][:12]})"


def refuse_imported(run: RunFolder, remedy: str) -> None:
    """Raise `UserError`, with what to do, for a run of imported weights and for a bundle: neither can be trained further.

    `MachineError` if imported.json cannot be read.
    """
    if run.is_bundle:
        raise UserError(f"{run.path} is a bundle, without its optimisers and replay: {remedy}; {_again(run)}")
    if file := imported_from(run):
        again = f"; {_again(run)}" if record_of(run)["format"] == BUNDLE else ""
        raise UserError(f"{run.path} holds weights imported from {file}: {remedy}{again}")


def _again(run: RunFolder) -> str:
    return f"`remctl train --from {run.config}` trains it once more"


def keep_score(run: RunFolder, result: dict[str, Any], is_final: bool, num_final: int) -> str:
    """Keep what was measured as the run's result if it is as its final test would be; a line that says so.

    A bundle's own final test stays its result. Raises `MachineError`.
    """
    if record_of(run)["format"] == BUNDLE:
        return f"{run.result} keeps the score of the final test after its training"
    if not is_final:
        return f"not kept as the run's score, which takes {num_final} episodes or more and the run's own seed"
    write_json(run.result, result | {"imported": imported_from(run)})
    return f"kept as the run's score in {run.result}"
