"""Captured steps where they are meant to run. One process each is best: a failed capture leaves its process unusable."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
import torch

from remctl.train import captured
from remctl.train.captured import WARM_UP_CALLS, Captured, accelerate
from remctl.train.learner import Learner
from remctl.train.seeding import Randomness
from tests.train.learners import COMPONENTS, VARIANTS, inputs_of, make_config, make_learner


@contextlib.contextmanager
def no_synchronisation() -> Iterator[None]:
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def no_failure(line: str) -> None:
    assert "uncompiled" not in line, line


def capture_only(trained: Learner) -> None:
    recorder = captured.GraphRecorder(trained)
    trained.steps = {name: Captured(step, recorder.record, recorder.aside) for name, step in trained.steps.items()}


@pytest.mark.cuda
@pytest.mark.parametrize("component", COMPONENTS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_steps_on_a_gpu_never_wait_for_it(variant: str, component: str) -> None:
    """Operation by operation, and that they can be captured; compiled for REM alone, as it takes its time."""
    cuda, sets = torch.device("cuda"), ("runtime.precision=bf16",)
    plain, fast = (make_learner(make_config(variant, *sets), cuda, lpips=True) for _ in range(2))
    if variant == "rem":
        accelerate(fast, no_failure)
    else:
        capture_only(fast)
    for trained in (plain, fast):
        trained.agent.world_model.train(component != "controller")
        inputs = inputs_of(trained, component)
        for _ in range(WARM_UP_CALLS + 1):
            trained.steps[component](*inputs)
        with no_synchronisation():
            trained.steps[component](*inputs)


@pytest.mark.cuda
def test_captured_epochs_on_a_gpu_are_the_plain_ones() -> None:
    """Three graphs in one memory, in turns with what is not captured; the same kernels draw the same numbers."""
    outcomes = []
    for is_captured in (False, True):
        trained = make_learner(make_config(), torch.device("cuda"))
        if is_captured:
            capture_only(trained)
        for index in range(2):
            trained.autoencoder_step(inputs_of(trained, "tokenizer", offset=index)[0])
        losses = []
        for epoch in (1, 2):
            for component in COMPONENTS:
                random = Randomness(0, epoch, component)
                random.seed_global("masks")
                random.seed_imagination(trained.streams)
                trained.agent.world_model.train(component == "world_model")
                for i in range(WARM_UP_CALLS + 3):
                    losses.append(trained.steps[component](*inputs_of(trained, component, offset=i))["loss"].clone())
                trained.buffer.forget_tokens()
                trained.buffer.refresh_tokens(trained.agent.encode)
        outcomes.append(torch.stack(losses))
    torch.testing.assert_close(outcomes[1], outcomes[0], rtol=1e-3, atol=1e-5)


@pytest.mark.cuda
def test_a_compiled_and_captured_step_draws_anew_each_time_and_again_from_its_seed() -> None:
    sets = (
        "world_model.dropout=0.3",
        "world_model.training.learning_rate=1e-30",
        "world_model.training.weight_decay=0",
    )
    trained = make_learner(make_config("rem", *sets), torch.device("cuda"))
    accelerate(trained, no_failure)
    step, inputs = trained.steps["world_model"], inputs_of(trained, "world_model")
    for _ in range(WARM_UP_CALLS + 1):
        step(*inputs)
    losses = []
    for _ in range(2):
        Randomness(0, 1, "world_model").seed_global("masks")
        losses += [step(*inputs)["loss"].item() for _ in range(2)]
    assert losses[0] != losses[1]
    assert losses[:2] == pytest.approx(losses[2:], rel=1e-6)
