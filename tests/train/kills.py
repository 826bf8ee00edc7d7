"""Kill -9 a run at every write boundary of an epoch and at random times; each must end as the uninterrupted one, to the bit.

    python -m tests.train.kills boundaries FOLDER [STRIDE]
    python -m tests.train.kills random FOLDER COUNT

A process of its own, which computes nothing itself: it forks one child per attempt, and a process whose threads have
worked cannot be forked. Prints one line per attempt; exit status 1 where a run ended differently.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

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


def run_and_die(folder: Path, at: int) -> None:
    left = iter(range(at, -1, -1))

    def die(name: str) -> None:
        if next(left) == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    files.boundary = die
    run(folder)


def resume_and_compare(folder: Path, reference: Path) -> None:
    run(folder)
    assert_same(outcome(folder), outcome(reference))


def attempt(
    folder: Path, reference: Path, label: str, work: Callable[[], object], kill_after_s: float | None = None
) -> bool:
    status = in_child(work, kill_after_s)
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    same = in_child(lambda: resume_and_compare(folder, reference)) == 0
    print(f"{'killed' if killed else 'ended '} {label}: {'the same' if same else 'DIFFERENT'}", flush=True)
    return same and (killed or kill_after_s is not None)


def distinct(names: list[str]) -> list[int]:
    """The first, a middle and the last of every name: a large file is written in hundreds of pieces."""
    places: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        places.setdefault(name, []).append(i)
    return sorted({i for where in places.values() for i in (where[0], where[len(where) // 2], where[-1])})


def boundaries(root: Path, stride: int) -> bool:
    reference = root / "reference"
    assert in_child(lambda: count_boundaries(reference)) == 0
    names = (root / "boundaries").read_text().splitlines()
    begins = [i for i, name in enumerate(names) if name.startswith("before create epoch_") and name.endswith(".npz")]
    second_epoch = [begins[1] + i for i in distinct(names[begins[1] : begins[2] + 1])]
    results = []
    for at in second_epoch[::stride]:
        folder = root / f"at_{at}"
        results.append(attempt(folder, reference, names[at], lambda folder=folder, at=at: run_and_die(folder, at)))
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
        results.append(attempt(folder, reference, f"after {after_s:.2f} s", lambda folder=folder: run(folder), after_s))
    print(f"{sum(results)} of {count} random times")
    return all(results)


if __name__ == "__main__":
    kind, where, *number = sys.argv[1:]
    function = {"boundaries": boundaries, "random": at_random}[kind]
    sys.exit(0 if function(Path(where), int(number[0]) if number else 1) else 1)
