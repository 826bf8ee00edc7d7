"""A finished run's result.json, and the sentence about one that is damaged: the same from every verb."""

from __future__ import annotations

from typing import Any

from remctl.errors import MachineError
from remctl.runs.bundle import verify
from remctl.runs.files import read_json
from remctl.runs.layout import RunFolder


def damaged_result(run: RunFolder, what: str = "") -> str:
    """Return what is wrong with a run's result.json, and what to do."""
    shown = f" ({what})" if what else ""
    return f"{run.result} is damaged{shown}: remove it, and the same command tests the trained agent again"


def read_result(run: RunFolder, *keys: str) -> dict[str, Any]:
    """Return a run's result.json. Raises MachineError if it cannot be read, lacks one of `keys`, or a bundle is damaged.

    UserError for a bundle of a newer format.
    """
    if run.is_bundle:
        verify(run)
    try:
        result = read_json(run.result)
    except MachineError as error:
        if isinstance(error.__cause__, OSError):
            raise
        raise MachineError(damaged_result(run)) from error
    if not isinstance(result, dict) or not result.keys() >= set(keys):
        raise MachineError(damaged_result(run))
    return result
