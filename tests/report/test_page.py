"""The report's page: valid, safe whatever names it shows, self-contained; in a browser it sorts, links and enlarges."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from remctl.drawing import LeftOut
from remctl.report.figure_style import WrittenFigure
from remctl.report.figures import write_figures
from remctl.report.html import page, write_page
from remctl.report.page_tables import games_of, page_tables
from remctl.report.results import Figure, MissingRun, Results
from tests.report.browser import Browser, chromium
from tests.report.synthetic import results

TWO = ("Assault", "Krull")
EVIL = "<script>alert(1)</script>"
VOID = {"meta", "link", "img", "source", "br", "hr", "input"}
SOME_FIGURES = (Figure("aggregates", "Caption of the aggregates."), Figure("timing", "Times."))


class Page(HTMLParser):
    """Tags with their attributes; complains about tags that do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open, f"</{tag}> closes nothing"
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def values(self, attribute: str) -> list[str]:
        return [value for _, a in self.tags if (value := a.get(attribute)) is not None]


def made(**changes: object) -> Results:
    return results(**{"games": TWO, "variants": ("rem", "no_pop"), "published": ("IRIS",), "num_runs": 3, **changes})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def report() -> Results:
    return replace(made(), figures=SOME_FIGURES, missing=(MissingRun("no_pop", "Krull", 4, "runs/x", "epoch 3 of 9"),))


@pytest.fixture(scope="module")
def outcomes(report: Results, tmp_path_factory: pytest.TempPathFactory) -> list[WrittenFigure | LeftOut]:
    figures = write_figures(report, tmp_path_factory.mktemp("figures"), ())
    return [*figures, LeftOut("differences", "Differences", "There is no control to compare with.")]


@pytest.fixture(scope="module")
def text(report: Results, outcomes: list[WrittenFigure | LeftOut]) -> str:
    return page(report, outcomes)


@pytest.fixture(scope="module")
def parsed(text: str) -> Page:
    return Page(text)


def test_written_and_the_same_every_time(
    report: Results, outcomes: list[WrittenFigure | LeftOut], text: str, tmp_path: Path
) -> None:
    path = write_page(report, outcomes, tmp_path / "new")
    assert path == tmp_path / "new" / "index.html"
    assert path.read_text(encoding="utf-8") == text
    assert text.startswith("<!DOCTYPE html>")


def test_ids_are_unique_and_links_resolve(parsed: Page) -> None:
    ids = parsed.values("id")
    assert len(ids) == len(set(ids))
    links = [link for a in parsed.all("a") if (link := a["href"])]
    assert len(links) > 30
    assert {link[1:] for link in links if link.startswith("#")} <= set(ids)
    assert all(link.startswith("#") for link in links)
    for attribute in ("aria-labelledby", "aria-describedby"):
        assert set(parsed.values(attribute)) <= set(ids)


def test_nothing_external(text: str, parsed: Page) -> None:
    places = [v for name in ("src", "srcset", "href", "action", "data") for v in parsed.values(name)]
    assert all(v.startswith(("data:", "#")) for v in places)
    outside_pictures = re.sub(r"data:image/svg\+xml;base64,[A-Za-z0-9+/=]+", "", text)
    assert not re.search(r"https?:|//[a-z]|@import|url\(", outside_pictures)
    for address in parsed.values("src"):
        svg = base64.b64decode(address.split(",", 1)[1]).decode()
        assert not re.search(r'(href|src)="(?!#)', svg.replace("xlink:href", "href"))


def test_policy_allows_its_own_script_and_style_only(text: str, parsed: Page) -> None:
    policy = next(a["content"] for a in parsed.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    for tag in ("script", "style"):
        (body,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        assert f"sha256-{base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()}" in policy
    assert not parsed.values("style")
    assert not [name for _, a in parsed.tags for name in a if name.startswith("on")]


def test_names_from_files_are_escaped() -> None:
    evil = made(labels={"no_pop": EVIL, "rem": "a\"'&\ud800"})
    evil = replace(
        evil,
        title=EVIL,
        question=EVIL,
        command=f"remctl report --runs '{EVIL}'",
        notes=(EVIL,),
        missing=(MissingRun("no_pop", EVIL, 1, EVIL, EVIL),),
        algorithms=tuple(
            replace(a, source=EVIL, runs=tuple(replace(r, path=EVIL, hardware=EVIL) for r in a.runs))
            for a in evil.algorithms
        ),
    )
    text = page(evil, [LeftOut("x", EVIL, EVIL)])
    assert text.count("<script>") == 1
    assert EVIL not in text
    assert text.count("&lt;script&gt;") > 20
    assert EVIL in "".join(Page(text).text)


def test_a_name_that_is_not_text_is_written(tmp_path: Path) -> None:
    assert "&#55296;" in write_page(replace(made(), title="\ud800"), [], tmp_path).read_text(encoding="utf-8")


def test_accessible(parsed: Page) -> None:
    assert [a.get("lang") for a in parsed.all("html")] == ["en"]
    names = [tag for tag, _ in parsed.tags]
    assert all(names.count(landmark) == 1 for landmark in ("header", "nav", "main", "footer", "h1", "title"))
    assert names.count("caption") == names.count("table")
    assert all(a.get("scope") in ("col", "row") for a in parsed.all("th"))
    assert all(a.get("alt") and a.get("width") and a.get("height") for a in parsed.all("img"))
    assert all(
        a.get("tabindex") == "0" and a.get("role") == "region" for a in parsed.all("div") if a.get("class") == "scroll"
    )


def test_every_number_of_an_algorithm_links_to_its_runs(report: Results) -> None:
    tables = page_tables(report)
    games = tables["per_game"]
    for row in games.rows:
        assert [c.href for c in row[3:]] == [
            f"algorithm-{i}" + (f"-game-{games_of(report, a.name).index(row[0].text)}" if a.runs else "")
            for i, a in enumerate(report.algorithms)
        ]
    aggregates = tables["aggregates"]
    for i, row in enumerate(aggregates.rows):
        assert {c.href for c in row[1:] if c.text != "-"} == {f"algorithm-{i}"}
    assert all(c.href for row in tables["probability_of_improvement"].rows for c in row if c.value)


def test_origin_at_every_algorithm_column(report: Results) -> None:
    tables = page_tables(report)
    origins = [a.origin_label for a in report.algorithms]
    assert [c.origin for c in tables["per_game"].header[3:]] == origins
    assert [row[0].origin for row in tables["aggregates"].rows] == origins
    assert [c.origin for c in tables["performance_profile"].header[1:]] == origins[1:]
    assert {c.origin for row in tables["differences"].rows for c in row[:1]} == {"ours"}


def test_marks_and_sort_values_are_those_of_the_tables(report: Results) -> None:
    header, row = page_tables(report)["aggregates"].header, page_tables(report)["aggregates"].rows[1]
    iqm = row[[c.text for c in header].index("IQM (↑)")]
    assert iqm.value == iqm.text
    assert iqm.tail.strip().startswith("[")
    assert sum(c.bold for r in page_tables(report)["per_game"].rows for c in r) == len(TWO)


def test_what_is_missing_is_said_first(text: str, parsed: Page) -> None:
    shown = "".join(parsed.text)
    assert text.index('id="notes"') < text.index('id="aggregates"')
    for sentence in ("cut to 4 runs", "1 run without a score", "Figure left out: Differences. There is no control"):
        assert sentence in shown
    assert "epoch 3 of 9" in shown


def test_provenance_lists_every_run(report: Results, parsed: Page) -> None:
    shown = "".join(parsed.text)
    for algorithm in report.algorithms:
        for run in algorithm.runs:
            assert run.path in shown
    assert report.command in shown
    assert "Scores of single runs were not published" in shown


def contrast(a: str, b: str) -> float:
    """WCAG 2 contrast ratio of two #rrggbb colours."""

    def luminance(color: str) -> float:
        parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    bright, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def test_contrast_in_both_schemes(text: str) -> None:
    schemes = re.findall(r":root \{(.*?)\}", text, re.DOTALL)
    assert len(schemes) == 2
    for scheme in schemes:
        colors = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", scheme))
        for ink in ("ink", "faint", "link"):
            for paper in ("paper", "raised", "note", "target"):
                assert contrast(colors[ink], colors[paper]) >= 4.5, (ink, paper)


# --- in a browser


@pytest.fixture(scope="module")
def browser(
    report: Results, outcomes: list[WrittenFigure | LeftOut], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Browser]:
    executable = chromium()
    if executable is None:
        pytest.skip("Chromium is not installed (Debian: apt-get install chromium)")
    folder = tmp_path_factory.mktemp("page")
    path = write_page(replace(report, command="remctl report " + "x" * 300), outcomes, folder)
    with Browser(executable, tmp_path_factory.mktemp("profile")) as driven:
        driven.size(1280, 900)
        driven.open(path)
        yield driven
        assert driven.complaints() == []
        assert driven.requests() == [path.as_uri()]


COLUMN = """[...document.querySelectorAll("#table-per_game tbody tr")].map((r) => Number(r.cells[3].textContent))"""
HEADER = """document.querySelector("#table-per_game thead th:nth-child(4)")"""


@pytest.mark.browser
def test_sorting_by_keyboard(browser: Browser) -> None:
    before = browser.evaluate(COLUMN)
    browser.evaluate(f"{HEADER}.querySelector('button').focus()")
    orders = []
    for _ in range(3):
        browser.press("Enter", "\r")
        orders.append((browser.evaluate(f"{HEADER}.getAttribute('aria-sort')"), browser.evaluate(COLUMN)))
    assert orders == [
        ("ascending", sorted(before)),
        ("descending", sorted(before, reverse=True)),
        (None, before),
    ]


@pytest.mark.browser
def test_numbers_link_to_their_runs(browser: Browser) -> None:
    """The last one is ours: its runs open, stand in view and are marked."""
    browser.evaluate("document.querySelector('#table-per_game tbody tr td:last-child a').click()")
    browser.until("document.querySelector('tbody:target') !== null")
    browser.until("document.querySelector('tbody:target').closest('details').open")
    browser.until(
        "((r) => r.top >= 0 && r.top < innerHeight)(document.querySelector('tbody:target').getBoundingClientRect())"
    )
    assert "seed_1" in browser.evaluate("document.querySelector('tbody:target').textContent")


@pytest.mark.browser
def test_figures_enlarge_by_keyboard_and_close(browser: Browser) -> None:
    browser.evaluate("document.querySelector('#figure-iqm button').focus()")
    browser.press("Enter", "\r")
    assert browser.evaluate("document.querySelector('dialog').open")
    assert browser.evaluate("document.querySelector('dialog h2').textContent") == "Interquartile mean"
    width = "document.querySelector('{} img').getBoundingClientRect().width"
    assert browser.evaluate(width.format("dialog")) > 1.5 * browser.evaluate(width.format("#figure-iqm"))
    browser.press("Escape")
    browser.until("!document.querySelector('dialog').open")
    assert browser.evaluate("document.activeElement.closest('figure')?.id") == "figure-iqm"
    browser.evaluate("document.querySelector('#figure-aggregates button').click()")
    assert browser.evaluate("document.querySelector('dialog h2').textContent") == "Aggregate metrics"
    browser.evaluate("document.querySelector('dialog form button').click()")
    assert not browser.evaluate("document.querySelector('dialog').open")


@pytest.mark.browser
def test_all_figures_are_shown(browser: Browser) -> None:
    browser.until("[...document.images].every((i) => i.complete)")
    assert browser.evaluate("[...document.images].every((i) => i.naturalWidth > 100)")


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_overflow_on_a_phone(browser: Browser, scheme: str) -> None:
    browser.scheme(scheme)
    browser.size(375, 812, phone=True)
    assert browser.evaluate("document.documentElement.scrollWidth") == 375
    wide = """[...document.querySelectorAll("body *")].filter((e) =>
        !e.closest(".scroll, dialog, .skip") && e.getBoundingClientRect().right > 375.5).map((e) => e.outerHTML.slice(0, 80))"""
    assert browser.evaluate(wide) == []
    browser.size(1280, 900)
    browser.scheme("light")


@pytest.mark.browser
def test_long_names_stay_in_their_columns(browser: Browser) -> None:
    """A name without spaces breaks within its header instead of lying over the next."""
    button = "document.querySelector('#table-per_game thead th:nth-child(5) button')"
    name = f"{button}.querySelector('bdi')"
    before = browser.evaluate(f"{name}.textContent")
    browser.evaluate(f"{name}.textContent = 'ANameOfManyLettersWithoutAnySpaceInIt_v2_final'")
    right = "document.querySelector('#table-per_game thead th:nth-child(5)').getBoundingClientRect().right"
    over = browser.evaluate(f"{name}.getBoundingClientRect().right - {right}")
    browser.evaluate(f"{name}.textContent = {before!r}")
    assert over <= 0


@pytest.mark.browser
def test_dark_scheme(browser: Browser) -> None:
    paper = "getComputedStyle(document.body).backgroundColor"
    picture = "document.querySelector('#figure-iqm img').currentSrc"
    browser.until(f"{picture} !== ''")
    light = browser.evaluate(paper), browser.evaluate(picture)
    browser.scheme("dark")
    browser.until(f"{paper} !== {light[0]!r}")
    browser.until(f"{picture} !== {light[1]!r}")
    browser.scheme("light")
    browser.until(f"{picture} === {light[1]!r}")


@pytest.mark.browser
def test_on_paper(browser: Browser) -> None:
    """A4 with the margins of the style sheet is 184 mm wide: nothing of the page is wider, nothing to click is printed."""
    browser.evaluate("document.querySelectorAll('details').forEach((e) => e.open = true)")
    browser.scheme("light", "print")
    browser.size(695, 980)
    browser.until("getComputedStyle(document.querySelector('nav')).display === 'none'")
    wide = """[...document.querySelectorAll("body *")].filter((e) =>
        e.getBoundingClientRect().right > 695.5).map((e) => e.outerHTML.slice(0, 90))"""
    assert browser.evaluate(wide) == []
    browser.size(1280, 900)
    browser.scheme("light")
