"""What a piece of work launches: ATen operations, FLOPs, sequential calls of M's sequence model, GPU kernels."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from remctl.bench.result import Counts
from remctl.interfaces import ImaginationStreams, Imagined, WorldModel
from remctl.train.workload import Workload

# Operations that touch no data: memory is taken, or looked at anew.
FREE = {"_unsafe_view", "detach", "alias", "lift_fresh", "empty", "empty_like", "empty_strided", "new_empty", "expand"}
# Operations that move or convert data: whether they are needed depends on the layout in memory, and on the precision.
MOVES = {"clone", "copy_", "_to_copy", "contiguous"}


ROLLOUTS = ("imagination", "controller")  # the phases that step M


class Counter(TorchDispatchMode):
    """Counts what is dispatched while it is active; what happens within `inside()` also as M's."""

    def __init__(self) -> None:
        super().__init__()
        self.tally = dict.fromkeys(("operations", "copies", "flops"), 0)
        self.inside_tally = dict(self.tally)
        self.calls = 0
        self._is_inside = False

    @contextmanager
    def inside(self) -> Iterator[None]:
        """What is dispatched meanwhile is M's."""
        self._is_inside = True
        try:
            yield
        finally:
            self._is_inside = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if func.is_view or name in FREE:
            return result
        self._add("copies" if name in MOVES else "operations", 1)
        self._add("flops", _flops(func, args, kwargs or {}, result))
        return result

    def _add(self, what: str, amount: int) -> None:
        self.tally[what] += amount
        if self._is_inside:
            self.inside_tally[what] += amount

    def counts(self, kernels: int | None) -> Counts:
        """What was counted so far."""
        inside = {f"model_{name}": amount for name, amount in self.inside_tally.items()}
        return Counts(**self.tally, **inside, model_calls=self.calls, kernels=kernels)


class Watched:
    """A world model whose work is counted as M's; shapes as in `WorldModel`."""

    def __init__(self, world_model: WorldModel[Any], counter: Counter) -> None:
        self._world_model, self._counter = world_model, counter

    def begin(self, tokens: Tensor, actions: Tensor, real: Tensor, code_vectors: Tensor) -> Any:
        """M's own, tokens (B, T, K), counted."""
        with self._counter.inside():
            return self._world_model.begin(tokens, actions, real, code_vectors)

    def step(self, state: Any, action: Tensor, streams: ImaginationStreams) -> tuple[Any, Imagined]:
        """M's own, action (B,), counted."""
        with self._counter.inside():
            return self._world_model.step(state, action, streams)


def count(workload: Workload, phase: str) -> Counts:
    """Of one run of `phase`, of which an earlier run has built the tables. Training is M's from beginning to end."""
    counter = Counter()
    model: Any = workload.agent.world_model.sequence_model
    if phase in ROLLOUTS:
        watched: Any = Watched(workload.agent.world_model, counter)
        workload = copy.copy(workload)
        workload.agent = replace(workload.agent, world_model=watched)
    work = workload.step(phase)
    with _calls_counted(model, counter), counter:
        if phase == "world_model":
            with counter.inside():
                work()
        else:
            work()
    return counter.counts(_kernels(work, workload.agent.device))


@contextmanager
def _calls_counted(model: nn.Module, counter: Counter) -> Iterator[None]:
    def hook(*_: object) -> None:
        counter.calls += 1

    handle = model.register_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def _kernels(work: Callable[[], object], device: torch.device) -> int | None:
    """Kernels and copies launched on a GPU; None elsewhere."""
    if device.type != "cuda":
        return None
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        work()
        torch.cuda.synchronize(device)
    return sum(event.device_type == torch.autograd.DeviceType.CUDA for event in profiled.events())


def _flops(func: Any, args: Any, kwargs: Any, result: Any) -> int:
    if func.overloadpacket.__name__.startswith("_scaled_dot_product_"):
        return _attention_flops(func.overloadpacket.__name__.endswith("backward"), args)
    formula = flop_registry.get(func.overloadpacket)
    return int(formula(*args, **kwargs, out_val=result)) if formula else 0


def _attention_flops(is_backward: bool, args: Any) -> int:
    """Two products forward, four backward, on every device: what a kernel computes again is its own affair.

    query (B, H, R, D), key (B, H, S, D); backward has the output's gradient before them.
    """
    query, key = args[1:3] if is_backward else args[:2]
    B, H, R, D = query.shape
    return (4 if is_backward else 2) * 2 * B * H * R * key.shape[-2] * D
