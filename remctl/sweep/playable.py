"""Check that games can be played before their runs start, as `remctl train` does."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from contextlib import redirect_stdout

from remctl.envs import make_env
from remctl.errors import UserError
from remctl.games import kind
from remctl.sweep.records import Executor
from remctl.sweep.wanted import Spec, WantedRun


def refuse_unplayable(spec: Spec, runs: Iterable[WantedRun], executor: Executor, say: Callable[[str], None]) -> None:
    """Make every environment once. Raises UserError for one that cannot be used.

    Under SLURM a missing module is only reported, because the nodes may have it. Atari games are not tried: they need no
    module of the user.
    """
    distinct: dict[tuple[str, str], WantedRun] = {}
    for run in runs:
        if kind(run.game) != "atari":
            distinct.setdefault((run.game, run.config.environment.model_dump_json()), run)
    for run in distinct.values():
        try:
            with redirect_stdout(sys.stderr):  # stdout is for the command's own output
                make_env(run.game, run.config.environment, training=True, seed=0).close()
        except UserError as error:
            if executor == "slurm" and _is_missing(error):
                say(f"note: not tried here, because the nodes may have what is missing: {error}")
                continue
            raise UserError(
                f"{spec.path}: variant {run.variant!r}, {run.game}: {error}; nothing was started"
            ) from error


def _is_missing(error: BaseException | None) -> bool:
    """Return whether the cause is a module that cannot be imported."""
    from gymnasium.error import DependencyNotInstalled

    while error is not None:
        if isinstance(error, ImportError | DependencyNotInstalled):
            return True
        error = error.__cause__
    return False
