"""A batch whose last places hold no step trains like the short batch without them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from remctl.rem import imagination, world_model
from remctl.replay.buffer import NONE
from remctl.train.learner import Learner
from tests.train.learners import COMPONENTS, make_config, make_learner

AT = np.array([9, 14, 20, 31])


def inputs(learner: Learner, component: str, at: np.ndarray) -> tuple[Tensor, ...]:
    config = learner.agent.config
    if component == "tokenizer":
        return (torch.from_numpy(at),)
    if component == "world_model":
        return learner.buffer.after(at, config.world_model.sequence_blocks)
    return learner.buffer.before(at, config.imagination.burn_in_frames)


@pytest.mark.parametrize("variant", ["rem", "no_latent_space"])
@pytest.mark.parametrize("component", COMPONENTS)
def test_missing_rows_leave_no_trace(component: str, variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (imagination, world_model):  # draws would depend on the number of rows
        monkeypatch.setattr(module, "sample_categorical", lambda logits, *_: logits.argmax(-1))
    found = []
    for at in (AT, np.append(AT, [NONE, NONE])):
        learner = make_learner(make_config(variant, "training.sampling=passes", "world_model.dropout=0"), lpips=True)
        metrics = learner.steps[component](*inputs(learner, component, at))
        gradients = {name: p.grad for name, p in learner.agent.components[component].named_parameters()}
        found.append((metrics, gradients))
    (metrics, gradients), (padded_metrics, padded_gradients) = found
    torch.testing.assert_close(padded_metrics, metrics, rtol=1e-4, atol=1e-6)
    for name, gradient in gradients.items():
        torch.testing.assert_close(padded_gradients[name], gradient, rtol=1e-3, atol=1e-6, msg=name)
    assert any(gradient is not None and gradient.abs().max() > 0 for gradient in gradients.values())
