"""A benchmark as text: nothing bare, nothing wider than a terminal."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remctl.bench.numbers import (
    NOTHING,
    bytes_text,
    counted,
    digits,
    gain_text,
    of_peak,
    plain,
    ratio_text,
    seconds_text,
)
from remctl.bench.result import Ratio, Spread
from remctl.bench.spread import verdict
from remctl.bench.table import BenchTable
from remctl.bench.tables import denominators, tables
from remctl.commands.bench_output import fitted, show_tables
from tests.bench.synthetic import IRIS, IRIS_REM, REM, case, phases, result
from tests.bench.synthetic import Work as Size

NUMBER = r"\d[\d.]*"
TIME = rf"{NUMBER} (s|ms|us|ns) \[{NUMBER}, {NUMBER}\]"
RATIO = rf"{NUMBER}x \[{NUMBER}, {NUMBER}\]"
JUDGED = rf"{RATIO} (slower|faster)|no difference \({RATIO}\)"


def spread_of(low: float, high: float) -> Spread:
    return Spread(low=low, high=high, coverage=0.97)


def ratio_of(low: float, median: float, high: float) -> Ratio:
    return Ratio(to="REM", median=median, spread=spread_of(low, high), verdict=verdict(spread_of(low, high)))


@pytest.fixture(scope="module")
def made() -> dict[str, BenchTable]:
    return tables(result())


def column(table: BenchTable, name: str) -> list[str]:
    return [row[table.header.index(name)] for row in table.rows]


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ((2.28, 2.311, 2.4), "2.31 s [2.28, 2.40]"),
        ((0.0998, 0.1011, 0.104), "101 ms [99.8, 104]"),
        ((0.95, 0.9996, 1.2), "1000 ms [950, 1200]"),
        ((2e-7, 2.5e-7, 3e-7), "250 ns [200, 300]"),
        ((1200.0, 1234.0, 1300.0), "1234 s [1200, 1300]"),
    ],
)
def test_a_time_bears_its_interval_in_its_own_unit(numbers: tuple[float, float, float], text: str) -> None:
    low, median, high = numbers
    assert seconds_text(median, spread_of(low, high)) == text


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ((10.1, 10.3, 10.6), "10.3x [10.1, 10.6] slower"),
        ((0.93, 0.98, 1.04), "no difference (0.98x [0.93, 1.04])"),
        ((0.4, 0.5, 0.8), "2.00x [1.25, 2.50] faster"),
        ((1.0021, 1.004, 1.011), "1.004x [1.002, 1.011] slower"),
        ((136.6, 138.2, 142.4), "138x [137, 142] slower"),
        ((0.01, 0.0312, 3.0), "no difference (0.0312x [0.0100, 3.00])"),
    ],
)
def test_a_ratio_bears_its_interval_and_a_verdict(numbers: tuple[float, float, float], text: str) -> None:
    assert ratio_text(ratio_of(*numbers)) == text


@given(st.floats(1e-6, 1e6), st.floats(1e-6, 1e6), st.floats(1e-6, 1e6))
def test_every_time_and_every_ratio_reads_alike(x: float, y: float, z: float) -> None:
    low, median, high = sorted((x, y, z))
    assert re.fullmatch(TIME, seconds_text(median, spread_of(low, high)))
    assert re.fullmatch(JUDGED, ratio_text(ratio_of(low, median, high)))
    assert float(digits(median)) == pytest.approx(median, rel=0.005)


def test_other_numbers() -> None:
    assert [counted(n) for n in (None, 12, 1.61e11, 2e15)] == [NOTHING, "12", "161 G", "2.00 P"]
    assert [bytes_text(n) for n in (None, 12, 1.68e9)] == [NOTHING, "12 B", "1.68 GB"]
    assert [of_peak(n) for n in (None, 0.0256, 0.0)] == [NOTHING, "2.56%", "0%"]
    assert [plain(n) for n in (None, 0.0, 2e-6)] == [NOTHING, "0 ns", "2.00 us"]


def test_every_suite_measured_has_its_tables(made: dict[str, BenchTable]) -> None:
    suites = ("paper", "ablations", "components", "scaling", "phases", "packing")
    counts = ("paper_counts", "ablations_counts", "components_counts")
    others = ("paper_ratios", "published", "exponents", "bounds", "predictions", "checks", "device")
    assert set(made) == {*suites, *counts, *others}
    assert all(name == table.name for name, table in made.items())
    assert all(len(row) == len(table.header) for table in made.values() for row in table.rows)
    only = tables(result(suites=("phases",), cases=tuple(phases()), exponents=(), bounds=()))
    assert list(only) == ["phases", "predictions", "checks", "device"]
    assert set(tables(result(cases=(), exponents=(), bounds=(), predictions=(), packing=()))) == {"checks", "device"}


@pytest.mark.parametrize("name", ["paper", "ablations", "components", "scaling", "phases"])
def test_no_time_and_no_ratio_stands_alone(made: dict[str, BenchTable], name: str) -> None:
    for row in made[name].rows:
        for title, cell in zip(made[name].header, row, strict=True):
            if title in ("one run", "per epoch", "per step", "per token"):
                assert cell == NOTHING or re.fullmatch(TIME, cell), (title, cell)
            if title.startswith("against"):
                assert cell == "baseline" or re.fullmatch(JUDGED, cell), (title, cell)
    assert any("98.4%" in note for note in made[name].notes)
    assert any("NVIDIA H200, bfloat16; remctl 0.1.0+g0123456789ab" in note for note in made[name].notes)


def test_unequal_work_is_compared_per_epoch_step_and_token(made: dict[str, BenchTable]) -> None:
    assert not any(title.startswith("against") for title in made["paper"].header)
    rows = {row[:3]: row[3] for row in made["paper_ratios"].rows}
    by_name = {c.name: c for c in result().of("paper") if c.phase == "controller"}
    iris = by_name[IRIS]
    assert iris.ratio is not None
    for per, factor in (("epoch", 200 / 100), ("step", 128 * 9 / (64 * 20)), ("token", 128 * 9 * 64 / (64 * 20 * 16))):
        scaled = denominators(iris, by_name[REM])[per]
        assert scaled.median == pytest.approx(iris.ratio.median * factor)
        assert rows["controller", IRIS, per] == ratio_text(scaled)
    assert ("tokenizer", IRIS, "epoch") in rows
    assert ("tokenizer", IRIS, "step") not in rows


def test_a_verdict_is_made_anew_for_each_denominator() -> None:
    base = case("paper", REM, "controller", 1.0, Size(10, 100, 10))
    slow = case("paper", IRIS, "controller", 1.5, Size(10, 100, 20), base.seconds)
    found = {per: made.verdict for per, made in denominators(slow, base).items()}
    assert found == {"epoch": "slower", "step": "faster", "token": "faster"}


def test_equal_work_has_its_ratio_beside_it(made: dict[str, BenchTable]) -> None:
    for name, to in (("ablations", "REM"), ("components", "REM"), ("scaling", "POP")):
        cells = column(made[name], f"against {to}")
        assert {
            cell == "baseline" for cell, case in zip(cells, column(made[name], "case"), strict=True) if case == to
        } == {True}
        assert any("hold per epoch, step and token alike" in note for note in made[name].notes)


def test_the_papers_times_with_all_three_denominators(made: dict[str, BenchTable]) -> None:
    rows = {row[:3]: row[3:5] for row in made["published"].rows}
    assert rows["controller", REM, "epoch"] == ("20 s", NOTHING)
    assert rows["controller", IRIS, "epoch"] == ("309 s", "15.4x")
    assert rows["controller", IRIS, "step"][1] == "6.95x"
    assert rows["controller", IRIS, "token"][1] == "27.8x"
    assert rows["controller", IRIS_REM, "epoch"] == ("213 s", "10.7x")
    assert any("115,200 steps" in note and "256,000 steps" in note for note in made["published"].notes)
    assert all(re.fullmatch(TIME, cell) for cell in column(made["published"], "here"))


def test_counts_stand_beside_what_was_predicted(made: dict[str, BenchTable]) -> None:
    rows = {row[:2]: dict(zip(made["paper_counts"].header, row, strict=True)) for row in made["paper_counts"].rows}
    assert rows["imagination", IRIS]["M calls"] == "340 / 340"
    assert rows["controller", IRIS]["M calls"] == "340 / -"
    assert rows["tokenizer", IRIS]["M calls"] == NOTHING
    assert rows["imagination", REM]["floor"].endswith("us")


def test_what_limits_a_benchmark_is_said_below_it() -> None:
    few = case("phases", REM, "collect", 0.1, Size(1, 200), measured=(0.1, 0.11, 0.12))
    table = tables(result(cases=(few,), complete=False, scaled=("batch 128 -> 8",)))["phases"]
    said = " ".join(table.notes)
    assert "Too few rounds" in said
    assert "Cut off" in said
    assert "batch 128 -> 8" in said


def test_batch_and_precision_are_said_where_they_tell_cases_apart() -> None:
    one = next(iter(phases()))
    other = one.model_copy(update={"batch_size": 64, "precision": "float32"})
    table = tables(result(cases=(one, other)))["phases"]
    assert column(table, "case") == ["REM, batch 1, bfloat16", "REM, batch 64, float32"]


def test_a_failed_check_is_loud() -> None:
    bad = result().checks[0].model_copy(update={"error": 1.0})
    assert column(tables(result(checks=(bad,)))["checks"], "verdict") == ["DIFFERENT"]


def lines_of(part: BenchTable) -> list[str]:
    widths = [max(map(len, cells)) for cells in zip(part.header, *part.rows, strict=True)]
    return ["   ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in part.rows]


def test_all_of_it_fits_80_columns(
    made: dict[str, BenchTable], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for table in made.values():
        for part in fitted(table, 80):
            assert max(map(len, lines_of(part)), default=0) <= 80, table.name
    show_tables(made)
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80
    for table in made.values():
        assert table.title in printed
        cells = {cell for row in table.rows for cell in row if cell not in ("", NOTHING)}
        assert all(cell in printed for cell in cells), table.name  # none wrapped, none cut off, none lost


def test_a_table_is_split_between_columns_and_loses_nothing() -> None:
    rows = (("p", "a", "x" * 30, "1" * 30, NOTHING), ("p", "b", "y" * 30, NOTHING, "2" * 30))
    wide = BenchTable("t", "T", ("phase", "case", "A", "B", "C"), rows, (), 2)
    parts = fitted(wide, 80)
    assert [part.header for part in parts] == [("phase", "case", "A", "B"), ("phase", "case", "C")]
    assert parts[1].rows == (("p", "b", "2" * 30),)
    assert fitted(wide, width=200) == [wide]


def test_rows_are_grouped_where_that_saves_a_part() -> None:
    rows = (("imagination", "a" * 30, "1" * 20, "2" * 20), ("imagination", "b", "3", "4"))
    (part,) = fitted(BenchTable("t", "T", ("phase", "case", "A", "B"), rows, (), 2), 80)
    assert part.header == ("case", "A", "B")
    assert [row[0] for row in part.rows] == ["imagination", "  " + "a" * 30, "  b"]


def test_what_cannot_fit_stays_whole() -> None:
    wide = BenchTable("t", "T", ("case", "A"), (("a" * 60, "b" * 60),))
    assert fitted(wide, 80) == [wide]


# --- processes side by side


def test_throughput_in_all_and_of_each_process(made: dict[str, BenchTable]) -> None:
    """Seconds of all together turned into epochs per hour; the ratio of times is turned round too."""
    table, cases = made["packing"], result().of("packing")
    assert column(table, "processes") == ["1", "2", "4", "8"]
    assert column(table, "threads each") == ["16", "8", "4", "2"]
    for measured, row in zip(cases, table.rows, strict=False):
        number = int(row[0])
        for cell, part in ((row[2], 1), (row[3], number)):
            assert re.fullmatch(rf"{NUMBER} \[{NUMBER}, {NUMBER}\]", cell)
            middle, low, high = (float(n) for n in re.findall(NUMBER, cell))
            assert middle == pytest.approx(3600 / measured.median / part, rel=0.01)
            assert low == pytest.approx(3600 / measured.spread.high / part, rel=0.01)
            assert high == pytest.approx(3600 / measured.spread.low / part, rel=0.01)
        assert (row[4] == "baseline") == (number == 1)
        if measured.ratio:
            assert float(row[4].split("x")[0]) == pytest.approx(1 / measured.ratio.median, rel=0.01)
    assert table.header[4] == "times 1 process"


def test_what_did_not_fit_has_no_numbers_and_its_reason_below(made: dict[str, BenchTable]) -> None:
    assert made["packing"].rows[3] == ("8", "2", "does not fit", NOTHING, NOTHING, NOTHING, NOTHING)
    assert any("8 processes: does not fit: OutOfMemoryError" in note for note in made["packing"].notes)
    nothing = tables(result(cases=(), packing=result().packing[3:]))["packing"]
    assert [row[2] for row in nothing.rows] == ["does not fit"]


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ((0.5, 0.55, 0.6), "1.82x [1.67, 2.00]"),
        ((1.2, 1.25, 1.5), "0.80x [0.67, 0.83]"),
        ((0.93, 1.04, 1.1), "no difference (0.96x [0.91, 1.08])"),
    ],
)
def test_a_ratio_of_times_as_one_of_throughputs(numbers: tuple[float, float, float], text: str) -> None:
    assert gain_text(ratio_of(*numbers)) == text
