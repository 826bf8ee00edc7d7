"""Fail a run at every write boundary of an epoch and kill it at random times; each must end as the undisturbed one, to the bit.

    python -m tests.train.boundary_faults boundaries FOLDER KILL|ENOSPC|EIO [STRIDE]
    python -m tests.train.boundary_faults random FOLDER COUNT

KILL is kill -9; the others are an `OSError` of that code, which must come out as one line that names the cause.

A process of its own, which computes nothing itself: it forks one child per attempt, and a process whose threads have
worked cannot be forked. Prints one line per attempt; exit status 1 where a run ended differently.
"""

from __future__ import annotations

import errno
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from remctl.errors import MachineError
from remctl.runs import files
from tests.train.test_resume import assert_same, outcome, tiny, train

EPOCHS = 3


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


def run(folder: Path) -> None:
    train(folder, tiny(f"training.num_epochs={EPOCHS}"))


def count_boundaries(folder: Path) -> None:
    names: list[str] = []
    files.boundary = names.append  # type: ignore[assignment]
    run(folder)
    (folder.parent / "boundaries").write_text("\n".join(names))


def run_until(folder: Path, at: int, fail: Callable[[], None]) -> None:
    left = iter(range(at, -1, -1))

    def boundary(name: str) -> None:
        if next(left, None) == 0:
            fail()

    files.boundary = boundary
    run(folder)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def run_into_error(folder: Path, at: int, code: int) -> None:
    """The error must come out as one line; a run that went on is a failure too."""

    def fail() -> None:
        raise OSError(code, os.strerror(code))

    with pytest.raises(MachineError, match=files.CAUSES[code][0]) as caught:
        run_until(folder, at, fail)
    assert "\n" not in str(caught.value)


def resume_and_compare(folder: Path, reference: Path) -> None:
    run(folder)
    assert_same(outcome(folder), outcome(reference))


def ends_the_same(folder: Path, reference: Path, label: str, failed_as_planned: bool) -> bool:
    same = in_child(lambda: resume_and_compare(folder, reference)) == 0
    verdict = ("the same" if same else "DIFFERENT") if failed_as_planned else "DID NOT FAIL AS PLANNED"
    print(f"{label}: {verdict}", flush=True)
    return same and failed_as_planned


def distinct(names: list[str]) -> list[int]:
    """The first, a middle and the last of every name: a large file is written in hundreds of pieces."""
    places: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        places.setdefault(name, []).append(i)
    return sorted({i for where in places.values() for i in (where[0], where[len(where) // 2], where[-1])})


def second_epoch(names: list[str]) -> list[int]:
    """Distinct boundaries from the first write of the second epoch to the first of the third."""
    begins = [i for i, name in enumerate(names) if name.startswith("before create epoch_") and name.endswith(".npz")]
    return [begins[1] + i for i in distinct(names[begins[1] : begins[2] + 1])]


def at_boundaries(root: Path, kind: str, stride: int = 1) -> bool:
    reference = root / "reference"
    assert in_child(lambda: count_boundaries(reference)) == 0
    names = (root / "boundaries").read_text().splitlines()
    results = []
    for at in second_epoch(names)[::stride]:
        folder = root / f"at_{at}"
        if kind == "KILL":
            status = in_child(lambda folder=folder, at=at: run_until(folder, at, die))
            planned = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        else:
            code = getattr(errno, kind)
            planned = in_child(lambda folder=folder, at=at, code=code: run_into_error(folder, at, code)) == 0
        results.append(ends_the_same(folder, reference, f"{kind} {names[at]}", planned))
    print(f"{sum(results)} of {len(results)} boundaries")
    return all(results)


def at_random(root: Path, count: int) -> bool:
    reference, chance = root / "reference", random.Random(0)
    begin = time.perf_counter()
    assert in_child(lambda: run(reference)) == 0
    duration_s = time.perf_counter() - begin
    results = []
    for i in range(count):
        folder, after_s = root / f"random_{i}", chance.uniform(0.02, 1.0) * duration_s
        status = in_child(lambda folder=folder: run(folder), after_s)
        died = "killed" if os.WIFSIGNALED(status) else "ended before it was killed"
        results.append(ends_the_same(folder, reference, f"{died} after {after_s:.2f} s", failed_as_planned=True))
    print(f"{sum(results)} of {count} random times")
    return all(results)


if __name__ == "__main__":
    mode, where, *rest = sys.argv[1:]
    if mode == "boundaries":
        ok = at_boundaries(Path(where), rest[0], *map(int, rest[1:]))
    else:
        ok = at_random(Path(where), int(rest[0]))
    sys.exit(0 if ok else 1)
