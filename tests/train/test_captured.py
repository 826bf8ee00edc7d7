"""Compiled and captured steps: what they need of every step, and that they are the plain ones."""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from remctl.config import resolve
from remctl.errors import Interrupted, MachineError
from remctl.progress import Reporter
from remctl.rem import retnet
from remctl.runs.layout import RunFolder
from remctl.runs.metrics import MetricsLog
from remctl.stopping import StopFlag
from remctl.train import captured, learner, trainer
from remctl.train.captured import WARM_UP_CALLS, Captured, Recorded, accelerate, compile_layers, is_fast
from remctl.train.learner import Learner
from remctl.train.repayment import Trial
from remctl.train.seeding import Randomness
from remctl.train.trainer import Trainer
from tests.train.learners import COMPONENTS, CPU, VARIANTS, inputs_of, make_config, make_learner

META = torch.device("meta")


class OneDeviceOnly(TorchDispatchMode):
    """No operation may take or make a tensor anywhere else: that is a copy from or to the host, and waits."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves((args, kwargs, result)):
            assert not isinstance(tensor, Tensor) or tensor.device == self.device, f"{func} with one on {tensor.device}"
        return result


class GeneratorAnywhere(torch.Generator):
    """The host's, whatever device is asked for."""

    def __new__(cls, _device: object = None) -> GeneratorAnywhere:
        return super().__new__(cls)


@pytest.fixture
def without_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """The meta device has shapes and no numbers: whatever asks for a number fails. It has no autocast and no generators."""

    def plain(agent: Any) -> dict[str, torch.optim.Optimizer]:
        return {name: torch.optim.SGD(module.parameters(), lr=0.1) for name, module in agent.components.items()}

    monkeypatch.setattr(learner, "build_optimizers", plain)
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())
    monkeypatch.setattr(torch, "Generator", GeneratorAnywhere)


@pytest.mark.parametrize("component", COMPONENTS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_no_step_asks_the_device_for_a_number(variant: str, component: str, without_a_device: None) -> None:
    trained = make_learner(make_config(variant, "runtime.precision=bf16"), META, lpips=True)  # LPIPS' deep levels
    if component == "controller":
        trained.agent.world_model.eval()
    inputs, step = inputs_of(trained, component), trained.steps[component]
    step(*inputs)  # builds the tables
    with OneDeviceOnly(META):
        step(*inputs)


def test_the_watch_sees_what_would_wait() -> None:
    x = torch.zeros(3, device=META)
    asking: list[Callable[[], object]] = [
        lambda: x.sum().item(),
        lambda: x[x > 0],
        lambda: x + torch.tensor([1.0, 2.0, 3.0]).to(META),
    ]
    for ask in asking:
        with pytest.raises((RuntimeError, AssertionError)), OneDeviceOnly(META):
            ask()


def again(step: Callable[..., Any], inputs: tuple[Tensor, ...]) -> Recorded:
    """A recorder for CPUs: a replay runs the step on the recorded inputs. Recording runs nothing, as on a GPU."""
    outputs: dict[str, Tensor] = {}
    return Recorded(lambda: outputs.update(step(*inputs)), outputs)


@pytest.mark.parametrize("component", COMPONENTS)
def test_a_captured_step_takes_the_steps_of_a_plain_one(component: str) -> None:
    """Every call with other inputs and exactly one step, also while it warms up and while it is recorded."""
    outcomes = []
    for is_captured in (False, True):
        trained = make_learner(make_config())
        step = trained.steps[component]
        run = Captured(step, again) if is_captured else step
        Randomness(0, 1, component).seed_global("masks")
        losses = [run(*inputs_of(trained, component, offset=i))["loss"].clone() for i in range(WARM_UP_CALLS + 3)]
        outcomes.append((torch.stack(losses), *trained.agent.components[component].parameters()))
    for plain, fast in zip(*outcomes, strict=True):
        assert torch.equal(plain, fast)


def test_a_captured_step_refuses_other_shapes() -> None:
    run = Captured(lambda x: {"sum": x.sum()}, again)
    for _ in range(WARM_UP_CALLS + 1):
        run(torch.zeros(3))
    with pytest.raises(AssertionError, match=r"\(3,\) was given \(1,\)"):
        run(torch.zeros(1))


def compile_steps(trained: Learner, **options: Any) -> None:
    within = compile_layers(trained, **options)
    trained.steps = {name: within(step) for name, step in trained.steps.items()}


def losses_and_gradients(trained: Learner, component: str) -> list[Tensor]:
    """Of one step."""
    Randomness(0, 1, component).seed_global("masks")
    scalars = trained.steps[component](*inputs_of(trained, component))
    gradients = [p.grad for p in trained.agent.components[component].parameters() if p.grad is not None]
    return [*scalars.values(), *gradients]


@pytest.mark.parametrize("component", COMPONENTS)
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiled_layers_compute_what_plain_ones_do(backend: str, component: str) -> None:
    config = make_config("rem", "world_model.dropout=0")
    plain, fast = (make_learner(config, lpips=True) for _ in range(2))
    for trained in (plain, fast):
        torch.manual_seed(1)
        for parameter in trained.agent.world_model.parameters():  # biases are zeros at first, and norms ones
            parameter.data.add_(0.1 * torch.randn_like(parameter))
    compile_steps(fast, backend=backend, fullgraph=True)
    if component != "tokenizer":  # frames are float32
        for trained in (plain, fast):
            trained.agent.world_model.double()
            trained.agent.controller.double()
            trained.agent.tokenizer.double()
    wanted, found = losses_and_gradients(plain, component), losses_and_gradients(fast, component)
    rtol, atol = (1e-3, 5e-5) if component == "tokenizer" else (1e-7, 1e-9)  # LPIPS' gradient: 3e-4 of its norm
    for a, b in zip(wanted, found, strict=True):
        torch.testing.assert_close(b, a, rtol=rtol, atol=atol)


def test_a_compiled_loss_of_v_rounds_lpips_where_the_plain_one_does() -> None:
    config = make_config("rem", "runtime.precision=bf16")
    plain, fast, exact = (make_learner(config, lpips=True) for _ in range(3))
    compile_steps(fast, backend="aot_eager", fullgraph=True)
    exact.image_loss.eval()
    wanted, found, unrounded = (losses_and_gradients(each, "tokenizer") for each in (plain, fast, exact))
    assert not torch.equal(wanted[0], unrounded[0])
    for a, b in zip(wanted, found, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiled_dropout_is_that_of_its_keys(backend: str) -> None:
    """The forward pass draws a key of each mask; what is compiled around it drops what a plain layer would with that key."""
    found = []
    for each in ("eager", backend):
        trained = make_learner(make_config("rem", "world_model.dropout=0.3"))
        compile_steps(trained, backend=each, fullgraph=True)
        trained.agent.world_model.double()
        trained.agent.tokenizer.double()
        found.append(losses_and_gradients(trained, "world_model"))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-7, atol=1e-9)


def test_every_dropout_of_a_compiled_layer_has_a_key_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    keys: list[tuple[int, ...]] = []
    right = retnet.dropout

    def watched(x: Tensor, p: float, training: bool, key: Tensor | None) -> Tensor:
        assert (key is not None) == (training and model.is_compiled)
        keys.extend([tuple(key.tolist())] if key is not None else [])
        return right(x, p, training, key)

    monkeypatch.setattr(retnet, "dropout", watched)
    trained = make_learner(make_config("rem", "world_model.dropout=0.3"))
    model = trained.agent.world_model.sequence_model
    trained.steps["world_model"](*inputs_of(trained, "world_model"))
    assert keys == []  # plain layers draw their masks
    model._compiled = model._layer, model._pruned_layer
    for _ in range(2):
        trained.steps["world_model"](*inputs_of(trained, "world_model"))
    assert len(keys) == len(set(keys)) == 2 * 3 * 4  # steps, layers, dropouts
    trained.agent.world_model.eval()
    trained.steps["controller"](*inputs_of(trained, "controller"))
    assert len(keys) == 2 * 3 * 4


def test_equal_layers_share_one_compilation() -> None:
    """The first layer of M has no gradient before it, the last one is pruned; steps of a rollout differ in nothing."""
    from torch._dynamo.testing import CompileCounterWithBackend

    torch._dynamo.reset()
    counter = CompileCounterWithBackend("eager")
    trained = make_learner(make_config("rem", "world_model.num_layers=5"))
    compile_steps(trained, backend=counter, fullgraph=True)
    trained.steps["world_model"](*inputs_of(trained, "world_model"))
    assert counter.frame_count <= 3
    trained.agent.world_model.eval()
    trained.steps["controller"](*inputs_of(trained, "controller"))
    in_rollout = counter.frame_count
    assert in_rollout <= 3 + 8
    trained.steps["controller"](*inputs_of(trained, "controller", offset=2))
    assert counter.frame_count == in_rollout
    model = trained.agent.world_model.sequence_model  # whatever else is done with M is not compiled
    elsewhere = torch.zeros(3, 2, 5, trained.agent.config.world_model.embed_dim)
    model(elsewhere, model.initial_state(3, elsewhere))
    assert counter.frame_count == in_rollout


def test_every_parameter_of_c_has_a_gradient_in_bf16() -> None:
    """Burn-in converts the encoder's weights without a gradient before the steps that need one use them."""
    trained = make_learner(make_config("rem", "runtime.precision=bf16", "imagination.burn_in_actions=all"))
    trained.agent.world_model.eval()
    trained.steps["controller"](*inputs_of(trained, "controller"))
    without = [name for name, p in trained.agent.controller.named_parameters() if p.grad is None]
    assert without == []


@pytest.mark.parametrize(
    ("preset", "variant", "sets", "on_a_cpu"),
    [
        ("paper", "rem", (), True),
        ("paper", "no_pop", (), True),
        ("paper", "rem", ("training.num_epochs=26",), True),
        ("paper", "rem", ("training.num_epochs=25",), False),
        ("quick", "rem", (), False),
        ("iris", "rem", (), False),
    ],
)
def test_cuda_runs_are_fast_and_long_ones_on_cpus_if_wanted(
    preset: str, variant: str, sets: tuple[str, ...], on_a_cpu: bool
) -> None:
    wanted = resolve("Pong", preset, variant=variant, sets=sets)
    refused = resolve("Pong", preset, variant=variant, sets=(*sets, "runtime.compile=off"))
    assert [is_fast(wanted, torch.device(d)) for d in ("cpu", "cuda")] == [on_a_cpu, True]
    assert [is_fast(refused, torch.device(d)) for d in ("cpu", "cuda")] == [False, False]


def test_a_cpus_steps_are_compiled_and_not_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    lines: list[str] = []

    def compile_(function: Callable[..., Any], **_: object) -> Callable[..., Any]:
        def run(*inputs: object) -> object:
            ran.append(function.__name__)
            return function(*inputs)

        return run

    monkeypatch.setattr(torch, "compile", compile_)
    monkeypatch.setattr(captured, "try_compiled_layer", lambda *_, **__: Trial(2.0, 1.0, 1.0, passes=11))
    trained = make_learner(make_config())
    accelerate(trained, lines.append)
    assert lines[1:] == ["the first steps take longer: layers are compiled"]
    assert "in 1e+03 ms instead of 2e+03" in lines[0]
    assert trained.form == "compiled"
    del ran[:]  # what was asked whether there is a compiler
    for component in COMPONENTS:
        trained.steps[component](*inputs_of(trained, component))
        assert not isinstance(trained.steps[component], Captured)
        if component == "world_model":
            assert ran == ["_layer", "_layer", "_pruned_layer"]
    assert set(ran) == {"_layer", "_pruned_layer"}  # V's loss would be slower


def test_a_cpus_layers_that_do_not_repay_it_stay_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr(captured, "try_compiled_layer", lambda *_, **__: Trial(2.0, 1.0, 1.0, passes=10))
    monkeypatch.setattr(torch, "compile", lambda *_, **__: pytest.fail("compiled"))
    trained = make_learner(make_config())
    before = dict(trained.steps)
    accelerate(trained, lines.append)
    assert (trained.form, trained.steps) == ("plain", before)
    assert lines[0].startswith("layers run uncompiled: ")
    assert len(lines) == 1


@pytest.mark.parametrize("form", ["plain", "compiled"])
def test_a_resumed_run_keeps_the_form_of_its_steps(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captured, "try_compiled_layer", lambda *_, **__: pytest.fail("tried"))
    monkeypatch.setattr(captured, "why_not_compiled", lambda _: None)
    trained = make_learner(make_config())
    accelerate(trained, lambda _: None, form_before=form, epochs_done=1)
    assert trained.form == form


def test_what_cannot_be_compiled_is_told_with_the_remedy() -> None:
    def broken(*_: object) -> None:
        raise OSError(28, "No space left on device")

    trained = make_learner(make_config())
    compile_steps(trained, backend=broken)
    with pytest.raises(
        MachineError, match=r"compiled or captured here: .*No space left.*; use --set runtime\.compile=off"
    ):
        trained.steps["world_model"](*inputs_of(trained, "world_model"))


def test_a_machine_without_a_compiler_is_told_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("Failed to find C compiler\nmore")

    lines: list[str] = []
    monkeypatch.setattr(torch, "compile", broken)
    trained = make_learner(make_config())
    accelerate(trained, lines.append)
    assert lines == ["layers run uncompiled, and slower: RuntimeError: Failed to find C compiler"]
    assert trained.form == "plain"
    assert trained.steps["controller"](*inputs_of(trained, "controller"))["loss"].isfinite()


def test_the_first_failure_of_a_capture_is_told_not_that_of_its_end() -> None:
    def capture() -> None:
        try:
            raise ValueError("no such kernel")
        finally:
            raise RuntimeError("operation failed due to a previous error during capture")  # as its end does

    with pytest.raises(MachineError, match=r"ValueError: no such kernel; use"), captured._remedy(RuntimeError):
        capture()


def test_what_cannot_be_captured_is_told_with_the_remedy() -> None:
    with (
        pytest.raises(MachineError, match=r"no such kernel; use --set runtime\.compile=off"),
        captured._remedy(RuntimeError),
    ):
        raise RuntimeError("no such kernel\nand a long story")


def test_of_a_compiler_that_failed_its_own_error_is_told() -> None:
    output = b"In file included from x.cpp:1:\nx.h:3: fatal error: No space left on device\ncompilation terminated.\n"
    told = r"compiled or captured here: x\.h:3: fatal error: No space left on device; use --set"

    def compile_() -> None:
        try:
            raise subprocess.CalledProcessError(1, ["g++", *["-I/a/long/path"] * 50], output=output)
        except subprocess.CalledProcessError as error:
            raise RuntimeError("C++ compile error") from error

    with pytest.raises(MachineError, match=told), captured._remedy(RuntimeError):
        compile_()


@pytest.mark.parametrize(("signum", "raised"), [(0, MachineError), (signal.SIGTERM, Interrupted)])
def test_a_compiler_that_a_signal_ended_is_an_interruption(signum: int, raised: type[Exception]) -> None:
    def train(*_: object) -> None:
        raise MachineError("a training step cannot be compiled")

    stop = StopFlag()
    stop.signum = signum
    now = SimpleNamespace(
        config=SimpleNamespace(collection=SimpleNamespace(last_epoch=0)),
        _train=train,
        _speed_up=lambda: None,
        reporter=SimpleNamespace(stop=stop),
    )
    with pytest.raises(raised):
        Trainer.run_epoch(now, 1)  # type: ignore[arg-type]


def test_optimizers_are_capturable_while_they_are_captured_only() -> None:
    optimizers = list(make_learner(make_config()).optimizers.values())
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    with captured._capturable(optimizers):
        assert all(group["capturable"] for group in groups)
    assert not any(group["capturable"] for group in groups)


def test_a_resume_with_another_form_of_the_steps_says_so() -> None:
    lines: list[str] = []

    def resumed(before: str | None, form: str) -> list[str]:
        del lines[:]
        now = SimpleNamespace(
            learner=SimpleNamespace(form=form),
            reporter=SimpleNamespace(log=lines.append),
            _form_before=before,
            _may_speed_up=False,
        )
        for _ in range(2):  # epochs
            Trainer._speed_up(now)  # type: ignore[arg-type]
        return lines

    assert resumed(None, "captured") == []
    assert resumed("captured", "captured") == []
    (line,) = resumed("plain", "captured")
    assert "with captured steps after plain ones" in line


def test_a_run_is_sped_up_once_and_not_while_it_starts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sped_up: list[Learner] = []
    monkeypatch.setattr(trainer, "is_fast", lambda *_: True)
    monkeypatch.setattr(trainer, "accelerate", lambda learner, *_: sped_up.append(learner))
    run = RunFolder(tmp_path)
    new = Trainer(
        make_config("rem", "training.num_epochs=2"), run, CPU, Reporter(StopFlag(), quiet=True), MetricsLog(run)
    )
    new.resume()
    assert sped_up == []
    new.run()
    assert sped_up == [new.learner]
