"""How much faster POP can be than token-by-token prediction, whatever the machine (docs/cost-model.md). Imports no torch.

A rollout needs operations, FLOPs and bytes, and takes as long as that of the three which is slowest on the machine. The
speed-up of one rollout over another then lies between the smallest and the largest of the three ratios.
"""

from __future__ import annotations

from collections.abc import Iterator

from remctl.bench.cost import Cost, CostModel, total
from remctl.bench.result import Bound, Device
from remctl.bench.suites import SEQUENCE_MODELS, published_size
from remctl.config import Precision, RunConfig

TOKENS = (16, 64, 256)
BATCHES = (1, 16, 128)


def bounds(device: Device) -> list[Bound]:
    """At the published configuration, per number of tokens and batch size; `predicted` is for `device`.

    In bf16 if that was measured there, else in fp32.
    """
    return [bound for tokens in TOKENS for batch in BATCHES for bound in _bounds(tokens, batch, device)]


def _bounds(tokens: int, batch: int, device: Device) -> Iterator[Bound]:
    precision: Precision = "bf16" if "bf16" in device.matmul_flops_per_s else "fp32"
    size = {"tokens_per_obs": tokens, "batch_size": batch}
    configs = {name: published_size(name, size).at_precision(precision) for name in SEQUENCE_MODELS}
    parts = {name: CostModel(config).imagination(batch) for name, config in configs.items()}
    pop = total(parts["POP"])
    for name in list(SEQUENCE_MODELS)[1:]:
        other = total(parts[name])
        yield Bound(
            name=name,
            tokens_per_obs=tokens,
            batch_size=batch,
            calls=other.calls / pop.calls,
            operations=(other.operations or 0) / (pop.operations or 1),
            flops=other.flops / pop.flops,
            bytes=other.bytes / pop.bytes,
            predicted=_seconds(parts[name], configs[name], device) / _seconds(parts["POP"], configs["POP"], device),
        )


def _seconds(parts: list[Cost], config: RunConfig, device: Device) -> float:
    """The model's time: the longest of launching all operations, all arithmetic and all traffic with memory."""
    cost, peak = total(parts), device.matmul_flops_per_s[config.runtime.precision]
    launching = (cost.operations or 0) * device.operation_s
    return max(launching, cost.flops / peak, cost.bytes / device.copy_bytes_per_s)
