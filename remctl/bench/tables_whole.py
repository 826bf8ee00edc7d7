"""Tables about a benchmark as a whole: growth, bounds, predictions, checks and the machine."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from remctl.bench.numbers import bytes_text, counted, digits, plain, seconds_text, times_text
from remctl.bench.result import Check, Result
from remctl.bench.spread import spread
from remctl.bench.table import BenchTable, words


def exponents(result: Result) -> BenchTable:
    """How time grows with each size that was varied."""
    found = result.exponents
    rows = [
        (words(e.phase), words(e.axis), e.name, f"{e.exponent:.2f} [{e.spread.low:.2f}, {e.spread.high:.2f}]")
        for e in found
    ]
    header = ("phase", "varied", "case", "exponent")
    notes = ("Time grows as the varied size to this power; least squares on logarithms, over what was measured.",)
    return BenchTable("exponents", "how time grows", header, tuple(rows), (*notes, *result.scaled), 3)


def bounds(result: Result) -> BenchTable:
    """What token-by-token prediction needs over what POP needs; counted and computed, hence without a spread."""
    rows = [
        (b.name, str(b.tokens_per_obs), str(b.batch_size), *map(times_text, (b.calls, b.operations, b.flops, b.bytes)))
        + (times_text(b.predicted),)
        for b in result.bounds
    ]
    header = ("case", "tokens", "batch", "calls", "operations", "FLOPs", "bytes", "time")
    notes = (
        "Needed by a rollout of M alone, over what POP needs, in the published agent with so many tokens. "
        "time: as the cost model expects it here.",
    )
    return BenchTable("bounds", "what bounds the speed-up of POP", header, tuple(rows), notes)


def predictions(result: Result) -> BenchTable:
    """Hours of a whole run, and what they consist of."""
    rows = []
    for made in result.predictions:
        rows.append((made.label, "whole run", str(made.num_epochs), f"{digits(made.hours)} h"))
        rows += [("", words(phase), "", f"{digits(hours)} h") for phase, hours in made.phase_hours.items()]
    header = ("run", "phase", "epochs", "predicted")
    assumed = dict.fromkeys(f"Assumed: {made.assumption}." for made in result.predictions if made.assumption)
    notes = ("From the medians of the phases measured here; the machine is taken to stay as it was.", *assumed)
    return BenchTable("predictions", "predicted duration of a whole run", header, tuple(rows), notes, 2)


def checks(done: Sequence[Check]) -> BenchTable:
    """What was verified before anything was timed; without rows where nothing was."""
    rows = [
        (
            *_case_and_check(c.name),
            "equal" if c.error <= c.tolerance else "DIFFERENT",
            f"{c.error:.2g}",
            f"{c.tolerance:.2g}",
        )
        for c in done
    ]
    notes = (
        "error: largest error over the largest value of the reference; of the timed precision, root mean squares of both.",
    )
    header = ("case", "check", "verdict", "error", "allowed")
    return BenchTable("checks", "outputs against the reference", header, tuple(rows), notes, 2)


def _case_and_check(name: str) -> tuple[str, str]:
    case, _, check = name.rpartition(": ")
    return case, check


def device(result: Result) -> BenchTable:
    """The machine, and what was measured on it."""
    device = result.device
    facts = {"device": device.name, "threads": str(device.num_threads), "code": result.code, "scale": result.scale}
    facts |= {f"matmul, {name}": f"{counted(rate)}FLOP/s" for name, rate in device.matmul_flops_per_s.items()}
    facts |= {"copy": f"{bytes_text(device.copy_bytes_per_s)}/s", "one operation": plain(device.operation_s)}
    facts |= {f"clock, {name}": f"{clock:.0f} MHz" for name, clock in device.clocks_mhz.items()}
    if device.calibration:
        median = seconds_text(statistics.median(device.calibration), spread(device.calibration))
        facts["calibration"] = f"{median}, {len(device.calibration)} rounds"
    facts["complete"] = "yes" if result.complete else "no: cut off before all was measured"
    notes = ("calibration: the same fixed work in every round; it tells the machine's drift.", *result.scaled)
    title = "the machine, measured in the same run"
    return BenchTable("device", title, ("what", "measured"), tuple(facts.items()), notes, 2)
