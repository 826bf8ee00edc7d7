"""What device runs will use, as far as that is known without torch, and how fast it is."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from remctl.bench import expected
from remctl.config import RunConfig
from remctl.errors import MachineError
from remctl.programs import ask_program
from remctl.runs.cores import usable_cores
from remctl.runs.provenance import cpu_model
from remctl.sweep.local import NVIDIA_SMI_S, visible_gpus
from remctl.sweep.profile import Profile
from remctl.sweep.records import Executor

BF16_FLAGS = ("avx512_bf16", "amx_bf16")


@dataclass(frozen=True)
class Device:
    """`kind`: cuda or cpu. `name`: torch's; None if unknown, as on a cluster. `count`: GPUs. `cores`: of a CPU."""

    kind: str
    name: str | None = None
    count: int = 1
    cores: int = 1

    @property
    def words(self) -> str:
        """Return it in words: `2 cores, no GPU`, `4 x NVIDIA H200`."""
        if self.kind == "cpu":
            return f"{self.cores} core{'s' * (self.cores != 1)}, no GPU"
        return f"{self.count} x {self.name}" if self.name else f"{self.count} GPU{'s' * (self.count != 1)}"

    def rates(self, config: RunConfig) -> expected.Rates:
        """Return its assumed rates: a CPU's grow with its cores, and any GPU is as fast as the publication's."""
        if self.kind == "cuda":
            return expected.published_gpu()
        asked = config.runtime.precision
        return expected.cpu(
            "bf16" if asked == "auto" and _has_bf16() else "fp32" if asked == "auto" else asked, self.cores
        )


def device_for(executor: Executor, profile: Profile) -> Device:
    """Return the device of an executor's runs: this machine's, or the one that the profile asks SLURM for."""
    if executor == "local":
        return this_device()
    if profile.device_of_runs == "cpu":
        return Device("cpu", cores=profile.cpus)
    return Device("cuda", count=profile.max_parallel)


def this_device() -> Device:
    """Return the GPUs of this machine, else its processor with the usable cores."""
    gpus: list[str] = []
    with suppress(MachineError):  # if the driver hangs, no run can use the GPUs
        gpus = visible_gpus()
    if gpus:
        return Device("cuda", _gpu_name(), len(gpus))
    return Device("cpu", cpu_model(), cores=usable_cores())


def _gpu_name() -> str | None:
    """Return the name of the first GPU, from a line such as `GPU 0: NVIDIA H200 (UUID: GPU-...)`; None if there is none."""
    try:
        said = ask_program("nvidia-smi", "-L", timeout_s=NVIDIA_SMI_S)
    except MachineError:
        return None
    found = re.search(r"^GPU \d+: (.+?) \(UUID", said.out, re.MULTILINE)
    return found[1] if found else None


def _has_bf16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Return whether the processor computes bf16 natively, and torch may use that."""
    if not os.environ.get("ATEN_CPU_CAPABILITY", "avx512").lower().startswith("avx512"):
        return False
    try:
        flags = next((line.split() for line in cpuinfo.read_text().splitlines() if line.startswith("flags")), [])
    except (OSError, ValueError):
        return False
    return any(flag in flags for flag in BF16_FLAGS)
