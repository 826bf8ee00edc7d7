"""A benchmark made up from a seed: the numbers hang together and mean nothing."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator
from random import Random
from typing import Any, NamedTuple
from zlib import crc32

from remctl.bench import result as b
from remctl.bench.spread import ratio, spread

NUM_ROUNDS = 7
PEAK = {"float32": 5.1e13, "bfloat16": 7.0e14}
COPY, OPERATION_S = 3.4e12, 4e-6
# Per configuration: K, horizon, batch, steps per epoch, layers.
REM, IRIS, IRIS_REM = "REM", "IRIS", "IRIS, REM's configuration"
NO_POP = "No POP"
TRAINING = ("tokenizer", "world_model", "imagination", "controller")
# Milliseconds of one run, that is one optimizer step or one imagination.
PAPER_MS = {
    REM: (38.0, 52.0, 61.0, 96.0),
    IRIS: (121.0, 88.0, 960.0, 1080.0),
    IRIS_REM: (122.0, 141.0, 1190.0, 1340.0),
}
ABLATIONS_MS = {
    REM: PAPER_MS[REM],
    NO_POP: (38.2, 49.0, 640.0, 676.0),
    "No latent-space C (two factors)": (38.1, 52.3, 97.0, 260.0),
}
COMPONENTS_MS = {
    REM: (52.0, 61.0),
    "One prediction token": (51.0, 60.0),
    "Chunks of 1 block": (58.0, 61.2),
    "Sequential states": (66.0, 61.1),
    NO_POP: (49.0, 640.0),
}
AXES = {
    "tokens_per_obs": (16, 64, 256),
    "imagined_steps": (4, 8, 16),
    "batch_size": (4, 16, 64),
    "num_layers": (2, 5, 10),
}
USUAL = {"tokens_per_obs": 64, "imagined_steps": 8, "batch_size": 16, "num_layers": 5}
MODELS = ("POP", "Sequential RetNet", "Transformer")
PHASES_MS = {"collect": 4.1, "tokenizer": 38.0, "encode": 9.0, "world_model": 52.0, "controller": 96.0, "test": 1900.0}
PACKED_S = {1: 60.0, 2: 36.0, 4: 31.0}  # for an epoch's training steps, all processes together; 8 do not fit
PHASE_STEPS = {"collect": 200, "tokenizer": 200, "encode": 1, "world_model": 200, "controller": 100, "test": 1}


class Work(NamedTuple):
    """How much of it: rollouts at once, optimizer steps per epoch, imagined steps, tokens of one observation."""

    batch_size: int
    steps_per_epoch: int | None
    horizon: int = 0
    tokens: int = 64
    layers: int = 5
    parallel: bool = True


def result(**changes: Any) -> b.Result:
    """All suites, 7 rounds each; `changes` replace fields of the result."""
    cases = (*paper(), *ablations(), *components(), *scaling(), *phases(), *packing_cases())
    value: dict[str, Any] = {
        "format": b.FORMAT,
        "remctl_version": "0.1.0",
        "scale": "paper",
        "scaled": (),
        "suites": ("paper", "ablations", "components", "scaling", "phases", "packing"),
        "complete": True,
        "provenance": {
            "time": "2026-02-03T12:00:00+00:00",
            "command": ["remctl", "bench", "--out", "runs/bench"],
            "git": {"commit": "0123456789abcdef0123456789abcdef01234567", "dirty": False},
            "machine": {"cpu": "AMD EPYC 9534", "num_cores_usable": 16},
            "packages": {"torch": "2.8.0"},
        },
        "device": device(),
        "checks": (
            b.Check(name="POP against token by token", error=3.1e-7, tolerance=1e-5),
            b.Check(name="chunks of 3 against chunks of 1", error=0.0, tolerance=1e-5),
        ),
        "cases": cases,
        "bounds": tuple(bounds()),
        "exponents": exponents(cases),
        "predictions": predictions(cases),
        "packing": packing(cases),
    }
    return b.Result(**value | changes)


def device(**changes: Any) -> b.Device:
    """The machine; 35 rounds of the fixed work."""
    value: dict[str, Any] = {
        "name": "NVIDIA H200",
        "num_threads": 16,
        "matmul_flops_per_s": PEAK,
        "copy_bytes_per_s": COPY,
        "operation_s": OPERATION_S,
        "clocks_mhz": {"sm": 1980.0, "memory": 3201.0},
        "calibration": rounds("calibration", 0.02, 35),
    }
    return b.Device(**value | changes)


def rounds(name: str, seconds: float, count: int = NUM_ROUNDS, noise: float = 0.02) -> tuple[float, ...]:
    """Skewed as timings are: never faster than possible, now and then much slower."""
    rng = Random(crc32(name.encode()))
    return tuple(seconds * (1 + noise * rng.expovariate(1.0)) for _ in range(count))


def config_hash(name: str) -> str:
    """Of a configuration of that name."""
    return f"{crc32(name.encode()):08x}{crc32(name[::-1].encode()):08x}"


def paper() -> Iterator[b.Case]:
    """The published configurations side by side."""
    sizes = {
        REM: lambda phase: _rem_work(phase),
        IRIS: lambda phase: _iris_work(phase, 16, 20, 64, 200),
        IRIS_REM: lambda phase: _iris_work(phase, 64, 10, 128, 100),
    }
    yield from _suite("paper", TRAINING, PAPER_MS, sizes)


def ablations() -> Iterator[b.Case]:
    """REM without one of its parts."""
    no_pop = {NO_POP: lambda phase: _rem_work(phase, parallel=False)}
    yield from _suite("ablations", TRAINING, ABLATIONS_MS, dict.fromkeys(ABLATIONS_MS, _rem_work) | no_pop)


def components() -> Iterator[b.Case]:
    """Schedules of the same mathematics."""
    no_pop = {NO_POP: lambda phase: _rem_work(phase, parallel=False)}
    sizes = dict.fromkeys(COMPONENTS_MS, _rem_work) | no_pop
    yield from _suite("components", ("world_model", "imagination"), COMPONENTS_MS, sizes)


def scaling() -> Iterator[b.Case]:
    """One axis at a time; the horizon matters to imagination only."""
    for axis, values in AXES.items():
        for value in values:
            for phase in ("imagination", "world_model"):
                if axis == "imagined_steps" and phase == "world_model":
                    continue
                base: tuple[float, ...] | None = None
                for name in MODELS:
                    made = _scaled_case(axis, value, phase, name, base)
                    base = base or made.seconds
                    yield made


def phases() -> Iterator[b.Case]:
    """Every phase of an epoch of REM."""
    for phase, milliseconds in PHASES_MS.items():
        size = _rem_work(phase)._replace(steps_per_epoch=PHASE_STEPS[phase])
        yield case("phases", REM, phase, milliseconds / 1000, size)


def packing_cases() -> Iterator[b.Case]:
    """An epoch's training steps of several processes at once."""
    base: tuple[float, ...] | None = None
    for number, seconds in PACKED_S.items():
        work = Work(64, None)
        name = process_name(number)
        made = case(
            "packing", name, "epoch", seconds, work, base, "1 process", counts=None, config_hash=config_hash(REM)
        )
        yield made.model_copy(update={"per_epoch_s": made.median, "flops_per_s": None, "share_of_peak": None})
        base = base or made.seconds


def packing(cases: tuple[b.Case, ...]) -> tuple[b.Packing, ...]:
    """What is known of them beside their times; 8 did not fit."""
    found = {c.name: c for c in cases if c.suite == "packing"}
    return tuple(
        b.Packing(
            name=process_name(n),
            label="paper, rem, Pong",
            num_processes=n,
            num_threads=16 // n,
            mix={"tokenizer": 2, "world_model": 2, "controller": 1},
            window_s=5.0,
            process_seconds=tuple((n * s,) * n for s in found[process_name(n)].seconds) if n in PACKED_S else (),
            memory_mb=9000.0 if n in PACKED_S else None,
            memory_in_all_mb=9500.0 * n if n in PACKED_S else None,
            failure="" if n in PACKED_S else "does not fit: OutOfMemoryError: CUDA out of memory.",
        )
        for n in (*PACKED_S, 8)
        if n not in PACKED_S or process_name(n) in found
    )


def process_name(number: int) -> str:
    """`1 process`, `2 processes`."""
    return f"{number} process{'es' * (number > 1)}"


def bounds() -> Iterator[b.Bound]:
    """Of token-by-token prediction."""
    for tokens in AXES["tokens_per_obs"]:
        for name in MODELS[1:]:
            calls = (tokens + 1) / 2
            yield b.Bound(
                name=name,
                tokens_per_obs=tokens,
                batch_size=128,
                calls=calls,
                operations=0.9 * calls,
                flops=0.55,
                bytes=0.8 * calls,
                predicted=0.7 * calls,
            )


def predictions(cases: tuple[b.Case, ...]) -> tuple[b.Prediction, ...]:
    """A run of the paper's preset."""
    times = {c.phase: c.per_epoch_s or 0.0 for c in cases if c.suite == "phases"}
    num = {"collect": 500, "tokenizer": 595, "encode": 550, "world_model": 575, "controller": 550, "test": 60}
    hours = {phase: num[phase] * seconds / 3600 for phase, seconds in times.items()}
    made = b.Prediction(
        label="REM, preset paper",
        config_hash=config_hash(REM),
        num_epochs=600,
        hours=math.fsum(hours.values()),
        phase_hours=hours,
    )
    return (made,)


def exponents(cases: tuple[b.Case, ...]) -> tuple[b.Exponent, ...]:
    """Least squares per round, then their median."""
    made = []
    for name, phase, axis in dict.fromkeys((c.name, c.phase, c.axis) for c in cases if c.axis):
        line = [c for c in cases if (c.name, c.phase, c.axis) == (name, phase, axis)]
        x = [math.log(c.value or 1) for c in line]
        slopes = [_slope(x, [math.log(c.seconds[i]) for c in line]) for i in range(NUM_ROUNDS)]
        made.append(
            b.Exponent(
                name=name, phase=phase, axis=axis or "", exponent=statistics.median(slopes), spread=spread(slopes)
            )
        )
    return tuple(made)


def case(
    suite: str,
    name: str,
    phase: str,
    seconds: float,
    work: Work,
    base: tuple[float, ...] | None = None,
    to: str = REM,
    **changes: Any,
) -> b.Case:
    """One case; `base` are the rounds of the case `to`; `measured=...` are its own, else they are made up."""
    label = f"{suite} {name} {phase} {changes.get('axis')} {changes.get('value')}"
    measured = tuple(changes.pop("measured", None) or rounds(label, seconds))
    median = statistics.median(measured)
    steps = work.horizon * work.batch_size
    made = counts(phase, work)
    value: dict[str, Any] = {
        "suite": suite,
        "name": name,
        "phase": phase,
        "batch_size": work.batch_size,
        "precision": "bfloat16",
        "config_hash": config_hash(name),
        "seconds": measured,
        "median": median,
        "spread": spread(measured),
        "runs_per_round": max(1, round(0.5 / median)),
        "ratio": ratio(measured, base, to) if base else None,
        "steps_per_epoch": work.steps_per_epoch,
        "imagined_steps": steps,
        "imagined_tokens": steps * work.tokens,
        "per_epoch_s": work.steps_per_epoch * median if work.steps_per_epoch else None,
        "per_imagined_step_s": median / steps if steps else None,
        "per_imagined_token_s": median / steps / work.tokens if steps else None,
        "counts": made,
        "predicted": predicted(made) if phase in ("world_model", "imagination") else None,
        "flops_per_s": made.flops / median,
        "share_of_peak": made.flops / median / PEAK["bfloat16"],
        "peak_memory_mb": 400.0 + work.batch_size * work.tokens * work.layers / 8,
    }
    return b.Case(**value | changes)


def counts(phase: str, work: Work) -> b.Counts:
    """As many sequential calls as the way of predicting needs; operations and FLOPs follow from them."""
    per_step = 2 if work.parallel else work.tokens + 1
    calls = work.horizon * per_step if work.horizon else int(phase == "world_model")
    flops = work.batch_size * work.layers * work.tokens * max(work.horizon, 10) * 24 * 256**2
    operations, copies = calls * work.layers * 31 + 12, calls * work.layers * 9 + 5
    return b.Counts(
        operations=operations + 140,
        copies=copies + 40,
        flops=flops + 10**9,
        model_calls=calls,
        model_operations=operations if calls else 0,
        model_copies=copies if calls else 0,
        model_flops=flops if calls else 0,
        kernels=operations + copies + 90,
    )


def predicted(made: b.Counts) -> b.Predicted:
    """The cost model, here nearly right."""
    moved = made.model_flops // 200
    return b.Predicted(
        model_calls=made.model_calls,
        model_operations=made.model_operations,
        model_flops=made.model_flops - made.model_flops // 50,
        model_bytes=moved,
        floor_s=max(made.model_flops / PEAK["bfloat16"], moved / COPY),
    )


def _suite(
    suite: str,
    phases: tuple[str, ...],
    milliseconds: dict[str, tuple[float, ...]],
    sizes: dict[str, Callable[[str], Work]],
) -> Iterator[b.Case]:
    for at, phase in enumerate(phases):
        base: tuple[float, ...] | None = None
        for name, times in milliseconds.items():
            made = case(suite, name, phase, times[at] / 1000, sizes[name](phase), base)
            base = base or made.seconds
            yield made


def _rem_work(phase: str, parallel: bool = True) -> Work:
    if phase in ("imagination", "controller"):
        return Work(128, 100, 9, parallel=parallel)
    return Work(128 if phase == "tokenizer" else 64 if phase == "world_model" else 1, 200)


def _iris_work(phase: str, tokens: int, horizon: int, batch_size: int, steps: int) -> Work:
    if phase in ("imagination", "controller"):
        return Work(batch_size, steps, horizon, tokens, 10, parallel=False)
    return Work(256 if phase == "tokenizer" else 64, 200, 0, tokens, 10)


def _scaled_case(axis: str, value: int, phase: str, name: str, base: tuple[float, ...] | None) -> b.Case:
    size = USUAL | {axis: value}
    tokens, batch = size["tokens_per_obs"], size["batch_size"]
    horizon = size["imagined_steps"] if phase == "imagination" else 0
    per_call = 1.1e-4 * size["num_layers"] * (1 + batch / 64)
    calls = 2 * horizon * (1 + tokens / 100) if name == "POP" else horizon * (tokens + 1)
    growth = 1 + (tokens * 10 / 900 if name == "Transformer" else 0)
    seconds = per_call * (calls or 10 * (1 + tokens / 60)) * growth
    work = Work(batch, None, horizon, tokens, size["num_layers"], parallel=name == "POP")
    hash_of = config_hash(f"{name} {axis} {value}")
    return case("scaling", name, phase, seconds, work, base, "POP", axis=axis, value=value, config_hash=hash_of)


def _slope(x: list[float], y: list[float]) -> float:
    mean_x, mean_y = statistics.fmean(x), statistics.fmean(y)
    over = math.fsum((a - mean_x) * (c - mean_y) for a, c in zip(x, y, strict=True))
    return over / math.fsum((a - mean_x) ** 2 for a in x)


def precision_effect() -> b.PrecisionEffect:
    """Of two seeds, without C: V's loss moves less than between the seeds, M's more."""
    return b.PrecisionEffect(
        label="paper, rem, Pong",
        config_hash=config_hash(REM),
        seeds=(0, 1),
        num_frames=2000,
        num_steps=100,
        batch_sizes={"tokenizer": 8, "world_model": 4},
        losses={
            "tokenizer": b.TrainedLoss(fp32=(1.0, 1.3), bf16=(1.1, 1.25)),
            "world_model": b.TrainedLoss(fp32=(2.0, 2.1), bf16=(2.2, 2.1)),
        },
        comparisons={"tokens alike": (0.5, 0.75)},
    )
