"""A real SLURM, started once for all tests that ask for it. Mark them with `pytestmark = pytest.mark.slurm`.

A test that has `cluster` or `cluster_without_accounting` among its arguments runs with SLURM_CONF set, so submitit and
remctl find that cluster as they find any other. After each such test the cluster is as new: its jobs are cancelled, the
node and the controller are up. It is stopped after the last test, and stops itself if pytest is killed.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.slurm.cluster import CannotStartError, Cluster

NO_SLURM = "no SLURM on this machine"
FIXTURES = ("cluster", "cluster_without_accounting")


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    yield from _running(accounting=True)


@pytest.fixture(scope="session")
def cluster_without_accounting() -> Iterator[Cluster]:
    """No slurmdbd: sacct knows nothing and submitit never hears of a job that died, as on many small clusters."""
    yield from _running(accounting=False)


def _running(*, accounting: bool) -> Iterator[Cluster]:
    try:
        cluster = Cluster(accounting=accounting)
    except CannotStartError as reason:
        pytest.skip(f"{NO_SLURM}: {reason}")
    try:
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(autouse=True)
def _use_cluster(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    used = [request.getfixturevalue(name) for name in FIXTURES if name in request.fixturenames]
    for cluster in used:
        for name, value in cluster.env.items():
            monkeypatch.setenv(name, value)
    yield
    for cluster in used:
        cluster.reset()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say once, not per test, why there was no SLURM."""
    skipped = [report.longrepr for report in terminalreporter.stats.get("skipped", [])]
    reasons = [reason.removeprefix("Skipped: ") for _, _, reason in skipped if NO_SLURM in reason]
    for reason in sorted(set(reasons)):
        terminalreporter.write_line(f"{reason} ({reasons.count(reason)} skipped)")
