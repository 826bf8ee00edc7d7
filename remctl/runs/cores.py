"""How many processor cores this process may use, and how busy others keep them. Linux; elsewhere what can be found out.

A container's CPU quota is that of the process's control group or of a group around it, whichever is least: `cpu.max` in
version 2, `cpu.cfs_quota_us` over `cpu.cfs_period_us` in version 1.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

SAMPLE_S = 0.5  # the kernel counts in hundredths
ALLOTMENTS = (
    "OMP_NUM_THREADS",
    "SLURM_CPUS_PER_TASK",
)  # a queue's or a user's word on how many are meant for this process


@dataclass(frozen=True)
class Cores:
    """Cores that the process may run on, its CPU quota in cores (None: no limit), and how many were allotted to it."""

    affinity: int
    quota: float | None = None
    allotted: int | None = None

    @property
    def usable(self) -> int:
        """Cores of which all can be busy at once."""
        return self.affinity if self.quota is None else max(1, min(self.affinity, int(self.quota)))

    @property
    def most_threads(self) -> int:
        """Threads that may be busy at once: one a usable core, and no more than were allotted."""
        return min(self.usable, self.allotted or self.usable)

    def __str__(self) -> str:
        text = f"{self.usable} core{'s' * (self.usable != 1)}"
        return text if self.usable == self.affinity else f"{text} of {self.affinity} (CPU quota {self.quota:.3g})"


def cores_here() -> Cores:
    """Those of this process, now."""
    return Cores(len(_allowed()), cpu_quota(), allotment(os.environ))


def usable_cores() -> int:
    """Cores that this process, and those that it starts, can keep busy: affinity and CPU quota."""
    return cores_here().usable


def allotment(environment: Mapping[str, str]) -> int | None:
    """The least number that one of ALLOTMENTS gives; None where none gives one."""
    given = (environment.get(name, "").split(",")[0].strip() for name in ALLOTMENTS)
    return min((int(text) for text in given if text.isdecimal() and int(text)), default=None)


def _allowed() -> set[int]:
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


# --- the quota


def cpu_quota(proc: Path = Path("/proc/self")) -> float | None:
    """The least CPU quota, in cores, of the process's control group and those around it; None without one."""
    quotas = [_quota_of(group) for group in _control_groups(proc)]
    return min((quota for quota in quotas if quota is not None), default=None)


def _control_groups(proc: Path) -> Iterator[Path]:
    """Folders of the groups with the CPU controller, from the process's own to the outermost that is visible here."""
    try:
        mine = [line.split(":", 2) for line in (proc / "cgroup").read_text().splitlines()]
        mounts = [line.split(" - ", 1) for line in (proc / "mountinfo").read_text().splitlines()]
        for number, controllers, path in mine:
            kind = "cgroup2" if number == "0" and not controllers else "cgroup"
            if kind == "cgroup2" or "cpu" in controllers.split(","):
                yield from _folders(mounts, kind, path)
    except (OSError, ValueError, IndexError):
        return


def _folders(mounts: list[list[str]], kind: str, path: str) -> Iterator[Path]:
    for where, what in mounts:
        root, mounted = where.split()[3:5]
        found, *_, options = what.split()
        if found != kind or (kind == "cgroup" and "cpu" not in options.split(",")):
            continue
        top = Path(mounted)
        # A container may see its own group at the mount's root, though its path is given as the host sees it.
        below = Path(path).relative_to(root) if Path(path).is_relative_to(root) else Path()
        yield from (folder for folder in ((top / below), *(top / below).parents) if folder.is_relative_to(top))


def _quota_of(group: Path) -> float | None:
    """Cores; None where the group has no limit of its own."""
    with suppress(OSError, ValueError):
        quota, period = (group / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    with suppress(OSError, ValueError):
        us = int((group / "cpu.cfs_quota_us").read_text())
        return us / int((group / "cpu.cfs_period_us").read_text()) if us > 0 else None
    return None


# --- the load


class Load:
    """How many of the cores that this process may run on others keep busy, on average since the last look.

    Others with lower priority (`nice`) do not count, unless this process is niced as well: they make way.
    """

    def __init__(self, stat: Path = Path("/proc/stat")) -> None:
        self._stat = stat
        self._last = self._counters()

    def others(self, at_least_s: float = SAMPLE_S) -> float | None:
        """Cores that others kept busy, the hypervisor among them; None where the system does not say.

        Waits until the last look, or the beginning, is `at_least_s` ago.
        """
        time.sleep(max(0.0, self._last[0] + at_least_s - time.monotonic()))
        before, self._last = self._last, self._counters()
        elapsed, busy, own = (now - then for now, then in zip(self._last, before, strict=True))
        return max(0.0, (busy - own) / elapsed) if self._last[1] else None

    def _counters(self) -> tuple[float, float, float]:
        """Seconds: now, all busy time of the allowed cores, this process's own processor time."""
        spent = os.times()
        return time.monotonic(), busy_s(self._stat, _allowed(), niced=os.nice(0) > 0), spent.user + spent.system


def busy_s(stat: Path, allowed: set[int], niced: bool) -> float:
    """Seconds that the cores `allowed` were busy since the system started, with processes that are `niced` or without.

    0 where that is not to be had.
    """
    names, ticks = {f"cpu{number}" for number in allowed}, 0
    with suppress(OSError, ValueError):
        for name, *counts in (line.split() for line in stat.read_text().splitlines() if line.startswith("cpu")):
            if name in names:  # user nice system idle iowait irq softirq steal; guests are part of user and nice
                ticks += sum(int(counts[i]) for i in (0, 2, 5, 6, 7)) + niced * int(counts[1])
    return ticks / os.sysconf("SC_CLK_TCK")
