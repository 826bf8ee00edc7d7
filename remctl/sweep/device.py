"""What runs will be computed on, as far as that can be known without torch, and how fast it is."""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from remctl.bench import expected
from remctl.config import RunConfig
from remctl.errors import MachineError
from remctl.runs.cores import usable_cores
from remctl.runs.provenance import cpu_model
from remctl.sweep.local import visible_gpus
from remctl.sweep.profile import Profile
from remctl.sweep.records import Executor

BF16_FLAGS = ("avx512_bf16", "amx_bf16")


@dataclass(frozen=True)
class Device:
    """`kind` cuda or cpu. `name`: as torch gives it; None if unknown, as on a cluster. `count`: GPUs; `cores`: of a CPU."""

    kind: str
    name: str | None = None
    count: int = 1
    cores: int = 1

    @property
    def words(self) -> str:
        """`2 cores, no GPU`; `4 x NVIDIA H200`."""
        if self.kind == "cpu":
            return f"{self.cores} core{'s' * (self.cores != 1)}, no GPU"
        return f"{self.count} x {self.name}" if self.name else f"{self.count} GPU{'s' * (self.count != 1)}"

    def rates(self, config: RunConfig) -> expected.Rates:
        """How fast it is supposed to be: a CPU by its cores, any GPU like the one of the publication."""
        if self.kind == "cuda":
            return expected.published_gpu()
        asked = config.runtime.precision
        return expected.cpu(
            "bf16" if asked == "auto" and _has_bf16() else "fp32" if asked == "auto" else asked, self.cores
        )


def device_for(executor: Executor, profile: Profile) -> Device:
    """Of an executor's runs: this machine's, or what the profile asks SLURM for."""
    if executor == "local":
        return this_device()
    if profile.device_of_runs == "cpu":
        return Device("cpu", cores=profile.cpus)
    return Device("cuda", count=profile.max_parallel)


def this_device() -> Device:
    """The GPUs of this machine, else its processor with the cores that may be used."""
    gpus: list[str] = []
    with suppress(OSError, subprocess.SubprocessError, MachineError):  # a driver that hangs computes nothing
        gpus = visible_gpus()
    if gpus:
        return Device("cuda", _gpu_name(), len(gpus))
    return Device("cpu", cpu_model(), cores=usable_cores())


def _gpu_name() -> str | None:
    """Of the first one: `GPU 0: NVIDIA H200 (UUID: GPU-...)`."""
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    first = next(iter(done.stdout.splitlines()), "")
    return first.partition(": ")[2].partition(" (UUID")[0].strip() or None


def _has_bf16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the processor computes bf16 natively, and torch is not limited to less."""
    if not os.environ.get("ATEN_CPU_CAPABILITY", "avx512").lower().startswith("avx512"):
        return False
    try:
        flags = next((line.split() for line in cpuinfo.read_text().splitlines() if line.startswith("flags")), [])
    except (OSError, ValueError):
        return False
    return any(flag in flags for flag in BF16_FLAGS)
