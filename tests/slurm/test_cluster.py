"""The test cluster does what the other tests rely on."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from pathlib import Path

import pytest
import submitit

from tests.slurm.cluster import Cluster, wait_until

pytestmark = pytest.mark.slurm


def square(x: int) -> int:
    return x * x


class UntilInterrupted:
    """Runs for ever, unless it is told that it was interrupted."""

    def __call__(self, started: Path, interrupted: bool = False) -> str:
        started.touch()
        while not interrupted:
            time.sleep(0.1)
        return "resumed"

    def checkpoint(self, started: Path) -> submitit.helpers.DelayedSubmission:
        return submitit.helpers.DelayedSubmission(self, started, interrupted=True)


def test_a_job_runs(cluster: Cluster, tmp_path: Path) -> None:
    job_id = cluster.sbatch(f"echo ran > {tmp_path}/out")
    cluster.wait_for(job_id, "COMPLETED")
    assert (tmp_path / "out").read_text() == "ran\n"


def test_a_submitit_array_gives_results(cluster: Cluster, tmp_path: Path) -> None:
    executor = submitit.AutoExecutor(folder=tmp_path, cluster="slurm")
    executor.update_parameters(timeout_min=5, slurm_partition="main", slurm_array_parallelism=2)
    jobs = executor.map_array(square, range(4))
    assert [job.result() for job in jobs] == [0, 1, 4, 9]


def test_a_job_gets_the_gpu_it_asked_for(cluster: Cluster, tmp_path: Path) -> None:
    job_id = cluster.sbatch(
        "echo gpu=$CUDA_VISIBLE_DEVICES; sleep 2", "--gres=gpu:1", "--array=0-1", f"-o{tmp_path}/%a"
    )
    cluster.wait_for(job_id, "COMPLETED")
    assert {(tmp_path / task).read_text() for task in "01"} == {"gpu=0\n", "gpu=1\n"}
    with pytest.raises(subprocess.CalledProcessError):
        cluster.sbatch("true", "--gres=gpu:3")


def test_high_preempts_main_which_saves_its_state_and_is_requeued(cluster: Cluster, tmp_path: Path) -> None:
    executor = submitit.AutoExecutor(folder=tmp_path, cluster="slurm")
    executor.update_parameters(timeout_min=5, slurm_partition="main", slurm_gres="gpu:2")
    job = executor.submit(UntilInterrupted(), tmp_path / "started")
    wait_until((tmp_path / "started").exists, "the job")
    high = cluster.sbatch("true", "--partition=high", "--gres=gpu:2")
    cluster.wait_for(high, "COMPLETED")
    assert job.result() == "resumed"
    assert cluster.jobs(job.job_id)[0]["Restarts"] == "1"


def test_a_job_outlives_its_controller(cluster: Cluster, tmp_path: Path) -> None:
    job_id = cluster.sbatch(f"until [ -e {tmp_path}/go ]; do sleep 0.2; done")
    cluster.wait_for(job_id, "RUNNING")
    cluster.kill_controller()
    with pytest.raises(subprocess.CalledProcessError):
        cluster.run("scontrol", "ping")
    cluster.restart_controller()
    assert cluster.jobs(job_id)[0]["JobState"] == "RUNNING"
    (tmp_path / "go").touch()
    cluster.wait_for(job_id, "COMPLETED")


def test_a_job_is_requeued_when_its_node_fails(cluster: Cluster) -> None:
    job_id = cluster.sbatch("[ $SLURM_RESTART_COUNT ] || sleep 600")
    cluster.wait_for(job_id, "RUNNING")
    cluster.node_down()
    cluster.wait_for(job_id, "PENDING")
    cluster.node_up()
    cluster.wait_for(job_id, "COMPLETED")


def test_accounting_knows_how_a_job_ended(cluster: Cluster) -> None:
    job_id = cluster.sbatch("exit 3")
    cluster.wait_for(job_id, "FAILED")
    asked = ("sacct", "-XPn", "-j", job_id, "-o", "State,ExitCode")  # it hears of a job up to 5 s later
    wait_until(lambda: cluster.run(*asked) == "FAILED|3:0", "sacct to know")


def test_without_accounting_squeue_knows_and_sacct_does_not(cluster_without_accounting: Cluster) -> None:
    cluster = cluster_without_accounting
    job_id = cluster.sbatch("sleep 600")
    assert cluster.run("squeue", "--noheader", "--format=%i") == job_id
    with pytest.raises(subprocess.CalledProcessError, match="sacct"):
        cluster.run("sacct")


def test_stopping_leaves_no_process_of_stubborn_jobs_and_a_dead_controller(
    cluster_without_accounting: Cluster, tmp_path: Path
) -> None:
    mine = Cluster(accounting=False)  # the fixture is there to skip where this would fail
    try:
        for num in range(2):
            mine.sbatch(
                f"trap '' TERM; setsid sleep 60 & echo $! > {tmp_path}/{num}; env --ignore-environment sleep 60"
            )
        wait_until(lambda: all((tmp_path / str(num)).exists() for num in range(2)), "both jobs")
        mine.kill_controller(when_saved=False)
    finally:
        mine.stop()
    assert not mine.folder.exists()
    assert not [link for link in Path("/proc").glob("[0-9]*/fd/*") if str(mine.folder) in target(link)]
    wait_until(
        lambda: not any(is_running((tmp_path / str(num)).read_text()) for num in range(2)), "what jobs started", 5
    )


def target(link: Path) -> str:
    with contextlib.suppress(OSError):
        return os.readlink(link)
    return ""


def is_running(pid: str) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid.strip()}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    return False
