"""SLURM profiles (`slurm/*.yaml`): what a job asks the cluster for. Every key is optional; unknown ones are refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from remctl.config.resolve import read_mapping, short, suggestion
from remctl.errors import UserError

RESERVED = (
    "job-name",
    "array",
    "signal",
    "requeue",
    "no-requeue",
    "output",
    "error",
    "open-mode",
    "dependency",
    "wrap",
    "clusters",  # jobs are looked for where SLURM_CONF points
    "parsable",  # and what changes what sbatch answers, and when
    "quiet",
    "test-only",
    "wait",
)
_TIME = re.compile(r"(?:(\d+)-)?(\d{1,2}):(\d{2}):(\d{2})")


def minutes(value: Any) -> int:
    """Whole minutes of 90, "12:00:00" or "2-12:00:00"; seconds are rounded up. Raises ValueError."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    found = _TIME.fullmatch(str(value))
    if not found:
        raise ValueError("write minutes (90), HH:MM:SS or D-HH:MM:SS")
    days, hours, mins, seconds = (int(part or 0) for part in found.groups())
    return (days * 24 + hours) * 60 + mins + (seconds > 0)


def _one_line(value: str) -> str:
    if "\n" in value or not value.strip():
        raise ValueError("write one line that is not empty")
    return value


Line = Annotated[str, AfterValidator(_one_line)]


class Profile(BaseModel):
    """One kind of job. `time`: minutes; `memory_gb`: of the whole job; `signal_delay_s`: warning before the end."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    partition: Line | None = None
    account: Line | None = None
    qos: Line | None = None
    gpus: int = Field(1, ge=0, le=1)
    gpu_type: Line | None = None
    device: Literal["cpu", "cuda", "auto"] | None = None
    cpus: int = Field(4, ge=1, le=1024)
    memory_gb: float = Field(16, ge=0.1, le=1e5)
    time: Annotated[int, BeforeValidator(minutes), Field(ge=1, le=525_600)] = 24 * 60
    constraint: Line | None = None
    exclude: Line | None = None
    signal_delay_s: int = Field(120, ge=10, le=3600)
    max_parallel: int = Field(64, ge=1, le=100_000)
    setup: tuple[Line, ...] = Field((), strict=False)
    extra: dict[Line, Line | int | bool] = {}

    @field_validator("extra")
    @classmethod
    def _not_ours(cls, extra: dict[str, Any]) -> dict[str, Any]:
        for name in extra:
            plain = name.strip("-").replace("_", "-").strip()
            if any(reserved.startswith(plain) for reserved in RESERVED):  # sbatch takes abbreviations
                raise ValueError(f"{name} is set by remctl itself; leave it out")
        return extra

    @property
    def device_of_runs(self) -> str:
        """`device`, which is cuda where there is a GPU: without one a run shall fail rather than crawl on the CPU."""
        return self.device or ("cuda" if self.gpus else "cpu")

    def flags(self) -> dict[str, list[str]]:
        """sbatch's flags by the key of the profile that they come from, in the order in which they are checked."""
        plain = {
            "partition": self.partition,
            "account": self.account,
            "qos": self.qos,
            "time": self.time,
            "cpus": self.cpus,
            "memory_gb": f"{int(self.memory_gb * 1024)}M",
            "constraint": self.constraint,
            "exclude": self.exclude,
        }
        names = {"cpus": "cpus-per-task", "memory_gb": "mem"}
        flags = {key: [f"--{names.get(key, key)}={value}"] for key, value in plain.items() if value is not None}
        if self.gpus:
            flags["gpu_type" if self.gpu_type else "gpus"] = [f"--gres={self.gres}"]
        for name, value in self.extra.items():
            flags[f"extra.{name}"] = [f"--{name}" if value is True else f"--{name}={value}"]
        return flags

    @property
    def summary(self) -> str:
        """Return in a few words what a task gets."""
        gpu = f"1 {self.gpu_type or 'GPU'}" if self.gpus else "no GPU"
        return f"{gpu}, {self.cpus} cores, {self.memory_gb:g} GB, {self.time / 60:g} hours"

    @property
    def gres(self) -> str | None:
        """`gpu:TYPE:1`, `gpu:1`, or None without a GPU."""
        if not self.gpus:
            return None
        return f"gpu:{self.gpu_type}:1" if self.gpu_type else "gpu:1"


def read_profile(path: Path) -> Profile:
    """Raises UserError with the file and the key."""
    tree = read_mapping(path, "write keys such as 'partition: gpu'")
    known = list(Profile.model_fields)
    for key in tree:
        if key not in known:
            raise UserError(f"{path}: unknown key {key!r}: {suggestion(str(key), known)}")
    try:
        profile = Profile.model_validate(tree)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in problem["loc"])
        said = str(problem["ctx"]["error"]) if problem["type"] == "value_error" else problem["msg"]
        raise UserError(f"{path}: {key}: given {short(problem['input'])}; {said[:1].lower()}{said[1:]}") from None
    if profile.gpu_type and not profile.gpus:
        raise UserError(f"{path}: gpu_type: given {profile.gpu_type!r} with gpus: 0; leave one of them out")
    if profile.time * 60 <= profile.signal_delay_s:
        raise UserError(
            f"{path}: signal_delay_s: the warning would come before the start (time is {profile.time} minutes); shorten it"
        )
    return profile
