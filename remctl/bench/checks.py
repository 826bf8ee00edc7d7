"""Outputs against the reference, before anything is timed: a fast wrong answer is no result.

In float64 on a short segment of the timed model: the form that trains against the obvious one (POP as a loop over blocks,
one token at a time), and imagination's path against the training form at the same block. And the timed precision against
float64. Shapes: B batch, T blocks, n = K+1 tokens per block, E embedding.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from remctl.bench.cost import CostModel, total
from remctl.bench.counting import count
from remctl.bench.result import Check
from remctl.errors import MachineError
from remctl.rem.reference import pop_loop
from remctl.rem.retnet import RetNet
from remctl.train.build import Agent
from remctl.train.learner import part_size
from remctl.train.workload import Workload

BLOCKS, BATCH = 4, 2
EXACT = 1e-9
PRECISION = {"bf16": 0.05, "fp32": 0.01}  # wrong tables in bf16 are off by a quarter and more


def check_agent(name: str, agent: Agent) -> list[Check]:
    """The checks of one configuration's M. Raises MachineError for the first that fails."""
    fix = "so nothing was timed: compare the versions of torch with constraints.txt, and run `make test`"
    return _passed(name, _errors(agent), fix)


def check_counts(name: str, workload: Workload, check: Callable[[], None] = lambda: None) -> list[Check]:
    """Calls, operations and FLOPs of M against the cost model, exactly. Raises MachineError for the first that differs.

    `check` is called between measurements, and may raise to leave.
    """
    fix = "the model of docs/cost-model.md does not hold for this version of torch: see constraints.txt"
    return _passed(name, _count_errors(workload, check), fix)


def _passed(name: str, found: Iterable[tuple[str, float, float]], fix: str) -> list[Check]:
    checks = [Check(name=f"{name}: {what}", error=e, tolerance=t) for what, e, t in found]
    for check in checks:
        if not check.error <= check.tolerance:
            raise MachineError(
                f"{check.name} is wrong here (relative error {check.error:.2g}, allowed {check.tolerance:.2g}), {fix}"
            )
    return checks


def _count_errors(workload: Workload, check: Callable[[], None]) -> Iterator[tuple[str, float, float]]:
    model, batches = CostModel(workload.agent.config), workload.agent.config
    part = part_size(workload.agent.config, workload.agent.device)
    expected = {
        "imagination": total(model.imagination(batches.controller.training.batch_size)),
        "world_model": total(model.training(batches.world_model.training.batch_size, part)),
    }
    for phase, cost in expected.items():
        check()
        workload.step(phase)()  # builds the tables
        check()
        with _all_multiplied(workload.agent.world_model):
            found = count(workload, phase)
        pairs = {"calls": (found.model_calls, cost.calls), "FLOPs": (found.model_flops, cost.flops)}
        if cost.operations is not None:
            pairs["operations"] = (found.model_operations, cost.operations)
        for what, (measured, predicted) in pairs.items():
            yield f"{what} of {phase.replace('_', ' ')} = cost model", abs(measured - predicted) / predicted, 0.0


@contextmanager
def _all_multiplied(world_model: Any) -> Iterator[None]:
    """M without the look-ups that spare a CPU products: the cost model is one for all devices."""
    before, world_model.may_look_up = world_model.may_look_up, False
    try:
        yield
    finally:
        world_model.may_look_up = before


@torch.no_grad()
def _errors(agent: Agent) -> Iterator[tuple[str, float, float]]:
    model = copy.deepcopy(agent.world_model).double().eval()
    net: Any = model.sequence_model
    T = min(BLOCKS, agent.config.world_model.sequence_blocks)
    generator = torch.Generator(agent.device).manual_seed(0)
    shape = (BATCH, T, model.block_len, model.config.embed_dim)
    x = torch.randn(shape, generator=generator, device=agent.device, dtype=torch.float64)
    u = model._prediction_tokens(BATCH, T + 1) if model.pop else None
    whole = _outputs(net, x, u)
    yield "training form = token by token", _relative(_obvious(net, x, u), whole), EXACT
    yield "imagination's path = training form", _relative(_stepped(net, x, u), whole), EXACT
    precision = agent.config.runtime.precision
    timed: Any = agent.world_model.sequence_model
    # Without what is predicted from an empty state: after one token, group normalisation leaves of retention the sign of q k^T,
    # which any rounding may flip. The published losses use no such prediction.
    later = None if u is None else u[:, 1:]
    whole = _outputs(net, x, later, first_predicted=1)
    with agent.autocast():
        rounded = _outputs(timed, x.float(), None if later is None else later.float(), first_predicted=1)
    error = ((rounded.double() - whole).norm() / whole.norm()).item()  # of all together: a single place may cancel out
    yield f"{precision} = float64", error, PRECISION[precision]


def _outputs(net: Any, x: Tensor, u: Tensor | None, first_predicted: int = 0) -> Tensor:
    """Everything that a segment's blocks give, real ones and predicted ones: (B, rows, E)."""
    pop = {} if u is None else {"prediction": u, "first_predicted": first_predicted, "last_tokens_only": True}
    out = net(x, net.initial_state(len(x), x), **pop)
    return _flat(out.real, None if u is None else out.predicted)


def _obvious(net: Any, x: Tensor, u: Tensor | None) -> Tensor:
    if not isinstance(net, RetNet):
        return _by_tokens(net, x)
    out = pop_loop(net, x, net.initial_state(len(x), x), prediction=u)
    return _flat(out.real if u is None else out.real[:, :, -1:], out.predicted)


def _stepped(net: Any, x: Tensor, u: Tensor | None) -> Tensor:
    """As imagination goes: a block consumed and the next predicted in one call; token by token, a token a call."""
    if u is None:
        return _by_tokens(net, x)
    state, n = net.initial_state(len(x), x), x.shape[2]
    first = net(x[:, :1], state, 0, prediction=u[:, :1], first_predicted=0, last_tokens_only=True)
    real, predicted = [], [first.predicted]
    for t in range(x.shape[1]):
        out = net(
            x[:, t : t + 1], state, t * n, prediction=u[:, t + 1 : t + 2], first_predicted=1, last_tokens_only=True
        )
        state = out.state
        real.append(out.real)
        predicted.append(out.predicted)
    return _flat(torch.cat(real, 1), torch.cat(predicted, 1))


def _by_tokens(net: Any, x: Tensor) -> Tensor:
    """Each token on its own, from the state that the one before it left."""
    state, outputs = net.initial_state(len(x), x), []
    for position, token in enumerate(x.flatten(1, 2).unbind(1)):
        out = net(token[:, None, None], state, position)
        outputs.append(out.real[:, 0])
        state = out.state
    return torch.cat(outputs, 1)


def _flat(real: Tensor, predicted: Tensor | None) -> Tensor:
    parts = [real] if predicted is None else [real, predicted]
    return torch.cat([part.flatten(1, 2) for part in parts], dim=1)


def _relative(value: Tensor, reference: Tensor) -> float:
    return ((value.double() - reference).abs().max() / reference.abs().max()).item()
