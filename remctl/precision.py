"""Which floating-point precision a device computes well, and a configuration in which that is decided."""

from __future__ import annotations

from typing import Literal

import torch

from remctl.config import Precision, RunConfig

NATIVE_BF16_CAPABILITY = (8, 0)  # of an NVIDIA GPU: Ampere


def native_precision(device: torch.device) -> Precision:
    """bf16 if the device has instructions for it, else fp32: emulated, bf16 takes tens of times as long as fp32."""
    if device.type == "cuda":
        native = torch.cuda.get_device_capability(device) >= NATIVE_BF16_CAPABILITY
    else:
        native = device.type == "cpu" and _cpu_has_bf16()
    return "bf16" if native else "fp32"


def settled(config: RunConfig, device: torch.device) -> RunConfig:
    """`config` with its precision decided: as it says, or what `device` computes well."""
    if config.runtime.precision != "auto":
        return config
    return config.at_precision(native_precision(device))


def decide(
    asked: Literal["auto", "bf16", "fp32"], before: Precision | None, native: Precision
) -> tuple[Precision, str]:
    """The precision of a start, and that in words: as configured, else that of the run's start before, else the device's."""
    chosen = asked if asked != "auto" else before or native
    if before and chosen != before:
        return chosen, f"{chosen} after {before}: sums are rounded differently from here on"
    if chosen == "bf16" and native == "fp32":
        return chosen, "bf16, which this device only emulates: --set runtime.precision=fp32 is many times as fast"
    if asked == "auto" and native == "fp32":
        return chosen, "fp32 (no native bf16)"
    return chosen, chosen


def _cpu_has_bf16() -> bool:
    """AVX-512 bf16 or AMX, and torch's own kernels not limited to less (ATEN_CPU_CAPABILITY)."""
    if not torch.backends.cpu.get_cpu_capability().startswith("AVX512"):
        return False
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
