"""Hours by operations: the published epochs, steps that were measured, and FLOPs as torch counts them."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from remctl.bench import expected
from remctl.bench.expected import Rates, Work, published_gpu, run_s, step_work
from remctl.config import RunConfig, resolve
from remctl.config.presets import DESCRIPTIONS
from remctl.train.build import build_agent
from remctl.variants import VARIANTS


def epoch_s(preset: str, variant: str = "rem", rates: Rates | None = None) -> dict[str, float]:
    """Seconds of an epoch in which everything is trained, by component."""
    config = resolve("Pong", preset, variant)
    rates = rates or published_gpu()
    steps = {name: getattr(config, name).training.steps_per_epoch for name in step_work(config)}
    return {name: steps[name] * rates.seconds(name, work) for name, work in step_work(config).items()}


def test_the_epochs_that_the_rates_are_from_come_out() -> None:
    rem, iris = epoch_s("paper"), epoch_s("iris-rem")
    assert [rem[name] for name in ("tokenizer", "world_model", "controller")] == pytest.approx([12, 39, 20])
    assert iris["controller"] == pytest.approx(213)
    assert 1e-6 < published_gpu().operation_s < 1e-4


@pytest.mark.parametrize(
    ("preset", "published"), [("iris-rem", (34, 45, 213)), ("iris", (34, 55, 309))], ids=["with REM's", "as published"]
)
def test_other_published_epochs_are_met_within_a_factor_of_about_two(preset: str, published: tuple[float, ...]) -> None:
    for name, seconds in zip(("tokenizer", "world_model", "controller"), published, strict=True):
        assert seconds / 2.2 < epoch_s(preset)[name] < seconds * 2.2, name


def test_without_pop_a_rollout_is_not_rems() -> None:
    gpu, rem = epoch_s("paper", "no_pop"), epoch_s("paper")
    assert gpu["controller"] > 5 * rem["controller"]  # launched token by token
    assert gpu["world_model"] < rem["world_model"]  # no prediction tokens
    assert run_s(resolve("Pong", variant="no_pop"), published_gpu()) > 2 * run_s(resolve("Pong"), published_gpu())
    core = expected.cpu("fp32", 1)
    assert 0.5 < epoch_s("paper", "no_pop", core)["controller"] / epoch_s("paper", rates=core)["controller"] < 2


@pytest.mark.parametrize(
    ("variant", "component", "measured_s"),
    [("rem", "tokenizer", 0.818), ("rem", "world_model", 9.069), ("rem", "controller", 2.709)]
    + [("no_pop", "world_model", 5.228), ("no_pop", "controller", 7.496)],
)
def test_steps_that_were_measured_on_one_core(variant: str, component: str, measured_s: float) -> None:
    small = [f"{name}.training.batch_size=16" for name in ("tokenizer", "world_model", "controller")]
    config = resolve("Pong", variant=variant, sets=[*small, "tokenizer.perceptual=none"])
    assert expected.cpu("fp32", 1).seconds(component, step_work(config)[component]) == pytest.approx(
        measured_s, rel=0.35
    )


def counted(config: RunConfig) -> dict[str, float]:
    """FLOPs as torch counts them, of one frame or observation."""
    agent = build_agent(config.at_precision("fp32"), 4, torch.device("cpu"))
    size, side = config.environment.frame_size, config.tokenizer.grid_size
    found = {}
    codes = torch.zeros(1, config.tokenizer.embed_dim, side, side)
    seen = torch.zeros(1, 3, size, size) if config.controller.observes == "frames" else codes
    works = {
        "encoder": lambda: agent.tokenizer.encode(torch.zeros(1, 3, size, size)),
        "decoder": lambda: agent.tokenizer.decode(codes),
        "observe": lambda: agent.controller.observe(agent.controller.initial_state(1), seen),
    }
    for name, work in works.items():
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            work()
        found[name] = float(counter.get_total_flops())
    return found


@pytest.mark.parametrize(
    ("preset", "sets", "within"),
    [
        ("paper", (), 0.02),
        ("paper", ("tokenizer.grid_size=16", "tokenizer.channels=[16,32]"), 0.02),
        ("paper", ("tokenizer.grid_size=4",), 0.02),
        ("corrected", ("tokenizer.grid_size=4",), 0.02),
        ("quick", ("environment.frame_size=32",), 0.1),
        ("iris", (), 0.5),  # VQGAN's attention and changes of width are left out
    ],
)
def test_flops_are_those_that_torch_counts(preset: str, sets: tuple[str, ...], within: float) -> None:
    config = resolve("Catch" if preset == "quick" else "Pong", preset, sets=sets)
    found, size = counted(config), config.environment.frame_size
    assert expected.encoder_flops(config.tokenizer, size) == pytest.approx(found["encoder"], rel=within)
    assert expected.decoder_flops(config.tokenizer, size) == pytest.approx(found["decoder"], rel=within)
    assert expected.observe_flops(config) == pytest.approx(found["observe"], rel=max(within, 0.05))


def test_flops_of_lpips() -> None:
    """Of plain convolutions: on CPUs in fp32 the deep ones take fewer multiplications (Winograd)."""
    x, width = torch.zeros(1, 3, 64, 64, device="meta"), 3
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        for i, block in enumerate(expected.VGG16):
            x = torch.nn.functional.max_pool2d(x, 2) if i else x
            for out in block:
                x = torch.nn.Conv2d(width, out, 3, padding=1, device="meta")(x)
                width = out
    assert expected.lpips_flops(64) == counter.get_total_flops()


@pytest.mark.parametrize("game", ["Pong", "Catch", "gym:CartPole-v1"])
def test_every_configuration_has_hours(game: str) -> None:
    for preset in DESCRIPTIONS:
        for variant in VARIANTS:
            try:
                config = resolve(game, preset, variant)
            except Exception:  # noqa: BLE001, S112 - a combination that cannot be
                continue
            whole = run_s(config, published_gpu())
            assert 0 < run_s(config, published_gpu(), config.training.num_epochs - 1) < whole < 1e7
            assert run_s(config, expected.cpu("fp32", 4)) < run_s(config, expected.cpu("fp32", 1))
            assert run_s(config, published_gpu(), config.training.num_epochs) < 0.5 * whole or config.preset == "quick"


def test_rates_add_up() -> None:
    assert Rates(1.0, 2.0, 4.0, 0.5, "").seconds("controller", Work(8.0, 3.0)) == 3.5


def test_it_imports_no_torch() -> None:
    code = "import sys, remctl.bench.expected, remctl.sweep.hours; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "False\n"
