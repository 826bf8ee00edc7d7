"""What `remctl import` and `remctl export` ask of a format."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

Say = Callable[[str], object]


@dataclass(frozen=True)
class Import:
    """Make the run folder `out` of `file`. `preset` None: the format's own. `say` takes lines for people."""

    file: Path
    out: Path
    say: Say
    command: tuple[str, ...] = ()
    game: str | None = None
    preset: str | None = None
    sets: tuple[str, ...] = ()
    seed: int = 0


@dataclass(frozen=True)
class Export:
    """Write the newest agent of the run folder `run` to `file`; as a bundle, `file` is a folder.

    `like`: a file of the format, which says what its tensors are called. `lpips`: with LPIPS' weights, as published.
    """

    run: Path
    file: Path
    say: Say
    like: Path | None = None
    lpips: bool = True
