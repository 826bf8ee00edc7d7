"""SLURM profiles (`slurm/*.yaml`): what a job asks the cluster for. Every key is optional; unknown ones are refused."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

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
NO_JOB = ("help", "usage", "version")  # with which sbatch does something else than submit
_VALUED = (  # sbatch's further options that are nothing without a value
    "acctg-freq bb bbf begin chdir comment container core-spec cores-per-socket cpu-freq deadline delay-boot distribution "
    "export export-file extra-node-info gid gpu-bind gpu-freq gres-flags hint input licenses mail-type mail-user mcs-label "
    "mem-bind mincpus network nodefile nodelist prefer priority profile reservation sockets-per-node switches thread-spec "
    "threads-per-core tmp uid wckey"
)
VALUED = frozenset(_VALUED.split())
ONE_TASK = ("nodes", "ntasks", "ntasks-per-node", "ntasks-per-core", "ntasks-per-gpu", "ntasks-per-socket")
_SHORT = (  # sbatch's options of one letter
    "A=account a=array B=extra-node-info b=begin C=constraint c=cpus-per-task D=chdir d=dependency e=error F=nodefile G=gpus "
    "H=hold i=input J=job-name k=no-kill L=licenses M=clusters m=distribution N=nodes n=ntasks O=overcommit o=output "
    "p=partition Q=quiet q=qos S=core-spec s=oversubscribe t=time v=verbose W=wait w=nodelist x=exclude"
)
LETTERS = dict(pair.split("=") for pair in _SHORT.split())
MEMORY_OPTIONS = ("mem", "mem-per-cpu", "mem-per-gpu")
GPU_OPTIONS = ("gres", "gpus", "gpus-per-node", "gpus-per-task", "gpus-per-socket")
OWN_KEYS = {name: name for name in ("partition", "account", "qos", "time", "constraint", "exclude")} | {
    "cpus-per-task": "cpus",
    "cpus-per-gpu": "cpus",
    "mem": "memory_gb",
}
TIMES = (
    "minutes (90), HH:MM:SS or D-HH:MM:SS, or another form that sbatch knows (MM:SS, D-HH, D-HH:MM); at most 365 days"
)
# sbatch's: with days the hours come first, without them the last number is seconds; a number alone is minutes
_WITH_DAYS = re.compile(r"(?P<d>\d+)-(?P<h>\d+)(:(?P<m>\d+)(:(?P<s>\d+))?)?")
_WITHOUT = re.compile(r"((?P<h>\d+):(?=\d+:))?(?P<m>\d+)(:(?P<s>\d+))?")


def minutes(value: Any) -> int:
    """Whole minutes of 90, "90", "12:00:00", "2-12", or another form of sbatch's; seconds are rounded up. Raises ValueError."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    found = _WITH_DAYS.fullmatch(str(value).strip()) or _WITHOUT.fullmatch(str(value).strip())
    if not found:
        raise ValueError(f"no time: {value}")
    parts = {name: int(part or 0) for name, part in found.groupdict().items()}
    return (parts.get("d", 0) * 24 + parts["h"]) * 60 + parts["m"] + (parts["s"] > 0)


def _one_line(value: str) -> str:
    if "\n" in value or not value.strip():
        raise ValueError("not one line")
    return value


def _one_word(value: str) -> str:
    if len(_one_line(value).split()) != 1 or value != value.strip():
        raise ValueError("not one word")
    if value.startswith("-"):
        raise ValueError("an option")
    return value


def _type(value: str) -> str:
    if re.search(r"[:,=]", _one_word(value)):
        raise ValueError("more than a type")
    return value


Line = Annotated[str, AfterValidator(_one_line)]
Word = Annotated[str, AfterValidator(_one_word)]
A_LINE, A_WORD = "text of one line", "text without blanks"


class Profile(BaseModel):
    """One kind of job. `time`: minutes; `memory_gb`: of the whole job; `signal_delay_s`: warning before the end.

    The descriptions of the keys say what is allowed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    partition: Word | None = Field(None, description=A_WORD)
    account: Word | None = Field(None, description=A_WORD)
    qos: Word | None = Field(None, description=A_WORD)
    gpus: int = Field(1, ge=0, le=1, description="0 or 1: a run uses one GPU")
    gpu_type: Annotated[str, AfterValidator(_type)] | None = Field(
        None, description="the TYPE of gpu:TYPE:1 alone, such as a100"
    )
    device: Literal["cpu", "cuda", "auto"] | None = Field(None, description="cpu, cuda or auto")
    cpus: int = Field(4, ge=1, le=1024, description="a whole number from 1 to 1024")
    memory_gb: float | None = Field(
        16, ge=0.1, le=1e5, description="a number from 0.1 to 100000, or null to ask for none"
    )
    time: Annotated[int, BeforeValidator(minutes), Field(ge=1, le=525_600)] = Field(24 * 60, description=TIMES)
    constraint: Line | None = Field(None, description=A_LINE)
    exclude: Word | None = Field(None, description=A_WORD)
    signal_delay_s: int = Field(120, ge=10, le=3600, description="a whole number of seconds from 10 to 3600")
    max_parallel: int = Field(64, ge=1, le=100_000, description="a whole number from 1 to 100000")
    setup: tuple[Line, ...] = Field(
        (), strict=False, description="a list of shell commands of one line each, such as [module load cuda]"
    )
    extra: dict[Line, Line | int | bool] = Field(
        {},
        description="options of sbatch with text, a whole number or true each (false leaves one out), such as {nice: 100}",
    )

    @property
    def gpu_option(self) -> str | None:
        """Return the option in `extra` that asks for the GPU instead of `--gres`, as `gpus-per-node`; None without one."""
        asks = (name for name in self.options if name in GPU_OPTIONS)
        return next((name for name in asks if name != "gres" or self.asks_gres), None)

    @property
    def asks_gres(self) -> bool:
        """Whether `gres` in `extra` asks for a GPU, not for something else alone."""
        return re.search(r"(^|,)(gres[:/])?gpu", str(self.options.get("gres", ""))) is not None

    @property
    def options(self) -> dict[str, str | int | bool]:
        """Return `extra` with the names of options as sbatch spells them, without those that are false."""
        return {_spelled(name): value for name, value in self.extra.items() if value is not False}

    @property
    def memory(self) -> str | None:
        """Return the value of `--mem`; None to leave it out, as where `extra` asks for memory per core or GPU."""
        by_extra = "memory_gb" not in self.model_fields_set and set(self.options) & set(MEMORY_OPTIONS)
        return None if self.memory_gb is None or by_extra else f"{int(self.memory_gb * 1024)}M"

    @property
    def setup_script(self) -> tuple[str, ...]:
        """Return the lines of `setup`, each of which ends the job if it fails, and says so in its log."""
        failed = 'status=$?; echo "remctl: setup failed with status $status: "%s >&2; exit $status'
        return tuple(f"{{ {line}\n}} || {{ {failed % shlex.quote(line)}; }}" for line in self.setup)

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
            "memory_gb": self.memory,
            "constraint": self.constraint,
            "exclude": self.exclude,
        }
        names = {"cpus": "cpus-per-task", "memory_gb": "mem"}
        flags = {key: [f"--{names.get(key, key)}={value}"] for key, value in plain.items() if value is not None}
        if self.gres:
            flags["gpu_type" if self.gpu_type else "gpus"] = [f"--gres={self.gres}"]
        for name, value in self.options.items():
            flags[f"extra.{name}"] = [f"--{name}" if value is True else f"--{name}={value}"]
        return flags

    @property
    def summary(self) -> str:
        """Return in a few words what a task gets."""
        gpu = f"1 {self.gpu_type or 'GPU'}" if self.gpus else "no GPU"
        memory = f"{self.memory_gb:g} GB" if self.memory else "memory by extra" if self.options else "memory unasked"
        return f"{gpu}, {self.cpus} cores, {memory}, {self.time / 60:g} hours"

    @property
    def gres(self) -> str | None:
        """`gpu:TYPE:1`, `gpu:1`, or None without a GPU and where an option of `extra` asks for it."""
        if not self.gpus or self.gpu_option:
            return None
        return f"gpu:{self.gpu_type}:1" if self.gpu_type else "gpu:1"


def read_profile(path: Path) -> Profile:
    """Raises UserError with the file and the key."""
    tree = read_mapping(path, "write keys such as 'partition: gpu'")
    known = list(Profile.model_fields)
    for key in tree:
        if key not in known:
            near = suggestion(str(key), known)
            advice = near if near.startswith("did you mean") else f"known: {', '.join(known)}"
            raise UserError(f"{path}: unknown key {key!r}: {advice}")
    try:
        profile = Profile.model_validate(tree)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        key = str(problem["loc"][0])
        inside = "".join(f".{part}" for part in problem["loc"][1:2] if key in ("extra", "setup"))
        allowed = Profile.model_fields[key].description
        raise UserError(f"{path}: {key}{inside}: given {short(problem['input'])}; allowed: {allowed}") from None
    for key, why in _contradictions(profile):
        raise UserError(f"{path}: {key}: {why}")
    return profile


def _contradictions(profile: Profile) -> Iterator[tuple[str, str]]:
    """Keys that cannot be as they are, with the reason and the fix."""
    given, options = profile.model_fields_set, profile.options
    if len(set(map(_spelled, profile.extra))) < len(profile.extra):
        yield "extra", "one option is written in two forms: keep one of them"
    for name, value in options.items():
        yield from _not_for_extra(name)
        if value is True and name in (*VALUED, *MEMORY_OPTIONS, *GPU_OPTIONS):
            yield f"extra.{name}", f"given true; sbatch's --{name} needs a value: give it"
        own = OWN_KEYS.get(name)
        if own is not None and (own != "memory_gb" or "memory_gb" in given):
            yield f"extra.{name}", f"{own} is a key of its own, which asks for the same: keep one of them"
        if name in MEMORY_OPTIONS and profile.memory:
            yield f"extra.{name}", f"memory_gb asks for memory too (--mem={profile.memory}): set memory_gb: null"
        if name == profile.gpu_option:
            own = next((key for key in ("gpu_type", "gpus") if key in given), None)
            if own is not None:
                yield own, f"given with extra.{name}, which asks for the GPU instead: leave one of them out"
            if _num_gpus(name, str(value)) not in ("", "1"):
                yield f"extra.{name}", f"given {short(value)}; a run uses one GPU: write 1, or TYPE:1"
    yield from _twice("memory", [name for name in options if name in MEMORY_OPTIONS])
    asking = [name for name in options if name in GPU_OPTIONS and (name != "gres" or profile.gres or profile.asks_gres)]
    yield from _twice("a GPU", [*([f"gres={profile.gres}"] if profile.gres else []), *asking])
    if profile.device == "cuda" and not profile.gpus and not profile.gpu_option:
        yield "device", "given cuda with gpus: 0, so that runs would find no GPU: leave one of them out"
    if profile.gpu_type and not profile.gpus:
        yield "gpu_type", f"given {profile.gpu_type!r} with gpus: 0; leave one of them out"
    if profile.time * 60 <= profile.signal_delay_s:
        yield "signal_delay_s", f"the warning would come before the start (time is {profile.time} minutes); shorten it"


def _not_for_extra(name: str) -> Iterator[tuple[str, str]]:
    """Why an option of sbatch is no further one, with the fix."""
    if len(name) > 1 and name != name.lower():
        yield f"extra.{name}", f"sbatch's long options are in lower case: write {name.lower()}"
    elif not re.fullmatch(r"[A-Za-z][a-z0-9-]*", name):
        yield f"extra.{name}", "not the name of an option; write NAME: VALUE, such as {nice: 100}"
    elif any(other.startswith(name) for other in NO_JOB) and len(name) > 1:
        yield f"extra.{name}", "with it sbatch submits nothing; leave it out"
    elif len(name) == 1:
        long = LETTERS.get(name)
        yield f"extra.{name}", f"a single letter is not accepted: write {long or 'its long form'}"
    elif any(reserved.startswith(name) for reserved in RESERVED):  # sbatch takes abbreviations
        yield f"extra.{name}", f"{name} is set by remctl itself; leave it out"
    elif name in ONE_TASK:
        yield f"extra.{name}", "one task on one node is one run, and more would train it several times: leave it out"
    known = (*OWN_KEYS, *MEMORY_OPTIONS, *GPU_OPTIONS, *ONE_TASK)
    if len(name) > 1 and name not in known and (meant := [full for full in known if full.startswith(name)]):
        yield f"extra.{name}", f"sbatch may take it for {meant[0]}: write the option's whole name"


def _spelled(name: str) -> str:
    return name.strip("-").replace("_", "-")


def _twice(what: str, options: list[str]) -> Iterator[tuple[str, str]]:
    """The last of several options that ask for the same."""
    if len(options) > 1:
        yield f"extra.{options[-1]}", f"--{options[0]} asks for {what} too: write all in one"


def _num_gpus(option: str, value: str) -> str:
    """`2` of `gpu:a100:2` or `a100:2`; empty where it says none, which is one."""
    last = next(p for p in value.split(",") if option != "gres" or p.startswith("gpu")).rpartition(":")[2]
    return last if last.isdecimal() else ""
