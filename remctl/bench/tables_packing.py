"""The table of the suite packing: epochs' training steps per hour, of all processes together and of each."""

from __future__ import annotations

from collections.abc import Sequence

from remctl.bench.numbers import HOUR_S, NOTHING, bytes_text, gain_text, rate_text
from remctl.bench.result import Case, Packing, Result
from remctl.bench.table import BenchTable, words

MAX_REASON = 24  # characters; the whole of it stands below the table
STEPS = "epochs/h: training steps of so many epochs per hour, on random data; no environment, no encoding, no tests."
MEMORY = (
    "memory each: at the peak, of the largest process, what torch held of the GPU, or resident; in all: of the GPU, contexts "
    "included, or the sum."
)


def packing(result: Result, notes: Sequence[str]) -> BenchTable:
    """A row for each number of processes; `notes`: how the times were measured."""
    cases = {c.name: c for c in result.of("packing")}
    base = next((c.ratio.to for c in cases.values() if c.ratio), "1 process")
    rates = ("epochs/h in all", "epochs/h each", f"times {base}")
    header = ("processes", "threads each", *rates, "memory each", "memory in all")
    rows = tuple(_row(made, cases.get(made.name)) for made in result.packing)
    said = [_turn(made) for made in result.packing[:1]]
    said += [f"{made.name}: {made.failure.rstrip('.')}." for made in result.packing if made.failure]
    said += [STEPS, MEMORY]
    return BenchTable("packing", "packing: processes side by side on one device", header, rows, (*notes, *said))


def _row(made: Packing, case: Case | None) -> tuple[str, ...]:
    about = (str(made.num_processes), str(made.num_threads))
    memory = (_bytes(made.memory_mb), _bytes(made.memory_in_all_mb))
    if case is None or made.failure:
        return (*about, made.failure.partition(":")[0][:MAX_REASON] or "not measured", NOTHING, NOTHING, *memory)
    rates = [rate_text(case.median, case.spread, HOUR_S / n) for n in (1, made.num_processes)]
    return (*about, *rates, gain_text(case.ratio) if case.ratio else "baseline", *memory)


def _turn(made: Packing) -> str:
    steps = ", ".join(f"{count} {words(name)}" for name, count in made.mix.items())
    return f"{made.label}: steps in turns, {steps}; at least {made.window_s:g} s a round."


def _bytes(megabytes: float | None) -> str:
    return NOTHING if megabytes is None else bytes_text(megabytes * 1e6)
