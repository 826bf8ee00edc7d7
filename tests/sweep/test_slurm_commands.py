"""SLURM's commands as a user's environment and a site's own programs make them: no run is lost, none is done twice."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from remctl.cli import run as cli
from remctl.errors import MachineError, UserError
from remctl.sweep import clients, slurm
from remctl.sweep.launch import Options, follow, launch, survey
from remctl.sweep.plan import Action, plan
from remctl.sweep.records import submissions
from remctl.sweep.requests import cancel
from remctl.sweep.spec import read_spec
from remctl.sweep.status import Standing, standing
from tests.runs.test_lock import in_another_users_process, public_folder  # noqa: F401 - a fixture
from tests.sweep.fake_slurm import NAMES, FakeSlurm
from tests.sweep.support import begin, tiny_spec, write_spec

HOSTILE = {
    "SQUEUE_PARTITION": "elsewhere",
    "SQUEUE_USERS": "nobody",
    "SQUEUE_ACCOUNT": "x",
    "SQUEUE_FORMAT2": "JobID",
    "SACCT_FORMAT": "JobID",
    "SINFO_PARTITION": "elsewhere",
    "SCANCEL_STATE": "RUNNING",
    "SCONTROL_FEDERATION": "1",
    "SBATCH_TIMELIMIT": "1",
    "SBATCH_NO_REQUEUE": "1",
    "SBATCH_ARRAY_INX": "0-1",
    "SBATCH_OUTPUT": "/dev/null",
    "SLURM_CLUSTERS": "other",
    "SLURM_TIME_FORMAT": "relative",
    "SLURM_JOB_ID": "5",
    "SLURM_ARRAY_JOB_ID": "5",
    "SRUN_CONTAINER": "x",
    "SALLOC_PARTITION": "x",
    "SUBMITIT_PREEMPT_SIGNAL": "USR1",
}
CHATTER = r'text = "Welcome! Maintenance on Monday | call 555\n\n" + text + "job 5 | thank you\n"; '
CHATTER += r'sys.stdout.buffer.write(b"caf\xe9\n"); sys.stderr.write("note: this is a wrapper\n")'


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    return FakeSlurm(tmp_path / "slurm", monkeypatch)


class Lab:
    def __init__(self, folder: Path) -> None:
        self.out = folder / "runs"
        self.spec = read_spec(write_spec(folder, seeds="[0]"))
        (folder / "cpu.yaml").write_text("gpus: 0\ncpus: 1\ntime: '01:00:00'\n")
        self.options = Options("slurm", str(folder / "cpu.yaml"))

    def launch(self) -> list[str]:
        return [action.kind for action in launch(self.out, self.spec, self.options, say=lambda _: None)[0]]

    def now(self) -> Standing:
        return standing(self.out, "tiny")


@pytest.fixture
def lab(tmp_path: Path, fake: FakeSlurm) -> Lab:
    return Lab(tmp_path)


def test_no_variable_changes_what_slurm_is_asked(lab: Lab, fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in HOSTILE.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SLURM_CONF", "/etc/here/slurm.conf")
    said: list[str] = []
    launch(lab.out, lab.spec, lab.options, say=said.append)
    assert "SBATCH_ARRAY_INX, SBATCH_NO_REQUEUE, SBATCH_OUTPUT, SBATCH_TIMELIMIT of the environment not used" in said[0]
    assert lab.launch() == ["wait", "wait"]
    assert [row.label for row in lab.now().rows] == ["queued", "queued"]
    assert len(cancel(lab.now(), ())) == 2
    assert {call["name"] for call in fake.calls} == set(NAMES)
    for call in fake.calls:
        assert not call["env"].keys() & HOSTILE.keys(), call["name"]
        assert call["env"]["SLURM_CONF"] == "/etc/here/slurm.conf"
    assert "--signal=USR2@120" in fake.jobs()[0]
    assert {name: os.environ[name] for name in HOSTILE} == HOSTILE


def test_chatter_around_every_answer_is_passed_over(lab: Lab, fake: FakeSlurm) -> None:
    for name in NAMES:
        fake.site(name, CHATTER)
    assert lab.launch() == ["run", "run"]
    assert [chunk.job for chunk in submissions(lab.out)[0].chunks] == ["700"]
    assert lab.launch() == ["wait", "wait"]
    assert lab.now().rows[1].state.job == "700_1"
    assert not lab.now().notes


@pytest.mark.parametrize(
    "code",
    [
        "text = ''",
        "text = 'squeue is not to be used here\\n'",
        "text = '  JOBID PARTITION NAME\\n   700_0 main remctl-t\\n'",
        "text = text.replace('|PENDING|', ' PENDING ')",
        "text = text.replace('|', '\\t')",
    ],
)
def test_an_answer_of_another_form_is_not_taken_for_an_empty_queue(code: str, lab: Lab, fake: FakeSlurm) -> None:
    lab.launch()
    fake.site("squeue", code)
    with pytest.raises(MachineError, match="squeue answers in another form than asked for"):
        lab.launch()
    assert lab.now().is_blind
    assert [row.label for row in lab.now().rows] == ["unknown", "unknown"]
    assert len(fake.jobs()) == 1


def test_headings_that_a_site_leaves_out_cost_no_job(lab: Lab, fake: FakeSlurm) -> None:
    lab.launch()
    fake.site("squeue", "text = text.partition('\\n')[2]")
    assert lab.launch() == ["wait", "wait"]


def test_a_state_that_nobody_knows_yet_is_not_an_end(lab: Lab, fake: FakeSlurm) -> None:
    lab.launch()
    fake.set_state("EXPEDITING")
    assert lab.launch() == ["wait", "wait"]


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("sbatch", "text = ''"),
        ("sbatch", "text = 'thank you for job 5\\n'"),
        ("sbatch", "sys.stderr.write('sbatch: error: Socket timed out on send/recv operation'); sys.exit(1)"),
        ("sbatch", "'--test-only' in args or time.sleep(60)"),
        ("sbatch", "text = text and f'Submitted batch job {text}'"),
    ],
)
def test_a_job_that_sbatch_does_not_name_is_found_by_its_own_name(
    name: str, code: str, lab: Lab, fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "TIMEOUT_S", 3)
    fake.site(name, f"if '--test-only' not in args: {code}")
    assert lab.launch() == ["run", "run"]
    assert [(chunk.job, chunk.count) for chunk in submissions(lab.out)[0].chunks] == [("700", 2)]
    assert lab.launch() == ["wait", "wait"]


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("sys.stderr.write('sbatch: error: Invalid qos specification'); sys.exit(1)", "Invalid qos.*: fix that"),
        (
            "sys.stderr.write('Unable to contact slurm controller (connect failure)'); sys.exit(1)",
            "is the SLURM controller",
        ),
        ("text = 'what?'", "sbatch printed no job id"),
    ],
)
def test_a_job_that_was_not_submitted_is_an_error_with_slurms_words(
    code: str, says: str, lab: Lab, fake: FakeSlurm
) -> None:
    fake.site("sbatch", f"if '--test-only' not in args: queue.unlink(); {code}")
    with pytest.raises(MachineError, match=says):
        lab.launch()
    fake.site("sbatch", "")
    assert lab.launch() == ["run", "run"]


@pytest.mark.parametrize(
    ("answer", "limit"),
    [
        ("*** Welcome ***\\nremctl|main*|1-00:00:00\\n", 1440),
        ("remctl|*** x\\nremctl|main*|30:00\\n", 30),
        ("*** Welcome ***\\n", None),
        ("*** Welcome | 0 ***\\nmain*|0\\n", None),
        ("remctl|main*|infinite\\n", None),
        ("remctl|main*\\n", None),
        ("", None),
    ],
)
def test_a_limit_is_read_from_lines_of_the_form_asked_for(answer: str, limit: int | None, fake: FakeSlurm) -> None:
    fake.site("sinfo", f"text = '{answer}'")
    assert slurm.time_limit_min(None) == limit
    assert slurm.time_limit_min("main") == limit


@pytest.mark.parametrize(
    "refusal",
    [
        ("sbatch", "sys.stderr.write('sbatch: error: no such QOS\\n'); sys.exit(1)"),
        ("srun", "text = args[-1].split()[-1][:-3] + '=1'"),
    ],
    ids=["profile", "folder"],
)
def test_what_is_refused_leaves_no_record(refusal: tuple[str, str], lab: Lab, fake: FakeSlurm) -> None:
    fake.site(*refusal)
    with pytest.raises(UserError, match=r"SLURM refuses|do not see this folder"):
        lab.launch()
    assert not [path for path in lab.out.rglob("*") if path.is_file() and path.name != ".launching"]
    assert not lab.out.joinpath("tiny").exists()


REFUSE = (
    "\nif name == 'sbatch' and '--test-only' in args and {when}: sys.stderr.buffer.write({words!r}); sys.exit({status})"
)


@pytest.mark.parametrize(
    ("words", "status"),
    [
        ("Unable to contact slurm controller (connect failure)", 1),
        ("quota exceeded", 1),
        ("Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)", 1),
        ("sbatch: command not found", 127),
        ("", 127),
        ("caf\udce9", 1),
    ],
)
def test_a_refusal_that_is_about_no_key_names_none(words: str, status: int, lab: Lab, fake: FakeSlurm) -> None:
    said = f"sbatch: error: {words}\n".encode(errors="surrogateescape") if words else b""
    fake.site("sbatch", REFUSE.format(when=True, words=said, status=status))
    with pytest.raises(MachineError, match=r"^sbatch takes no job \(") as caught:
        lab.launch()
    assert (words.replace("\udce9", "\ufffd") or "exit status 127") in str(caught.value)
    assert "yaml" not in str(caught.value)


@pytest.mark.parametrize(
    ("words", "when", "key"),
    [
        ("Invalid account or account/partition combination specified", "True", "account, partition"),
        ("invalid partition specified: (null)", "True", "partition"),
        ("Requested time limit is invalid (missing or exceeds some limit)", "True", "time"),
        ("Memory specification can not be satisfied", "True", "memory_gb"),
        ("Requested node configuration is not available", "'--cpus-per-task=1' in args", "cpus"),
        ("Zonk", "'--time=60' in args", "time"),
    ],
)
def test_a_refusal_names_the_keys_that_it_is_about(words: str, when: str, key: str, lab: Lab, fake: FakeSlurm) -> None:
    fake.site("sbatch", REFUSE.format(when=when, words=f"sbatch: error: {words}\n".encode(), status=1))
    with pytest.raises(UserError, match=rf"cpu.yaml: {key}: SLURM refuses .* \({re.escape(words)}\)") as caught:
        lab.launch()
    assert ("a job without them" in str(caught.value)) == (key in ("account, partition", "partition"))


def test_nobody_is_sent_into_the_profile_that_comes_with_it(lab: Lab, fake: FakeSlurm) -> None:
    lab.options = Options("slurm", "remctl:default")
    fake.site("sbatch", REFUSE.format(when=True, words=b"Invalid qos specification", status=1))
    with pytest.raises(UserError, match=r"^remctl:default: qos: .*change that in a profile of your own"):
        lab.launch()


@pytest.mark.parametrize("name", ["scontrol", "sinfo"])
@pytest.mark.parametrize(
    "words",
    [
        "Unable to contact slurm controller (connect failure)",
        "fatal: Could not establish a configuration source",
        "Slurmctld(primary) at head is DOWN",
    ],
)
def test_clients_without_a_controller_name_the_other_executor(
    words: str, name: str, lab: Lab, fake: FakeSlurm, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.site(name, f"sys.stderr.write('{name}: {words}\\n'); sys.exit(1)")
    profile = lab.options.profile
    assert cli(["ablate", str(lab.spec.path), "--out", str(lab.out), "--profile", profile]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{name} failed ({name}: {words}): " in line
    assert line.endswith("; or `remctl ablate --executor local` for this machine")
    assert not submissions(lab.out)


@pytest.mark.parametrize("name", ["squeue", "sinfo", "scontrol", "srun", "sacct"])
def test_a_command_that_hangs_or_is_missing_is_named(
    name: str, lab: Lab, fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.launch()
    fake.set_state("FAILED")
    monkeypatch.setattr(clients, "TIMEOUT_S", 0.5)
    monkeypatch.setattr("remctl.sweep.slurm.PROBE_S", 0.2)
    fake.site(name, "time.sleep(60)")
    if name in ("srun", "sacct"):  # of use, not needed
        assert lab.launch() == ["retry", "retry"]
        return
    with pytest.raises(MachineError, match=f"{name} did not answer within 0.5 s"):
        lab.launch()
    fake.remove(name)
    monkeypatch.setenv("PATH", str(fake.bin))
    with pytest.raises(MachineError, match=f"{name} is not on the PATH|no sbatch here"):
        lab.launch()


def test_without_what_is_not_needed_all_goes_on(lab: Lab, fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("srun", "sacct"):
        fake.remove(name)
    monkeypatch.setenv("PATH", str(fake.bin))
    assert lab.launch() == ["run", "run"]
    assert lab.launch() == ["wait", "wait"]


@pytest.mark.parametrize("name", ["a%xb", "a\\b", "a\nb"])
def test_a_folder_that_is_a_pattern_to_slurm_is_refused(name: str, lab: Lab, fake: FakeSlurm) -> None:
    lab.out = lab.out / name
    with pytest.raises(UserError, match="SLURM replaces % and"):
        lab.launch()
    assert not lab.out.exists()


def test_a_task_finds_its_own_part_whenever_its_launcher_died(lab: Lab, fake: FakeSlurm) -> None:
    lab.launch()
    folder = submissions(lab.out)[0].path / "slurm"
    (fake.bin / "srun").write_text("#!/bin/sh\n")
    for index in ("0", "1"):
        env = os.environ | {"SLURM_JOB_ID": "9", "SLURM_ARRAY_JOB_ID": "700", "SLURM_ARRAY_TASK_ID": index}
        subprocess.run(["bash", "-c", fake.jobs()[0]], env=env, check=True)
        mine = folder / f"700_{index}_submitted.pkl"
        assert mine.read_bytes() == (folder / f"task_{index}.pkl").read_bytes()
        mine.unlink()
        mine.write_bytes(b"a checkpoint")
        subprocess.run(["bash", "-c", fake.jobs()[0]], env=env, check=True)
        assert mine.read_bytes() == b"a checkpoint"


def test_a_job_that_dies_before_python_says_why(lab: Lab, fake: FakeSlurm) -> None:
    lab.launch()
    logs = submissions(lab.out)[0].path / "slurm"
    fake.set_state("FAILED")
    rows = lab.now().rows
    assert f"SLURM kept no log in {logs}" in rows[0].note
    assert "job.log" not in rows[0].note
    (logs / "700_0_0_log.out").write_text("starting\n")
    (logs / "700_0_0_log.err").write_text(
        "x\npython: cannot execute: required file not found\nsrun: error: n1: task 0: Exited with exit code 126\n"
    )
    for forget in (lambda: None, fake.forget):  # SLURM forgets after minutes, and the log stays
        forget()
        row = lab.now().rows[0]
        assert row.label == "failed"
        assert row.note.endswith(f"python: cannot execute: required file not found [1 of 3] {logs / '700_0_0_log.err'}")
    assert lab.now().rows[1].label == "stopped"
    (row.state.folder / "job.log").parent.mkdir(parents=True)
    (row.state.folder / "job.log").write_text("of an earlier start\n")
    assert lab.now().rows[0].note.endswith(str(logs / "700_0_0_log.err"))


def test_the_log_of_such_a_job_is_shown(lab: Lab, fake: FakeSlurm, capsys: pytest.CaptureFixture[str]) -> None:
    from remctl.cli import run

    lab.launch()
    row = lab.now().rows[0]
    assert run(["logs", str(row.state.folder), "--out", str(lab.out)]) == 2
    assert "no log yet" in capsys.readouterr().err
    (submissions(lab.out)[0].path / "slurm" / "700_0_0_log.err").write_text("bash: module: command not found\n")
    assert run(["logs", str(row.state.folder), "--out", str(lab.out)]) == 0
    assert capsys.readouterr().out == "bash: module: command not found\n"


def test_another_users_job_does_not_blame_the_controller(lab: Lab, fake: FakeSlurm) -> None:
    lab.launch()
    fake.site(
        "scancel",
        "sys.stderr.write('scancel: error: Kill job error on job id 700: Access/permission denied'); sys.exit(210)",
    )
    with pytest.raises(MachineError, match="permission denied.*another user's") as caught:
        cancel(lab.now(), ())
    assert "controller" not in str(caught.value)


def test_jobs_that_slurm_shows_only_to_their_owner_are_not_lost(
    lab: Lab, fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.launch()
    fake.forget()
    monkeypatch.setattr("os.getuid", lambda: 4321)
    assert [row.label for row in lab.now().rows] == ["stopped", "stopped"]
    fake.site("scontrol", "text = text.replace('= none', '= accounts,jobs')")
    assert [row.label for row in lab.now().rows] == ["unknown", "unknown"]
    assert "another user's job" in lab.now().rows[0].note
    assert lab.launch() == ["wait", "wait"]


def test_jobs_of_another_cluster_are_not_lost(lab: Lab, fake: FakeSlurm) -> None:
    lab.launch()
    fake.forget()
    fake.site("scontrol", "text = text.replace('= here', '= there')")
    assert [row.label for row in lab.now().rows] == ["unknown", "unknown"]
    assert "on cluster here, SLURM_CONF names there" in lab.now().rows[0].note
    assert lab.launch() == ["wait", "wait"]
    num_calls = len(fake.calls)
    assert len(cancel(lab.now(), ())) == 2  # their supervisors see it; the number may be another job's here
    assert "scancel" not in {call["name"] for call in fake.calls[num_calls:]}
    assert [row.label for row in lab.now().rows] == ["cancelled", "cancelled"]
    assert lab.launch() == ["run", "run"]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be two users")
def test_a_run_in_a_folder_that_may_not_be_written_is_not_started(fake: FakeSlurm, public_folder: Path) -> None:  # noqa: F811
    lab = Lab(public_folder)
    _, runs = tiny_spec(public_folder, seeds="[0]")
    folder = begin(lab.out, runs[0], epoch=1)
    says = f"{folder} may not be written: ask its owner"

    def look() -> None:
        (action, _) = plan(runs, survey(lab.out, lab.spec).states)
        os._exit(3 if action.kind == "hold" and says in action.reason else 4)

    assert survey(lab.out, lab.spec).states[runs[0].config_hash].status == "stopped"
    assert in_another_users_process(look) == 3


def test_waiting_keeps_the_profile_that_it_began_with(lab: Lab, fake: FakeSlurm, tmp_path: Path) -> None:
    _, runs = tiny_spec(tmp_path, seeds="[0]")
    looks: list[list[str]] = []

    def show(actions: list[Action]) -> None:
        looks.append([action.kind for action in actions])
        (tmp_path / "cpu.yaml").unlink(missing_ok=True)
        fake.set_state("FAILED")
        if len(looks) == 2:
            for run in runs:
                begin(lab.out, run, epoch=4, done=True)

    follow(lab.out, lab.spec, lab.options, show, poll_s=0)
    assert looks == [["run", "run"], ["retry", "retry"], ["skip", "skip"]]
    assert ["--cpus-per-task=1\n" in job for job in fake.jobs()] == [True, True]


def test_waiting_keeps_its_executor_when_the_machine_gets_slurm(
    lab: Lab, fake: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, runs = tiny_spec(tmp_path, seeds="[0]")
    monkeypatch.setattr("remctl.sweep.local.start_queue", lambda *_: None)
    path, looks = os.environ["PATH"], []
    monkeypatch.setenv("PATH", "/nowhere")

    def show(actions: list[Action]) -> None:
        looks.append([action.kind for action in actions])
        os.environ["PATH"] = path
        if len(looks) == 2:
            for run in runs:
                begin(lab.out, run, epoch=4, done=True)

    follow(lab.out, lab.spec, Options(), show, poll_s=0)
    assert looks == [["run", "run"], ["run", "run"], ["skip", "skip"]]
    assert {submission.executor for submission in submissions(lab.out)} == {"local"}
    assert not fake.jobs()
