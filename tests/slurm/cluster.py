"""The SLURM that the tests start with cluster.sh, as an object. The fixtures that make one are in conftest.py."""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

SCRIPT = Path(__file__).with_name("cluster.sh")
EXIT_CANNOT = 77
NUM_PORTS = 400
BELOW_EPHEMERAL = 32_000


class CannotStartError(Exception):
    """SLURM cannot be had on this machine; the message is one line that says why."""


class Cluster:
    """One machine, 8 CPUs that are claimed rather than there, 2 fake GPUs; partition `main`, and `high`, which preempts it.

    A job that is preempted gets its `--signal` first and has 20 seconds; a requeued job waits about 10 seconds.
    """

    def __init__(self, *, accounting: bool = True, num_cpus: int = 8) -> None:
        """Start it; `CannotStartError` where that is impossible, `RuntimeError` where it should have worked."""
        self.accounting = accounting
        self.folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))  # sockets: a path has at most 107 characters
        self.env = {"SLURM_CONF": str(self.folder / "etc" / "slurm.conf")}
        settings = {
            "SLURM_TEST_ACCT": str(int(accounting)),
            "SLURM_TEST_CPUS": str(num_cpus),
            "SLURM_TEST_PORT": str(free_ports()),
            "SLURM_TEST_OWNER": str(os.getpid()),
        }
        try:
            self._script("start", env=settings)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Kill all of it, jobs included, and remove its files."""
        try:
            self._script("stop")
        finally:
            shutil.rmtree(self.folder)

    def run(self, *command: str, check: bool = True) -> str:
        """What a command prints, e.g. `cluster.run("squeue", "--noheader")`; `CalledProcessError` if it fails."""
        done = subprocess.run(
            command, env=os.environ | self.env, check=check, capture_output=True, text=True, timeout=120
        )
        return done.stdout.strip()

    def sbatch(self, script: str, *options: str) -> str:
        """Submit a shell script, which writes to /dev/null unless told otherwise; the job's number."""
        return self.run("sbatch", "--parsable", "--output=/dev/null", *options, "--wrap", script)

    def jobs(self, job_id: str) -> list[dict[str, str]]:
        """The fields that `scontrol show job` has, e.g. JobState, Restarts, Reason: of a job, or of each task of an array."""
        lines = self.run("scontrol", "--oneliner", "show", "job", job_id).splitlines()
        return [dict(field.split("=", 1) for field in line.split() if "=" in field) for line in lines]

    def wait_for(self, job_id: str, *states: str, timeout_s: float = 90) -> list[dict[str, str]]:
        """Wait until the job, or every task of the array, is in one of the states, e.g. RUNNING; their fields."""
        wait_until(
            lambda: {job["JobState"] for job in self.jobs(job_id)} <= set(states),
            f"job {job_id} to be {' or '.join(states)}",
            timeout_s,
        )
        return self.jobs(job_id)

    def kill_controller(self, *, when_saved: bool = True) -> None:
        """kill -9 slurmctld: once its state is written, which takes up to 6 s, or now, when the newest changes are lost."""
        if when_saved:
            self._save()
        self._script("kill", "slurmctld")

    def restart_controller(self) -> None:
        """End slurmctld, unless `kill_controller` did, and start it again. Returns when the node takes jobs."""
        self._script("kill", "slurmctld", "TERM")
        self._script("start")

    def node_down(self) -> None:
        """Declare the node failed: what runs is requeued or ends as NODE_FAIL, what waits goes on waiting."""
        self.run("scontrol", "update", f"nodename={socket.gethostname().split('.')[0]}", "state=down", "reason=test")

    def node_up(self) -> None:
        """Undo `node_down`, and start again what is dead. Returns when the node takes jobs."""
        self._script("start")

    def reset(self) -> None:
        """As new but for the history: all daemons up, the node up, no job waiting or running."""
        self._script("start")
        jobs = self.run("squeue", "--noheader", "--format=%A").split()
        if jobs:
            self.run("scancel", "--signal=KILL", "--full", *set(jobs), check=False)  # what runs: no grace
            self.run("scancel", *set(jobs), check=False)
            wait_until(lambda: not self.run("squeue", "--noheader"), "an empty queue")

    def _save(self) -> None:
        """Have the controller write its state. It does so by itself, but not soon after backfill starts a job."""
        asked = time.time()
        jobs = self.run("squeue", "--noheader", "--format=%A").split()
        if jobs:  # any change of one job saves all
            self.run("scontrol", "update", f"jobid={jobs[0]}", "comment=saved", check=False)
        self.run("scontrol", "update", "partitionname=main", "state=up")
        saved = self.folder / "state" / "slurmctld" / "part_state"  # written after job_state
        wait_until(lambda: saved.exists() and saved.stat().st_mtime > asked, "the controller's state to be saved")

    def _script(self, command: str, *arguments: str, env: dict[str, str] | None = None) -> None:
        done = subprocess.run(
            [SCRIPT, command, self.folder, *arguments],
            env=os.environ | (env or {}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        if done.returncode == EXIT_CANNOT:
            raise CannotStartError(done.stderr.strip().splitlines()[-1])
        if done.returncode:
            raise RuntimeError(f"cluster.sh {command}: exit status {done.returncode}\n{done.stdout}{done.stderr}")


def wait_until(true: Callable[[], bool], what: str, timeout_s: float = 90) -> None:
    """Ask until it is true; `TimeoutError` if that takes too long."""
    end = time.monotonic() + timeout_s
    while not true():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {timeout_s:.0f} s for {what}")
        time.sleep(0.2)


def free_ports() -> int:
    """The first of NUM_PORTS ports that nobody listens on."""
    while True:
        first = random.randrange(10_000, BELOW_EPHEMERAL - NUM_PORTS)
        if all(is_free(first + i) for i in range(NUM_PORTS)):
            return first


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
