"""The formats of `remctl import` and `remctl export`, by name. A further one is a file here and a line below."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from remctl.config import one_of
from remctl.exchange.requests import Export, Import
from remctl.exchange.weights import LAYOUTS, export_weights, import_weights


@dataclass(frozen=True)
class Format:
    """`take_in` makes a run folder of a file, `give_out` a file of a run's agent. Both raise UserError, MachineError."""

    take_in: Callable[[Import], None]
    give_out: Callable[[Export], None]


FORMATS = {layout.name: Format(partial(import_weights, layout), partial(export_weights, layout)) for layout in LAYOUTS}


def format_of(name: str) -> Format:
    """The format of that name. Raises UserError for another, with those that there are."""
    return FORMATS[one_of(name, FORMATS, "format")]
