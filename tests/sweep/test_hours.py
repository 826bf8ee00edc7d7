"""What runs will need: by what was measured on the same device first, by operations where nothing was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from remctl.bench import expected
from remctl.config import resolve, to_yaml
from remctl.errors import MachineError
from remctl.programs import Answer
from remctl.sweep import device as devices
from remctl.sweep.device import Device, device_for, this_device
from remctl.sweep.hours import Hours, estimate, evidence
from remctl.sweep.observe import Progress, RunState
from remctl.sweep.profile import Profile
from remctl.sweep.wanted import WantedRun
from tests.sweep.support import begin, ref, tiny_spec

GPU = Device("cuda", "NVIDIA A", 2)
CPU = Device("cpu", "Fast CPU", cores=4)


@pytest.fixture
def runs(tmp_path: Path) -> list[WantedRun]:
    """rem 0, rem 1, no_action_inputs 0, no_action_inputs 1, of 4 epochs each."""
    return tiny_spec(tmp_path)[1]


def computed_on(folder: Path, **device: object) -> Path:
    (folder / "provenance.json").write_text(json.dumps([{"device": device}]))
    return folder


def hours(
    runs: list[WantedRun], states: list[RunState], device: Device = GPU, out: Path | None = None
) -> tuple[float, str]:
    configs = {run.config_hash: run.config for run in runs}
    found: Hours = estimate(
        list(zip(map(ref, runs), states, strict=False)),
        {},
        lambda r: configs.get(r.config_hash),
        device,
        (lambda: evidence(out, device)) if out else dict,
    )
    assert found.left is not None
    return found.left * 3600, found.basis


def absent(out: Path, run: WantedRun) -> RunState:
    return RunState("absent", out / ref(run).path)


def test_nothing_measured_is_by_operations_of_each_variant_on_the_device(tmp_path: Path, runs: list[WantedRun]) -> None:
    paper = [WantedRun(v, "Pong", 0, resolve("Pong", variant=v), v) for v in ("rem", "no_pop")]
    for run in paper:
        for device in (GPU, CPU):
            left, basis = hours([run], [absent(tmp_path, run)], device)
            assert left == pytest.approx(expected.run_s(run.config, device.rates(run.config)))
            assert basis.startswith("operations, by ")
            assert ("RTX 4090" in basis, "4 cores" in basis) == (device is GPU, device is CPU)
    both, _ = hours(paper, [absent(tmp_path, run) for run in paper])
    assert both > 3 * hours(paper[:1], [absent(tmp_path, paper[0])])[0]


def test_what_is_left_of_a_run_begun_is_less(tmp_path: Path, runs: list[WantedRun]) -> None:
    state = RunState("stopped", tmp_path / "x", Progress(3))
    assert hours(runs[:1], [state])[0] < hours(runs[:1], [absent(tmp_path, runs[0])])[0]


def test_measured_epochs_of_the_variant_come_first(tmp_path: Path, runs: list[WantedRun]) -> None:
    folder = computed_on(begin(tmp_path, runs[0], 2), type="cuda", name="NVIDIA A")
    begun = RunState("stopped", folder, Progress(2, epoch_s=100.0, wall_s=200.0))
    assert hours(runs[:2], [begun, absent(tmp_path, runs[1])]) == (2 * 100 + 4 * 100, "measured epochs")


def test_other_variants_are_scaled_by_the_operations_of_both(tmp_path: Path, runs: list[WantedRun]) -> None:
    folder = computed_on(begin(tmp_path, runs[0], 2), type="cuda", name="NVIDIA A")
    begun = RunState("done", folder, Progress(4, epoch_s=100.0, wall_s=400.0))
    left, basis = hours(runs[:3:2], [begun, absent(tmp_path, runs[2])])
    rem, other = (expected.run_s(runs[i].config, GPU.rates(runs[i].config)) for i in (0, 2))
    assert left == pytest.approx(400 * other / rem)
    assert basis == "measured epochs of other variants, scaled by operations"


@pytest.mark.parametrize(
    ("device", "counts"),
    [
        ({"type": "cuda", "name": "NVIDIA A"}, True),
        ({"type": "cuda", "name": "NVIDIA B"}, False),
        ({"type": "cpu", "name": "Fast CPU", "threads": 4}, False),
        ({}, True),  # as of runs that do not say
    ],
)
def test_epochs_on_another_device_do_not_count(
    device: dict[str, object], counts: bool, tmp_path: Path, runs: list[WantedRun]
) -> None:
    folder = computed_on(begin(tmp_path, runs[0], 2), **device)
    begun = RunState("done", folder, Progress(4, epoch_s=100.0, wall_s=400.0))
    left, basis = hours(runs[:2], [begun, absent(tmp_path, runs[1])])
    assert (left == 400, basis == "measured epochs") == (counts, counts)


def test_a_run_with_half_of_the_threads_takes_half_of_a_cpu(tmp_path: Path, runs: list[WantedRun]) -> None:
    folder = computed_on(begin(tmp_path, runs[0], 2), type="cpu", name="Fast CPU", threads=2)
    begun = RunState("done", folder, Progress(4, epoch_s=100.0, wall_s=400.0))
    assert hours(runs[:2], [begun, absent(tmp_path, runs[1])], CPU) == (200, "measured epochs")


def test_finished_runs_of_another_experiment_on_this_device_are_evidence(tmp_path: Path, runs: list[WantedRun]) -> None:
    for seed, (seconds, name) in enumerate([(40.0, "NVIDIA A"), (80.0, "NVIDIA A"), (4.0, "NVIDIA B")]):
        own = runs[0].config.model_copy(update={"seed": seed + 5})
        folder = tmp_path / f"older/rem/Catch/seed_{seed + 5}"
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(to_yaml(own))
        (folder / "result.json").write_text(json.dumps({"wall_s": {"train": seconds}}))
        computed_on(folder, type="cuda", name=name)
    left, basis = hours(runs[:1], [absent(tmp_path, runs[0])], GPU, tmp_path)
    assert (left, basis) == (60, "finished runs of the same variant on this device")
    assert hours(runs[2:3], [absent(tmp_path, runs[2])], GPU, tmp_path)[1].startswith("operations")
    assert hours(runs[:1], [absent(tmp_path, runs[0])], Device("cuda"), tmp_path)[1].startswith("operations")  # unknown


@pytest.mark.parametrize("text", ["", "[]", '{"wall_s": 3}', '{"wall_s": {"a": null}}'])
def test_damaged_evidence_is_none(text: str, tmp_path: Path, runs: list[WantedRun]) -> None:
    folder = computed_on(begin(tmp_path, runs[1], 4, experiment="older"), type="cuda", name="NVIDIA A")
    (folder / "result.json").write_text(text)
    (folder.parent / "seed_7").mkdir()
    (folder.parent / "seed_7" / "config.yaml").write_text("[")
    (folder.parent / "seed_7" / "result.json").write_text("{}")
    assert hours(runs[:1], [absent(tmp_path, runs[0])], GPU, tmp_path)[1].startswith("operations")


def test_a_configuration_that_cannot_be_read_leaves_the_hours_unknown(tmp_path: Path, runs: list[WantedRun]) -> None:
    found = estimate([(ref(runs[0]), absent(tmp_path, runs[0]))], {}, lambda r: None, GPU)
    assert (found.left, found.basis) == (None, "the configuration of tiny/rem/Catch/seed_0 cannot be read")


def hangs() -> list[str]:
    raise MachineError("nvidia-smi did not answer within 60 s")


def test_the_device_is_this_machines_or_the_profiles(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = Answer(0, "GPU 0: NVIDIA H200 (UUID: GPU-1)\nGPU 1: NVIDIA H200 (UUID: GPU-2)\n", "")
    monkeypatch.setattr(devices, "visible_gpus", lambda: ["0", "1"])
    monkeypatch.setattr(devices, "ask_program", lambda *a, **k: listed)
    assert this_device() == Device("cuda", "NVIDIA H200", 2)
    assert this_device().words == "2 x NVIDIA H200"
    monkeypatch.setattr(devices, "visible_gpus", list)
    monkeypatch.setattr(devices, "usable_cores", lambda: 3)
    assert (this_device().kind, this_device().words) == ("cpu", "3 cores, no GPU")
    monkeypatch.setattr(devices, "visible_gpus", hangs)
    assert this_device().kind == "cpu"
    assert device_for("slurm", Profile(gpus=0, cpus=6)) == Device("cpu", cores=6)
    assert device_for("slurm", Profile()).kind == "cuda"


def test_bf16_needs_its_instructions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ATEN_CPU_CAPABILITY", raising=False)
    info = tmp_path / "cpuinfo"
    for flags, native in (("avx2 fma", False), ("avx512f avx512_bf16", True), ("amx_bf16", True)):
        info.write_text(f"model name : x\nflags\t\t: {flags}\n")
        assert devices._has_bf16(info) is native
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx2")
    assert not devices._has_bf16(info)
    assert not devices._has_bf16(tmp_path / "gone")
