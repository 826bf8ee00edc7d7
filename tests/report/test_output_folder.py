"""The folder of a report: a new one takes the place of an earlier one, and of nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from remctl.report import figures
from remctl.report.spec import ReportSpec
from remctl.report.write import FORMATS, make_report
from tests.report.conftest import MakeRun

PAPER = ReportSpec(published=("table1",), reps=100)


def files(out: Path) -> set[str]:
    return {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}


def test_nothing_of_an_earlier_report_stays(make_run: MakeRun, tmp_path: Path) -> None:
    for seed in range(2):
        make_run("rem", "Pong", seed, 1.0 + seed)
        make_run("no_pop", "Pong", seed, 2.0 * seed)
    out = tmp_path / "out"
    make_report(ReportSpec(runs=(str(tmp_path / "runs"),), reps=100), out, FORMATS, "")
    first = files(out)
    assert {"index.html", "differences.tex", "figures/differences.pdf"} <= first
    assert set(json.loads((out / "report.json").read_text())["files"]) == first - {"report.json"}
    foreign = ("notes.txt", "mine.csv", "figures/mine.png")
    for name in foreign:
        (out / name).write_text("mine")
    make_report(PAPER, out, ("csv", "png"), "")
    left = files(out) - set(foreign)
    assert {path.rpartition(".")[2] for path in left} == {"csv", "png", "json"}
    assert "figures/differences.png" not in left  # the paper bears none
    assert set(foreign) < files(out)
    assert set(json.loads((out / "report.json").read_text())["files"]) == left - {"report.json"}


def test_what_an_interrupted_report_left_goes_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = figures.write

    def interrupted(drawing: figures.Drawing, *args: object) -> object:
        if drawing.stem == "iqm":
            raise KeyboardInterrupt
        return write(drawing, *args)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(figures, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            make_report(PAPER, tmp_path, FORMATS, "")
    assert {"aggregates.md", "figures/aggregates.svg"} <= files(tmp_path)
    make_report(PAPER, tmp_path, ("csv",), "")
    assert {Path(name).suffix for name in files(tmp_path)} == {".csv", ".json"}


@pytest.mark.parametrize(
    "about", ["[", "3", "{}", '{"files": 3}', '{"files": [3, "../a.csv", "/a.csv", "x/a.csv", "sub"]}']
)
def test_a_foreign_report_json_removes_nothing(tmp_path: Path, about: str) -> None:
    out = tmp_path / "out"
    (out / "x").mkdir(parents=True)
    (out / "sub").mkdir()
    for path in (tmp_path / "a.csv", out / "x" / "a.csv"):
        path.write_text("mine")
    (out / "report.json").write_text(about)
    make_report(PAPER, out, ("csv",), "")
    assert (tmp_path / "a.csv").exists()
    assert (out / "x" / "a.csv").exists()
    assert (out / "sub").is_dir()
