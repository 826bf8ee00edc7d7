"""A spec of tiny runs, and records made by hand."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from remctl.config import to_yaml
from remctl.runs.files import append_line, write_json
from remctl.runs.layout import RunFolder
from remctl.sweep import local
from remctl.sweep.job import end_with_parent
from remctl.sweep.records import (
    Chunk,
    RunRef,
    Submission,
    add_attempt,
    add_request,
    new_submission,
    write_configs,
    write_submission,
)
from remctl.sweep.spec import read_spec, wanted_runs
from remctl.sweep.wanted import Spec, WantedRun
from tests.tiny import TINY


def write_spec(folder: Path, name: str = "tiny", seeds: str = "[0, 1]", more: tuple[str, ...] = ()) -> Path:
    """Two variants on Catch, seconds each."""
    settings = dict(setting.split("=", 1) for setting in (*TINY, *more))
    overrides = "\n".join(f"  {key}: {value}" for key, value in settings.items())
    path = folder / f"{name}.yaml"
    path.write_text(
        f"name: {name}\nquestion: Does it work?\ncontrol: rem\nvariants: [rem, no_action_inputs]\ngames: [Catch]\n"
        f"seeds: {seeds}\npreset: quick\noverrides:\n{overrides}\n"
    )
    return path


def tiny_spec(folder: Path, **changes: object) -> tuple[Spec, list[WantedRun]]:
    spec = read_spec(write_spec(folder, **changes))  # type: ignore[arg-type]
    return spec, wanted_runs(spec)


def ref(run: WantedRun, experiment: str = "tiny") -> RunRef:
    path = f"{experiment}/{run.variant}/{run.game}/seed_{run.seed}"
    return RunRef(run.variant, run.game, run.seed, run.config_hash, path, run.config.training.num_epochs)


def record(
    out: Path, runs: list[WantedRun], executor: str = "slurm", job: str | None = "100", experiment: str = "tiny"
) -> Submission:
    """A submission of one run per task, as a launcher leaves it; without a job id if it died before."""
    tasks = [(ref(run, experiment),) for run in runs]
    made = new_submission(out / experiment, executor, "here", tasks, {})  # type: ignore[arg-type]
    if job and executor == "slurm":
        made = replace(made, chunks=(Chunk(job, 0, len(tasks)),))
    write_submission(made)
    write_configs(made, runs)
    return made


def begin(out: Path, run: WantedRun, epoch: int = 0, done: bool = False, experiment: str = "tiny") -> Path:
    """The folder of a run that was begun, and has completed so many epochs."""
    folder = out / ref(run, experiment).path
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(to_yaml(run.config))
    for i in range(1, epoch + 1):
        append_line(folder / "metrics.jsonl", {"epoch": i, "epoch/wall_s": 2.0, "test/return_mean": float(i)})
    if done:
        about = {"game": run.game, "seed": run.seed, "variant": run.variant, "config_hash": run.config_hash}
        write_json(folder / "result.json", about | {"score": 0.5, "num_episodes": 1, "wall_s": {"test": 8.0}})
    return folder


def attempt(out: Path, run: WantedRun, event: str, submission: Submission, **more: object) -> None:
    """One line of attempts.jsonl, long ago."""
    folder = RunFolder(out / ref(run).path)
    folder.path.mkdir(parents=True, exist_ok=True)
    add_attempt(folder, event, submission.id, **{"time": "2026-01-01T00:00:00+00:00", "epoch": 0} | more)  # type: ignore[arg-type]


def request(out: Path, run: WantedRun, event: str, *submissions: Submission) -> None:
    """What a user asked of a run."""
    add_request(RunFolder(out / ref(run).path), event, [s.id for s in submissions])  # type: ignore[arg-type]


@contextmanager
def queues_end_with_this_process() -> Iterator[None]:
    """Local queues started inside end, with their runs, when this process does, however: real ones outlive a launcher."""
    with pytest.MonkeyPatch.context() as patched:
        programs = vars(subprocess) | {"Popen": partial(subprocess.Popen, preexec_fn=end_with_parent)}
        patched.setattr(local, "subprocess", SimpleNamespace(**programs))
        yield
