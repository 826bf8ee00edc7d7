"""What to do about each wanted run, and why: a pure function of the runs, their states and the rules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from remctl.config import why_not_trained
from remctl.runs.code import Code
from remctl.sweep.observe import RunState
from remctl.sweep.wanted import WantedRun

Kind = Literal["run", "resume", "retry", "wait", "skip", "hold"]
STARTING: tuple[Kind, ...] = ("run", "resume", "retry")


@dataclass(frozen=True)
class Rules:
    """`max_failures`: real failures in a row before a run is held. `resume_cancelled`: also what somebody stopped.

    `code`: this program's; None is not compared with. `same_code`: what other code began or finished is run again.
    `experiment`: the one that is planned, so that runs of others are said to be.
    """

    max_failures: int = 3
    resume_cancelled: bool = True
    code: Code | None = None
    same_code: bool = False
    experiment: str = ""

    def owner(self, state: RunState) -> str:
        """Return ` in NAME` for a run in another experiment's folder, else nothing."""
        around = state.folder.parents[2].name if len(state.folder.parents) > 2 else ""
        return f" in {around}" if self.experiment and around not in ("", self.experiment) else ""

    def others(self, state: RunState) -> list[str]:
        """The versions of other code that worked on a run."""
        return [code.version for code in state.codes if self.code is not None and self.code.is_other(code)]


@dataclass(frozen=True)
class Action:
    """One run and what becomes of it. `again`: from its beginning, as what there is was made by other code.

    `others`: versions of the other code that worked on it.
    """

    kind: Kind
    run: WantedRun
    state: RunState
    reason: str
    others: tuple[str, ...] = ()
    again: bool = False

    @property
    def starts(self) -> bool:
        """Whether the run is to be handed to an executor."""
        return self.kind in STARTING


def plan(wanted: Iterable[WantedRun], states: Mapping[str, RunState], rules: Rules = Rules()) -> list[Action]:  # noqa: B008
    """One action per wanted run, in their order. Of several with one configuration only the first is acted upon."""
    actions: list[Action] = []
    first: dict[str, WantedRun] = {}
    for run in wanted:
        state = states[run.config_hash]
        twin = first.setdefault(run.config_hash, run)
        if twin is not run:
            actions.append(Action("skip", run, state, f"the same configuration as {twin.variant}"))
        else:
            actions.append(_action(run, state, rules))
    return actions


def _action(run: WantedRun, state: RunState, rules: Rules) -> Action:
    kind, reason = _decide(run, state, rules)
    others = tuple(rules.others(state))
    if not others or state.status not in ("done", "stopped", "failed"):
        return Action(kind, run, state, reason, others)
    made = f"{'made' if state.status == 'done' else 'begun'} by other code ({', '.join(others)})"
    if rules.same_code and not why_not_trained(run.config):
        return Action("run", run, state, f"again: {made}", others, again=True)
    return Action(kind, run, state, f"{reason}; {made}", others)


def _decide(run: WantedRun, state: RunState, rules: Rules) -> tuple[Kind, str]:
    if state.status == "done":
        score = "" if state.progress.score is None else f", score {state.progress.score:.4g}"
        return "skip", f"done{rules.owner(state)}{score}"
    if state.status == "blocked":
        return "hold", state.reason
    if reason := why_not_trained(run.config):
        return "hold", reason
    if state.status in ("queued", "running", "unknown"):
        job = f" as {state.job}" if state.job else ""
        return "wait", f"{state.status}{job}{f' ({state.reason})' if state.reason else ''}"
    if state.status == "failed":
        return _after_failure(state, rules)
    if state.cancelled and not rules.resume_cancelled:
        return "hold", "cancelled; `remctl retry` or `remctl ablate` goes on"
    if state.progress.epoch > 0:
        why = f" ({state.reason})" if state.reason else ""
        return "resume", f"epoch {state.progress.epoch} of {run.config.training.num_epochs}{rules.owner(state)}{why}"
    return "run", state.reason or "new"


def _after_failure(state: RunState, rules: Rules) -> tuple[Kind, str]:
    if state.failures >= rules.max_failures:
        return "hold", f"failed {state.failures} times ({state.error}); `remctl retry` after mending it"
    return "retry", f"attempt {state.failures + 1} of {rules.max_failures} ({state.error})"
