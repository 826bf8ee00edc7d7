"""Folders that appear whole or not at all."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from remctl.errors import UserError
from remctl.runs import files
from remctl.runs.layout import RunFolder


def refuse_taken(out: Path) -> None:
    """Raise UserError unless `out` is a place for a new folder: nothing is there yet, or an empty folder."""
    files.refuse_no_folder(out)
    if not out.name:
        raise UserError(f"--out {out}: no place for a run: name a folder, such as runs/published/rem/Pong/seed_0")
    if out.is_dir() and any(out.iterdir()):
        raise UserError(f"{out} has something in it already: choose another --out")


@contextmanager
def made_whole(out: Path) -> Iterator[RunFolder]:
    """Give a folder to fill under another name, and rename it at the end. Raises MachineError; it is then removed."""
    # A name that nobody has: a killed process of the same number, here or in a container, may have left its own.
    scratch = RunFolder(files.temporary(out.with_name(f"{secrets.token_hex(4)}-{out.name}")))
    files.make_folder(scratch.path)
    try:
        yield scratch
        with files.named_errors("writing", out):
            files.rename(scratch.path, out)
            files.sync_folder(out.parent)
    except BaseException:
        files.discard(scratch.path)
        raise
