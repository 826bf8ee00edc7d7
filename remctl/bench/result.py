"""`bench.json`: what a benchmark measured, on what, and what was predicted. Read and compared without torch.

Durations end in `_s`; rates are per second. A spread is a distribution-free interval for the median of the rounds
(`remctl.bench.spread`). A case is one kind of work (a `phase`) of one configuration at one batch size.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, ValidationError, model_validator

from remctl.errors import UserError
from remctl.runs.code import recorded
from remctl.runs.files import make_folder, named_errors, write_json

FORMAT = 1
MAX_BYTES = 64 << 20
Verdict = Literal["slower", "faster", "no difference"]


class Record(BaseModel):
    """Frozen; keys that a later version may add are passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


Seconds = Annotated[float, Field(gt=1e-12, lt=1e12)]
Amount = Annotated[int, Field(ge=0, lt=10**30)]


class Spread(Record):
    """Interval of a median: `coverage` is the chance that it holds the true one, 0.95 or more where the rounds allow."""

    low: float
    high: float
    coverage: Annotated[float, Field(ge=0, le=1)]


class Ratio(Record):
    """Time of a case over that of the case `to`, from the rounds in which both ran side by side."""

    to: str
    median: PositiveFloat
    spread: Spread
    verdict: Verdict


class Counts(Record):
    """Of one run of the work: ATen operations that compute, those that only move data, and FLOPs of matmuls and convolutions.

    `model_*`: inside M alone. `model_calls`: sequential calls of M's sequence model. `kernels`: launched on a GPU.
    """

    operations: Amount
    copies: Amount
    flops: Amount
    model_calls: Amount
    model_operations: Amount
    model_copies: Amount
    model_flops: Amount
    kernels: Amount | None = None


class Predicted(Record):
    """What the cost model says of the same work (docs/cost-model.md). None where it says nothing.

    `model_bytes`: parameters once per call, layers' inputs and outputs, states. `floor_s`: M's calls one after the other, each
    only as long as its FLOPs, or its bytes from memory, take at the measured rates.
    """

    model_calls: Amount
    model_operations: Amount | None
    model_flops: Amount
    model_bytes: Amount
    floor_s: float


class Case(Record):
    """One measured kind of work.

    `seconds`: every round. `imagined_steps`, `imagined_tokens`: of one run of the work, over the whole batch; 0 where
    nothing is imagined. `axis`, `value`: what a scaling suite varied. `runs_per_round`: repeated so often within a round.
    `calibration`: seconds of a fixed piece of work in the same rounds.
    """

    suite: str
    name: str
    phase: str
    batch_size: int
    precision: str
    config_hash: str
    seconds: Annotated[tuple[Seconds, ...], Field(min_length=1)]
    median: Seconds
    spread: Spread
    runs_per_round: int = 1
    calibration: tuple[Seconds, ...] = ()
    ratio: Ratio | None = None
    axis: str | None = None
    value: int | None = None
    steps_per_epoch: int | None = None
    imagined_steps: int = 0
    imagined_tokens: int = 0
    per_epoch_s: float | None = None
    per_imagined_step_s: float | None = None
    per_imagined_token_s: float | None = None
    counts: Counts | None = None
    predicted: Predicted | None = None
    flops_per_s: float | None = None
    share_of_peak: float | None = None
    peak_memory_mb: float | None = None

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        where = f"{self.suite}, {self.name}"
        for interval in (self.spread, *([self.ratio.spread] if self.ratio else [])):
            if not 0 < interval.low <= interval.high:
                raise ValueError(f"{where}: [{interval.low:g}, {interval.high:g}] is no interval of times")
        low, high = min(self.seconds), max(self.seconds)
        if not low <= self.spread.low <= self.median <= self.spread.high <= high:
            raise ValueError(f"{where}: median and spread are not those of its rounds")
        if self.ratio and not _says(self.ratio):
            raise ValueError(f"{where}: the verdict is not that of its interval")
        return self

    @property
    def key(self) -> tuple[str, str, str, str, str, int, str]:
        """What makes two files' cases the same work."""
        axis = f"{self.axis} {self.value}" if self.axis else ""
        return (self.suite, axis, self.name, self.phase, self.config_hash, self.batch_size, self.precision)

    @property
    def baseline(self) -> str | None:
        """The name of the case that this one is compared to."""
        return self.ratio.to if self.ratio else None


def _says(ratio: Ratio) -> bool:
    """Whether its verdict claims no more than its interval."""
    return {"slower": ratio.spread.low > 1, "faster": ratio.spread.high < 1, "no difference": True}[ratio.verdict]


class Exponent(Record):
    """Time grows as value^exponent between the smallest and the largest value of `axis` measured (log-log least squares)."""

    name: str
    phase: str
    axis: str
    exponent: float
    spread: Spread


class Bound(Record):
    """Token-by-token prediction with `name` over POP, in a rollout of M alone: what bounds POP's speed-up.

    `calls`, `operations`, `flops`, `bytes`: ratios of what is needed; `predicted`: of the times that the cost model expects
    on the measured machine.
    """

    name: str
    tokens_per_obs: int
    batch_size: int
    calls: float
    operations: float
    flops: float
    bytes: float
    predicted: float


class Prediction(Record):
    """Hours of a whole run from the measured phases of an epoch; `phase_hours` add up to `hours`.

    `assumption`: what was taken for granted or left out.
    """

    label: str
    config_hash: str
    num_epochs: int
    hours: float
    phase_hours: dict[str, float]
    assumption: str = ""


class Packing(Record):
    """So many processes that train side by side on one device; the case `name` of the suite packing holds their rounds.

    `label`: whose configuration; `mix`: optimizer steps of each component in one turn of the work, `window_s` seconds of it
    at least per round. `process_seconds`: in each round, each process' own seconds for an epoch's training steps.
    `memory_mb`: of the largest process; `memory_in_all_mb`: of all of them; in 10^6 bytes, None where nobody tells.
    `failure`: why it was not measured; empty where it was.
    """

    name: str
    label: str
    num_processes: Annotated[int, Field(ge=1, lt=10**6)]
    num_threads: Annotated[int, Field(ge=1, lt=10**6)]
    mix: dict[str, Amount]
    window_s: float
    process_seconds: tuple[tuple[Seconds, ...], ...] = ()
    memory_mb: float | None = None
    memory_in_all_mb: float | None = None
    failure: str = ""


class TrainedLoss(Record):
    """A component's loss at the end of a short training in each precision, seed by seed."""

    fp32: Annotated[tuple[float, ...], Field(min_length=1)]
    bf16: Annotated[tuple[float, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _is_paired(self) -> Self:
        if len(self.fp32) != len(self.bf16):
            raise ValueError(f"{len(self.fp32)} losses in fp32, {len(self.bf16)} in bf16: no pairs")
        return self

    @property
    def differences(self) -> tuple[float, ...]:
        """bf16 - fp32 of each seed."""
        return tuple(b - a for a, b in zip(self.fp32, self.bf16, strict=True))

    @property
    def between_seeds(self) -> float:
        """The largest difference between two seeds in fp32."""
        return max(self.fp32) - min(self.fp32)

    @property
    def exceeds(self) -> bool:
        """Whether bf16 moves the loss of any seed by more than the seed does."""
        return max(map(abs, self.differences)) > self.between_seeds


class PrecisionEffect(Record):
    """What bf16 does to training `label`. `losses`: by component, the mean of the last of `num_steps` steps.

    `comparisons`: of what fp32 and bf16 compute, by what it is, a number per seed: shares, cosines, relative differences.
    """

    label: str
    config_hash: str
    seeds: tuple[int, ...]
    num_frames: Amount
    num_steps: Amount
    batch_sizes: dict[str, Amount]
    losses: dict[str, TrainedLoss]
    comparisons: dict[str, tuple[float, ...]]


class Check(Record):
    """Outputs against the reference, before anything was timed: `error` is relative to the reference (docs/benchmarks.md)."""

    name: str
    error: float
    tolerance: float


class Device(Record):
    """What was measured of the machine in the same run. `matmul_flops_per_s` by precision."""

    name: str
    num_threads: int
    matmul_flops_per_s: dict[str, float]
    copy_bytes_per_s: float
    operation_s: float
    clocks_mhz: dict[str, float]
    calibration: tuple[Seconds, ...]


class Result(Record):
    """A whole benchmark. `scaled`: what a reduced scale changed, as sentences. `complete`: False where it was cut off."""

    format: int
    remctl_version: str
    scale: str
    scaled: tuple[str, ...]
    suites: tuple[str, ...]
    complete: bool
    provenance: dict[str, Any]
    device: Device
    checks: tuple[Check, ...]
    cases: tuple[Case, ...]
    bounds: tuple[Bound, ...] = ()
    exponents: tuple[Exponent, ...] = ()
    predictions: tuple[Prediction, ...] = ()
    packing: tuple[Packing, ...] = ()
    precision: tuple[PrecisionEffect, ...] = ()

    @model_validator(mode="after")
    def _has_each_case_once(self) -> Self:
        for key, count in Counter(case.key for case in self.cases).items():
            if count > 1:
                raise ValueError(f"{', '.join(filter(None, map(str, key)))} stands in it twice")
        return self

    def of(self, suite: str) -> tuple[Case, ...]:
        """The cases of one suite."""
        return tuple(c for c in self.cases if c.suite == suite)

    @property
    def code(self) -> str:
        """Version and commit that were measured, for people."""
        code = recorded(self.provenance | {"remctl": self.remctl_version})
        return f"remctl {code.version if code else 'of unknown version'}"


def write(path: Path, result: Result) -> None:
    """Atomically; its folder is made. Raises MachineError where the disk refuses."""
    make_folder(path.parent)
    write_json(path, result.model_dump(mode="json"))


def _printable(content: Any) -> Any:
    """The same without anything that a terminal would obey or a file could not hold: a foreign file's names are shown."""
    if isinstance(content, str):
        return "".join(c if c.isprintable() else "?" for c in content)
    if isinstance(content, list):
        return [_printable(value) for value in content]
    if isinstance(content, dict):
        return {_printable(key): _printable(value) for key, value in content.items()}
    return content


def read(path: Path) -> Result:
    """Raises UserError for a file that is no benchmark, MachineError for one that cannot be read."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; `remctl bench --out DIR` writes DIR/bench.json")
    with named_errors("reading", path):
        size = path.stat().st_size
        data = path.read_bytes() if size <= MAX_BYTES else b""
    try:
        content = _printable(json.loads(data))
        if isinstance(content, dict) and content.get("format", FORMAT) != FORMAT:
            raise UserError(
                f"{path}: written by another version of remctl (format {str(content['format'])[:20]}): measure again"
            )
        return Result.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"]) or "the whole file"
        raise UserError(f"{path}: not a bench.json of remctl ({key}: {first['msg']})") from None
    except (ValueError, RecursionError):
        raise UserError(f"{path}: not a bench.json of remctl (no JSON)") from None
