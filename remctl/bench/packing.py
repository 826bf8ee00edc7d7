"""Suite packing: what is gained where several processes train on one device, as `remctl ablate --runs-per-gpu` packs them.

Each process is one of its own (`remctl.bench.packing_worker`) with an agent, optimizers and random data of its own. In a round
1, 2, 4 and 8 of them take the training steps of an epoch for the same time, the others asleep; the next round goes the
other way round. What is recorded is seconds per epoch, of all processes together.
"""

from __future__ import annotations

import gc
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from remctl.bench.machine import Machine
from remctl.bench.measure import Measured, check_once, make_workload
from remctl.bench.packing_messages import Worked
from remctl.bench.packing_pool import Pool, WorkerDiedError
from remctl.bench.result import Case, Packing
from remctl.bench.spread import ratio, spread
from remctl.bench.suites import EPOCH, Group, Packed, Subject
from remctl.bench.timing import MB, seconds_of
from remctl.config import RunConfig, config_hash
from remctl.runs.provenance import usable_cores

TRAINED = ("tokenizer", "world_model", "controller")
MAX_MIX = 20  # steps; a longer turn of the work would make windows long


@dataclass
class Observed:
    """Of one number of processes: in each round each process' seconds per epoch; memory in 10^6 bytes; why it failed."""

    rounds: list[list[float]] = field(default_factory=list)
    memory_mb: float | None = None
    memory_in_all_mb: float | None = None
    failure: str = ""


def mix(config: RunConfig) -> dict[str, int]:
    """Optimizer steps of each component in one turn of the work: an epoch's, divided by what divides all of them.

    Where that leaves more than MAX_MIX steps, nearly the same proportion in about so many.
    """
    steps = _steps_per_epoch(config)
    total, common = sum(steps.values()), math.gcd(*steps.values())
    divisor = common if total <= MAX_MIX * common else total / MAX_MIX
    return {name: max(1, round(n / divisor)) for name, n in steps.items()}


def mixes_per_epoch(config: RunConfig) -> float:
    """So many turns have as many steps as an epoch."""
    return sum(_steps_per_epoch(config).values()) / sum(mix(config).values())


def _steps_per_epoch(config: RunConfig) -> dict[str, int]:
    return {name: getattr(config, name).training.steps_per_epoch for name in TRAINED}


def threads_each(num_cores: int, num_processes: int) -> int:
    """Threads of each process: the cores shared out evenly, as `remctl ablate` does."""
    return max(1, num_cores // num_processes)


def epoch_s(worked: Worked, per_epoch: float) -> float:
    """Seconds in which a process takes the steps of an epoch; `per_epoch` turns of the work are one."""
    return per_epoch * worked.seconds / worked.mixes


def together_s(process_seconds: Sequence[float]) -> float:
    """Seconds per epoch of all processes together, from each one's own: their rates add up."""
    return 1 / sum(1 / seconds for seconds in process_seconds)


def process_name(number: int) -> str:
    """Of the case: `1 process`, `2 processes`."""
    return f"{number} process{'es' * (number > 1)}"


def measure_packing(
    group: Group, machine: Machine, rounds: int, found: Measured, log: Callable[[str], None], check: Callable[[], None]
) -> None:
    """Adds the group's cases, and what else is known of them, to `found`.

    `check` is called while waiting, and may raise Interrupted to leave: the processes end, what whole rounds there are count.
    Where a process dies, so many and more are reported as not measured, and the rest is measured without them.
    """
    (subject,), packed = group.subjects, group.packed
    assert packed, f"the suite {group.suite} packs nothing"
    check_once(subject.name, make_workload(subject.config, machine.device).agent, found)
    _free_memory(machine.device)
    log(f"{group.suite}: {', '.join(map(str, packed.processes))} processes, {rounds} rounds in turns")
    sizes, failed = list(packed.processes), dict[int, Observed]()
    observed, calibration = dict[int, Observed](), list[float]()
    try:
        while sizes:
            observed, calibration = {n: Observed() for n in sizes}, []
            try:
                with Pool(subject.config, machine.device, mix(subject.config), check) as pool:
                    _measure(pool, subject.config, packed, machine, rounds, observed, calibration, check)
                break
            except WorkerDiedError as error:
                failed |= _failures(sizes, error)
                log(f"{process_name(error.num_processes)}: {error}")
                sizes = [n for n in sizes if n < error.num_processes]
    finally:
        _record(subject, packed, observed if sizes else {}, failed, calibration, found)
        machine.calibration += calibration


def _measure(
    pool: Pool,
    config: RunConfig,
    packed: Packed,
    machine: Machine,
    rounds: int,
    observed: dict[int, Observed],
    calibration: list[float],
    check: Callable[[], None],
) -> None:
    """A window of each number that does not count, with one more process at work than before; then the rounds."""
    cores, per_epoch = usable_cores(), mixes_per_epoch(config)
    before = _device_memory_mb(machine.device)
    for n, seen in observed.items():
        worked = pool.work(n, threads_each(cores, n), packed.window_s)
        own = [w.memory_mb for w in worked if w.memory_mb is not None]
        seen.memory_mb = max(own, default=None)
        now = _device_memory_mb(machine.device)
        seen.memory_in_all_mb = (sum(own) if own else None) if before is None or now is None else max(0.0, now - before)
    seconds_of(machine.calibrate, machine.device)
    for turn in range(rounds):
        check()
        calibration.append(seconds_of(machine.calibrate, machine.device))
        for n in list(observed)[:: -1 if turn % 2 else 1]:
            worked = pool.work(n, threads_each(cores, n), packed.window_s)
            observed[n].rounds.append([epoch_s(w, per_epoch) for w in worked])


def _failures(sizes: Sequence[int], error: WorkerDiedError) -> dict[int, Observed]:
    first = error.num_processes
    more = {n: Observed(failure=f"not tried: {first} failed") for n in sizes if n > first}
    return {first: Observed(failure=str(error))} | more


def _record(
    subject: Subject,
    packed: Packed,
    observed: dict[int, Observed],
    failed: dict[int, Observed],
    calibration: list[float],
    found: Measured,
) -> None:
    """Nothing where no round is whole."""
    whole = min([len(calibration), *(len(seen.rounds) for seen in observed.values())]) if observed else 0
    del calibration[whole:]
    measured = {n: seen for n, seen in observed.items() if whole}
    seconds = {n: [together_s(each) for each in seen.rounds[:whole]] for n, seen in measured.items()}
    for n in seconds:
        found.cases.append(_case(subject, n, seconds, calibration, measured[n].memory_in_all_mb))
    for n, seen in sorted((measured | failed).items()):
        found.packing.append(
            Packing(
                name=process_name(n),
                label=subject.name,
                num_processes=n,
                num_threads=threads_each(usable_cores(), n),
                mix=mix(subject.config),
                window_s=packed.window_s,
                process_seconds=tuple(map(tuple, seen.rounds[:whole])),
                memory_mb=seen.memory_mb,
                memory_in_all_mb=seen.memory_in_all_mb,
                failure=seen.failure,
            )
        )


def _case(
    subject: Subject, n: int, seconds: dict[int, list[float]], calibration: list[float], memory_mb: float | None
) -> Case:
    first, config = min(seconds), subject.config
    return Case(
        suite="packing",
        name=process_name(n),
        phase=EPOCH,
        batch_size=config.world_model.training.batch_size,
        precision=config.runtime.precision,
        config_hash=config_hash(config),
        seconds=tuple(seconds[n]),
        median=statistics.median(seconds[n]),
        spread=spread(seconds[n]),
        calibration=tuple(calibration),
        ratio=ratio(seconds[n], seconds[first], process_name(first)) if n != first else None,
        per_epoch_s=statistics.median(seconds[n]),
        peak_memory_mb=memory_mb,
    )


def _free_memory(device: torch.device) -> None:
    """What earlier suites hold on the device is others' now."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _device_memory_mb(device: torch.device) -> float | None:
    """In use on a GPU, by whomever, contexts included; None elsewhere."""
    if device.type != "cuda":
        return None
    free, whole = torch.cuda.mem_get_info(device)
    return (whole - free) / MB
