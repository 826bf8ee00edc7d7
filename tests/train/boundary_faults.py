"""Fail a run at its write boundaries and kill it at random times; each must end as the undisturbed one, to the bit.

    python -m tests.train.boundary_faults epoch FOLDER KILL|ENOSPC|EIO [STRIDE]
    python -m tests.train.boundary_faults finish FOLDER KILL|ENOSPC|EIO [STRIDE]
    python -m tests.train.boundary_faults random FOLDER COUNT

`epoch` disturbs the second of three epochs, `finish` the start that has only the end of a run left to do: final episodes,
media, result.json. KILL is kill -9; the others are an `OSError` of that code, which must come out as one line that names
the cause. Of boundaries of one name the first, a middle and the last are taken: a large file is written in hundreds of
pieces. STRIDE takes every so many of them.

A process of its own, which computes nothing itself: it forks one child per attempt, and a process whose threads have
worked cannot be forked. Prints one line per attempt; exit status 1 where a run ended differently.
"""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch._dynamo  # noqa: F401 - which an optimiser imports: once here, not in every child

from remctl import runner
from remctl.errors import CAUSES, MachineError
from remctl.runs import files
from remctl.runs.layout import find_runs
from remctl.runs.metrics import comparable
from tests.train.support import assert_same, outcome, tiny, train

EPOCHS = 3


class Scene(NamedTuple):
    """What is disturbed: `work` in a folder that begins as a copy of `before`, and what must be the same of it."""

    work: Callable[[Path], object]
    outcome: Callable[[Path], object]
    reference: Path
    before: Path | None = None

    def folder(self, name: str) -> Path:
        """A new folder to be disturbed."""
        folder = self.reference.parent / name
        return shutil.copytree(self.before, folder) if self.before else folder


def run(folder: Path) -> None:
    train(folder, tiny(f"training.num_epochs={EPOCHS}"))


def run_to_result(folder: Path) -> None:
    config = tiny("training.num_epochs=2")
    runner.train(config, out=folder, experiment="x", device="cpu", command=[], quiet=True)


def result_of(folder: Path) -> dict[str, object]:
    """The result but for its times, every return, and the media to the byte."""
    (done,) = find_runs(folder)
    assert sorted(p.name for p in done.path.iterdir()) == sorted(RUN_FILES)
    return {
        "result": comparable(json.loads(done.result.read_text())),
        "episodes": done.episodes.read_bytes(),
        "media": {p.name: p.read_bytes() for p in done.media.iterdir()},
    }


RUN_FILES = (
    "checkpoints",
    "config.yaml",
    "episodes.jsonl",
    "lock",
    "media",
    "metrics.jsonl",
    "provenance.json",
    "replay",
    "result.json",
    "train.log",
)


# --- children


def in_child(work: Callable[[], object], kill_after_s: float | None = None) -> int:
    """Run `work` in a forked child; its wait status. Optionally kill it after a time."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    if kill_after_s is not None:
        time.sleep(kill_after_s)
        os.kill(pid, signal.SIGKILL)
    return os.waitpid(pid, 0)[1]


def boundaries_of(work: Callable[[Path], object], folder: Path) -> list[str]:
    """Run `work` undisturbed in `folder`; the names of its boundaries, in order."""
    noted = folder.parent / f"boundaries of {folder.name}"

    def note() -> None:
        names: list[str] = []
        files.boundary = names.append  # type: ignore[assignment]
        work(folder)
        noted.write_text("\n".join(names))

    assert in_child(note) == 0
    return noted.read_text().splitlines()


def run_until(work: Callable[[Path], object], folder: Path, at: int, fail: Callable[[], None]) -> None:
    left = iter(range(at, -1, -1))

    def boundary(name: str) -> None:
        if next(left, None) == 0:
            fail()

    files.boundary = boundary
    work(folder)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def is_killed(work: Callable[[Path], object], folder: Path, at: int) -> bool:
    status = in_child(lambda: run_until(work, folder, at, die))
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def run_into_error(work: Callable[[Path], object], folder: Path, at: int, code: int) -> None:
    """The error must come out as one line; a run that went on is a failure too."""

    def fail() -> None:
        raise OSError(code, os.strerror(code))

    with pytest.raises(MachineError, match=CAUSES[code][0]) as caught:
        run_until(work, folder, at, fail)
    assert "\n" not in str(caught.value)


def ends_the_same(scene: Scene, folder: Path, label: str, failed_as_planned: bool) -> bool:
    def resume_and_compare() -> None:
        scene.work(folder)
        assert_same(scene.outcome(folder), scene.outcome(scene.reference))

    same = in_child(resume_and_compare) == 0
    verdict = ("the same" if same else "DIFFERENT") if failed_as_planned else "DID NOT FAIL AS PLANNED"
    print(f"{label}: {verdict}", flush=True)
    return same and failed_as_planned


# --- boundaries


def distinct(names: list[str]) -> list[int]:
    """The first, a middle and the last of every name."""
    places: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        places.setdefault(name, []).append(i)
    return sorted({i for where in places.values() for i in (where[0], where[len(where) // 2], where[-1])})


def second_epoch(names: list[str]) -> list[int]:
    """Distinct boundaries from the first write of the second epoch to the first of the third."""
    begins = [i for i, name in enumerate(names) if name.startswith("before create epoch_") and name.endswith(".npz")]
    return [begins[1] + i for i in distinct(names[begins[1] : begins[2] + 1])]


def in_an_epoch(root: Path, kind: str, stride: int = 1) -> bool:
    scene = Scene(run, outcome, root / "reference")
    names = boundaries_of(run, scene.reference)
    return at_boundaries(scene, names, second_epoch(names)[::stride], kind)


def in_the_finish(root: Path, kind: str, stride: int = 1) -> bool:
    scene = Scene(run_to_result, result_of, root / "reference", before=root / "trained")
    names = boundaries_of(run_to_result, scene.reference)
    trained = 1 + max(i for i, name in enumerate(names) if name.endswith("checkpoints") or " epoch_" in name)
    assert is_killed(run_to_result, root / "trained", trained)
    names = boundaries_of(run_to_result, scene.folder("undisturbed"))
    assert {"before write dream.webp", "before write episodes.jsonl", "after rename result.json"} <= set(names)
    return at_boundaries(scene, names, distinct(names)[::stride], kind)


def at_boundaries(scene: Scene, names: list[str], places: list[int], kind: str) -> bool:
    results = []
    for at in places:
        folder = scene.folder(f"at_{at}")
        if kind == "KILL":
            planned = is_killed(scene.work, folder, at)
        else:
            code = getattr(errno, kind)
            planned = in_child(lambda f=folder, at=at, code=code: run_into_error(scene.work, f, at, code)) == 0
        results.append(ends_the_same(scene, folder, f"{kind} {names[at]}", planned))
    print(f"{sum(results)} of {len(results)} boundaries")
    return all(results)


def at_random(root: Path, count: int) -> bool:
    scene, chance = Scene(run, outcome, root / "reference"), random.Random(0)
    begin = time.perf_counter()
    assert in_child(lambda: run(scene.reference)) == 0
    duration_s = time.perf_counter() - begin
    results = []
    for i in range(count):
        folder, after_s = scene.folder(f"random_{i}"), chance.uniform(0.02, 1.0) * duration_s
        status = in_child(lambda folder=folder: run(folder), after_s)
        died = "killed" if os.WIFSIGNALED(status) else "ended before it was killed"
        results.append(ends_the_same(scene, folder, f"{died} after {after_s:.2f} s", failed_as_planned=True))
    print(f"{sum(results)} of {count} random times")
    return all(results)


if __name__ == "__main__":
    mode, where, *rest = sys.argv[1:]
    if mode == "random":
        ok = at_random(Path(where), int(rest[0]))
    else:
        disturb = {"epoch": in_an_epoch, "finish": in_the_finish}[mode]
        ok = disturb(Path(where), rest[0], *map(int, rest[1:]))
    sys.exit(0 if ok else 1)
