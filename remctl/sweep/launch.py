"""From a spec to jobs: look, plan, hand over. One launcher at a time works on a folder of runs."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from remctl.errors import MachineError, UserError
from remctl.runs.code import this_code
from remctl.runs.files import make_folder
from remctl.runs.layout import RunFolder
from remctl.runs.lock import exclusive_within, open_lock
from remctl.shipped import find, reference
from remctl.sweep import local, slurm
from remctl.sweep.again import make_room
from remctl.sweep.clients import has_slurm, settings, unused_wishes
from remctl.sweep.observe import OPEN, RunState, find_places, observe
from remctl.sweep.plan import Action, Rules, plan
from remctl.sweep.playable import refuse_unplayable
from remctl.sweep.profile import Profile, read_profile
from remctl.sweep.records import (
    Executor,
    RunRef,
    Submission,
    add_request,
    new_submission,
    ref_of,
    submissions,
    write_configs,
    write_experiment,
    write_submission,
)
from remctl.sweep.schedulers import States, adopt, job_states, keep_finals, this_host, unknown_states
from remctl.sweep.spec import wanted_runs
from remctl.sweep.wanted import Spec, WantedRun

Say = Callable[[str], None]
POLL_S = {"local": 5.0, "slurm": 30.0}
PATIENCE_S = 30.0
MAX_SILENT_LOOKS = 20
MAX_HAND_OVERS = 10  # of one run while one follows: something takes it away before it has written a word


@dataclass(frozen=True)
class Options:
    """How to run. `executor` auto: SLURM where sbatch is, else this machine. `max_parallel` None: the executor's own."""

    executor: str = "auto"
    profile: str = "default"
    runs_per_gpu: int = 1
    max_parallel: int | None = None
    then_report: bool = False
    same_code: bool = False


@dataclass(frozen=True)
class Target:
    """Whom runs are handed to, settled once: `executor`, and for SLURM the profile, its file, and how to find it again."""

    executor: Executor
    profile: Profile
    file: Path
    reference: str


@dataclass(frozen=True)
class Survey:
    """Everything that is known about a spec's runs before anything is decided."""

    out: Path
    spec: Spec
    wanted: list[WantedRun]
    known: list[Submission]
    places: dict[str, Path]
    jobs: States
    states: dict[str, RunState]


def survey(
    out: Path, spec: Spec, *, may_write: bool = False, same_code: bool = False, say: Say | None = None
) -> Survey:
    """Look at folders, records and schedulers; `may_write` for the launcher that holds the lock, who keeps what he sees.

    `same_code`: of several folders of one run rather one that this code made. `say`, for who starts nothing: gets why a
    scheduler cannot be asked, and states are unknown.
    Raises MachineError where one of them cannot be asked.
    """
    wanted, known = wanted_runs(spec), submissions(out)
    places = find_places(out, spec.name, wanted, known, this_code() if same_code else None)
    known = [s for s in known if any(ref.config_hash in places for task in s.tasks for ref in task)]
    if may_write:
        known = [adopt(s) if has_slurm() else s for s in known]
    try:
        jobs = job_states(known, out)
    except MachineError as error:
        if say is None:
            raise
        say(f"note: {error}")
        jobs = unknown_states(known)
    if may_write:
        keep_finals(known, jobs)
    states = {h: _if_writable(state) for h, state in observe(places, known, jobs).items()}
    return Survey(out, spec, wanted, known, places, jobs, states)


def _if_writable(state: RunState) -> RunState:
    """The state, or that its folder is closed to us: a job would fail there, or the run be done once more elsewhere."""
    there = next(path for path in (state.folder, *state.folder.parents) if path.exists())
    if state.status not in ("absent", "stopped", "failed") or os.access(there, os.W_OK):
        return state
    return replace(
        state, status="blocked", reason=f"{there} may not be written: ask its owner, or choose another --out"
    )


def choose_executor(name: str, *, only_shown: bool = False) -> Executor:
    """slurm or local. UserError for another name, MachineError for slurm where there is none, unless it is `only_shown`."""
    if name not in ("auto", "slurm", "local"):
        raise UserError(f"--executor {name}: allowed are auto, slurm, local")
    if name == "slurm" and only_shown:
        return "slurm"
    if name == "slurm" and not has_slurm():  # not yet, or not any more: while one waits that may pass
        raise MachineError(
            "--executor slurm: no sbatch here: run this on the cluster's login node, or give --executor local"
        )
    return "slurm" if name != "local" and has_slurm() else "local"


def launch(
    out: Path,
    spec: Spec,
    options: Options,
    rules: Rules = Rules(),  # noqa: B008
    retrying: set[str] | None = None,
    say: Say = print,
    target: Target | None = None,
) -> tuple[list[Action], Submission | None]:
    """Plan, and hand over what is to be started; nothing is started twice.

    `retrying`: only these configuration hashes, their failures forgiven once they are handed over. `say` gets what the
    user should know. `target`: to whom, if that was settled before. Raises UserError for a profile or folder that cannot
    work, or an environment that cannot be used, MachineError where a scheduler or the disk refuses.
    """
    target = target or target_of(options)
    choose_executor(target.executor)  # it may have gone meanwhile
    out = out.absolute()
    if target.executor == "slurm":
        slurm.check_folder(out / spec.name)
    make_folder(out)
    with launching(out):
        look = survey(out, spec, may_write=True, same_code=options.same_code)
        actions = plan(
            look.wanted,
            forgiven(look.states, retrying or set()),
            replace(rules, code=this_code(), experiment=spec.name),
        )
        starting = [a for a in actions if a.starts and (retrying is None or a.run.config_hash in retrying)]
        refuse_unplayable(spec, [action.run for action in starting], target.executor, say)
        if starting and target.executor == "slurm":
            _checked(out / spec.name, target, say)
        if any(state.status != "blocked" for state in look.states.values()):  # else the folder is another experiment's
            write_experiment(out, spec, look.places, look.wanted)
        submission = None
        gpus = (
            local.visible_gpus(say) if starting and target.executor == "local" else []
        )  # may refuse: before runs move
        if options.same_code:
            settled = [a for a in actions if not a.starts]
            starting = make_room(out, spec.name, starting, settled, look.known)
        if starting:
            look.places.update({a.run.config_hash: a.state.folder for a in starting})
            write_experiment(out, spec, look.places, look.wanted)
            submission = _hand_over(look, starting, target, options, bool(gpus))
        for action in starting if retrying else ():
            add_request(RunFolder(action.state.folder), "retry", [s.id for s in look.known])
        if options.then_report:
            _report(look, submission, target, say)
    return actions, submission


def _checked(folder: Path, target: Target, say: Say) -> None:
    """Have SLURM judge profile and folder before anything is recorded. Raises UserError if it refuses, MachineError."""
    if unused := unused_wishes():
        say(f"note: {', '.join(unused)} of the environment not used: write what jobs should get into {target.file}")
    try:
        slurm.check(target.profile, target.file)
    except MachineError as error:  # the clients of a SLURM that does not answer may be all that there is of it
        raise MachineError(f"{error}; or `remctl ablate --executor local` for this machine") from None
    if doubt := slurm.probe(folder, target.profile):
        say(f"note: {doubt}")


def forgiven(states: dict[str, RunState], hashes: set[str]) -> dict[str, RunState]:
    """The states as if these runs had never failed."""
    fresh = {h: replace(states[h], status="stopped", failures=0) for h in hashes if states[h].status == "failed"}
    return states | fresh


def target_of(options: Options, *, only_shown: bool = False) -> Target:
    """Whom to hand runs to, and what to ask of SLURM, which need not be there if it is `only_shown`.

    Raises UserError, MachineError.
    """
    executor = choose_executor(options.executor, only_shown=only_shown)
    if executor == "local":
        return Target(executor, Profile(), Path(options.profile), options.profile)
    file = find("slurm", options.profile)
    profile = read_profile(file)
    if options.max_parallel:
        profile = profile.model_copy(update={"max_parallel": options.max_parallel})
    return Target(executor, profile, file, reference("slurm", file))


def _hand_over(look: Survey, starting: Sequence[Action], target: Target, options: Options, has_gpu: bool) -> Submission:
    executor = target.executor
    runs = sorted(
        (_in_its_place(a.run, look.places) for a in starting), key=lambda run: run.seed
    )  # stable: even coverage
    refs = [ref_of(look.out, run, look.places[run.config_hash]) for run in runs]
    if executor == "local" and not has_gpu:
        options = replace(options, runs_per_gpu=1)
    tasks = tasks_of(refs, options.runs_per_gpu if executor == "slurm" else 1)  # the local queue packs by its slots
    report = report_command(look.out, look.spec.name) if options.then_report else None
    kept = asdict(options) | {"executor": executor, "profile": target.reference, "report": report}
    submission = new_submission(look.out / look.spec.name, executor, this_host(), tasks, kept)
    if executor == "slurm":
        submission = replace(submission, cluster=settings().get("ClusterName", ""))
    write_configs(submission, runs)
    write_submission(submission)
    if executor == "local":
        local.start_queue(submission, look.out)
        return submission
    return slurm.submit(submission, target.profile, look.out)


def tasks_of(refs: Sequence[RunRef], size: int) -> list[tuple[RunRef, ...]]:
    """Runs that share a GPU, `size` of them."""
    return [tuple(refs[i : i + size]) for i in range(0, len(refs), size)]


def script(look: Survey, starting: Sequence[Action], profile: Profile, options: Options) -> str:
    """The batch script that these runs would be submitted with; nothing is written."""
    refs = [ref_of(look.out, a.run, look.places[a.run.config_hash]) for a in starting]
    tasks = tasks_of(refs, options.runs_per_gpu)
    return slurm.script(new_submission(look.out / look.spec.name, "slurm", this_host(), tasks, {}), profile)


def _in_its_place(run: WantedRun, places: dict[str, Path]) -> WantedRun:
    """Under the name of the variant whose folder it was begun in."""
    variant = places[run.config_hash].parts[-3]
    return replace(run, variant=variant, config=run.config.model_copy(update={"variant": variant}))


def report_command(out: Path, name: str) -> list[str]:
    """What --then-report runs."""
    folder = out / name
    return [sys.executable, "-m", "remctl", "report", str(folder), "--out", str(folder / "report")]


def _report(look: Survey, submission: Submission | None, target: Target, say: Say) -> None:
    """Have the report made once everything of this experiment has ended; a local queue that was just started does it."""
    folder, command = look.out / look.spec.name, report_command(look.out, look.spec.name)
    is_open = any(state.status in OPEN for state in look.states.values())
    if target.executor == "slurm":
        jobs = {s.job.split("_")[0] for s in look.states.values() if s.status in OPEN and s.job[:1].isdigit()}
        jobs |= {chunk.job for chunk in submission.chunks} if submission else set()
        job = slurm.submit_after(sorted(jobs), command, f"remctl-report-{look.spec.name}", folder, target.profile)
        say(f"report: SLURM job {job}, into {folder / 'report'}")
    elif submission is None and is_open:
        say(f"report: when the runs have ended, {shlex.join(command[2:])}")
    elif submission is None:
        subprocess.run(command, check=False)


def follow(
    out: Path, spec: Spec, options: Options, show: Callable[[list[Action]], None], poll_s: float | None = None
) -> list[Action]:
    """Until every run is done or held: look, show, start again what failed. Returns the last actions.

    What somebody cancels meanwhile stays cancelled. Executor and profile are settled once, however the machine changes. A
    scheduler that does not answer is asked again. Raises MachineError where it never does, or where runs are taken away
    again and again before they have begun.
    """
    silent, handed_over, target = 0, Counter[str](), target_of(options)
    pause_s = POLL_S[target.executor] if poll_s is None else poll_s
    quiet = replace(options, then_report=False)  # that was asked for by the first launch
    while True:
        try:
            rules = Rules(resume_cancelled=False)
            actions, submission = launch(out, spec, quiet, rules, say=lambda text: None, target=target)
        except MachineError:
            silent += 1
            if silent > MAX_SILENT_LOOKS:
                raise
            time.sleep(pause_s)
            continue
        silent = 0
        handed_over.update(ref.config_hash for task in (submission.tasks if submission else ()) for ref in task)
        if submission and max(handed_over.values()) > MAX_HAND_OVERS:
            raise MachineError(f"runs were started {MAX_HAND_OVERS} times and ended at once: see {submission.path}")
        show(actions)
        if all(action.kind in ("skip", "hold") for action in actions):
            return actions
        time.sleep(pause_s)


@contextmanager
def launching(out: Path) -> Iterator[None]:
    """Only one launcher plans and submits in a folder of runs. Raises MachineError naming what to do for a second one."""
    lock = out / ".launching"
    fd = open_lock(lock)
    try:
        if not exclusive_within(fd, lock, PATIENCE_S):
            raise MachineError(f"another `remctl ablate` is submitting in {out}: try again when it has finished")
        yield
    finally:
        os.close(fd)
