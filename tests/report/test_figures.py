"""The report's figures: written, the same bytes every time, one colour per algorithm, left out where data bear none."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ET
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import pytest

from remctl.drawing import COLORS, ON_DARK, LeftOut, on_dark, shown, styled
from remctl.errors import UserError
from remctl.games import reference_scores
from remctl.report import figures_scores
from remctl.report import figures_training as training
from remctl.report.figure_marks import number
from remctl.report.figure_style import WrittenFigure, label, look
from remctl.report.figures import FORMATS, write_figures
from remctl.report.results import Curve, Figure, Results
from tests.report.synthetic import results

ALL_STEMS = [
    "aggregates",
    "iqm",
    "performance_profile",
    "probability_of_improvement",
    "differences",
    "per_game",
    "learning_curves",
    "learning_curves_per_game",
    "observation_loss",
    "epoch_time",
    "score_against_time",
]
TWO = ("Assault", "Krull")
MAGIC = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}


def drawn(made: Results, out: Path, formats: tuple[str, ...] = ()) -> dict[str, WrittenFigure]:
    return {f.stem: f for f in write_figures(made, out, formats) if isinstance(f, WrittenFigure)}


def left_out(made: Results, out: Path) -> dict[str, str]:
    return {f.stem: f.reason for f in write_figures(made, out, ()) if isinstance(f, LeftOut)}


@pytest.fixture(scope="module")
def small() -> Results:
    return results(games=TWO, variants=("rem", "no_pop"), num_runs=3)


@pytest.fixture(scope="module")
def written(small: Results, tmp_path_factory: pytest.TempPathFactory) -> dict[str, WrittenFigure]:
    """All figures in all formats, svg first."""
    return drawn(small, tmp_path_factory.mktemp("written"), tuple(reversed(FORMATS)))


def test_all_figures_in_all_formats(written: dict[str, WrittenFigure]) -> None:
    assert list(written) == ALL_STEMS
    for stem, figure in written.items():
        assert [p.name for p in figure.paths] == [f"{stem}.{f}" for f in reversed(FORMATS)]
        assert all(p.parent.name == "figures" for p in figure.paths)
        assert all(p.read_bytes().startswith(MAGIC[p.suffix[1:]]) for p in figure.paths)
        assert ET.fromstring(figure.svg).tag.endswith("svg")
        assert figure.alt
        assert figure.explanation.endswith(".")


def test_only_what_is_asked_for(small: Results, tmp_path: Path) -> None:
    asked = replace(small, figures=(Figure("timing", "Times."),))
    assert list(drawn(asked, tmp_path, ("png",))) == ["epoch_time", "score_against_time"]
    assert sorted(p.name for p in (tmp_path / "figures").iterdir()) == ["epoch_time.png", "score_against_time.png"]


def test_no_format_writes_nothing_and_still_draws(small: Results, tmp_path: Path) -> None:
    assert "<svg" in drawn(small, tmp_path)["iqm"].svg
    assert not any(tmp_path.iterdir())


def test_unknown_format_is_refused(small: Results, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'bmp'.*png, pdf, svg"):
        write_figures(small, tmp_path, ("bmp",))


SAME = """
import sys
from pathlib import Path
from remctl.report.figures import FORMATS, write_figures
from tests.report.synthetic import results
write_figures(results(games=("Assault", "Krull"), variants=("rem", "no_pop"), num_runs=3), Path(sys.argv[1]), FORMATS)
"""


def test_same_bytes_from_another_process(written: dict[str, WrittenFigure], tmp_path: Path) -> None:
    """Other hashes, another order of formats, after other drawings."""
    env = {"PYTHONHASHSEED": "7", "PATH": "", "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", SAME, str(tmp_path)], env=env, cwd=root, check=True)
    for path in (path for figure in written.values() for path in figure.paths):
        assert path.read_bytes() == (tmp_path / "figures" / path.name).read_bytes(), path.name


def test_no_dates(written: dict[str, WrittenFigure]) -> None:
    for figure in written.values():
        assert "<dc:date>" not in figure.svg
        assert not any(b"CreationDate" in path.read_bytes() for path in figure.paths)


def test_threads_and_global_settings(small: Results, tmp_path: Path) -> None:
    before = dict(mpl.rcParams)
    some = replace(small, figures=small.figures[:2])
    with ThreadPoolExecutor(3) as pool:
        svgs = list(pool.map(lambda i: [f.svg for f in drawn(some, tmp_path / str(i)).values()], range(3)))
    assert svgs[0] == svgs[1] == svgs[2]
    assert dict(mpl.rcParams) == before
    assert "matplotlib.pyplot" not in sys.modules or mpl.pyplot.get_fignums() == []


def test_same_colour_for_the_same_algorithm_in_every_figure(tmp_path: Path) -> None:
    """With three algorithms: every figure has their colours and no other of the palette; adding one changes none."""
    three = results(games=TWO, variants=("rem", "no_pop", "separate_embeddings"), num_runs=3)
    own = {look(three, a.name).color.lower() for a in three.algorithms}
    assert len(own) == 3
    for figure in drawn(three, tmp_path).values():
        used = {color.lower() for color in COLORS if color.lower() in figure.svg}
        missing = own - used
        assert used <= own, figure.stem
        # Differences have no row for the control.
        assert missing == ({look(three, "rem").color.lower()} if figure.stem == "differences" else set()), figure.stem
    four = results(games=TWO, num_runs=3)
    assert all(look(three, a.name) == look(four, a.name) for a in three.algorithms)


def test_looks_differ_beyond_the_palette() -> None:
    base = results(games=TWO, num_runs=1)
    many = replace(
        base, algorithms=tuple(replace(base.algorithms[0], name=f"a{i}", color=i) for i in range(2 * len(COLORS)))
    )
    assert len({(s.color, s.marker, str(s.line)) for s in (look(many, a.name) for a in many.algorithms)}) == 14


def test_published_means_bear_points_only(tmp_path: Path) -> None:
    made = results(games=TWO, variants=("rem",), published=("IRIS", "REM"), control=None, bold_among=("IRIS", "REM"))
    figures = drawn(made, tmp_path)
    assert "IRIS" not in figures["performance_profile"].alt
    assert "IRIS 0.500" in figures["iqm"].alt
    assert left_out(made, tmp_path) == {
        "probability_of_improvement": "No two algorithms have scores of single runs on the same games.",
        "differences": "There is no control to compare with.",
    }


def test_equal_labels_are_told_apart() -> None:
    made = results(games=TWO, variants=("rem",), published=("REM",))
    assert {label(made, a.name) for a in made.algorithms} == {"REM, ours", "REM, published"}


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (
            ("REM, horizon=5, num_layers=3", "REM, horizon=10, num_layers=3", "IRIS"),
            ("…horizon=5", "…horizon=10", "IRIS"),
        ),
        (
            ("REM, horizon=5, num_layers=3", "REM, horizon=5, num_layers=4", "REM, horizon=10, num_layers=4"),
            ("…horizon=5, num_layers=3", "…horizon=5, num_layers=4", "…horizon=10, num_layers=4"),
        ),
        (("a" * 40 + "1", "a" * 40 + "2"), ("…" + "a" * 40 + "1", "…" + "a" * 40 + "2")),
        (("a" * 40, "a" * 40 + " b"), ("…" + "a" * 40, "…" + "a" * 40 + " b")),
        (("a" * 80 + "1" + "b" * 80, "a" * 80 + "2" + "b" * 80), ("aaaaaaaaa… 1", "aaaaaaaaa… 2")),
        (("short", "long" * 20), ("short", "long" * 3 + "l…")),
    ],
)
def test_labels_that_are_cut_still_differ(labels: tuple[str, ...], expected: tuple[str, ...]) -> None:
    base = results(games=TWO, variants=("rem",))
    algorithms = [replace(base.algorithms[0], name=f"a{i}", label=text) for i, text in enumerate(labels)]
    made = replace(base, algorithms=tuple(algorithms))
    assert tuple(label(made, a.name, 14) for a in made.algorithms) == expected


def test_nothing_but_published_means(tmp_path: Path) -> None:
    made = results(games=TWO, variants=(), published=("IRIS", "REM"), control=None)
    assert set(drawn(made, tmp_path)) == {"aggregates", "iqm", "per_game"}
    assert all(reason.endswith(".") for reason in left_out(made, tmp_path).values())


def test_single_runs_and_raw_games(tmp_path: Path) -> None:
    one = drawn(results(games=("Krull",), variants=("rem", "no_pop"), num_runs=1), tmp_path)
    assert list(one) == ALL_STEMS
    raw = results(games=(), raw_games=("Catch",), variants=("rem", "no_pop"), num_runs=3)
    assert set(left_out(raw, tmp_path)) == {
        "aggregates",
        "iqm",
        "performance_profile",
        "differences",
        "learning_curves",
    }
    assert "on Catch" in drawn(raw, tmp_path)["probability_of_improvement"].alt


def test_figures_beyond_atari_name_the_reference() -> None:
    games = ("Catch", "gym:MiniGrid-DoorKey-5x5-v0")
    made = results(games=games, variants=("rem", "no_pop"), num_runs=3)
    with styled():
        scores, profile = figures_scores.per_game(made), figures_scores.performance_profile(made)
        curves, mean = training.learning_curves_per_game(made), training.learning_curves(made)
        named = [[axes.get_xlabel() for axes in each.figure.axes if axes.get_xlabel()] for each in (scores, curves)]
        assert named == [["dotted: optimal play", "dotted: PPO, 100,000 steps"]] * 2
        for each in (scores, curves):
            assert each.explanation.endswith("Dotted line: the reference score, where it is in reach.")
        assert profile.figure.axes[0].get_xlabel() == "normalized score τ"
        assert "Runs above the reference score" in profile.alt
        assert mean.figure.axes[0].get_ylabel() == "mean normalized return"
        atari = results(games=("Pong",), variants=("rem",), num_runs=3)
        assert figures_scores.per_game(atari).explanation.endswith(
            "Dotted line: the human score, where it is in reach."
        )
        assert figures_scores.performance_profile(atari).figure.axes[0].get_xlabel() == "human-normalized score τ"


@pytest.mark.parametrize("bad", ["$x_{", "$\\foo$", "a\nb\x00c", "<script>&\"'", "\ud800", "x" * 500, "漢字"])
def test_names_from_files_are_drawn_as_they_are(bad: str, tmp_path: Path) -> None:
    made = results(games=("Krull",), variants=("rem", "no_pop"), num_runs=2, labels={"no_pop": bad})
    for figure in drawn(replace(made, figures=made.figures[:3]), tmp_path).values():
        ET.fromstring(figure.svg)


def test_shown() -> None:
    assert shown("a\tb\x00\ud800c") == "a bc"
    assert shown("x" * 30, 10) == "x" * 9 + "…"


@pytest.mark.parametrize(
    ("value", "text"), [(0.6734, "0.673"), (1.222, "1.22"), (-12.34, "−12.3"), (17500.4, "17500"), (None, "unknown")]
)
def test_number(value: float | None, text: str) -> None:
    assert number(value) == text


def test_on_dark_changes_neutral_colours_only(written: dict[str, WrittenFigure]) -> None:
    svg = written["aggregates"].svg
    dark = on_dark(svg)
    assert all(light in svg and light not in dark for light in ON_DARK if light in svg)
    assert all(dark.count(c.lower()) == svg.count(c.lower()) for c in COLORS)


def curve(game: str, mean: tuple[float, ...], std: float, num_runs: int, epochs: tuple[int, ...] = (1, 2)) -> Curve:
    num = len(epochs)
    nan = (float("nan"),) * num
    return Curve("rem", game, "test/return_mean", epochs, nan, mean, (std,) * num, (num_runs,) * num)


def test_interval_of_a_learning_curve_is_students() -> None:
    """n = 5, std = 2: 2.776 * 2 / sqrt(5); none for two runs."""
    line = training._line(curve("Krull", (1.0, 2.0), 2.0, 5), by_steps=False)
    assert line.half == pytest.approx((2.4829,) * 2, abs=1e-3)
    assert all(h != h for h in training._line(curve("Krull", (1.0, 2.0), 2.0, 2), by_steps=False).half)


def test_pooled_curve_over_games() -> None:
    """Two games with equal variance in normalized score: 2 (n - 1) degrees of freedom, half the variance."""
    made = []
    for game in TWO:
        row = reference_scores(game)
        span = row.score - row.random
        made.append(curve(game, (row.random + 0.5 * span,) * 3, 0.1 * span, 5, (50, 100, 150)))
    made[1] = replace(made[1], epochs=(50, 100, 125))
    lines = training._normalized_lines(replace(results(games=TWO), curves=tuple(made)), "test/return_mean")
    assert list(lines) == ["rem"]
    assert lines["rem"].x == (50, 100)
    assert lines["rem"].mean == pytest.approx((0.5, 0.5))
    assert lines["rem"].half == pytest.approx((training.t_quantile(8) * 0.1 / 10**0.5,) * 2)


def test_no_aggregated_curve_where_a_game_is_missing() -> None:
    made = replace(results(games=TWO), curves=(curve("Krull", (1.0, 2.0), 1.0, 5),))
    assert training._normalized_lines(made, "test/return_mean") == {}
