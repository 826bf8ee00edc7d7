"""The formats of `remctl import` and `remctl export`, by name. A further one is a file here and a line below."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from remctl.config import one_of
from remctl.errors import UserError
from remctl.exchange.bundle import export_bundle, import_bundle
from remctl.exchange.requests import Export, Import
from remctl.exchange.weights import LAYOUTS, export_weights, import_weights
from remctl.paths import refuse_nowhere
from remctl.runs.imported import BUNDLE
from remctl.runs.layout import RunFolder


@dataclass(frozen=True)
class Format:
    """`take_in` makes a run folder of a file, `give_out` a file of a run's agent. Both raise UserError, MachineError."""

    take_in: Callable[[Import], None]
    give_out: Callable[[Export], None]


FORMATS = {layout.name: Format(partial(import_weights, layout), partial(export_weights, layout)) for layout in LAYOUTS}
FORMATS[BUNDLE] = Format(import_bundle, export_bundle)


def format_of(name: str | None, file: Path) -> Format:
    """The format of that name; without one, a bundle if `file` is one. Raises UserError, with the formats that there are."""
    if name is not None:
        return FORMATS[one_of(name, FORMATS, "format")]
    if RunFolder(file).is_bundle:
        return FORMATS[BUNDLE]
    refuse_nowhere(file)
    raise UserError(
        f"{file} is not a bundle (no bundle.json), and a weights file does not say its format: "
        "add --from rem or --from iris"
    )
