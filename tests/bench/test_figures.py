"""The figures of a benchmark: what they say, the same bytes every time, nothing that a file could break."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from remctl.bench import figures, marks
from remctl.bench import result as b
from remctl.bench.numbers import digits
from remctl.drawing import FORMATS, Drawing, LeftOut, pictures, styled
from remctl.errors import UserError
from tests.bench.synthetic import REM, case, config_hash, exponents, result

EVIL = "<script>$x_{\\foo$\n\x00\ud800" + "x" * 300


def drawn(made: b.Result) -> dict[str, Drawing | LeftOut]:
    with styled():
        return {d.stem: d for d in figures.draw(made)}


def svg(drawing: Drawing | LeftOut) -> str:
    assert isinstance(drawing, Drawing)
    with styled():
        return pictures(drawing.figure, ("svg",))["svg"].decode()


def alt(made: b.Result, stem: str) -> str:
    drawing = drawn(made)[stem]
    assert isinstance(drawing, Drawing)
    return drawing.alt


def only(*cases: b.Case, **changes: object) -> b.Result:
    return result(**{"cases": cases, "exponents": (), "predictions": (), "packing": ()} | changes)


def of(seconds: float, **changes: object) -> b.Case:
    """A case of REM's tokenizer whose rounds all took `seconds`."""
    given = next(c for c in result().cases if (c.suite, c.name, c.phase) == ("paper", REM, "tokenizer"))
    exact = {"seconds": (seconds,) * 7, "median": seconds, "spread": b.Spread(low=seconds, high=seconds, coverage=0.98)}
    steps = changes.get("steps_per_epoch", given.steps_per_epoch)
    exact["per_epoch_s"] = steps and steps * seconds  # type: ignore[operator]
    return given.model_copy(update=exact | changes)


def compared(seconds: float, ratio: float, **changes: object) -> b.Case:
    spread = b.Spread(low=ratio * 0.98, high=ratio * 1.02, coverage=0.98)
    of_it = b.Ratio(to=REM, median=ratio, spread=spread, verdict="slower" if spread.low > 1 else "faster")
    return of(seconds, name="IRIS", ratio=of_it, **changes)


# --- what they say


def test_every_suite_has_its_figure() -> None:
    made = drawn(result())
    assert list(made) == list(figures.STEMS)
    for drawing in made.values():
        assert isinstance(drawing, Drawing)
        assert ET.fromstring(svg(drawing)).tag.endswith("svg")
        assert drawing.alt.endswith(".")
        assert "Measured on NVIDIA H200, 16 threads, scale paper." in drawing.explanation
    assert "98.4% or more (7 rounds)" in made["bench_paper"].explanation  # type: ignore[union-attr]


def test_what_was_not_measured_is_left_out() -> None:
    for stem, drawing in drawn(only()).items():
        assert isinstance(drawing, LeftOut)
        assert drawing.reason.endswith(".")
        assert stem.removeprefix("bench_") in drawing.reason or "predicted" in drawing.reason


def test_seconds_per_epoch_and_the_ratio_of_epochs() -> None:
    """A run of the work 3 times as long, twice as often in an epoch: 6 times the time."""
    made = only(of(0.1, steps_per_epoch=100), compared(0.3, 3.0, steps_per_epoch=200))
    assert alt(made, "bench_paper") == "Tokenizer: REM 10.0, IRIS 60.0 6.00× s."


def test_no_difference_is_marked() -> None:
    same = of(
        0.1,
        name="IRIS",
        ratio=b.Ratio(to=REM, median=1.0, spread=b.Spread(low=0.9, high=1.1, coverage=0.98), verdict="no difference"),
    )
    assert alt(only(of(0.1), same), "bench_paper") == "Tokenizer: REM 20.0, IRIS 20.0 ≈ 1.00× s."
    few = b.Ratio(to=REM, median=3.0, spread=b.Spread(low=2.9, high=3.1, coverage=0.5), verdict="no difference")
    assert "≈ 3.00×" in alt(only(of(0.1), of(0.3, name="IRIS", ratio=few)), "bench_paper")


def test_work_outside_epochs_is_in_the_unit_that_suits_it() -> None:
    made = only(of(0.0021, steps_per_epoch=None), compared(0.0063, 3.0, steps_per_epoch=None))
    assert alt(made, "bench_paper") == "Tokenizer: REM 2.10, IRIS 6.30 3.00× ms."


def test_a_ratio_without_its_base_is_not_shown() -> None:
    assert alt(only(compared(0.3, 3.0)), "bench_paper") == "Tokenizer: IRIS 60.0 s."


def test_cases_of_one_name_have_their_own_rows() -> None:
    made = only(of(0.1), of(0.2, precision="float32"), of(0.3, precision="float32", batch_size=7))
    assert "REM, bfloat16, batch 128" in alt(made, "bench_paper")
    assert "REM, float32, batch 7" in alt(made, "bench_paper")


def test_exponents_stand_at_their_lines() -> None:
    made = result()
    words = alt(made, "bench_scaling")
    for e in made.exponents:
        assert f"{e.name} {e.exponent:.2f}" in words
    assert "World model against tokens per observation" in words


def test_hours_of_every_prediction() -> None:
    run = b.Prediction(
        label="A run", config_hash="x", num_epochs=2, hours=3.0, phase_hours={"test": 1.0, "collect": 2.0}
    )
    assert alt(result(predictions=(run,)), "bench_phases") == "Hours: A run 3.00 h (Collecting 2.00, Test 1.00)."


def test_throughput_of_processes_and_what_did_not_fit() -> None:
    made = result()
    drawing = drawn(made)["bench_packing"]
    assert isinstance(drawing, Drawing)
    one, two, four = made.of("packing")
    assert f"1: {digits(3600 / one.median)}; 2: {digits(3600 / two.median)} " in drawing.alt
    assert f"4: {digits(3600 / four.median)} {digits(1 / four.ratio.median)}×." in drawing.alt  # type: ignore[union-attr]
    assert "8 processes: does not fit." in drawing.explanation
    assert "8:" not in drawing.alt
    failed = made.packing[3].model_copy(update={"failure": EVIL, "name": EVIL, "label": EVIL})
    svg(drawn(result(packing=(*made.packing[:3], failed)))["bench_packing"])
    assert isinstance(drawn(result(packing=(failed,)))["bench_packing"], LeftOut)


def test_colours_of_names_are_the_same_in_every_benchmark() -> None:
    every = marks.colors(result())
    few = marks.colors(only(of(0.1, name="new"), of(0.1, name="No POP"), of(0.1)))
    assert few["No POP"] == every["No POP"] == every["Sequential RetNet"]
    assert few["REM"] == every["REM"] == every["POP"]
    assert len(set(few.values())) == 3


def test_a_benchmark_that_was_cut_off_says_so() -> None:
    drawing = drawn(only(of(0.1), complete=False))["bench_paper"]
    assert isinstance(drawing, Drawing)
    assert drawing.explanation.endswith("Cut off before its end.")


# --- files


SAME = """
import sys
from pathlib import Path
from remctl.bench.figures import write_figures
from tests.bench.test_figures import one_axis
write_figures(one_axis(), Path(sys.argv[1]))
"""


def one_axis() -> b.Result:
    """Every figure, the largest of them small."""
    cases = tuple(c for c in result().cases if c.axis in (None, "imagined_steps"))
    return result(cases=cases, exponents=exponents(cases))


def test_same_bytes_from_another_process(tmp_path: Path) -> None:
    paths = figures.write_figures(one_axis(), tmp_path / "a", tuple(reversed(FORMATS)))
    assert {p.name for p in paths} == {f"{stem}.{f}" for stem in figures.STEMS for f in FORMATS}
    env = {"PYTHONHASHSEED": "7", "PATH": "", "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", SAME, str(tmp_path / "b")], env=env, cwd=root, check=True)
    for path in paths:
        assert path.read_bytes() == (tmp_path / "b" / "figures" / path.name).read_bytes(), path.name


def test_only_what_the_result_bears_and_the_formats_asked_for(tmp_path: Path) -> None:
    assert figures.write_figures(only(of(0.1)), tmp_path, ("png",)) == [tmp_path / "figures" / "bench_paper.png"]
    with pytest.raises(UserError, match="'bmp'.*png, pdf, svg"):
        figures.write_figures(only(), tmp_path, ("bmp",))


# --- files of others


def test_names_from_files_are_drawn_as_they_are() -> None:
    def renamed(c: b.Case) -> b.Case:
        return c.model_copy(update={"name": EVIL + c.name, "phase": EVIL + c.phase, "axis": c.axis and EVIL})

    made = result()
    runs = tuple(
        p.model_copy(update={"label": EVIL, "phase_hours": {EVIL: 1.0, "test": 2.0}}) for p in made.predictions
    )
    device = made.device.model_copy(update={"name": EVIL})
    packed = tuple(p.model_copy(update={"label": EVIL, "name": EVIL + p.name}) for p in made.packing)
    cases = tuple(map(renamed, made.cases))
    evil = result(cases=cases, predictions=runs, packing=packed, device=device, scale=EVIL)
    for drawing in drawn(evil).values():
        ET.fromstring(svg(drawing))


@pytest.mark.parametrize("seconds", [1e-300, 1e300])
def test_times_that_no_clock_gives(seconds: float) -> None:
    odd = (of(seconds), of(0.1, name="b"), of(seconds, suite="scaling", axis="imagined_steps", value=3))
    run = b.Prediction(label="", config_hash="", num_epochs=1, hours=seconds, phase_hours={"test": seconds})
    for drawing in drawn(result(cases=odd, exponents=(), predictions=(run,))).values():
        if isinstance(drawing, Drawing):
            svg(drawing)


def test_numbers_without_measure() -> None:
    huge = compared(0.3, 1e300)
    line = [
        case("scaling", REM, "imagination", 0.1, _work(), axis="imagined_steps", value=v) for v in (-3, 0, 5, 10**400)
    ]
    wild = b.Exponent(name=REM, phase="imagination", axis="imagined_steps", exponent=1e300, spread=of(0.1).spread)
    made = drawn(result(cases=(of(0.1), huge, *line), exponents=(wild,)))
    assert "×" not in made["bench_paper"].alt  # type: ignore[union-attr]
    assert len(svg(made["bench_scaling"])) < 200_000


def _work() -> object:
    from tests.bench.synthetic import Work

    return Work(1, None, 10)


def test_more_than_anybody_reads() -> None:
    names = [of(0.1, name=f"n{i}", phase=f"p{i % 20}", config_hash=config_hash(str(i))) for i in range(200)]
    lines = [of(0.1, suite="scaling", name=f"n{i}", axis=f"a{i % 60}", value=i + 1) for i in range(200)]
    runs = tuple(
        b.Prediction(
            label=f"r{i}", config_hash="", num_epochs=1, hours=200.0, phase_hours={f"p{j}": 5.0 for j in range(40)}
        )
        for i in range(100)
    )
    with styled():
        for drawing in figures.draw(result(cases=(*names, *lines), exponents=(), predictions=runs)):
            if isinstance(drawing, Drawing):
                assert max(drawing.figure.get_size_inches()) < 100
                drawing.figure.draw_without_rendering()
