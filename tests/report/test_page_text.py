"""What the page says, and says once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from remctl.report.figure_style import WrittenFigure
from remctl.report.figures import write_figures
from remctl.report.html import page
from remctl.report.results import Figure
from remctl.runs.code import Code
from tests.report.synthetic import results
from tests.report.test_page import Page

TWO = ("Assault", "Krull")


def shown(text: str) -> str:
    return " ".join("".join(Page(text).text).split())


def test_a_caption_does_not_say_the_title_again(tmp_path: Path) -> None:
    made = results(games=TWO, variants=("rem", "no_pop"), num_runs=2)
    for caption, said in (("Its caption", "Its caption. "), ("", ""), ("{title}", ""), ("{title}.", "")):
        some = replace(made, figures=(Figure("performance_profile", caption),))
        (figure,) = write_figures(some, tmp_path, ())
        assert isinstance(figure, WrittenFigure)
        figure = replace(figure, caption=caption.format(title=figure.title))
        assert f"Performance profiles. {said}Over 2 games." in shown(page(some, [figure]))


def test_the_code_version_of_a_run_is_shown() -> None:
    made = results(games=TWO, variants=("rem", "no_pop"), num_runs=2)
    (rem, other) = made.algorithms
    runs = (replace(rem.runs[0], codes=(Code("0.2.0+gabc123"), Code("0.3.0"))), *rem.runs[1:])
    changed = replace(made, algorithms=(replace(rem, runs=runs), other))
    assert "0.2.0+gabc123 + 0.3.0" in shown(page(changed, []))


def test_of_nothing_there_is_a_page() -> None:
    empty = results(games=(), variants=(), control=None, missing=(), notes=(), timings=(), improvements=())
    parsed = Page(page(empty, []))
    assert "Provenance" in "".join(parsed.text)
    assert "Read this first" not in "".join(parsed.text)
