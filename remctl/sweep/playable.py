"""Whether games can be played at all, found out before their runs are handed over, as `remctl train` does."""

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

    SLURM's nodes may have a module that is missing here: that is only said. Atari games need none of the user's.
    """
    distinct: dict[tuple[str, str], WantedRun] = {}
    for run in runs:
        if kind(run.game) != "atari":
            distinct.setdefault((run.game, run.config.environment.model_dump_json()), run)
    for run in distinct.values():
        try:
            with redirect_stdout(sys.stderr):  # what the environment prints is not the command's answer
                make_env(run.game, run.config.environment, training=True, seed=0).close()
        except UserError as error:
            if executor == "slurm" and _is_missing(error):
                say(f"note: not tried here, as the nodes may have what is missing: {error}")
                continue
            raise UserError(
                f"{spec.path}: variant {run.variant!r}, {run.game}: {error}; nothing was started"
            ) from error


def _is_missing(error: BaseException | None) -> bool:
    """Whether a module that cannot be imported is the cause."""
    from gymnasium.error import DependencyNotInstalled

    while error is not None:
        if isinstance(error, ImportError | DependencyNotInstalled):
            return True
        error = error.__cause__
    return False
