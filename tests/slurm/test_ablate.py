"""Experiments on a real SLURM: every way in which a cluster takes a job away, and what is left of the runs afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from remctl.errors import MachineError, UserError
from remctl.runs.layout import RunFolder
from remctl.runs.lock import holder
from remctl.sweep.launch import Options, launch
from remctl.sweep.records import attempts, submissions
from remctl.sweep.requests import cancel, to_retry
from remctl.sweep.spec import read_spec, wanted_runs
from remctl.sweep.status import Standing, standing
from tests.slurm.cluster import Cluster, wait_until
from tests.sweep.support import write_spec
from tests.train.test_resume import assert_same, outcome

pytestmark = pytest.mark.slurm
ROOT = Path(__file__).parents[2]
CPU = "gpus: 0\ncpus: 1\nmemory_gb: 0.5\ntime: '00:20:00'\npartition: main\n"
LONG = ("training.num_epochs=40", "evaluation.every_epochs=20")
ENDLESS = ("training.num_epochs=10000", "evaluation.every_epochs=5000")
SHARED_GPU = "gpus: 1\ndevice: auto\ncpus: 2\nmemory_gb: 1\ntime: '00:20:00'\n"  # the GPUs of the tests are fake


class Lab:
    """A folder with a spec and a profile, and the experiment that is made of them."""

    def __init__(self, folder: Path, profile: str = CPU) -> None:
        self.folder, self.out = folder, folder / "runs"
        self.profile = folder / "profile.yaml"
        self.profile.write_text(profile)
        self.spec, self.name = folder / "tiny.yaml", "tiny"

    def ask(self, seeds: str = "[0]", more: tuple[str, ...] = ()) -> Lab:
        """Two variants on these seeds."""
        write_spec(self.folder, seeds=seeds, more=more)
        return self

    def launch(self, **options: object) -> list[str]:
        """The kinds of action that were taken."""
        chosen = Options("slurm", str(self.profile), **options)  # type: ignore[arg-type]
        actions, _ = launch(self.out, read_spec(self.spec), chosen)
        return [action.kind for action in actions]

    def now(self) -> Standing:
        return standing(self.out, self.name)

    def states(self) -> list[str]:
        return [row.label for row in self.now().rows]

    def wait(self, condition: Callable[[Standing], bool], what: str, timeout_s: float = 240) -> None:
        wait_until(lambda: condition(self.now()), what, timeout_s)

    def wait_done(self, timeout_s: float = 240) -> None:
        self.wait(lambda now: set(now.totals) == {"done"}, "all to be done", timeout_s)

    def wait_epoch(self, epoch: int) -> None:
        self.wait(lambda now: all(row.state.progress.epoch >= epoch for row in now.rows), f"epoch {epoch}")

    def runs(self) -> list[RunFolder]:
        return [RunFolder(row.state.folder) for row in self.now().rows]

    def starts(self) -> list[int]:
        return [sum(e["event"] == "start" for e in attempts(run)) for run in self.runs()]


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[tuple]:
    """What the runs of the LONG spec come to when nobody disturbs them."""
    folder = tmp_path_factory.mktemp("undisturbed")
    wanted = wanted_runs(read_spec(write_spec(folder, seeds="[0]", more=LONG)))
    base = [sys.executable, "-m", "remctl", "train", "--game", "Catch", "--preset", "quick", "--out", str(folder)]
    base += ["--name", "x", *(part for s in _sets(folder) for part in ("--set", s))]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen([*base, "--variant", run.variant], env=environment, stdout=subprocess.DEVNULL)
        for run in wanted
    ]
    assert [process.wait() for process in processes] == [0] * len(wanted)
    return [outcome(folder / "x" / run.variant / "Catch" / "seed_0") for run in wanted]


def _sets(folder: Path) -> list[str]:
    lines = (folder / "tiny.yaml").read_text().partition("overrides:\n")[2].splitlines()
    return [line.strip().replace(": ", "=", 1) for line in lines]


def assert_as_undisturbed(lab: Lab, undisturbed: list[tuple]) -> None:
    for run, expected in zip(lab.runs(), undisturbed, strict=True):
        assert_same(outcome(run.path), expected)


# --- from the spec to the results ---


def test_the_smoke_ablation_runs_through_an_array_to_its_results(cluster: Cluster, lab: Lab) -> None:
    """With one of its two seeds."""
    lab.spec, lab.name = lab.folder / "smoke.yaml", "smoke"
    shipped = (ROOT / "ablations" / "smoke.yaml").read_text()
    lab.spec.write_text(shipped.replace("\nseeds: 2\n", "\nseeds: 1\n"))
    assert lab.launch(then_report=True) == ["run"] * 2
    assert lab.launch() == ["wait"] * 2
    lab.wait_done(timeout_s=600)
    assert all(run.is_done for run in lab.runs())
    assert lab.launch() == ["skip"] * 2
    assert len(submissions(lab.out)) == 1
    assert lab.starts() == [1] * 2
    wait_until((lab.out / "smoke" / "report" / "per_game.csv").exists, "the report's job", timeout_s=120)


def test_runs_of_arrays_that_are_split_are_all_accounted_for(
    cluster: Cluster, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than the cluster has CPUs."""
    monkeypatch.setattr("remctl.sweep.slurm.max_array_size", lambda: 7)
    small = ("training.num_epochs=1", "evaluation.final_episodes=1", "evaluation.diagnosis_starts=1")
    assert lab.ask("5", small).launch() == ["run"] * 10
    (submission,) = submissions(lab.out)
    assert [chunk.count for chunk in submission.chunks] == [7, 3]
    lab.wait_done(timeout_s=400)
    assert lab.starts() == [1] * 10


def test_runs_that_share_a_gpu_are_one_task_and_one_may_be_cancelled(cluster: Cluster, tmp_path: Path) -> None:
    lab = Lab(tmp_path, SHARED_GPU).ask("[0]", LONG)
    lab.launch(runs_per_gpu=2)
    lab.wait_epoch(1)
    assert len({event["job"] for run in lab.runs() for event in attempts(run)}) == 1
    assert [row.ref.variant for row in cancel(lab.now(), ["no_action_inputs"])] == ["no_action_inputs"]
    lab.wait(lambda now: [row.label for row in now.rows] == ["done", "cancelled"], "one to be done, one cancelled")


def test_of_runs_that_share_a_gpu_one_may_fail(cluster: Cluster, tmp_path: Path) -> None:
    lab = Lab(tmp_path, SHARED_GPU).ask("[0]", LONG)
    lab.launch(runs_per_gpu=2)
    lab.wait_epoch(1)
    who = holder(lab.runs()[1])
    assert who
    os.kill(who["pid"], signal.SIGKILL)
    lab.wait(lambda now: now.rows[1].label == "failed", "the failure to be noticed")
    assert lab.now().rows[0].label in ("running", "done")
    lab.wait(lambda now: now.rows[0].label == "done", "the other to be done")
    assert [row.state.failures for row in lab.now().rows] == [0, 1]


# --- disturbances: the result is the undisturbed one, to the bit, and nobody counts a failure ---


def test_preemption_requeues_and_changes_nothing(cluster: Cluster, lab: Lab, undisturbed: list[tuple]) -> None:
    lab.ask(more=LONG).launch()
    lab.wait_epoch(2)
    cluster.sbatch("sleep 3", "--partition=high", "--cpus-per-task=8", "--mem=100M")
    lab.wait(lambda now: set(now.totals) == {"preempted"}, "both runs to be preempted")
    lab.wait_done()
    assert min(lab.starts()) >= 2
    assert [row.state.failures for row in lab.now().rows] == [0, 0]
    assert_as_undisturbed(lab, undisturbed)


def test_a_time_limit_requeues_and_the_run_goes_on(cluster: Cluster, tmp_path: Path) -> None:
    lab = Lab(tmp_path, CPU.replace("00:20:00", "00:01:00") + "signal_delay_s: 45\n").ask(more=ENDLESS)
    lab.launch()
    lab.wait(lambda now: min(lab.starts()) >= 2, "both runs to be started once more", timeout_s=400)
    assert {e["outcome"] for run in lab.runs() for e in attempts(run) if e["event"] == "end"} <= {"interrupted"}
    reached = [row.state.progress.epoch for row in lab.now().rows]
    lab.wait(
        lambda now: all(row.state.progress.epoch > e for row, e in zip(now.rows, reached, strict=True)), "more epochs"
    )
    assert {row.state.failures for row in lab.now().rows} == {0}


def test_a_node_that_fails_and_comes_back(cluster: Cluster, lab: Lab, undisturbed: list[tuple]) -> None:
    lab.ask(more=LONG).launch()
    lab.wait_epoch(1)
    cluster.node_down()
    lab.wait(lambda now: set(now.totals) == {"preempted"}, "both runs to wait again")
    cluster.node_up()
    lab.wait_done()
    assert_as_undisturbed(lab, undisturbed)


def test_cancelled_runs_stop_and_go_on_when_asked(cluster: Cluster, lab: Lab, undisturbed: list[tuple]) -> None:
    lab.ask(more=LONG).launch()
    lab.wait_epoch(1)
    assert len(cancel(lab.now(), ())) == 2
    lab.wait(lambda now: set(now.totals) == {"cancelled"}, "both runs to be cancelled")
    assert lab.launch() == ["resume", "resume"]
    lab.wait_done()
    assert_as_undisturbed(lab, undisturbed)


def test_scancel_by_hand_is_no_failure(cluster: Cluster, lab: Lab) -> None:
    lab.ask("[0, 1]", ENDLESS).launch(max_parallel=2)
    lab.wait(lambda now: now.totals.get("running") == 2, "two to run")
    (submission,) = submissions(lab.out)
    cluster.run("scancel", submission.chunks[0].job)
    lab.wait(lambda now: "running" not in now.totals and "queued" not in now.totals, "all to stop")
    assert {row.state.failures for row in lab.now().rows} == {0}
    assert set(lab.launch()) <= {"run", "resume"}


def test_the_controller_dies_and_comes_back(cluster: Cluster, lab: Lab) -> None:
    lab.ask(more=ENDLESS).launch()
    lab.wait_epoch(1)
    cluster.kill_controller()
    with pytest.raises(MachineError, match="is the SLURM controller up"):
        lab.launch()
    blind = lab.now()
    assert "is the SLURM controller up" in blind.notes[-1]
    for decide in (cancel, to_retry):
        with pytest.raises(MachineError, match="is the SLURM controller up"):
            decide(blind, ())
    cluster.restart_controller()
    epoch = max(row.state.progress.epoch for row in lab.now().rows)
    lab.wait_epoch(epoch + 1)
    assert lab.launch() == ["wait", "wait"]
    assert lab.starts() == [1, 1]


# --- failures ---


def supervisor(run: RunFolder) -> int:
    return next(e["pid"] for e in reversed(attempts(run)) if e["event"] == "start")


def test_a_task_killed_with_9_is_one_failure_and_is_tried_again(cluster: Cluster, lab: Lab) -> None:
    lab.ask(more=LONG).launch()
    lab.wait_epoch(1)
    os.kill(supervisor(lab.runs()[0]), signal.SIGKILL)
    lab.wait(lambda now: now.rows[0].label == "failed", "the death to be noticed")
    assert lab.now().rows[0].state.failures == 1
    assert lab.launch()[0] == "retry"
    lab.wait_done()


def test_a_run_that_fails_three_times_is_held_with_its_last_words(cluster: Cluster, lab: Lab) -> None:
    lab.ask(more=("controller.training.learning_rate=1e30",))
    for kind in ("run", "retry", "retry"):
        assert lab.launch() == [kind] * 2
        lab.wait(lambda now: set(now.totals) == {"failed"}, "both runs to fail")
    assert lab.launch() == ["hold"] * 2
    assert "diverged" in lab.now().rows[0].note
    assert str(lab.runs()[0].path / "job.log") in lab.now().rows[0].note


def test_a_launcher_killed_right_after_sbatch_is_remembered_by_the_job_itself(cluster: Cluster, lab: Lab) -> None:
    lab.ask("[0, 1]")
    code = (
        "import os, remctl.sweep.slurm as s\n"
        "from remctl.sweep.launch import Options, launch\n"
        "from remctl.sweep.spec import read_spec\n"
        "from pathlib import Path\n"
        "s.add_chunk = lambda *_: os.kill(os.getpid(), 9)\n"
        f"launch(Path({str(lab.out)!r}), read_spec(Path({str(lab.spec)!r})), Options('slurm', {str(lab.profile)!r}))\n"
    )
    died = subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT)
    assert died.returncode == -signal.SIGKILL
    assert submissions(lab.out)[0].chunks == ()
    assert lab.launch() == ["wait"] * 4
    assert [chunk.count for chunk in submissions(lab.out)[0].chunks] == [4]
    lab.wait_done()
    assert lab.starts() == [1] * 4


def test_without_accounting_a_death_is_noticed_and_the_experiment_ends(
    cluster_without_accounting: Cluster, tmp_path: Path
) -> None:
    lab = Lab(tmp_path).ask(more=LONG)
    lab.launch()
    lab.wait_epoch(1)
    os.kill(supervisor(lab.runs()[0]), signal.SIGKILL)
    lab.wait(lambda now: now.rows[0].label == "failed", "the death to be noticed")
    lab.launch()
    lab.wait_done()


def test_a_job_that_dies_before_python_says_why(cluster: Cluster, tmp_path: Path) -> None:
    lab = Lab(tmp_path, CPU + "setup: ['echo no such module >&2', 'exit 3']\n").ask()
    lab.launch()
    lab.wait(lambda now: set(now.totals) == {"failed"}, "both jobs to fail")
    note = lab.now().rows[0].note
    assert "no such module [1 of 3]" in note
    assert Path(note.rpartition(" ")[2]).is_file()


def test_the_environment_changes_neither_what_is_seen_nor_what_is_asked(
    cluster: Cluster, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    hostile = {
        "SQUEUE_PARTITION": "high",
        "SQUEUE_USERS": "nobody",
        "SINFO_PARTITION": "high",
        "SCANCEL_STATE": "PENDING",
    }
    hostile |= {
        "SBATCH_PARTITION": "high",
        "SBATCH_TIMELIMIT": "1",
        "SBATCH_NO_REQUEUE": "1",
        "SBATCH_OUTPUT": "/dev/null",
    }
    hostile |= {"SLURM_CLUSTERS": "other", "SUBMITIT_PREEMPT_SIGNAL": "USR1"}
    with monkeypatch.context() as context:
        for name, value in hostile.items():
            context.setenv(name, value)
        assert lab.ask("[0, 1]", ENDLESS).launch() == ["run"] * 4
        lab.wait(lambda now: "running" in now.totals, "some to run")
        assert lab.launch() == ["wait"] * 4
        job = submissions(lab.out)[0].chunks[0].job
    for fields in cluster.jobs(job):
        assert (fields["Partition"], fields["TimeLimit"], fields["Requeue"]) == ("main", "00:20:00", "1")
        assert fields["StdOut"].startswith(str(lab.out))
    with monkeypatch.context() as context:
        for name, value in hostile.items():
            context.setenv(name, value)
        cancel(lab.now(), ())
    lab.wait(lambda now: set(now.totals) == {"cancelled"}, "all to be cancelled")


# --- refused before anything is submitted ---


@pytest.mark.parametrize(
    ("profile", "key"),
    [
        ("partition: nowhere\n", "partition: SLURM refuses --partition=nowhere"),
        ("gpu_type: h100\n", "gpu_type: SLURM refuses --gres=gpu:h100:1"),
        ("gpus: 0\nmemory_gb: 99999\n", "memory_gb: SLURM refuses --mem"),
        ("gpus: 0\ncpus: 1000\n", "cpus: SLURM refuses --cpus-per-task=1000"),
        ("gpus: 0\ntime: '30-00:00:00'\n", "time: 43200 minutes are more than the partition's limit of 1440"),
        ("gpus: 0\nconstraint: volta\n", "constraint: SLURM refuses --constraint=volta"),
        ("gpus: 0\nextra: {reservation: mine}\n", "extra.reservation: SLURM refuses"),
        ("gpus: 0\nextra: {job-name: mine}\n", "job-name is set by remctl itself"),
        ("partitio: main\n", "unknown key 'partitio': did you mean partition?"),
        ("gpus: 0\ntime: soon\n", "time: given 'soon'; allowed: minutes"),
    ],
)
def test_a_bad_profile_is_refused_with_its_key(profile: str, key: str, cluster: Cluster, tmp_path: Path) -> None:
    lab = Lab(tmp_path, profile).ask()
    with pytest.raises(UserError, match="profile.yaml: ") as caught:
        lab.launch()
    assert key in str(caught.value)
    assert not submissions(lab.out)


def test_a_folder_that_the_nodes_do_not_see_is_refused(cluster: Cluster, lab: Lab) -> None:
    """The launcher alone sees a file system mounted over the folder."""
    lab.ask()
    lab.out.mkdir()
    command = f"{sys.executable} -m remctl ablate {lab.spec} --out {lab.out} --profile {lab.profile} --executor slurm"
    script = f"mount -t tmpfs none {lab.out} || exit 77; cd {ROOT} && {command}"
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, timeout=120, check=False
    )
    if done.returncode == 77:
        pytest.skip("may not mount a file system here")
    assert done.returncode == 2, done.stderr
    assert "nodes do not see this folder" in done.stderr
    time.sleep(0.5)
    assert "remctl-tiny" not in cluster.run("squeue", "--noheader", "-o", "%j")
