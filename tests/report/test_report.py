"""A whole report: files, tables, policies, notes, and that the same input gives the same bytes."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from remctl.config import resolve
from remctl.errors import UserError
from remctl.games import ABLATION_SUBSET, ATARI_100K
from remctl.report.render import latex, markdown
from remctl.report.results import Results
from remctl.report.spec import ReportSpec
from remctl.report.tables import Cell, Table, display_tables
from remctl.report.write import FORMATS, TABLE_FORMATS, compute, make_report
from tests.report.conftest import MakeRun

STEMS = (
    *("aggregates", "per_game", "performance_profile", "probability_of_improvement", "differences", "learning_curves"),
    "timing",
)


def report(tmp_path: Path, **spec: Any) -> Results:
    return compute(ReportSpec.model_validate({"reps": 200} | spec), "remctl report")


def scores_file(path: Path, games: Any = ABLATION_SUBSET, runs: int = 3, shift: float = 0.0) -> str:
    rng = np.random.default_rng(len(games))
    path.write_text(json.dumps({g: (rng.gamma(2, 1000, runs) + shift).tolist() for g in games}))
    return f"{path.stem}={path}"


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


# --- files


def test_the_files(make_run: MakeRun, tmp_path: Path) -> None:
    for variant in ("rem", "no_pop"):
        for game in ("Alien", "Pong"):
            for seed in range(2):
                epochs = [{"test/return_mean": seed, "controller/wall_s": 2.0, "collect/env_steps": 200}]
                make_run(variant, game, seed, 100.0 * seed, epochs=epochs, wall_s={"controller": 2.0, "media": 1.0})
    out = tmp_path / "out"
    spec = ReportSpec(runs=(str(tmp_path / "runs"),), reps=200, seed=3)
    results = make_report(spec, out, TABLE_FORMATS, "remctl report runs")
    names = {f"{stem}.{ending}" for stem in STEMS for ending in TABLE_FORMATS}
    assert {p.name for p in out.iterdir()} == names | {"runs.csv", "missing.csv", "report.json"}
    aggregates = rows(out / "aggregates.csv")
    header = (out / "aggregates.csv").read_text().splitlines()[0]
    assert header == "algorithm,metric,value,ci_low,ci_high,num_games,num_runs,reps,seed"
    assert [(r["algorithm"], r["metric"]) for r in aggregates] == [
        (a, m) for a in ("rem", "no_pop") for m in ("mean", "median", "iqm", "optimality_gap", "superhuman")
    ]
    assert {(r["num_games"], r["num_runs"], r["reps"], r["seed"]) for r in aggregates} == {("2", "2", "200", "3")}
    assert float(aggregates[0]["value"]) == results.aggregates[0].value  # to the last digit
    assert rows(out / "runs.csv")[0]["config_hash"] == "rem-Alien-0"
    assert rows(out / "per_game.csv")[0]["scores"] == "0.0;100.0"
    assert len(rows(out / "performance_profile.csv")) == 2 * len(results.profiles[0].taus)
    assert [r["than"] for r in rows(out / "probability_of_improvement.csv")] == ["no_pop"]
    assert {r["more_seeds"] for r in rows(out / "differences.csv")} == {""}  # no difference at all
    assert [r["mean"] for r in rows(out / "learning_curves.csv")] == ["0.5"] * 4
    assert {r["phase"]: r["epoch_s"] for r in rows(out / "timing.csv")} == {"controller": "2.0", "media": "", "run": ""}
    about = json.loads((out / "report.json").read_text())
    assert (about["seed"], about["command"], about["game_set"]) == (3, "remctl report runs", "other")
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    make_report(spec, out, TABLE_FORMATS, "remctl report runs")
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before


def test_only_the_formats_asked_for(tmp_path: Path) -> None:
    make_report(ReportSpec(published=("table1",)), tmp_path / "out", ("md",), "")
    assert {p.suffix for p in (tmp_path / "out").iterdir()} == {".md", ".json"}


# --- published beside ours


def test_ours_beside_the_paper(tmp_path: Path) -> None:
    given = scores_file(tmp_path / "REM.json", ATARI_100K)
    results = report(tmp_path, scores=[given], published=["table1", "table8"], bold_among=["IRIS", "REM", "nobody"])
    assert [(a.name, a.origin) for a in results.algorithms][:2] == [("REM", "file"), ("SimPLe", "published")]
    assert results.algorithms[-1].name == "paper/REM"
    assert (results.algorithms[0].label, results.algorithms[-1].label) == ("REM (file)", "REM (paper)")
    colors = {a.name: a.color for a in results.algorithms}
    assert colors["REM"] == colors["paper/REM"] == 0
    assert len({color % 7 for color in colors.values()}) == 6
    assert results.game_set == "atari_100k"
    metrics = {(row.algorithm, row.metric) for row in results.aggregates if row.algorithm in ("REM", "IRIS")}
    assert metrics == {("REM", m) for m in ("mean", "median", "iqm", "optimality_gap", "superhuman")} | {
        ("IRIS", m) for m in ("mean", "median", "superhuman")
    }
    assert {row.ci_low for row in results.aggregates if row.algorithm != "REM"} == {None}
    assert {p.algorithm for p in results.profiles} == {"REM"}
    assert results.bold_among == ("IRIS", "REM")
    assert any("Table 8" in note and "left out" in note for note in results.notes)


def test_an_8_game_table_is_never_beside_26_games(tmp_path: Path) -> None:
    for games, expected in ((None, 26), ("ablation_subset", 8), ("atari_100k", 26)):
        results = report(tmp_path, published=["table1", "table8"], games=games)
        assert {row.num_games for row in results.aggregates} == {expected}
        assert {p.algorithm for p in results.printed} == (
            {a.name for a in results.algorithms} if expected == 26 else {"REM", "no_pop", *TABLE8_REST}
        )
    assert report(tmp_path, published=["table8"]).game_set == "ablation_subset"


TABLE8_REST = {"separate_embeddings", "tokenizer_4x4", "no_latent_space", "no_action_inputs"}


def cells(results: Results, table: str, row: str) -> list[str]:
    """A row's cells in Markdown-like marks: *bold*, _underlined_."""
    (found,) = [r for r in display_tables(results)[table].rows if r[0].text.startswith(row)]
    return ["*" * c.bold + "_" * c.underline + c.text for c in found[1:]]


def test_table_1_is_marked_as_in_the_paper(tmp_path: Path) -> None:
    results = report(tmp_path, published=["table1"], bold_among=["IRIS", "REM"])
    assert cells(results, "per_game", "Hero") == (
        ["1027.0", "30826.4", "2656.6", "_11160.5", "7254.0", "11044.3", "*7037.4", "6484.8"]
    )
    assert cells(results, "per_game", "Breakout")[-2:] == ["83.7", "*_90.7"]
    assert cells(results, "per_game", "#Superhuman")[-1] == "*_12"
    assert cells(results, "per_game", "Optimality gap")[-3:] == ["_0.472†", "0.512†", "*0.482†"]
    assert cells(results, "per_game", "Mean")[-3:] == ["_1.222", "1.046", "*_1.222"]  # equal as printed
    assert set(cells(results, "per_game", "Origin")[2:]) == {"published (paper, Table 1)"}


def test_best_and_second_are_marked(tmp_path: Path) -> None:
    results = report(tmp_path, published=["table8"])
    assert cells(results, "per_game", "DemonAttack")[2:] == [
        "5738.6",
        "*12316.0",
        "4389.9",
        "3863.3",
        "5159.0",
        "_5827.0",
    ]
    assert cells(results, "per_game", "#Superhuman")[2:] == ["*6", "*6", "*6", "4", "_5", "*6"]


def test_rem_is_marked_among_its_ablations(tmp_path: Path) -> None:
    results = report(tmp_path, published=["table1", "table8"], games="ablation_subset")
    names = [a.name for a in results.algorithms]
    for metric, rem, second in (("IQM", "*2.201†", "_2.068†"), ("Optimality gap", "*0.198†", "_0.208†")):
        row = dict(zip(names, cells(results, "aggregates", metric), strict=True))
        assert (row["REM"], row["SimPLe"]) == (rem, "-")
        assert [text for text in row.values() if text.startswith("_")] == [second]
    for table in ("aggregates", "per_game"):
        notes = display_tables(results)[table].notes
        assert "IQM, Optimality gap: marked among the columns that have a value." in notes
    whole = display_tables(report(tmp_path, published=["table1"]))["aggregates"].notes
    assert not any("have a value" in note for note in whole)


# --- missing and ragged


def test_missing_games_common_or_fail(tmp_path: Path) -> None:
    given = [scores_file(tmp_path / "a.json", ABLATION_SUBSET), scores_file(tmp_path / "b.json", ABLATION_SUBSET[:5])]
    results = report(tmp_path, scores=given)
    assert results.games == ABLATION_SUBSET[:5]
    assert {row.num_games for row in results.aggregates} == {5}
    assert {d.num_games for d in results.differences if d.game is None} <= {5}
    assert "5 of 8 games" in results.notes[0]
    assert "b has no score on Gopher, Krull, RoadRunner" in results.notes[0]
    unused = [s.game for s in results.game_scores if s.num_used == 0]
    assert unused == list(ABLATION_SUBSET[5:])  # still shown, by a
    with pytest.raises(UserError, match="b has no score on Gopher, Krull, RoadRunner, and --missing fail allows none"):
        report(tmp_path, scores=given, missing="fail")
    assert report(tmp_path, scores=given, missing="fail", games="Assault,Asterix").games == ("Assault", "Asterix")


def test_uneven_and_unfinished_runs_fail_where_nothing_may_be_missing(make_run: MakeRun, tmp_path: Path) -> None:
    for seed in range(3):
        make_run("rem", "Pong", seed, 1.0 + seed)
        make_run("rem", "Alien", seed, 100.0 + seed)
    runs = [str(tmp_path / "runs")]
    assert report(tmp_path, runs=runs, missing="fail").missing == ()
    make_run("rem", "Alien", 3, None)
    with pytest.raises(UserError, match=r"Alien/seed_3 is missing \(epoch 0 of 600\)"):
        report(tmp_path, runs=runs, missing="fail")
    make_run("rem", "Pong", 3, 1.0)
    with pytest.raises(UserError, match="rem has 3 runs per game but 4 on Pong"):
        report(tmp_path, runs=runs, missing="fail")
    results = report(tmp_path, runs=runs)
    assert "REM has 3 runs per game but 4 on Pong." in results.notes
    assert any(note.startswith("1 run missing, not scored: rem Alien seed 3") for note in results.notes)
    assert any("every run is used" in note for note in results.notes)
    assert any("by a draw" in note for note in report(tmp_path, runs=runs, ragged="equalise").notes)


@pytest.mark.parametrize(
    ("computed", "said"),
    [
        (("bf16", "bf16"), None),
        (("bf16", "fp32"), "1 in bf16, 1 in fp32"),
        (("bf16 + fp32", "bf16 + fp32"), "2 in bf16 + fp32"),  # runs that changed it on their way
    ],
)
def test_precisions_that_are_mixed_are_said(
    computed: tuple[str, str], said: str | None, make_run: MakeRun, tmp_path: Path
) -> None:
    for seed, precision in enumerate(computed):
        make_run("rem", "Pong", seed, 1.0, device={"name": "GPU A", "precision": precision})
    notes = [note for note in report(tmp_path, runs=[str(tmp_path / "runs")]).notes if "precision" in note]
    assert notes == ([f"Runs were computed in several precisions: {said}."] if said else [])


def test_notes_say_what_is_not_comparable(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("rem", "Pong", 0, 1.0)
    make_run("rem", "Pong", 1, 1.0, remctl_version="0.2.0", config="imagination:\n  horizon: 20\n")
    make_run("no_pop", "Pong", 0, 1.0)
    notes = report(tmp_path, runs=[str(tmp_path / "runs")]).notes
    by = "Runs were made by several versions of remctl: 0.1.0: REM Pong seed 0, No POP (all 1); 0.2.0: REM Pong seed 1."
    assert by in notes
    assert any("seeds of Pong have different configurations (" in note for note in notes)
    assert "Runs per game differ: REM 2, No POP 1." in notes
    assert any("no interval over such games: No POP" in note for note in notes)
    assert any("too narrow: REM" in note for note in notes)
    assert any("the same game, Pong" in note for note in notes)


def test_two_states_of_one_commit_and_a_resumed_run_are_told_apart(make_run: MakeRun, tmp_path: Path) -> None:
    for seed, starts in enumerate(["1", "1", "2", "12"]):
        run = make_run("rem", "Pong", seed, 1.0)
        made_by = [{"remctl": "0.2.0", "sources": sources} for sources in starts]
        (run / "provenance.json").write_text(json.dumps(made_by))
    (note,) = (n for n in report(tmp_path, runs=[str(tmp_path / "runs")]).notes if "versions of remctl" in n)
    assert "0.2.0 (sources 1): REM Pong seed 0, REM Pong seed 1; 0.2.0 (sources 2): REM Pong seed 2; " in note
    assert "0.2.0 (sources 1), resumed by 0.2.0 (sources 2): REM Pong seed 3." in note


def test_games_without_reference_scores_are_raw(make_run: MakeRun, tmp_path: Path) -> None:
    for seed in range(3):
        make_run("rem", "gym:X-v0", seed, 0.5 + seed / 10)
        make_run("no_pop", "gym:X-v0", seed, 0.1 * seed)
    results = report(tmp_path, runs=[str(tmp_path / "runs")], published=["table1"])
    assert (results.games, results.raw_games, results.aggregates, results.profiles) == ((), ("gym:X-v0",), (), ())
    assert [s.normalized for s in results.game_scores] == [None, None]
    assert cells(results, "per_game", "gym:X-v0") == ["-", "-", "*0.600 [0.500, 0.700]", "_0.100 [0.000, 0.200]"]
    assert [(d.metric, d.game, d.separated) for d in results.differences] == [("raw_mean", "gym:X-v0", True)]
    assert [(i.game, i.probability) for i in results.improvements] == [("gym:X-v0", 1.0)]
    assert any(note.startswith("gym:X-v0: no reference scores") for note in results.notes)
    assert any("Table 1" in note and "left out" in note for note in results.notes)


REFERENCES = "Normalized scores: 0 is random play, 1 is "


def test_games_beyond_atari_are_normalised_by_their_reference(make_run: MakeRun, tmp_path: Path) -> None:
    for seed in range(3):
        make_run("rem", "Catch", seed, 0.125 + seed / 8)  # normalised 0.5, 0.571, 0.643
        make_run("rem", "gym:minigrid:MiniGrid-DoorKey-5x5-v0", seed, 0.22)  # 0.186 / 0.93 = 0.2
    runs = str(tmp_path / "runs")
    results = report(tmp_path, runs=[runs])
    assert (results.games, results.raw_games) == (("Catch", "gym:minigrid:MiniGrid-DoorKey-5x5-v0"), ())
    values = {row.metric: row.value for row in results.aggregates}
    assert values["mean"] == pytest.approx((0.25 + 1 / 1.75 + 0.2 - 0.25) / 2)
    assert "superhuman" not in values
    assert [score.is_superhuman for score in results.game_scores] == [None, None]
    assert (
        f"{REFERENCES}optimal play on Catch; PPO, 100,000 steps on gym:minigrid:MiniGrid-DoorKey-5x5-v0."
        in results.notes
    )
    tables = display_tables(results)
    assert tables["per_game"].header[:3] == ("Game", "Random", "Reference")
    assert cells(results, "per_game", "Catch")[:2] == ["-0.750", "1.000"]
    assert tables["aggregates"].title == "Normalized aggregates over 2 games"
    make_report(ReportSpec(runs=(runs,), reps=200), tmp_path / "out", TABLE_FORMATS, "")
    for path in (tmp_path / "out").iterdir():  # `superhuman` is a column of per_game.csv, and empty
        assert "human" not in path.read_text().lower().replace("normalized,superhuman,", ""), path


def test_atari_is_human_normalised_until_another_game_is_among_them(make_run: MakeRun, tmp_path: Path) -> None:
    for game, score in (("Pong", 14.6), ("Catch", -0.75)):
        make_run("rem", game, 0, score)
    runs = [str(tmp_path / "runs")]
    atari, both = report(tmp_path, runs=runs, games="Pong"), report(tmp_path, runs=runs)
    assert [(r.normalized, r.aggregates[0].value) for r in (atari, both)] == [
        ("human-normalized", 1),
        ("normalized", 0.5),
    ]
    assert "superhuman" in {row.metric for row in atari.aggregates}
    assert display_tables(atari)["per_game"].header[2] == "Human"
    assert not any(note.startswith(REFERENCES) for note in atari.notes)
    assert f"{REFERENCES}human on Pong; optimal play on Catch." in both.notes
    beside = report(tmp_path, runs=runs, published=["table1"], games="Pong,Catch")
    assert (beside.games, beside.raw_games, beside.normalized) == (("Pong",), ("Catch",), "human-normalized")
    assert [s.normalized for s in beside.game_scores if s.game == "Catch"] == [None]
    assert "Catch: no published scores to compare with: raw scores per game only, in no aggregate." in beside.notes
    assert not any("has no score on Catch" in note or "no reference scores" in note for note in beside.notes)


def test_games_that_the_published_lack_are_compared(make_run: MakeRun, tmp_path: Path) -> None:
    for game in ("Pong", "Catch"):
        for seed in range(3):
            make_run("rem", game, seed, 0.5 + seed / 10)
            make_run("no_pop", game, seed, 0.1 * seed)
    results = report(tmp_path, runs=[str(tmp_path / "runs")], published=["table1"], control="rem")
    assert {i.game for i in results.improvements} == {None, "Catch"}
    assert {a.num_games for a in results.aggregates} == {1}


@pytest.mark.parametrize("changed", [{"arguments": {"size": 8}}, {"frame_skip": 2}, {"time_limit_test_frames": 50}])
def test_reference_scores_are_of_the_published_environment(
    make_run: MakeRun, tmp_path: Path, changed: dict[str, Any]
) -> None:
    game = "gym:MiniGrid-DoorKey-5x5-v0"
    usual = resolve(game, "quick").environment.model_dump(include={"frame_skip", "time_limit_test_frames"})
    make_run("rem", game, 0, 0.22, config=f"schema: 2\nenvironment: {json.dumps(usual | changed)}\n")
    results = report(tmp_path, runs=[str(tmp_path / "runs")])
    assert (results.games, results.raw_games, results.game_scores[0].normalized) == ((), (game,), None)
    assert any(n.startswith(f"{game}: run with ") and "reference scores do not apply" in n for n in results.notes)
    assert not any("no reference scores" in n for n in results.notes)
    assert cells(results, "per_game", game)[:2] == ["-", "-"]


def test_a_game_that_is_raw_for_one_is_raw_for_all(make_run: MakeRun, tmp_path: Path) -> None:
    game = "gym:MiniGrid-DoorKey-5x5-v0"
    limit = resolve(game, "quick").environment.time_limit_test_frames
    same = f"schema: 2\nenvironment:\n  frame_skip: 1\n  time_limit_test_frames: {limit}\n"
    make_run("rem", game, 0, 0.22, config=same + "  arguments: {size: 8}\n")
    make_run("no_pop", game, 0, 0.22, config=same)
    raw = report(tmp_path, runs=[str(tmp_path / "runs")])
    assert (raw.raw_games, [score.normalized for score in raw.game_scores]) == ((game,), [None, None])
    alone = report(tmp_path, runs=[str(tmp_path / "runs/quick/no_pop")])
    assert (alone.games, alone.game_scores[0].normalized) == ((game,), pytest.approx(0.2))


def test_games_that_nobody_has(tmp_path: Path) -> None:
    given = [scores_file(tmp_path / "a.json", ["Pong"])]
    with pytest.raises(UserError, match=r"no score on the games asked for \(Alien\): choose others with --games"):
        report(tmp_path, scores=given, games="Alien")
    results = report(tmp_path, scores=given, games="Pong,Alien")
    assert results.games == ("Pong",)
    assert "1 of 2 games" in results.notes[0]


def test_marks_do_not_touch_intervals() -> None:
    table = Table("t", "T", ("a", "b"), ((Cell("x_y"), Cell("1.5 [1, 2]", bold=True)), (Cell("z"), Cell("2†"))))
    assert markdown(table).splitlines()[4:] == ["| x\\_y | **1.5** \\[1, 2\\] |", "| z | 2† |"]
    lines = latex(table).splitlines()
    assert "x\\_y & \\textbf{1.5} {[}1, 2{]} \\\\" in lines
    assert "z & 2$^\\dagger$ \\\\" in lines


# --- names from files are text


EVIL = "<script>alert(1)</script> | \\input{x} & 100% $a_b$ `c` [d](e)"


def test_names_from_files_are_escaped(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f'algorithm,game,seed,score\n"{EVIL}",Pong,0,1\n"{EVIL}",Pong,1,2\nb,Pong,0,1\n')
    results = make_report(ReportSpec(scores=(str(tmp_path / "a.csv"),), reps=100), tmp_path / "out", TABLE_FORMATS, "")
    assert results.algorithms[0].name == EVIL
    for path in (tmp_path / "out").glob("*.md"):
        text = path.read_text()
        assert "<script" not in text
        assert "[d](e)" not in text
        assert "& 100" not in text
        table = [line for line in text.splitlines() if line.startswith("|")]
        assert len({line.replace("\\|", "").count("|") for line in table}) <= 1  # no cell too many
    for path in (tmp_path / "out").glob("*.tex"):
        text = path.read_text()
        assert "\\input" not in text
        assert "a_b" not in text
        assert all(line.count("&") == line.count("\\&") or line.endswith("\\\\") for line in text.splitlines())
    assert rows(tmp_path / "out" / "aggregates.csv")[0]["algorithm"] == EVIL


def test_every_format_at_once(make_run: MakeRun, tmp_path: Path) -> None:
    for seed in range(2):
        make_run("rem", "Pong", seed, 1.0 + seed, epochs=[{"test/return_mean": 1.0, "controller/wall_s": 1.0}])
        make_run("no_pop", "Pong", seed, 2.0 * seed)
    out = tmp_path / "out"
    make_report(ReportSpec(runs=(str(tmp_path / "runs"),), reps=100), out, FORMATS, "remctl report runs")
    assert (out / "index.html").is_file()
    assert {p.suffix for p in out.rglob("*.*")} == {".csv", ".md", ".tex", ".json", ".html", ".png", ".pdf", ".svg"}
