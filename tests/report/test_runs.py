"""Run folders: whose they are, which are missing, what experiment.json says, and what is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from remctl.errors import UserError
from remctl.report.collect import Collected, collect
from remctl.report.spec import ReportSpec
from tests.report.conftest import MakeRun, experiment_file


def collected(*paths: Path, **spec: object) -> Collected:
    return collect(ReportSpec.model_validate({"runs": [str(p) for p in paths]} | spec))


def scores(found: Collected) -> dict[str, list[tuple[str, int | None, float]]]:
    return {a.name: [(r.game, r.seed, r.score) for r in a.runs] for a in found.algorithms}


def test_a_run_a_game_a_variant_an_experiment_or_all(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run("rem", "Pong", 1, 3.0)
    make_run("rem", "Pong", 0, 2.0)
    make_run("rem", "Alien", 0, 500.0)
    make_run("no_pop", "Pong", 0, 1.0)
    rem = {"rem": [("Alien", 0, 500.0), ("Pong", 0, 2.0), ("Pong", 1, 3.0)]}
    assert scores(collected(run)) == {"rem": [("Pong", 1, 3.0)]}
    assert scores(collected(run.parent)) == {"rem": rem["rem"][1:]}
    assert scores(collected(run.parents[1])) == rem
    whole = collected(tmp_path / "runs" / "quick")
    assert scores(whole) == rem | {"no_pop": [("Pong", 0, 1.0)]}
    assert [a.label for a in whole.algorithms] == ["REM", "No POP"]
    assert whole.control == "rem"
    assert whole.algorithms[0].means == {"Alien": 500.0, "Pong": 2.5}
    assert scores(collected(tmp_path / "runs", run)) == scores(whole)  # nothing counts twice


def test_what_a_run_tells(make_run: MakeRun) -> None:
    run = make_run("rem", "Pong", 4, 3.0, device="GPU B", starts=["GPU A", "GPU B"])
    (algorithm,) = collected(run).algorithms
    (found,) = algorithm.runs
    assert (found.path, found.config_hash, found.remctl_version) == (str(run), "rem-Pong-4", "0.1.0")
    assert (found.num_episodes, found.preset, found.hardware) == (100, "quick", "GPU A + GPU B")
    assert (algorithm.origin, algorithm.source) == ("ours", str(run.parents[2]))


def test_the_code_of_a_run_is_that_of_all_its_starts(make_run: MakeRun) -> None:
    run = make_run("rem", "Pong", 0, 3.0)
    starts: list[dict[str, object]] = [
        {"remctl": "0.1.0", "git": {"commit": "a" * 40, "dirty": True}},  # as version 0.1.0 wrote it
        {"remctl": "0.2.0+gbbbb", "sources": "1"},
        {"remctl": "0.2.0+gcccc", "sources": "1"},  # a commit that changed no source
        {"remctl": "0.2.0+gcccc.changed.2", "sources": "2"},
        {"remctl": "0.2.0", "sources": "2"},  # where git did not answer
    ]
    (run / "provenance.json").write_text(json.dumps(starts))
    version = collected(run).algorithms[0].runs[0].remctl_version
    assert version == f"0.1.0+g{'a' * 12}.changed + 0.2.0+gbbbb + 0.2.0+gcccc.changed.2"


def test_from_inside_a_run_folder(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(make_run("rem", "Pong", 0, 3.0))
    assert scores(collected(Path())) == {"rem": [("Pong", 0, 3.0)]}


def test_experiments_that_collide_are_told_apart(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("rem", experiment="a", score=1.0)
    make_run("rem", experiment="b", score=2.0)
    make_run("no_pop", experiment="b", score=3.0)
    found = collected(tmp_path / "runs")
    assert {a.name: a.label for a in found.algorithms} == {"a/rem": "REM (a)", "b/rem": "REM (b)", "no_pop": "No POP"}
    assert found.control is None  # which rem?
    assert collected(tmp_path / "runs", control="b/rem").control == "b/rem"
    with pytest.raises(UserError, match="several are called 'rem'"):
        collected(tmp_path / "runs", control="rem")


def test_experiments_of_one_name_in_two_places(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("rem", score=1.0)
    (tmp_path / "other").mkdir()
    (tmp_path / "runs").rename(tmp_path / "other" / "runs")
    make_run("rem", score=2.0)
    found = collected(tmp_path / "runs", tmp_path / "other" / "runs")
    assert [a.name for a in found.algorithms] == [f"{tmp_path}/runs/quick/rem", f"{tmp_path}/other/runs/quick/rem"]


def test_unfinished_runs_are_missing_and_never_scored(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("rem", "Pong", 0, 2.0)
    made = make_run("rem", "Pong", 1, None, epochs=[{}] * 120)
    found = collected(tmp_path / "runs")
    assert scores(found) == {"rem": [("Pong", 0, 2.0)]}
    (missing,) = found.missing
    assert (missing.algorithm, missing.game, missing.seed, missing.path) == ("rem", "Pong", 1, str(made))
    assert missing.reason == "epoch 120 of 600"
    with pytest.raises(UserError, match=r"seed_1: not finished \(epoch 120 of 600\): run the same train command again"):
        collected(made)


# --- experiment.json


def test_an_experiment_says_where_its_runs_lie(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("short", "Catch", 0, 0.5, experiment="mine")
    make_run("rem", "Catch", 0, 0.25, experiment="earlier")  # done before, under another name
    make_run("short", "Catch", 9, 0.75, experiment="mine")  # not asked for
    runs = [
        {"variant": "short", "game": "Catch", "seed": 0, "path": "mine/short/Catch/seed_0"},
        {
            "variant": "base",
            "game": "Catch",
            "seed": 0,
            "path": "earlier/rem/Catch/seed_0",
            "config_hash": "rem-Catch-0",
        },
        {"variant": "base", "game": "Catch", "seed": 1, "path": "mine/base/Catch/seed_1"},
    ]
    experiment_file(tmp_path / "runs" / "mine", "base", runs, short="Short one", base="As it is")
    found = collected(tmp_path / "runs" / "mine")
    assert scores(found) == {"base": [("Catch", 0, 0.25)], "short": [("Catch", 0, 0.5)]}
    assert [a.label for a in found.algorithms] == ["As it is", "Short one"]
    assert (found.control, found.question) == ("base", "Why?")
    assert [(m.algorithm, m.seed, m.reason) for m in found.missing] == [("base", 1, "not started")]
    assert any("1 left out here" in note and "seed_9" in note for note in found.notes)


def test_two_experiments_that_share_runs(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("rem", "Catch", 0, 0.25, experiment="a")
    shared = {"variant": "rem", "game": "Catch", "seed": 0, "path": "a/rem/Catch/seed_0"}
    for name in "ab":
        experiment_file(tmp_path / "runs" / name, "rem", [shared], rem="REM")
    assert scores(collected(tmp_path / "runs")) == {"rem": [("Catch", 0, 0.25)]}


def test_folders_that_overlap_an_experiment(make_run: MakeRun, tmp_path: Path) -> None:
    runs, mine = tmp_path / "runs", tmp_path / "runs" / "mine"
    listed = make_run("rem", "Catch", 0, 0.25, experiment="mine")
    unlisted = make_run("rem", "Catch", 9, 0.75, experiment="mine")
    make_run("rem", "Catch", 0, 0.5, experiment="other")
    entry = {"variant": "rem", "game": "Catch", "seed": 0, "path": "mine/rem/Catch/seed_0"}
    experiment_file(mine, "rem", [entry], rem="REM")
    once = {"rem": [("Catch", 0, 0.25)]}
    for paths in (
        (mine, mine),
        (listed, mine),
        (mine, listed),
        (mine, mine / "rem"),
        (mine, tmp_path / "runs/../runs/mine"),
    ):
        found = collected(*paths)
        assert scores(found) == (once if paths[1].name != "rem" else {"rem": [("Catch", 0, 0.25), ("Catch", 9, 0.75)]})
        assert found.question == "Why?"
    both = {"mine/rem": once["rem"], "other/rem": [("Catch", 0, 0.5)]}
    assert scores(collected(runs, mine)) == scores(collected(mine, runs)) == scores(collected(runs)) == both
    assert len([note for note in collected(runs, mine).notes if "1 left out here" in note]) == 1
    for paths in ((unlisted, mine), (mine, unlisted)):  # asked for by name
        found = collected(*paths)
        assert scores(found) == {"rem": [("Catch", 0, 0.25), ("Catch", 9, 0.75)]}
        assert not any("left out" in note for note in found.notes)


def test_a_run_of_another_configuration_is_missing(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("rem", "Catch", 0, 0.25)
    make_run("rem", "Catch", 1, 0.5)
    runs = [
        {"variant": "rem", "game": "Catch", "seed": s, "path": f"quick/rem/Catch/seed_{s}", "config_hash": h}
        for s, h in enumerate(["other", "rem-Catch-1"])
    ]
    experiment_file(tmp_path / "runs" / "quick", "rem", runs, rem="REM")
    found = collected(tmp_path / "runs" / "quick")
    assert scores(found) == {"rem": [("Catch", 1, 0.5)]}
    assert [m.reason for m in found.missing] == ["the run there has configuration rem-Catch-0, not other"]


def test_a_control_without_a_finished_run_is_said(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("short", "Catch", 0, 0.5, experiment="mine")
    make_run("rem", "Catch", 0, None, experiment="mine")
    runs = [{"variant": v, "game": "Catch", "seed": 0, "path": f"mine/{v}/Catch/seed_0"} for v in ("rem", "short")]
    experiment_file(tmp_path / "runs" / "mine", "rem", runs, rem="REM", short="Short")
    for spec in ({}, {"control": "rem"}):
        found = collected(tmp_path / "runs" / "mine", **spec)
        assert found.control is None
        assert "The control rem has no finished run: nothing is compared to it." in found.notes


# --- bad folders


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("result.json", "{", "result.json is damaged"),
        ("result.json", '{"score": 1}', "damaged"),
        ("result.json", '{"score": null, "game": "Pong", "seed": 0}', "score is None, not a number"),
        ("result.json", '{"score": NaN, "game": "Pong", "seed": 0}', "score is nan, not a number"),
        ("result.json", '{"score": "1", "game": "Pong", "seed": 0}', "score is '1', not a number"),
        ("result.json", '{"score": 1, "game": 3, "seed": 0}', "damaged (game or seed)"),
        (
            "result.json",
            '{"score": 1' + "0" * 400 + ', "game": "Pong", "seed": 0}',
            "not a number below 1e12",
        ),
        ("result.json", '{"score": 1e12, "game": "Pong", "seed": 0}', "not a number below 1e12"),
        ("result.json", '{"score": 1, "game": "Pong", "seed": 1e400}', "damaged (game or seed)"),
        ("result.json", '{"score": 1, "game": "Pong", "seed": 1' + "0" * 30 + "}", "(game or seed)"),
        (
            "result.json",
            '{"score": 1, "game": "Pnog", "seed": 0}',
            "unknown game 'Pnog': did you mean Pong?",
        ),
        ("config.yaml", "a: [", "not YAML"),
        ("config.yaml", "a: 1", "names no game and seed"),
        ("metrics.jsonl", "x\n", "metrics.jsonl line 1 is damaged"),
    ],
)
def test_a_damaged_run_is_missing_by_its_reason_and_stops_nothing(
    make_run: MakeRun, name: str, content: str, message: str
) -> None:
    run = make_run("rem", "Pong", 0, 1.0 if name == "result.json" else None)
    (run / name).write_text(content)
    with pytest.raises(UserError, match="not finished") as raised:
        collected(run)
    assert message in str(raised.value)
    make_run("rem", "Pong", 1, 2.0)
    found = collected(run.parents[2])
    assert scores(found) == {"rem": [("Pong", 1, 2.0)]}
    (missing,) = found.missing
    assert (missing.game, missing.seed, missing.path) == ("Pong", 0, str(run))
    assert message in missing.reason
    assert str(run / name) in missing.reason


def test_folders_without_runs(make_run: MakeRun, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "x.csv").write_text("")
    for path, message in (
        ("empty", "no runs there"),
        ("none", "no such folder"),
        ("x.csv", "takes score files as --scores"),
    ):
        with pytest.raises(UserError, match=message):
            collected(tmp_path / path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "damaged"),
        ("[]", "launch the ablation again"),
        ('{"name": "x", "variants": [], "runs": [{}]}', "launch the ablation again"),
        ('{"name": "x", "variants": 3, "runs": []}', "launch the ablation again"),
        (
            '{"name": "x", "variants": [], "runs": '
            '[{"variant": "a", "game": "Pong", "seed": 1e400, "config_hash": "", "path": "x"}]}',
            "seed is no whole number; launch the ablation again",
        ),
    ],
)
def test_a_bad_experiment_file(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "experiment.json").write_text(content)
    with pytest.raises(UserError, match=message):
        collected(tmp_path)


def test_an_experiment_with_a_stranger_or_a_run_twice(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("rem", "Catch", 0, 0.25)
    entry = {"variant": "rem", "game": "Catch", "seed": 0, "path": "quick/rem/Catch/seed_0"}
    experiment_file(tmp_path / "runs" / "quick", "rem", [entry], short="Short")
    with pytest.raises(UserError, match="unlisted variant 'rem'"):
        collected(tmp_path / "runs" / "quick")
    experiment_file(tmp_path / "runs" / "quick", "rem", [entry, entry], rem="REM")
    with pytest.raises(UserError, match="seed 0 of Catch is there twice"):
        collected(tmp_path / "runs" / "quick")
    wrong = entry | {"seed": 1, "config_hash": "rem-Catch-0"}
    experiment_file(tmp_path / "runs" / "quick", "rem", [wrong], rem="REM")
    with pytest.raises(UserError, match="holds Catch seed 0, expected Catch seed 1"):
        collected(tmp_path / "runs" / "quick")


def test_an_unknown_control_and_names_that_collide(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run("rem", "Pong", 0, 1.0)
    with pytest.raises(UserError, match="--control: no algorithm is called 'remm'; did you mean rem?"):
        collected(run, control="remm")
    scores_file = tmp_path / "rem.json"
    scores_file.write_text(json.dumps({"Pong": [1.0]}))
    with pytest.raises(UserError, match="give one of them another NAME"):
        collected(run, scores=[f"rem={scores_file}"])
    with pytest.raises(UserError, match="nothing to report on"):
        collected()
