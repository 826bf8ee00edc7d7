"""Two benchmarks side by side: a difference is claimed where there is one, and only there."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from remctl.bench.compare import Comparison, compare, comparison_tables
from remctl.bench.result import Case, Counts, Result, write
from remctl.bench.spread import spread
from remctl.commands.bench_compare import compare as verb
from remctl.errors import UserError
from tests.bench.synthetic import NO_POP, REM, device, result, rounds

WHOLE = result()


@pytest.fixture(autouse=True)
def _terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def timed(case: Case, seconds: Sequence[float]) -> Case:
    return case.model_copy(
        update={
            "seconds": tuple(seconds),
            "median": statistics.median(seconds),
            "spread": spread(seconds),
            "ratio": None,
        }
    )


def slower(made: Result, factor: float, name: str | None = None) -> Result:
    """Times of every case, or of those called so, multiplied."""
    cases = [timed(c, [factor * x for x in c.seconds]) if name in (None, c.name) else c for c in made.cases]
    return made.model_copy(update={"cases": tuple(cases)})


def machine(made: Result, factor: float) -> Result:
    """The fixed work took so many times as long."""
    seconds = tuple(factor * x for x in made.device.calibration)
    return made.model_copy(update={"device": device(calibration=seconds)})


def one(seconds: Sequence[float], **changes: object) -> Result:
    """A benchmark with a single case."""
    case = timed(WHOLE.cases[0], seconds)
    return WHOLE.model_copy(update={"cases": (case.model_copy(update=changes),)})


def claimed(comparison: Comparison) -> set[tuple[str, str]]:
    return {(c.a.name, c.verdict) for c in comparison.changes if c.verdict != "no difference"}


def test_a_benchmark_does_not_differ_from_itself() -> None:
    made = compare(result(), result())
    assert len(made.changes) == len(result().cases)
    assert claimed(made) == set()
    assert {c.reason for c in made.changes} == {"inside the spread"}
    assert all(c.ratio.median == 1 for c in made.changes)
    assert (made.counts, made.unmatched, made.hardware) == ((), (), ())
    assert made.drift is not None
    assert made.drift.verdict == "no difference"


@pytest.mark.parametrize("factor", [0.7, 1.5])
def test_a_machine_that_drifted_is_no_difference(factor: float) -> None:
    made = compare(result(), machine(slower(result(), factor), factor))
    assert claimed(made) == set()
    assert {c.reason for c in made.changes} == {"machine drift"}


def test_a_drift_that_hides_a_difference_does_not_make_one() -> None:
    made = compare(result(), machine(result(), 1.3))  # as fast as ever, on a machine slower by 30%
    assert claimed(made) == set()
    assert {c.reason for c in made.changes} == {"inside the spread"}


@pytest.mark.parametrize(("factor", "verdict"), [(0.8, "faster"), (1.2, "slower")])
def test_a_true_change_of_20_percent_is_found(factor: float, verdict: str) -> None:
    made = compare(result(), slower(result(), factor, NO_POP))
    assert claimed(made) == {(NO_POP, verdict)}
    assert all(c.reason == "" for c in made.changes if c.a.name == NO_POP)
    assert all(c.ratio.median == pytest.approx(factor) for c in made.changes if c.a.name == NO_POP)


def test_a_true_change_is_found_under_a_drift_that_cannot_explain_it() -> None:
    made = compare(result(), machine(slower(result(), 1.5), 1.05))
    assert {verdict for _, verdict in claimed(made)} == {"slower"}
    assert all(c.reason == "" for c in made.changes)


def test_spreads_that_overlap_are_no_difference() -> None:
    wide = (1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6)
    (change,) = compare(one(wide), one([x + 0.3 for x in wide])).changes
    assert change.ratio.median == pytest.approx(1.6 / 1.3)
    assert change.ratio.spread.low == pytest.approx(1.3 / 1.6)
    assert change.ratio.spread.high == pytest.approx(1.9 / 1.0)
    assert (change.verdict, change.reason) == ("no difference", "inside the spread")


@pytest.mark.parametrize(("few", "many"), [(5, 5), (5, 9), (9, 5), (1, 1)])
def test_too_few_rounds_claim_nothing(few: int, many: int) -> None:
    (change,) = compare(one([1.0] * few), one([9.0] * many)).changes
    assert (change.verdict, change.reason) == ("no difference", "too few rounds")
    (enough,) = compare(one([1.0] * 6), one([9.0] * 6)).changes
    assert enough.verdict == "slower"


@pytest.mark.parametrize("calibration", [(), (0.02,) * 5])
def test_an_unknown_drift_may_explain_anything(calibration: tuple[float, ...]) -> None:
    made = compare(result(device=device(calibration=calibration)), slower(result(), 2.0))
    assert made.drift is None
    assert {(c.verdict, c.reason) for c in made.changes} == {("no difference", "machine drift")}
    assert any("drift is unknown" in note for note in comparison_tables(made)["machines"].notes)


def test_noise_alone_is_claimed_hardly_ever() -> None:
    """Both times drawn from one skewed distribution: each interval misses in 2%, and both at once, apart, hardly ever."""
    pairs = [compare(one(rounds(f"a{i}", 1.0, 7, 0.5)), one(rounds(f"b{i}", 1.0, 7, 0.5))) for i in range(300)]
    assert sum(bool(claimed(made)) for made in pairs) <= 3


@pytest.mark.parametrize("changes", [{"name": "NVIDIA RTX 4090"}, {"num_threads": 2}])
def test_other_hardware_is_allowed_and_said_loudly(changes: dict[str, object]) -> None:
    made = compare(result(), slower(result(device=device(**changes)), 2.0))
    assert made.hardware[0].startswith("different hardware: ")
    assert made.drift is None
    assert {verdict for _, verdict in claimed(made)} == {"slower"}
    assert all(c.corrected is None for c in made.changes)
    shown = comparison_tables(made)
    assert shown["machines"].title.startswith("DIFFERENT HARDWARE")
    assert all("different hardware" in shown[suite].title for suite in result().suites)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"config_hash": "other"}, "another configuration in B"),
        ({"batch_size": 7}, "batch 7 in B"),
        ({"precision": "float32"}, "float32 in B"),
        ({"config_hash": "other", "batch_size": 7}, "another configuration, batch 7 in B"),
        ({"name": "Other"}, "not measured in B"),
    ],
)
def test_a_case_in_one_file_only_comes_with_the_reason(changes: dict[str, object], reason: str) -> None:
    a = result()
    b = a.model_copy(update={"cases": (a.cases[0].model_copy(update=changes), *a.cases[1:])})
    made = compare(a, b)
    assert [(u.measured_in, u.case.key) for u in made.unmatched] == [("A", a.cases[0].key), ("B", b.cases[0].key)]
    assert made.unmatched[0].reason == reason
    assert len(made.changes) == len(a.cases) - 1
    assert len(comparison_tables(made)["unmatched"].rows) == 2


@pytest.mark.parametrize(
    ("cases", "why"),
    [
        ((), "not measured in B"),
        (tuple(c.model_copy(update={"batch_size": 3}) for c in result().cases), "batch 3 in B"),
    ],
)
def test_nothing_in_common_comes_with_the_fix(cases: tuple[Case, ...], why: str) -> None:
    with pytest.raises(UserError, match=f"no case in common .{why}.: measure both with the same"):
        compare(result(), result(cases=cases))
    with pytest.raises(UserError, match="no case at all"):
        compare(result(cases=()), result(cases=()))


def test_counts_are_compared_exactly() -> None:
    a = result()
    first = a.cases[0]
    assert first.counts is not None
    counts = first.counts.model_copy(
        update={"operations": first.counts.operations + 1, "flops": first.counts.flops + 1}
    )
    case = first.model_copy(update={"counts": counts, "peak_memory_mb": 6521.0})
    made = compare(a, a.model_copy(update={"cases": (case, *a.cases[1:])}))
    assert [(c.count, c.a, c.b) for c in made.counts] == [
        ("operations", first.counts.operations, counts.operations),
        ("flops", first.counts.flops, counts.flops),
        ("peak_memory_mb", first.peak_memory_mb, 6521.0),
    ]
    rows = {row[1]: row[2:] for row in comparison_tables(made)["counts"].rows}
    assert rows["flops"] == (f"{first.counts.flops:,}", f"{counts.flops:,}")  # apart behind the digits otherwise shown
    assert claimed(made) == set()
    assert "same in all" in comparison_tables(compare(a, a))["counts"].notes[0]


@pytest.mark.parametrize("counts", [None, result().cases[0].counts])
def test_what_was_not_counted_is_shown_as_such(counts: Counts | None) -> None:
    a = one([1.0] * 6)
    b = one([1.0] * 6, counts=None)
    a = a if counts else b
    rows = comparison_tables(compare(a, b))["counts"].rows
    assert all(row[-1] == "-" for row in rows)
    assert bool(rows) == (counts is not None)


@pytest.fixture
def files(tmp_path: Path) -> Callable[..., tuple[Path, Path]]:
    def made(b: Result) -> tuple[Path, Path]:
        write(tmp_path / "A.json", result())
        write(tmp_path / "B.json", b)
        return tmp_path / "A.json", tmp_path / "B.json"

    return made


def test_on_the_command_line(files: Callable[..., tuple[Path, Path]], capsys: pytest.CaptureFixture[str]) -> None:
    a, b = files(slower(result(device=device(name="NVIDIA RTX 4090")), 1.2, NO_POP))
    verb(a, b)
    out = capsys.readouterr().out
    assert out.splitlines()[:3] == [f"A: {a}", f"B: {b}", "different hardware: A on NVIDIA H200, B on NVIDIA RTX 4090"]
    assert "] slower" in out
    assert max(map(len, out.splitlines()[3:])) <= 80


def test_as_json(files: Callable[..., tuple[Path, Path]], capsys: pytest.CaptureFixture[str]) -> None:
    verb(*files(slower(result(), 1.2, NO_POP)), json=True)
    made = json.loads(capsys.readouterr().out)
    assert len(made["cases"]) == len(result().cases)
    verdicts = {(case["name"] == NO_POP, case["verdict"], case["reason"]) for case in made["cases"]}
    assert verdicts == {(True, "slower", ""), (False, "no difference", "inside the spread")}
    rem = next(case for case in made["cases"] if case["name"] == REM)
    assert rem["ratio"] == 1
    assert set(rem["spread"]) == {"low", "high", "coverage"}
    assert made["drift"]["verdict"] == "no difference"
