"""The tables that people read: counts of runs, origins, marks and what is said below them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from remctl.errors import UserError
from remctl.games import ABLATION_SUBSET
from remctl.report.page_tables import page_tables
from remctl.report.render import latex, markdown
from remctl.report.results import Results
from remctl.report.spec import ReportSpec
from remctl.report.tables import Cell, display_tables
from remctl.report.write import compute
from tests.report.synthetic import results


def scores(folder: Path, **games_by_name: dict[str, list[float]]) -> tuple[str, ...]:
    for name, games in games_by_name.items():
        (folder / f"{name}.json").write_text(json.dumps(games))
    return tuple(f"{name}={folder / name}.json" for name in games_by_name)


def report(folder: Path, games_by_name: dict[str, dict[str, list[float]]], **spec: Any) -> Results:
    given = {"scores": scores(folder, **games_by_name), "reps": 200} | spec
    return compute(ReportSpec.model_validate(given), "")


def row(made: Results, table: str, name: str) -> list[str]:
    (found,) = [r for r in display_tables(made)[table].rows if r[0].text == name]
    return [cell.text for cell in found[1:]]


UNEVEN = {
    "x": {g: [1.0, 2.0, 3.0, 4.0, 5.0][: 4 if g == "Krull" else 5] for g in (*ABLATION_SUBSET, "Tetris")},
    "y": {g: [1.0, 2.0] for g in (*ABLATION_SUBSET, "Tetris")},
}


def test_counts_of_runs_stand_in_the_tables(tmp_path: Path) -> None:
    made = report(tmp_path, UNEVEN, control="x")
    assert row(made, "aggregates", "Runs per game") == ["4-5", "2"]
    assert row(made, "per_game", "Krull")[2:] == ["2.5 (4)", "1.5"]
    assert row(made, "per_game", "Gopher")[2:] == ["3.0 (5)", "1.5"]
    assert row(made, "per_game", "Tetris")[2].endswith("] (5)")
    assert row(made, "per_game", "Runs per game")[2:] == ["4-5", "2"]
    assert [r[-1].text for r in display_tables(made)["probability_of_improvement"].rows] == ["4-5 / 2", "5 / 2"]
    assert any(note.startswith("(n): runs of that game") for note in display_tables(made)["per_game"].notes)
    assert "Runs per game differ: x 4-5, y 2." in made.notes
    assert "| **2.5** (4) |" in markdown(display_tables(made)["per_game"])
    krull = next(r for r in page_tables(made)["per_game"].rows if r[0].text == "Krull")
    assert (krull[3].text, krull[3].tail, krull[3].value) == ("2.5", " (4)", "2.5")
    equal = report(tmp_path, UNEVEN, control="x", ragged="equalise")
    assert row(equal, "aggregates", "Runs per game") == ["4", "2"]
    assert any("another algorithm may have more" in note for note in equal.notes)


def test_even_runs_need_no_counts_in_cells(tmp_path: Path) -> None:
    made = report(tmp_path, {"y": UNEVEN["y"]})
    assert row(made, "per_game", "Krull")[2:] == ["1.5"]
    assert not any("(n)" in note for note in display_tables(made)["per_game"].notes)


def test_uneven_runs_of_raw_games_are_said(tmp_path: Path) -> None:
    made = report(tmp_path, {"x": {"Tetris": [0.1, 0.2, 0.3]}, "y": {"Tetris": [0.1, 0.2]}})
    assert "Runs per game differ: x 3, y 2." in made.notes
    two = report(tmp_path, {"x": {"Tetris": [0.1, 0.2, 0.3], "gym:X-v0": [1.0, 2.0, 3.0, 4.0]}})
    assert any(note.startswith("x has ") and "runs per game but" in note for note in two.notes)


def test_nothing_uneven_where_nothing_may_be_missing(tmp_path: Path) -> None:
    given = {"x": {"Pong": [1.0, 2.0]}, "y": {"Pong": [1.0]}}
    with pytest.raises(UserError, match=r"Runs per game differ, x 2, y 1, and --missing fail allows none"):
        report(tmp_path, given, missing="fail")
    assert report(tmp_path, {"x": {"Pong": [1.0, 2.0]}, "y": {"Pong": [1.0, 3.0]}}, missing="fail").missing == ()
    report(tmp_path, {"x": {"Pong": [1.0, 2.0]}}, missing="fail", games="Pong", published=["table1"])


# --- origin, notes, marks


def test_origin_and_notes_in_every_table_of_scores(tmp_path: Path) -> None:
    made = report(tmp_path, {"x": UNEVEN["x"], "y": UNEVEN["y"]}, control="x")
    tables = display_tables(made)
    origins = {name: made.algorithm(name).origin_label for name in "xy"}
    assert row(made, "performance_profile", "Origin") == list(origins.values())
    for name in ("probability_of_improvement", "differences"):
        column = tables[name].header.index("Origin")
        expected = " / ".join(origins.values()) if name == "probability_of_improvement" else origins["y"]
        assert {r[column].text for r in tables[name].rows} == {expected}
    for name in ("aggregates", "per_game", "performance_profile", "probability_of_improvement", "differences"):
        assert set(made.notes) <= set(tables[name].notes), name
        assert all(note in markdown(tables[name]).replace("\\", "") for note in made.notes[:1])
        assert "y.json" in latex(tables[name])
    assert all("Origin" not in [c.text for c in t.header] for n, t in page_tables(made).items() if n != "timing")


def test_comparisons_say_that_they_are_many(tmp_path: Path) -> None:
    tables = display_tables(report(tmp_path, UNEVEN, control="x"))
    for name in ("probability_of_improvement", "differences"):
        assert any("not corrected for the number of comparisons" in note for note in tables[name].notes)


@pytest.mark.parametrize(("num_runs", "is_said"), [(5, True), (9, True), (10, False)])
def test_few_runs_are_said_to_be_few(tmp_path: Path, num_runs: int, is_said: bool) -> None:
    made = report(tmp_path, {"x": {"Pong": [float(i) for i in range(num_runs)]}})
    assert any("fewer than 10 runs per game tend to be too narrow: x" in note for note in made.notes) is is_said


def test_the_profile_is_shown_at_round_scores_and_marked(tmp_path: Path) -> None:
    made = report(tmp_path, {"x": {"Pong": [-20.7, 40.0]}, "y": {"Pong": [0.0, 10.0]}})
    table = display_tables(made)["performance_profile"]
    assert [r[0].text for r in table.rows[1:]] == ["0.00", "0.25", "0.50", "0.75", "1.00", "1.50", "2.00"]
    at = {r[0].text: r[1:] for r in table.rows}
    assert [(c.bold, c.underline) for c in at["1.00"]] == [(True, False), (False, True)]
    assert [(c.bold, c.underline) for c in at["2.00"]] == [(False, False)] * 2  # 0 both


def test_differences_are_marked_within_their_metric() -> None:
    made = results(games=("Assault", "Krull"), variants=("rem", "no_pop", "tokenizer_4x4"))
    rows = display_tables(made)["differences"].rows
    for metric in ("Mean", "Optimality gap"):
        cells = {r[0].text: r[4] for r in rows if r[2].text == metric}
        assert [(c.bold, c.underline) for c in cells.values()] == [(True, False), (False, True)], metric


def test_more_seeds_of_no_difference() -> None:
    made = results(games=("Assault", "Krull"), variants=("rem", "no_pop"))
    (first, *_) = made.differences
    for changes, text in (
        ({"value": 0.0, "more_seeds": None, "separated": False}, "-"),
        ({"value": 0.1, "more_seeds": None, "separated": False}, "over 1000"),
        ({"value": 0.1, "more_seeds": None, "separated": None}, "no interval"),
        ({"value": 0.1, "more_seeds": 7, "separated": False}, "7"),
    ):
        (shown,) = display_tables(replace(made, differences=(replace(first, **changes),)))["differences"].rows
        assert shown[6].text == text


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("1.5", ("1.5", "")),
        ("1.5 [1, 2]", ("1.5", " [1, 2]")),
        ("1.5 [1, 2] (4)", ("1.5", " [1, 2] (4)")),
        ("-3 (12)", ("-3", " (12)")),
        ("2†", ("2", "†")),
        ("4-5", ("4-5", "")),
    ],
)
def test_parts_of_a_cell(text: str, parts: tuple[str, str]) -> None:
    assert Cell(text).parts == parts
