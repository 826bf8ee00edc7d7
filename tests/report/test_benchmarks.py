"""Benchmarks in a report: beside scores and alone, one block for each file, names escaped, without torch."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from remctl.bench import result as bench
from remctl.errors import UserError
from remctl.report.benchmarks import bench_tables
from remctl.report.csv_files import csv_files
from remctl.report.figures import write_figures
from remctl.report.html import page
from remctl.report.page_tables import page_tables
from remctl.report.results import Benchmark, Results
from remctl.report.spec import ReportSpec, read_spec
from remctl.report.write import FORMATS, compute, make_report
from tests.bench.synthetic import device, precision_effect, result
from tests.report.browser import Browser, chromium
from tests.report.synthetic import results
from tests.report.test_page import EVIL, Page


def made(*benchmarks: bench.Result) -> Results:
    """A report of benchmarks alone."""
    found = tuple(Benchmark(f"bench_{i}" if i > 1 else "bench", f"b{i}.json", r) for i, r in enumerate(benchmarks, 1))
    empty = results(games=(), variants=(), control=None, missing=(), notes=(), timings=(), improvements=(), figures=())
    return replace(empty, benchmarks=found)


def text_of(report: Results, tmp_path: Path) -> str:
    return page(report, write_figures(report, tmp_path, ()))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    bench.write(tmp_path / "bench.json", result())
    return tmp_path / "bench.json"


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """Of another machine, cut off after one suite, at a reduced scale, with outputs that are wrong."""
    changes = {
        "device": device(name="AMD EPYC", num_threads=2),
        "complete": False,
        "scale": "small",
        "scaled": ("Batches are a quarter.",),
        "cases": result().of("paper"),
        "exponents": (),
        "predictions": (),
        "checks": (bench.Check(name="POP", error=1.0, tolerance=0.1),),
    }
    bench.write(tmp_path / "other.json", result(**changes))
    return tmp_path / "other.json"


def files(out: Path) -> set[str]:
    return {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}


# --- files


def test_a_report_of_a_benchmark_alone(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    report = make_report(ReportSpec(bench=(str(file),)), out, FORMATS, "remctl report")
    names = files(out)
    assert {"bench_paper.md", "bench_paper.tex", "bench_cases.csv", "figures/bench_scaling.svg", "index.html"} < names
    assert {n for n in names if "bench_" not in n} == {"index.html", "report.json"}
    about = json.loads((out / "report.json").read_text())
    assert set(about["files"]) == names - {"report.json"}
    assert [(b["hardware"], b["num_threads"], b["scale"]) for b in about["benchmarks"]] == [
        ("NVIDIA H200", 16, "paper")
    ]
    before = {name: (out / name).read_bytes() for name in names}
    make_report(ReportSpec(bench=(str(file), str(file))), out, FORMATS, "remctl report")  # the same file twice is one
    assert {name: (out / name).read_bytes() for name in files(out)} == before
    assert report.notes == ()


def test_every_case_with_its_numbers_and_where_they_come_from(file: Path, tmp_path: Path) -> None:
    make_report(ReportSpec(bench=(str(file),)), tmp_path / "out", ("csv",), "")
    given = result()
    rows = list(csv.DictReader((tmp_path / "out" / "bench_cases.csv").read_text().splitlines()))
    assert len(rows) == len(given.cases)
    for row, case in zip(rows, given.cases, strict=True):
        assert (row["name"], row["config_hash"], row["median"]) == (case.name, case.config_hash, repr(case.median))
        assert row["seconds"].split(";") == [repr(s) for s in case.seconds]
        assert (row["hardware"], row["num_threads"], row["code"]) == ("NVIDIA H200", "16", given.code)
        assert row["ratio_to"] == (case.ratio.to if case.ratio else "")
    hours = list(csv.DictReader((tmp_path / "out" / "bench_predictions.csv").read_text().splitlines()))
    assert float(hours[-1]["hours"]) == pytest.approx(sum(float(row["hours"]) for row in hours[:-1]))
    table = bench_tables(Benchmark("bench", "", given))["bench_cases"]
    assert {row[5].text for row in table.rows} == {case.config_hash for case in given.cases}
    assert {row[7].text for row in table.rows} == {"7"}


def test_hardware_is_never_merged(file: Path, other: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    spec = ReportSpec(bench=(str(file), str(other)), published=("table1",), reps=100)
    report = make_report(spec, out, FORMATS, "")
    assert {"bench_paper.md", "bench_2_paper.md", "bench_2_cases.csv", "figures/bench_2_paper.png"} < files(out)
    assert "bench_2_exponents.csv" not in files(out)
    for name, hardware in (("bench_cases.csv", "NVIDIA H200"), ("bench_2_cases.csv", "AMD EPYC")):
        assert {row["hardware"] for row in csv.DictReader((out / name).read_text().splitlines())} == {hardware}
    for part in (
        "was cut off",
        "at scale small: Batches are a quarter.",
        "unequal to the reference",
        "different hardware",
    ):
        assert any(part in note for note in report.notes), part
    parsed = Page((out / "index.html").read_text())
    ids = [i for i in parsed.values("id") if i.startswith("speed")]
    assert ids == ["speed", "speed-title", "speed-bench", "speed-bench-title", "speed-bench_2", "speed-bench_2-title"]
    make_report(ReportSpec(bench=(str(file),)), out, ("csv",), "")
    assert not [name for name in files(out) if "bench_2" in name or "aggregates" in name]


# --- the page


def test_the_page(tmp_path: Path) -> None:
    text = text_of(made(result()), tmp_path)
    parsed = Page(text)
    shown = " ".join("".join(parsed.text).split())
    for fact in (
        "NVIDIA H200, 16 threads",
        "AMD EPYC 9534",
        "remctl 0.1.0+g0123456789ab",
        "torch 2.8.0",
        "b1.json",
    ):
        assert fact in shown
    assert "Provenance" not in shown
    assert len(parsed.all("img")) == 6
    ids = parsed.values("id")
    assert len(ids) == len(set(ids))
    assert {link[1:] for link in parsed.values("href") if link.startswith("#")} <= set(ids)
    assert set(parsed.values("aria-labelledby")) <= set(ids)
    with_scores = text_of(replace(results(), benchmarks=made(result()).benchmarks), tmp_path)
    titles = re.findall(r"<h2 id=\"(\w+)-title\"", with_scores)
    assert titles[titles.index("time") + 1] == "speed"


def test_what_bf16_does_to_training_has_tables_and_values(tmp_path: Path) -> None:
    report = made(result(suites=("precision",), cases=(), precision=(precision_effect(),)))
    assert "bf16 exceeds the seeds" in text_of(report, tmp_path)
    rows = list(csv.DictReader(csv_files(report)["bench_precision"].splitlines()))
    assert [(row["component"], row["seed"], row["fp32"], row["bf16"]) for row in rows[:2]] == [
        ("tokenizer", "0", "1.0", "1.1"),
        ("tokenizer", "1", "1.3", "1.25"),
    ]


def test_figures_left_out_are_said_in_the_block(tmp_path: Path) -> None:
    text = text_of(made(result(cases=result().of("paper"))), tmp_path)
    assert "Nothing of the suite scaling was measured." in text
    assert "Read this first" not in text


def test_names_from_files_are_escaped(tmp_path: Path) -> None:
    given = result()
    evil = result(
        cases=tuple(
            c.model_copy(update={"suite": c.suite if i % 2 else EVIL, "name": f"{EVIL}{i}"})
            for i, c in enumerate(given.cases)
        ),
        checks=(bench.Check(name=EVIL, error=1.0, tolerance=0.0),),
        device=device(name=EVIL, clocks_mhz={EVIL: 1.0}),
        provenance={"machine": {"cpu": EVIL}, "command": [EVIL], "time": EVIL, "packages": 3, "git": {"commit": EVIL}},
        scale=EVIL,
        scaled=(EVIL,),
        suites=(EVIL, "../../x"),
        remctl_version=EVIL,
        predictions=(),
    )
    report = made(evil)
    text = text_of(report, tmp_path)
    assert text.count("<script>") == 1
    assert EVIL not in text
    assert EVIL in "".join(Page(text).text)
    assert all(re.fullmatch("[a-z0-9_]+", name) for name in bench_tables(report.benchmarks[0]))


def test_values_sort_by_what_they_mean() -> None:
    table = page_tables(made(result()))["bench_components"]
    column = [c.text for c in table.header].index("against REM")
    cells = {row[1].text: row[column] for row in table.rows if row[0].text == "world model"}
    assert cells["Sequential states"].value == cells["Sequential states"].text.removesuffix("x").rstrip("0")
    assert float(cells["No POP"].value or 0) < 1  # faster
    assert cells["One prediction token"].text == "no difference"
    per_step = page_tables(made(result()))["bench_paper"].rows
    header = [c.text for c in page_tables(made(result()))["bench_paper"].header]
    seconds = [float(row[header.index("per step")].value or 0) for row in per_step]
    assert max(seconds) < 2e-3
    assert seconds[0] == 0


# --- specs and the verb


def test_specs(file: Path, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(f"bench: [{file}]\n")
    assert read_spec(tmp_path / "a.yaml", {}).bench == (str(file),)
    assert read_spec(tmp_path / "a.yaml", {"bench": ("x",)}).bench == ("x",)
    with pytest.raises(UserError, match=r"bench: given 'x'"):
        read_spec(None, {"bench": "x"})


def test_runs_without_scores_are_not_hidden_by_a_benchmark(
    file: Path, make_run: Callable[..., Path], tmp_path: Path
) -> None:
    make_run("rem", "Pong", 0, None)
    report = compute(ReportSpec(bench=(str(file),), runs=(str(tmp_path / "runs"),), reps=100), "")
    assert any(note.startswith("There are no scores") and "not finished" in note for note in report.notes)
    assert [m.game for m in report.missing] == ["Pong"]


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no such file; `remctl bench"), ("{", "no JSON"), ("{}", "format"), ('{"format": 99}', "another version")],
)
def test_bad_files_are_one_line(cli: Callable, tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "bench.json"
    if content is not None:
        path.write_text(content)
    done = cli("report", "--bench", str(path), "--out", str(tmp_path / "out"))
    assert (done.out, done.err.count("\n")) == ("", 1)
    assert message in done.err
    assert not (tmp_path / "out").exists()


def test_the_verb(cli: Callable, file: Path, other: Path, tmp_path: Path) -> None:
    line = ("report", "--bench", str(file), "--bench", str(other), "--format", "md", "--out", str(tmp_path / "out"))
    done = cli(*line)
    assert (done.status, done.err) == (0, "")
    assert "Report: 2 benchmarks" in done.out


@pytest.mark.parametrize("line", ["report --help", "report --bench {file} --format all --out {out}"])
def test_nothing_of_it_imports_torch(file: Path, tmp_path: Path, line: str) -> None:
    words = line.format(file=file, out=tmp_path / "out").split()
    code = f"import sys; from remctl.cli import run; assert run({words!r}) == 0"
    code += "; print([n for n in ('torch', 'gymnasium', 'ale_py') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.browser
def test_in_a_browser(file: Path, other: Path, tmp_path: Path) -> None:
    """Nothing is wider than a phone; every figure is shown."""
    executable = chromium()
    if executable is None:
        pytest.skip("Chromium is not installed (Debian: apt-get install chromium)")
    make_report(ReportSpec(bench=(str(file), str(other))), tmp_path / "out", ("html",), "remctl report")
    with Browser(executable, tmp_path / "profile") as browser:
        browser.size(375, 812, phone=True)
        browser.open(tmp_path / "out" / "index.html")
        assert browser.evaluate("document.documentElement.scrollWidth") == 375
        browser.until("[...document.images].every((i) => i.complete && i.naturalWidth > 100)")
        assert browser.complaints() == []
