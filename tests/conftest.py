"""What every test gets, how tests share the cores, and where the time went."""

from __future__ import annotations

import fcntl
import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

IN_PARALLEL = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")) > 1
MAX_WORKERS = 8  # of about 1 GB each
LIMITS_S = {"slow": 3600, "slurm": 600}  # instead of pyproject's `timeout`

# Before torch is imported anywhere, as the command line has it: threads that spin while they wait slow each other down.
os.environ.setdefault("GOMP_SPINCOUNT", "5000")
if IN_PARALLEL:  # one core each; a test of several threads asks for them
    os.environ["OMP_NUM_THREADS"] = "1"
for name in ("COLUMNS", "LINES", "FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
    os.environ.pop(name, None)  # how wide and how coloured the caller wants things; a test says it where it matters


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    from remctl.runs.cores import usable_cores

    return min(usable_cores(), MAX_WORKERS)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items if config.pluginmanager.hasplugin("timeout") else ():
        for name, limit_s in LIMITS_S.items():
            if item.get_closest_marker(name) and not item.get_closest_marker("timeout"):
                item.add_marker(pytest.mark.timeout(limit_s))


@pytest.hookimpl(wrapper=True, tryfirst=True)  # before the clock of the test's time limit starts
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Run tests marked `timing` while no other worker runs anything."""
    if not IN_PARALLEL:
        return (yield)
    folder = Path(item.config._tmp_path_factory.getbasetemp()).parent  # type: ignore[attr-defined]  # all workers'
    alone = item.get_closest_marker("timing") is not None
    with (folder / "turn.lock").open("a") as turn, (folder / "running.lock").open("a") as running:
        fcntl.flock(turn, fcntl.LOCK_EX)  # who wants to be alone is not overtaken
        fcntl.flock(running, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(turn, fcntl.LOCK_UN)
        try:
            return (yield)
        finally:
            fcntl.flock(running, fcntl.LOCK_UN)  # for forked children too


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("cuda"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("no NVIDIA GPU")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how the time was spent, a line for all folders."""
    seconds: dict[str, float] = defaultdict(float)
    for report in (
        r for kind in ("passed", "failed", "skipped", "error", "") for r in terminalreporter.stats.get(kind, [])
    ):
        if isinstance(report, pytest.TestReport):
            seconds[report.nodeid.split("::")[0].split("/")[1]] += report.duration
    if sum(seconds.values()) > 10:
        spent = sorted(seconds.items(), key=lambda item: -item[1])
        terminalreporter.section("seconds per folder, all workers together")
        terminalreporter.write_line(", ".join(f"{name} {s:.0f}" for name, s in spent))
