"""Which precision a device computes well, what a start decides, and that a resume keeps it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from remctl import precision, runner
from remctl.config import from_yaml, resolve
from remctl.precision import decide, native_precision, settled
from remctl.runs.files import read_json, write_json
from remctl.runs.layout import RunFolder
from remctl.train import checkpoint
from remctl.train.build import build_agent
from remctl.train.restoring import precision_before
from tests.train.support import tiny

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("capability", "bf16", "amx", "native"),
    [
        ("AVX512", True, False, "bf16"),
        ("AVX512", False, True, "bf16"),
        ("AVX512", False, False, "fp32"),
        ("AVX2", True, True, "fp32"),  # limited by ATEN_CPU_CAPABILITY, whatever the processor has
        ("DEFAULT", False, False, "fp32"),
    ],
)
def test_a_cpu_computes_bf16_well_with_instructions_that_torch_uses(
    capability: str, bf16: bool, amx: bool, native: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: bf16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert native_precision(CPU) == native


@pytest.mark.parametrize(
    ("capability", "native"), [((7, 0), "fp32"), ((7, 5), "fp32"), ((8, 0), "bf16"), ((9, 0), "bf16")]
)
def test_a_gpu_computes_bf16_well_from_ampere_on(
    capability: tuple[int, int], native: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert native_precision(torch.device("cuda", 0)) == native


@pytest.mark.parametrize(
    ("asked", "before", "native", "chosen", "said"),
    [
        ("auto", None, "bf16", "bf16", "bf16"),
        ("auto", None, "fp32", "fp32", "no native bf16"),
        ("auto", "bf16", "fp32", "bf16", "only emulates: --set runtime.precision=fp32"),
        ("auto", "fp32", "bf16", "fp32", "fp32"),
        ("fp32", "bf16", "bf16", "fp32", "fp32 after bf16"),
        ("bf16", None, "fp32", "bf16", "only emulates"),
        ("fp32", None, "fp32", "fp32", "fp32"),
    ],
)
def test_a_start_computes_as_configured_else_as_before_else_as_the_device_does_well(
    asked: str, before: str | None, native: str, chosen: str, said: str
) -> None:
    found, words = decide(asked, before, native)  # type: ignore[arg-type]
    assert found == chosen
    assert said in words


@pytest.fixture
def native(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What every device computes well, for a test to set."""
    fake = SimpleNamespace(value="bf16")
    monkeypatch.setattr(precision, "native_precision", lambda device: fake.value)
    monkeypatch.setattr(runner, "native_precision", lambda device: fake.value)
    return fake


def test_auto_is_decided_by_the_device_and_an_agent_knows_it(native: SimpleNamespace) -> None:
    config = tiny("runtime.precision=auto")
    assert settled(config, CPU).runtime.precision == build_agent(config, 3, CPU).config.runtime.precision == "bf16"
    native.value = "fp32"
    assert settled(config, CPU).runtime.precision == build_agent(config, 3, CPU).config.runtime.precision == "fp32"
    assert settled(config.at_precision("bf16"), CPU).runtime.precision == "bf16"


def test_quick_is_fp32_everywhere_and_the_others_are_the_devices() -> None:
    assert resolve("Pong", "quick").runtime.precision == resolve("Catch", "quick").runtime.precision == "fp32"
    assert {resolve("Pong", name).runtime.precision for name in ("paper", "corrected", "iris")} == {"auto"}


def test_a_resume_keeps_the_precision_of_the_start(tmp_path: Path, native: SimpleNamespace) -> None:
    arguments = {"out": tmp_path, "experiment": "x", "device": "cpu", "command": [], "quiet": True}
    config = tiny("training.num_epochs=1", "runtime.precision=auto")
    run = runner.train(config, **arguments)
    run.result.unlink()
    native.value = "fp32"
    runner.train(config, **arguments)
    assert from_yaml(run.config).runtime.precision == "auto"
    assert [start["device"]["precision"] for start in read_json(run.provenance)] == ["bf16", "bf16"]
    assert read_json(run.result)["device"]["precision"] == "bf16"
    log = run.log.read_text()
    assert "device cpu, bf16\n" in log
    assert "bf16, which this device only emulates" in log


def test_a_start_that_trained_nothing_and_a_lost_provenance_change_no_precision(
    tmp_path: Path, native: SimpleNamespace
) -> None:
    run = cut_run(tmp_path, native)
    write_json(run.provenance, [*read_json(run.provenance), {"device": {"precision": "fp32"}}])
    assert precision_before(run, checkpoint.load_latest(run)) == "bf16"
    run.provenance.unlink()
    assert precision_before(run, checkpoint.load_latest(run)) == "bf16"


def cut_run(folder: Path, native: SimpleNamespace) -> RunFolder:
    """Trained in bf16, its result lost, on a machine that now has none."""
    config = tiny("training.num_epochs=1", "runtime.precision=auto")
    run = runner.train(config, out=folder, experiment="x", device="cpu", command=[], quiet=True)
    run.result.unlink()
    native.value = "fp32"
    return run


def test_a_run_is_evaluated_in_the_precision_that_it_was_trained_in(
    tmp_path: Path, native: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    run = cut_run(tmp_path, native)
    assert runner.evaluate(run.path, 1, "cpu")["device"]["precision"] == "bf16"
    assert "device cpu, bf16" in capsys.readouterr().err


def test_a_run_that_changed_its_precision_says_both(tmp_path: Path) -> None:
    arguments = {"out": tmp_path, "experiment": "x", "device": "cpu", "command": [], "quiet": True}
    config = tiny("training.num_epochs=2", "runtime.precision=bf16")
    run = runner.train(config, **arguments)
    run.result.unlink()
    checkpoint.drop_after(run, 1)
    run = runner.train(config.at_precision("fp32"), **arguments)
    assert read_json(run.result)["device"]["precision"] == "bf16 + fp32"
    assert checkpoint.load_latest(run).precisions == ("bf16", "fp32")
    assert "fp32 after bf16" in run.log.read_text()


def went_on_in_fp32(out: Path) -> tuple[RunFolder, Callable[[], RunFolder]]:
    """A finished run, epoch 1 in bf16 and epoch 2 in fp32; and what trains it in what suits the machine."""
    arguments = {"out": out, "experiment": "x", "device": "cpu", "command": [], "quiet": True}
    config = tiny("training.num_epochs=2", "runtime.precision=auto")
    run = runner.train(config, **arguments)
    run.result.unlink()
    checkpoint.drop_after(run, 1)
    runner.train(config.at_precision("fp32"), **arguments)
    return run, partial(runner.train, config, **arguments)


@pytest.mark.parametrize("lost", ["checkpoints/epoch_000002/agent.pt", "replay/epoch_000002.npz"])
def test_a_run_continues_in_the_precision_of_the_generation_that_is_restored(
    lost: str, tmp_path: Path, native: SimpleNamespace
) -> None:
    run, train = went_on_in_fp32(tmp_path)
    run.result.unlink()
    (run.path / lost).unlink()
    run.log.unlink()
    train()
    damage, begins, *_ = run.log.read_text().splitlines()
    assert "epoch_000002" in damage
    assert "using epoch_000001" in damage
    assert begins.endswith("device cpu, bf16")
    assert read_json(run.result)["device"]["precision"] == "bf16"


def test_a_run_is_evaluated_in_the_precision_of_the_generation_that_is_read(
    tmp_path: Path, native: SimpleNamespace
) -> None:
    run, _ = went_on_in_fp32(tmp_path)
    (run.checkpoints / "epoch_000002" / "agent.pt").unlink()
    found = runner.evaluate(run.path, 1, "cpu")
    assert (found["epoch"], found["device"]["precision"]) == (1, "bf16")
