"""Cores, quotas and load: read from files as the kernel writes them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from remctl.runs.cores import ALLOTMENTS, Cores, Load, allotment, busy_s, cores_here, cpu_quota, usable_cores

TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def proc(tmp_path: Path, groups: str, *mounts: tuple[str, str, str]) -> Path:
    """/proc/self of a process in `groups`; `mounts`: root, folder below `tmp_path`, what follows the dash."""
    lines = [f"30 24 0:26 {root} {tmp_path / at} rw,nosuid shared:9 - {what}\n" for root, at, what in mounts]
    write(tmp_path / "self" / "mountinfo", "".join(lines))
    write(tmp_path / "self" / "cgroup", groups)
    return tmp_path / "self"


V1 = "cgroup cgroup rw,cpu,cpuacct"


def test_the_quota_of_version_2_is_the_least_of_the_groups_around_the_process(tmp_path: Path) -> None:
    here = proc(tmp_path, "0::/a/b\n", ("/", "fs", "cgroup2 cgroup2 rw"))
    assert cpu_quota(here) is None
    write(tmp_path / "fs" / "a" / "b" / "cpu.max", "400000 100000\n")
    write(tmp_path / "fs" / "a" / "cpu.max", "max 100000\n")
    assert cpu_quota(here) == 4
    write(tmp_path / "fs" / "a" / "cpu.max", "150000 100000\n")
    assert cpu_quota(here) == 1.5
    write(tmp_path / "cpu.max", "1 100000\n")  # above the mount: not a group
    write(tmp_path / "fs" / "c" / "cpu.max", "1 100000\n")  # not around this process
    assert cpu_quota(here) == 1.5


def test_the_quota_of_version_1_is_that_of_the_cpu_controller(tmp_path: Path) -> None:
    mounts = (("/", "cpu", V1), ("/", "mem", "cgroup cgroup rw,memory"))
    here = proc(tmp_path, "9:memory:/m\n4:cpu,cpuacct:/job\n0::/\n", *mounts)
    for another in ("mem/m", "mem/job", "cpu/m"):
        write(tmp_path / another / "cpu.cfs_quota_us", "1000\n")
        write(tmp_path / another / "cpu.cfs_period_us", "100000\n")
    write(tmp_path / "cpu" / "job" / "cpu.cfs_quota_us", "-1\n")
    write(tmp_path / "cpu" / "job" / "cpu.cfs_period_us", "100000\n")
    assert cpu_quota(here) is None
    write(tmp_path / "cpu" / "job" / "cpu.cfs_quota_us", "50000\n")
    assert cpu_quota(here) == 0.5


def test_in_a_container_the_mount_shows_its_own_group(tmp_path: Path) -> None:
    here = proc(tmp_path, "4:cpu,cpuacct:/docker/1f/job\n", ("/docker/1f", "cpu", V1))
    for group, quota in (("", "300000"), ("job", "200000")):
        write(tmp_path / "cpu" / group / "cpu.cfs_quota_us", quota)
        write(tmp_path / "cpu" / group / "cpu.cfs_period_us", "100000")
    assert cpu_quota(here) == 2
    elsewhere = proc(tmp_path, "4:cpu,cpuacct:/other\n", ("/docker/1f", "cpu", V1))
    assert cpu_quota(elsewhere) == 3


@pytest.mark.parametrize("damage", ["", "nonsense", "0::", "0::/\n4:cpu", "\0"])
def test_what_cannot_be_read_is_no_quota(damage: str, tmp_path: Path) -> None:
    assert cpu_quota(tmp_path / "none") is None
    here = proc(tmp_path, damage, ("/", "fs", "cgroup2 cgroup2 rw"))
    write(tmp_path / "fs" / "cpu.max", damage)
    assert cpu_quota(here) is None
    write(tmp_path / "self" / "mountinfo", damage)
    write(tmp_path / "self" / "cgroup", "0::/\n")
    assert cpu_quota(here) is None


@pytest.mark.parametrize(
    ("cores", "usable", "most_threads", "said"),
    [
        (Cores(1), 1, 1, "1 core"),
        (Cores(8), 8, 8, "8 cores"),
        (Cores(8, quota=16.0), 8, 8, "8 cores"),
        (Cores(8, quota=2.9), 2, 2, "2 cores of 8 (CPU quota 2.9)"),
        (Cores(8, quota=0.5), 1, 1, "1 core of 8 (CPU quota 0.5)"),
        (Cores(8, allotted=3), 8, 3, "8 cores"),
        (Cores(8, quota=2.0, allotted=3), 2, 2, "2 cores of 8 (CPU quota 2)"),
    ],
)
def test_usable_cores_and_threads(cores: Cores, usable: int, most_threads: int, said: str) -> None:
    assert (cores.usable, cores.most_threads, str(cores)) == (usable, most_threads, said)


@pytest.mark.parametrize(
    ("openmp", "slurm", "expected"),
    [("", "", None), ("4,2", "", 4), ("", "2", 2), ("8", "2", 2), ("1", "2", 1), ("0", "-3", None), ("many", "2", 2)],
)
def test_the_least_allotment_counts(openmp: str, slurm: str, expected: int | None) -> None:
    assert allotment(dict(zip(ALLOTMENTS, (openmp, slurm), strict=True))) == expected
    assert allotment({}) is None


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity here")
def test_a_process_bound_to_a_core_may_use_one() -> None:
    one = str(min(os.sched_getaffinity(0)))
    code = (
        f"import os; os.sched_setaffinity(0, {{{one}}}); from remctl.runs.cores import *; print(cores_here().affinity)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "1\n"
    assert usable_cores() == cores_here().usable <= len(os.sched_getaffinity(0))


STAT = "cpu  9 9 9 9 9 9 9 9 9 9\ncpu0 1 2 4 1000 100 8 16 32 1 1\ncpu1 {user} {nice} 0 0 0 0 0 0 0 0\nintr 3\n"


def test_busy_is_all_that_is_not_idle_on_the_allowed_cores(tmp_path: Path) -> None:
    write(tmp_path / "stat", STAT.format(user=500, nice=0))
    assert busy_s(tmp_path / "stat", {0}, niced=True) == pytest.approx(63 * TICK_S)
    assert busy_s(tmp_path / "stat", {0}, niced=False) == pytest.approx(61 * TICK_S)
    assert busy_s(tmp_path / "stat", {0, 1}, niced=True) == pytest.approx(563 * TICK_S)
    assert busy_s(tmp_path / "none", {0}, niced=True) == 0


@pytest.mark.parametrize(("niceness", "others"), [(0, 1.0), (-5, 1.0), (5, 1.5)])
def test_the_load_is_of_others_between_two_looks(
    niceness: int, others: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In 2 s the cores were busy for 3 s, of which 1 s was this process's, and for 1 s with niced ones."""
    now, own, slept = [100.0], [5.0], []
    monkeypatch.setattr("remctl.runs.cores.time.monotonic", lambda: now[0])
    monkeypatch.setattr("remctl.runs.cores.time.sleep", slept.append)
    monkeypatch.setattr("remctl.runs.cores.os.times", lambda: os.times_result((own[0] - 1.0, 1.0, 7.0, 7.0, now[0])))
    monkeypatch.setattr("remctl.runs.cores._allowed", lambda: {0, 1})
    write(tmp_path / "stat", STAT.format(user=0, nice=0))
    monkeypatch.setattr("remctl.runs.cores.os.nice", lambda by: niceness)
    load = Load(tmp_path / "stat")
    now[0], own[0] = 102.0, 6.0
    write(tmp_path / "stat", STAT.format(user=round(3 / TICK_S), nice=round(1 / TICK_S)))
    assert load.others(at_least_s=2.5) == pytest.approx(others)
    assert slept == [pytest.approx(0.5)]
    now[0] = 104.0
    assert load.others() == 0  # since the last look
    now[0], own[0] = 106.0, 9.0
    assert load.others() == 0  # clocks that disagree a little
    (tmp_path / "stat").unlink()
    now[0] = 108.0
    assert load.others() is None
