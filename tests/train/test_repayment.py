"""One layer is compiled and timed before all others are, on what a training step computes at once."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

from remctl.errors import Interrupted
from remctl.train import repayment
from remctl.train.repayment import COMPILATIONS, Trial, try_compiled_layer
from tests.train.learners import make_config, make_learner


@pytest.mark.parametrize(
    ("plain_s", "compiled_s", "compile_s", "passes", "is_repaid"),
    [
        (0.40, 0.32, 12.0, 100_000, True),
        (0.40, 0.41, 12.0, 100_000, False),
        (0.40, 0.32, 12.0, 1_501, True),
        (0.40, 0.32, 12.0, 1_499, False),
        (0.40, 0.385, 12.0, 100_000, False),  # 1,500 s for 120: too near to what measurements differ by
        (0.40, 0.375, 12.0, 100_000, True),
    ],
)
def test_compiling_is_repaid_where_it_saves_more_than_the_rest_of_it_takes(
    plain_s: float, compiled_s: float, compile_s: float, passes: int, is_repaid: bool
) -> None:
    assert COMPILATIONS == 11
    trial = Trial(plain_s, compiled_s, compile_s, passes)
    assert trial.is_repaid == is_repaid
    assert trial.price_s == pytest.approx(120)
    assert str(trial).startswith("layers are compiled: " if is_repaid else "layers run uncompiled: ")


def test_the_decision_is_one_line_with_its_numbers() -> None:
    assert str(Trial(0.4, 0.41, 12.0, 1000)) == (
        "layers run uncompiled: the first took 12.0 s to compile and runs in 410 ms instead of 400; all would take 120 s and "
        "save -10 s of this run (a gain under 5% is not counted on)"
    )


@pytest.mark.parametrize("variant", ["rem", "no_pop", "no_latent_space"])
def test_one_layer_is_compiled_of_the_shapes_that_a_step_has(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch._dynamo.reset()
    rows: list[tuple[int, ...]] = []
    forward = repayment.RetNet.forward

    def watched(self: repayment.RetNet, real: Tensor, *args: object, **kwargs: object) -> object:
        predicted = kwargs["prediction"]
        rows.append((*real.shape[:2], predicted.shape[1] if isinstance(predicted, Tensor) else 0))
        return forward(self, real, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(repayment.RetNet, "forward", watched)
    config = make_config(variant, "world_model.training.batch_size=20")
    agent = make_learner(config).agent
    counter, state = CompileCounterWithBackend("eager"), torch.get_rng_state()
    trial = try_compiled_layer(agent, 1, lambda: None, backend=counter, fullgraph=True)
    assert counter.frame_count == 1
    assert torch.equal(torch.get_rng_state(), state)
    m = config.world_model
    predicted = m.sequence_blocks - m.first_predicted_block if m.observation_prediction == "pop" else 0
    assert set(rows) == {(16, m.sequence_blocks, predicted)}
    assert trial.passes == (config.training.num_epochs - 1) * m.training.steps_per_epoch * 2 * m.num_layers
    assert 0 < trial.compiled_s < trial.compile_s
    assert trial.plain_s > 0


def test_a_signal_is_heard_between_measurements() -> None:
    def stop() -> None:
        raise Interrupted(15)

    with pytest.raises(Interrupted):
        try_compiled_layer(make_learner(make_config()).agent, 0, stop, backend="eager")
