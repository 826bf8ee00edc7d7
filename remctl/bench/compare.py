"""Two benchmarks, of two versions of the code or of two machines: what changed, and what only seems to. Without torch.

Two files were not measured side by side, so that both medians carry their own spread, and the machine may have drifted in
between: the same fixed work, repeated in every round of both, tells by how much. A difference is claimed only where the
interval of the ratio excludes 1 with that drift taken out and without.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from remctl.bench.numbers import NOTHING, bytes_text, counted, exact, ratio_text, seconds_text
from remctl.bench.result import Case, Counts, Ratio, Result, Spread, Verdict
from remctl.bench.spread import CONFIDENCE, spread, verdict
from remctl.bench.table import BenchTable, words
from remctl.bench.tables import in_order, left, left_header
from remctl.errors import UserError

Reason = Literal["", "inside the spread", "machine drift", "too few rounds"]
MARKS: dict[Reason, str] = {"": "", "inside the spread": "spread", "machine drift": "drift", "too few rounds": "rounds"}
EXACT = tuple(Counts.model_fields)
PACKED_RUN = "One run: an epoch's training steps, taken by all processes together."
MEMORY_NOISE = 0.05  # a difference of peak memory up to this share is none


@dataclass(frozen=True)
class Change:
    """One case in both. `ratio`: B's median over A's; `corrected`: its interval with the machine's drift taken out.

    `verdict` is B's; `reason` is why no difference is claimed, empty where one is.
    """

    a: Case
    b: Case
    ratio: Ratio
    corrected: Spread | None
    verdict: Verdict
    reason: Reason


@dataclass(frozen=True)
class CountChange:
    """A count of one case that differs: of one run of the work; `peak_memory_mb` in 10^6 bytes. None: not counted."""

    case: Case
    count: str
    a: float | None
    b: float | None


@dataclass(frozen=True)
class Unmatched:
    """A case in one file only: `measured_in` A or B, and why the other has no such case."""

    case: Case
    measured_in: Literal["A", "B"]
    reason: str


@dataclass(frozen=True)
class Comparison:
    """B against A. `hardware`: how the machines differ, as sentences; then nothing is known of a drift.

    `drift`: seconds of the fixed work in B over those in A; None across machines, or where a file has too few.
    """

    a: Result
    b: Result
    hardware: tuple[str, ...]
    drift: Ratio | None
    changes: tuple[Change, ...]
    counts: tuple[CountChange, ...]
    unmatched: tuple[Unmatched, ...]


def compare(a: Result, b: Result) -> Comparison:
    """B against A, case by case. Raises UserError where they have none in common."""
    in_a, in_b = {c.key: c for c in a.cases}, {c.key: c for c in b.cases}
    common = [key for key in in_a if key in in_b]
    unmatched = (
        *(Unmatched(c, "A", _why(c, b.cases, "B")) for key, c in in_a.items() if key not in in_b),
        *(Unmatched(c, "B", _why(c, a.cases, "A")) for key, c in in_b.items() if key not in in_a),
    )
    if not common:
        why = unmatched[0].reason if unmatched else "they hold no case at all"
        raise UserError(
            f"the two benchmarks have no case in common ({why}): measure both with the same suites, scale and configuration"
        )
    hardware = _hardware(a, b)
    drift = None if hardware else _drift(a.device.calibration, b.device.calibration)
    return Comparison(
        a=a,
        b=b,
        hardware=hardware,
        drift=drift,
        changes=tuple(_change(in_a[key], in_b[key], drift, bool(hardware)) for key in common),
        counts=tuple(made for key in common for made in _count_changes(in_a[key], in_b[key])),
        unmatched=unmatched,
    )


def _hardware(a: Result, b: Result) -> tuple[str, ...]:
    made = []
    if a.device.name != b.device.name:
        made.append(f"different hardware: A on {a.device.name}, B on {b.device.name}")
    if a.device.num_threads != b.device.num_threads:
        made.append(f"different hardware: A with {a.device.num_threads} threads, B with {b.device.num_threads}")
    return tuple(made)


def _drift(ours: Sequence[float], theirs: Sequence[float]) -> Ratio | None:
    """Of the fixed work's times in A and in B; None where they are too few."""
    if not ours or not theirs or min(spread(ours).coverage, spread(theirs).coverage) < CONFIDENCE:
        return None
    return _ratio(statistics.median(ours), spread(ours), statistics.median(theirs), spread(theirs))


def _ratio(a: float, a_spread: Spread, b: float, b_spread: Spread) -> Ratio:
    """B over A; its interval is as wide as the two allow, and covers what both do together at least."""
    coverage = max(0.0, a_spread.coverage + b_spread.coverage - 1)
    interval = Spread(low=b_spread.low / a_spread.high, high=b_spread.high / a_spread.low, coverage=coverage)
    enough = min(a_spread.coverage, b_spread.coverage) >= CONFIDENCE
    return Ratio(to="A", median=b / a, spread=interval, verdict=_side(interval) if enough else "no difference")


def _side(interval: Spread) -> Verdict:
    """The verdict on an interval whose parts have been seen to rest on enough rounds."""
    return verdict(interval.model_copy(update={"coverage": 1.0}))


def _change(a: Case, b: Case, overall: Ratio | None, other_hardware: bool) -> Change:
    """A drift is that of the rounds in which the case ran, where these are known. Without one it may explain any difference,
    but on other hardware, where there is nothing to correct for."""
    drift = None if other_hardware else (_drift(a.calibration, b.calibration) or overall)
    plain = _ratio(a.median, a.spread, b.median, b.spread)
    corrected = None if drift is None else _without(plain.spread, drift.spread)
    reason: Reason = ""
    if min(a.spread.coverage, b.spread.coverage) < CONFIDENCE:
        reason = "too few rounds"
    elif plain.verdict == "no difference":
        reason = "inside the spread"
    elif not other_hardware and (corrected is None or _side(corrected) != plain.verdict):
        reason = "machine drift"
    return Change(a, b, plain, corrected, "no difference" if reason else plain.verdict, reason)


def _without(interval: Spread, drift: Spread) -> Spread:
    coverage = max(0.0, interval.coverage + drift.coverage - 1)
    return Spread(low=interval.low / drift.high, high=interval.high / drift.low, coverage=coverage)


def _count_changes(a: Case, b: Case) -> list[CountChange]:
    pairs = {name: (getattr(a.counts, name, None), getattr(b.counts, name, None)) for name in EXACT}
    changed = [CountChange(b, name, x, y) for name, (x, y) in pairs.items() if x != y]
    x, y = a.peak_memory_mb, b.peak_memory_mb
    if x is not None and y is not None and abs(x - y) > MEMORY_NOISE * max(abs(x), abs(y)):
        changed.append(CountChange(b, "peak_memory_mb", x, y))
    return changed


def _why(case: Case, others: Sequence[Case], where: str) -> str:
    def work(c: Case) -> tuple[str | int | None, ...]:
        return (c.suite, c.axis, c.value, c.name, c.phase)

    same = [c for c in others if work(c) == work(case)]
    if not same:
        return f"not measured in {where}"
    other = next((c for c in same if c.config_hash == case.config_hash), same[0])
    made = [] if other.config_hash == case.config_hash else ["another configuration"]
    made += [] if other.batch_size == case.batch_size else [f"batch {other.batch_size}"]
    made += [] if other.precision == case.precision else [other.precision]
    return f"{', '.join(made)} in {where}"


def comparison_tables(comparison: Comparison) -> dict[str, BenchTable]:
    """By name, in the order to be read: machines, then a table per suite, counts, unmatched (where there are any)."""
    made = [_machines(comparison)]
    for suite in dict.fromkeys(c.a.suite for c in comparison.changes):
        made.append(_suite(suite, [c for c in comparison.changes if c.a.suite == suite], comparison))
    made.append(_counts(comparison))
    made += [_unmatched(comparison.unmatched)] if comparison.unmatched else []
    return {table.name: table for table in made}


def _machines(comparison: Comparison) -> BenchTable:
    a, b = comparison.a, comparison.b
    loud = "DIFFERENT HARDWARE: what differs below is not the code's doing alone"
    title = loud if comparison.hardware else "B against A"
    rows = [
        ("device", a.device.name, b.device.name),
        ("threads", str(a.device.num_threads), str(b.device.num_threads)),
        ("scale", a.scale, b.scale),
        ("fixed work", _fixed_work(a), _fixed_work(b)),
        *_libraries(a, b),
    ]
    notes = [f"A: {a.code}. B: {b.code}."]
    notes += [*(made.upper()[:1] + made[1:] + "." for made in comparison.hardware), _drift_note(comparison)]
    notes += [f"{n}: cut off before all was measured." for n, r in (("A", a), ("B", b)) if not r.complete]
    notes += [
        "A difference is claimed where the interval of B over A excludes 1, with the drift taken out and without.",
        "It is slower, or faster, than A by so many times; exact counts are compared as they are.",
    ]
    return BenchTable("machines", title, ("", "A", "B"), tuple(rows), tuple(notes))


def _libraries(a: Result, b: Result) -> list[tuple[str, str, str]]:
    """Those of other versions."""
    found = [made if isinstance(made := r.provenance.get("packages"), dict) else {} for r in (a, b)]
    names = sorted({*found[0], *found[1]})
    return [(n, str(found[0].get(n)), str(found[1].get(n))) for n in names if found[0].get(n) != found[1].get(n)]


def _fixed_work(result: Result) -> str:
    seconds = result.device.calibration
    return seconds_text(statistics.median(seconds), spread(seconds)) if seconds else NOTHING


def _drift_note(comparison: Comparison) -> str:
    if comparison.hardware:
        return "No correction for drift: the machines are not the same."
    if comparison.drift is None:
        return "A file has too few rounds of the fixed work: the drift is unknown, and no difference is claimed."
    return f"The machine's drift, by its time for the same fixed work: {ratio_text(comparison.drift)}."


def _suite(suite: str, changes: list[Change], comparison: Comparison) -> BenchTable:
    by_case = {c.a.key: c for c in changes}
    cases = in_order(c.a for c in changes)
    header = (*left_header(cases), "A", "B", "B over A", "why")
    rows = tuple(_row(by_case[case.key], left(case, cases)) for case in cases)
    claimed = sum(c.verdict != "no difference" for c in changes)
    shown = {c.reason for c in changes if c.reason}
    meaning: dict[Reason, str] = {
        "inside the spread": "spread: inside the spread of the rounds",
        "machine drift": "drift: the machine's drift may explain it",
        "too few rounds": "rounds: fewer than 6, too few to claim a difference",
    }
    why = "; ".join(text for reason, text in meaning.items() if reason in shown)
    notes = (f"{claimed} of {len(changes)} differ.", *([f"why: {why}."] if why else []))
    notes += (PACKED_RUN,) * (suite == "packing")
    loud = " (different hardware)" if comparison.hardware else ""
    return BenchTable(
        suite, f"{words(suite)}: time of one run, B against A{loud}", header, rows, notes, len(header) - 4
    )


def _row(change: Change, about: tuple[str, ...]) -> tuple[str, ...]:
    a, b = change.a, change.b
    judged = change.ratio.model_copy(update={"verdict": change.verdict})
    times = (seconds_text(a.median, a.spread), seconds_text(b.median, b.spread))
    return (*about, *times, ratio_text(judged), MARKS[change.reason] or NOTHING)


def _counts(comparison: Comparison) -> BenchTable:
    cases = [c.case for c in comparison.counts]
    rows = [
        (f"{made.case.suite}: {_about(made.case, cases)}", words(made.count.removesuffix("_mb")), *_amounts(made))
        for made in comparison.counts
    ]
    num = len(comparison.changes)
    notes = (
        ("Of one run, exact; memory where it differs by more than a twentieth.",)
        if rows
        else (f"The same in all {num} cases: operations, copies, FLOPs, calls, memory.",)
    )
    return BenchTable("counts", "counts that changed", ("case", "count", "A", "B"), tuple(rows), notes, 2)


def _about(case: Case, cases: Sequence[Case]) -> str:
    return ", ".join(cell for cell in left(case, [c for c in cases if c.suite == case.suite]) if cell != NOTHING)


def _amounts(made: CountChange) -> tuple[str, str]:
    values = (made.a, made.b)
    if made.count == "peak_memory_mb":
        texts = tuple(bytes_text(None if v is None else v * 1e6) for v in values)
    else:
        texts = tuple(
            counted(v) if v is not None and v >= 1e7 else exact(None if v is None else int(v)) for v in values
        )
    if texts[0] == texts[1]:  # they differ behind the digits shown
        unit = " MB" if made.count == "peak_memory_mb" else ""
        texts = tuple(f"{v:,}{unit}" for v in values)
    return texts[0], texts[1]


def _unmatched(unmatched: Sequence[Unmatched]) -> BenchTable:
    cases = [u.case for u in unmatched]
    rows = [(f"{u.case.suite}: {_about(u.case, cases)}", u.measured_in, u.reason) for u in unmatched]
    return BenchTable("unmatched", "cases in one file only", ("case", "in", "why"), tuple(rows), (), 3)
