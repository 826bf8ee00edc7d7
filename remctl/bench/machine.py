"""What the machine can do, measured in the same process as everything else: its matmul peak, its memory, its overhead."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from remctl.bench.result import Device
from remctl.bench.timing import repeats_for, seconds_of
from remctl.config import Precision
from remctl.errors import MachineError
from remctl.programs import ask_program
from remctl.runner import describe_device

DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}
RATE_BUDGET_S = 1.0  # for one rate, whatever the machine
SLOWEST_S = 0.25  # of one measured piece of work: a larger one is not tried
MATMUL_SIZES = {"cpu": (256, 512, 1024, 2048), "cuda": (1024, 2048, 4096, 8192)}
REPEATS = 7
OPERATIONS = 1000
NVIDIA_SMI_S = 10


class Machine:
    """Measured once; `calibrate` is a fixed piece of work for every round, so that a machine that changes
    meanwhile is found out.

    `precisions`: those whose matmul rate is measured. `check` is called between measurements, and may raise to leave.
    """

    def __init__(
        self, device: torch.device, precisions: Iterable[Precision], check: Callable[[], None] = lambda: None
    ) -> None:
        self.device = device
        self.matmul_flops_per_s: dict[str, float] = {
            name: matmul_flops_per_s(device, DTYPES[name], check) for name in sorted(precisions)
        }
        self.copy_bytes_per_s = copy_bytes_per_s(device, check)
        self.operation_s = operation_s(device)
        self.calibration: list[float] = []  # seconds of `calibrate` in all rounds so far
        self.calibrate = _matmul(device, torch.float32, 1024 if device.type == "cpu" else 4096)

    def describe(self) -> Device:
        """As it stands in bench.json."""
        about = describe_device(self.device)
        return Device(
            name=str(about["name"]),
            num_threads=torch.get_num_threads(),
            matmul_flops_per_s=self.matmul_flops_per_s,
            copy_bytes_per_s=self.copy_bytes_per_s,
            operation_s=self.operation_s,
            clocks_mhz=clocks_mhz(self.device),
            calibration=tuple(self.calibration),
        )


def matmul_flops_per_s(device: torch.device, dtype: torch.dtype, check: Callable[[], None] = lambda: None) -> float:
    """The most that square matrix products reach, the largest of them one that takes no longer than SLOWEST_S."""
    best = 0.0
    for n in MATMUL_SIZES[device.type]:
        seconds = least_s(_matmul(device, dtype, n), device, check)
        best = max(best, 2 * n**3 / seconds)
        if 8 * seconds > SLOWEST_S:  # the next one's
            break
    return best


def copy_bytes_per_s(device: torch.device, check: Callable[[], None] = lambda: None) -> float:
    """The most bytes read and written by a large copy."""
    num_bytes = (1 << 30) if device.type == "cuda" else (1 << 28)
    source = torch.ones(num_bytes // 4, device=device)
    target = torch.empty_like(source)
    return 2 * num_bytes / least_s(lambda: target.copy_(source), device, check)


def operation_s(device: torch.device) -> float:
    """Seconds that the smallest operation takes, one after the other: the median of REPEATS."""
    x = torch.zeros(8, device=device)

    def work() -> None:
        for _ in range(OPERATIONS):
            x.add_(1.0)

    work()
    return statistics.median(seconds_of(work, device) for _ in range(REPEATS)) / OPERATIONS


def clocks_mhz(device: torch.device) -> dict[str, float]:
    """Clock rates now: of the GPU, or the mean over the processor's cores. Empty where nobody tells."""
    return _gpu_clocks(device) if device.type == "cuda" else _cpu_clock()


def _cpu_clock() -> dict[str, float]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        rates = [float(line.partition(":")[2]) for line in lines if line.startswith("cpu MHz")]
    except (OSError, ValueError):
        return {}
    return {"cpu": statistics.fmean(rates)} if rates else {}


def _gpu_clocks(device: torch.device) -> dict[str, float]:
    names = ("clocks.sm", "clocks.mem", "clocks.max.sm")
    command = [
        "nvidia-smi",
        f"--query-gpu={','.join(names)}",
        "--format=csv,noheader,nounits",
        "-i",
        _gpu_id(device),
    ]
    try:
        lines = ask_program(*command, timeout_s=NVIDIA_SMI_S).out.splitlines()
    except MachineError:
        return {}
    for line in lines:
        with suppress(ValueError):  # a line of another form
            return {name: float(value) for name, value in zip(names, line.split(","), strict=True)}
    return {}


def _gpu_id(device: torch.device) -> str:
    """Its own, whatever CUDA_VISIBLE_DEVICES makes of the numbers."""
    return f"GPU-{torch.cuda.get_device_properties(device).uuid}"


def _matmul(device: torch.device, dtype: torch.dtype, n: int) -> Callable[[], Any]:
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    return lambda: a @ b


def least_s(
    work: Callable[[], Any], device: torch.device, check: Callable[[], None], budget_s: float = RATE_BUDGET_S
) -> float:
    """Seconds of one run of `work` after a warm-up: the least of as many measurements as `budget_s` allows, at least one.

    A measurement repeats work that is short. `check` is called between them.
    """
    begin = time.perf_counter()
    work()
    repeats = repeats_for(seconds_of(work, device))
    least = math.inf
    while math.isinf(least) or time.perf_counter() - begin < budget_s:
        check()
        least = min(least, seconds_of(work, device, repeats))
    return least
