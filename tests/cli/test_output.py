"""The layout of tables: whatever the cells and the width, every character is there and no line is too long."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.table import Table

from remctl.commands.output import facts, show, table

cells = st.text(st.sampled_from("ab1 +,/._-=\n界界界"), max_size=40)


@pytest.fixture
def shown(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[[Table, int | None], str]:
    def call(made: Table, columns: int | None) -> str:
        if columns is None:
            monkeypatch.delenv("COLUMNS", raising=False)
        else:
            monkeypatch.setenv("COLUMNS", str(columns))
        capsys.readouterr()
        show(made)
        return capsys.readouterr().out

    return call


def characters(*texts: str) -> Counter[str]:
    return Counter(c for text in texts for c in text if not c.isspace() and c != "─")


@settings(max_examples=150, deadline=None)
@given(rows=st.lists(st.tuples(cells, cells, cells), min_size=1, max_size=4), columns=st.integers(1, 120))
@example(rows=[("", "11", "111\n\n1111111界")], columns=1)
def test_nothing_is_lost(rows: list[tuple[str, ...]], columns: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        lines: list[str] = []
        patch.setenv("COLUMNS", str(columns))
        patch.setattr("builtins.print", lambda text: lines.append(text))
        show(table(("one", "two", "three"), rows, right=("two",)))
        show(facts({f"{i}{row[0]}": row[1] for i, row in enumerate(rows)}))
    text = "\n".join(lines)
    assert characters(text) >= characters(*(cell for row in rows for cell in row))
    assert max(map(cell_len, text.splitlines()), default=0) <= max(20, columns)


def test_a_pipe_gets_a_line_for_each_row(shown: Callable[[Table, int | None], str]) -> None:
    rows = [("a" * 100, "b c " * 50, "3"), ("a" * 100, "b c " * 50, "4")]
    lines = shown(table(("one", "two", "three"), rows), None).splitlines()
    assert [line.split() for line in lines[2:]] == [" ".join(row).split() for row in rows]


def test_a_narrow_terminal_stacks_rows_under_the_title(shown: Callable[[Table, int | None], str]) -> None:
    made = table(("run", "seed", "score", "why"), [("rem Pong", "0", "12.5", "trained to the end"), ("x", "", "1", "")])
    made.title, made.caption = "Scores of all runs", "and a caption"
    assert shown(made, 24).splitlines() == [
        "Scores of all runs",
        "rem Pong",
        "  seed 0  score 12.5",
        "  why trained to the end",
        "x",
        "  score 1",
        "and a caption",
    ]
    assert shown(made, 80).count("rem Pong   0      12.5    trained to the end") == 1


def test_cells_are_folded_between_words_then_behind_marks_then_anywhere(
    shown: Callable[[Table, int | None], str],
) -> None:
    names = ("rem+imagination.horizon=5", "rem+imagination.horizon=10")
    text = shown(table(("variant", "seed"), [(name, "0") for name in names]), 30)
    assert [line.split() for line in text.splitlines()[2:]] == [["rem+horizon=5", "0"], ["rem+horizon=10", "0"]]
    same = ("a+b.x=1", "a+c.x=1")  # not without the sections: they would be equal
    text = shown(table(("variant", "meaning"), [(name, "word " * 9) for name in same]), 40)
    assert "a+b.x=1" in text
    assert "a+c.x=1" in text
    folded = shown(facts({"k": "first one, version-1.2345678901234567 " + "界" * 12}), 25).splitlines()
    assert [line.strip() for line in folded] == ["k  first one,", "version-1.", "2345678901234567", "界" * 11, "界"]


@pytest.mark.parametrize("columns", ["0", "5", "-80", "abc", "\u00b2", "1e3", "9" * 30])
def test_columns_that_are_no_width_are_not_taken_for_one(
    columns: str, cli: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS")
    as_without = cli("list", "presets")
    monkeypatch.setenv("COLUMNS", columns)
    assert cli("list", "presets") == as_without
    monkeypatch.setenv("COLUMNS", columns)
    assert cli("--help").status == 0
