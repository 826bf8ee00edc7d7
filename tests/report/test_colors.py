"""The same colour for the same algorithm everywhere: in every report, ours and published."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from remctl.drawing import COLORS, FAINT, Drawing, styled
from remctl.games import ATARI_100K
from remctl.report.colors import AGENTS, NUM_COLORS, agent_of, coloured
from remctl.report.figure_style import look
from remctl.report.figures import write_figures
from remctl.report.results import Algorithm, Figure, Origin
from remctl.report.spec import ReportSpec
from remctl.report.write import compute
from remctl.variants import VARIANTS
from tests.report.synthetic import results


def algorithms(*names: str, published: tuple[str, ...] = ()) -> list[Algorithm]:
    kinds: list[tuple[str, Origin]] = [*((n, "file") for n in names), *((n, "published") for n in published)]
    return [Algorithm(name, name, origin, "", 0, (), {}) for name, origin in kinds]


def colors(*names: str, published: tuple[str, ...] = ()) -> dict[str, int]:
    return {a.name: a.color for a in coloured(algorithms(*names, published=published))}


def test_every_agent_has_its_own_for_good() -> None:
    assert len(COLORS) == NUM_COLORS
    assert set(VARIANTS) <= set(AGENTS)
    assert len(set(AGENTS.values())) == len(AGENTS)
    for table in ("table1", "table8"):
        made = compute(ReportSpec(published=(table,), reps=100), "")
        assert len({a.color % NUM_COLORS for a in made.algorithms}) == len(made.algorithms) == 6
        assert all(a.color == AGENTS[agent_of(a.name) or ""] for a in made.algorithms)


def test_order_and_company_change_nothing() -> None:
    first = colors("no_pop", "rem", "x")
    assert (first["rem"], first["no_pop"]) == (0, 1)
    assert colors("x", "rem", "tokenizer_4x4", "no_pop")["no_pop"] == 1
    assert colors("mine/no_pop", published=("REM", "IRIS")) == {"mine/no_pop": 1, "REM": 0, "IRIS": 6}


def test_ours_and_the_published_share_a_colour_and_nobody_else_does() -> None:
    made = colors("rem", "x", "IRIS", published=("REM", "paper/IRIS"))
    assert made["rem"] == made["REM"] == 0
    assert made["IRIS"] == made["paper/IRIS"] == 6
    assert made["x"] not in (0, 6)
    twice = colors("a/rem", "b/rem", published=("REM",))
    assert twice["a/rem"] == twice["REM"] != twice["b/rem"]
    assert colors("x", "y") == {"x": 0, "y": 1}


def test_others_take_what_the_fewest_have() -> None:
    many = colors(*(f"a{i}" for i in range(2 * NUM_COLORS)))
    assert sorted(many.values()) == list(range(2 * NUM_COLORS))
    known = ("SimPLe", "DreamerV3", "TWM", "STORM", "IRIS", "REM", "no_pop")
    assert colors("rem", "x", published=known)["x"] % NUM_COLORS not in (0,)  # published ones have it, ours has not


def test_the_marker_tells_ours_from_the_published() -> None:
    made = results(games=("Krull",), variants=("rem",))
    (rem,) = made.algorithms
    both = replace(made, algorithms=(rem, replace(rem, name="REM", origin="published", runs=())))
    ours, paper = look(both, "rem"), look(both, "REM")
    assert ours.color == paper.color
    assert (ours.marker, ours.line) != (paper.marker, paper.line)
    assert look(both, "REM (as published)").color == ours.color  # a published time
    assert look(both, "IRIS (as published)").color == FAINT  # not in this report


# --- what else the figures say


def test_open_markers_are_explained_beside_probabilities(tmp_path: Path) -> None:
    made = results(games=("Assault", "Krull"), variants=("rem", "no_pop"), num_runs=1, control="rem")
    only = replace(made, figures=(Figure("probability_of_improvement", ""),))
    (figure,) = write_figures(only, tmp_path, ())
    from remctl.report import figures_scores

    with styled():
        drawing = figures_scores.probability_of_improvement(only)
    assert isinstance(drawing, Drawing)
    assert [t.get_text() for legend in drawing.figure.legends for t in legend.get_texts()] == [
        "no interval: too few runs"
    ]
    assert drawing.figure.axes[0].get_title(loc="left") == "Over 2 games"
    assert figure.title == drawing.title


@pytest.mark.parametrize("raw_games", [("Catch",)])
def test_raw_games_are_over_no_games(raw_games: tuple[str, ...], tmp_path: Path) -> None:
    made = results(games=(), raw_games=raw_games, variants=("rem", "no_pop"), num_runs=3)
    for figure in write_figures(made, tmp_path, ()):
        assert "Over 0 games" not in getattr(figure, "explanation", "")
        assert not getattr(figure, "explanation", "x").startswith(" ")


def test_ticks_of_differences_do_not_collide() -> None:
    from remctl.report import figures_differences

    labels = {"no_pop": "A name that is as long as may be"}
    made = results(variants=("rem", "no_pop", "tokenizer_4x4"), labels=labels)
    small = [replace(d, value=d.value / 30, ci_low=-0.061, ci_high=0.053) for d in made.differences]
    raw = replace(small[0], metric="raw_mean", value=-0.09, ci_low=-0.162, ci_high=0.012)
    small += [replace(raw, game=game) for game in ATARI_100K[:12]]  # narrow panels, labels of five characters
    with styled():
        drawing = figures_differences.differences(replace(made, differences=tuple(small)))
        assert isinstance(drawing, Drawing)
        drawing.figure.draw_without_rendering()
        for axes in drawing.figure.axes:
            low, high = axes.get_xlim()
            ticks = [t for t in axes.xaxis.get_major_ticks() if low <= t.get_loc() <= high]
            boxes = [tick.label1.get_window_extent() for tick in ticks]
            assert len(boxes) >= 2  # pixels at 300 to the inch: 20 are more than a digit
            assert all(a.x1 + 20 < b.x0 for a, b in zip(boxes, boxes[1:], strict=False)), axes.get_title(loc="left")
