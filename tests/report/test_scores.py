"""Score files: what is read, what is written, and every kind of bad entry."""

from __future__ import annotations

import io
import json
import os
import re
from pathlib import Path

import numpy
import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remctl.errors import UserError
from remctl.report.collect import collect, means_of
from remctl.report.results import Algorithm
from remctl.report.scores import ScoreFile, parse_option, read_scores, scores_csv, scores_json
from remctl.report.spec import ReportSpec


def read(path: Path, content: str, name: str | None = "A") -> dict[str, list[tuple[str, int | None, float]]]:
    path.write_text(content)
    found = read_scores(ScoreFile(name, path))
    return {algorithm: [(run.game, run.seed, run.score) for run in runs] for algorithm, runs in found.runs.items()}


def test_json_as_the_authors_publish_it(tmp_path: Path) -> None:
    found = read(tmp_path / "a.json", '{"Pong": [18, 19.5], "Alien": [600.0]}')
    assert found == {"A": [("Alien", None, 600.0), ("Pong", None, 18.0), ("Pong", None, 19.5)]}


def test_csv_of_one_algorithm(tmp_path: Path) -> None:
    text = "\ufeffgame,seed,score\nPong,1,2.5\nPong,0,1e1\nCatch,0,-1\n"  # a byte order mark, as Excel writes it
    assert read(tmp_path / "a.csv", text) == {"A": [("Catch", 0, -1.0), ("Pong", 0, 10.0), ("Pong", 1, 2.5)]}


def test_csv_of_several_algorithms_and_more_columns(tmp_path: Path) -> None:
    text = 'note,score,seed,game,algorithm\nx,1,0,Pong,IRIS\n"a, b",2,0,Pong,"DreamerV3"\n'
    assert read(tmp_path / "a.csv", text, None) == {"IRIS": [("Pong", 0, 1.0)], "DreamerV3": [("Pong", 0, 2.0)]}
    assert list(read(tmp_path / "a.csv", text, "theirs")) == ["theirs/IRIS", "theirs/DreamerV3"]
    assert list(read(tmp_path / "b.csv", "algorithm,game,seed,score\nIRIS,Pong,0,1\n", "other")) == ["other"]


def test_the_place_of_every_entry_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("game,seed,score\nPong,0,1\nPong,1,2\n")
    assert [run.path for run in read_scores(ScoreFile("A", path)).runs["A"]] == [f"{path} line 2", f"{path} line 3"]


@pytest.mark.parametrize(
    ("text", "name", "path"),
    [("A=x.json", "A", "x.json"), ("x.csv", None, "x.csv"), (" a b =d/x=y.json", "a b", "d/x=y.json")],
)
def test_the_option(text: str, name: str | None, path: str) -> None:
    assert parse_option(text) == ScoreFile(name, Path(path))


@pytest.mark.parametrize("text", ["", "=x.json", "A=", " = "])
def test_a_bad_option(text: str) -> None:
    with pytest.raises(UserError, match="write NAME=FILE"):
        parse_option(text)


# --- written and read back


game = st.sampled_from(["Pong", "Alien", "Catch"])
number = st.floats(-1e12, 1e12, exclude_min=True, exclude_max=True)


@given(runs=st.dictionaries(st.tuples(game, st.integers(0, 99)), number, min_size=1))
def test_scores_survive_both_formats(
    tmp_path_factory: pytest.TempPathFactory, runs: dict[tuple[str, int], float]
) -> None:
    folder = tmp_path_factory.mktemp("scores")
    lines = [f"{game},{seed},{score!r}" for (game, seed), score in runs.items()]
    (folder / "a.csv").write_text("\n".join(["game,seed,score", *lines]))
    (scores,) = read_scores(ScoreFile('a, "b"', folder / "a.csv")).runs.values()
    algorithm = Algorithm('a, "b"', "", "file", "", 0, scores, means_of(scores))
    (folder / "b.csv").write_text(scores_csv([algorithm]))
    (folder / "b.json").write_text(scores_json([algorithm]))
    (again,) = read_scores(ScoreFile(None, folder / "b.csv")).runs.items()
    assert (again[0], [(r.game, r.seed, r.score) for r in again[1]]) == (
        algorithm.name,
        [(r.game, r.seed, r.score) for r in scores],
    )
    (as_json,) = read_scores(ScoreFile("x", folder / "b.json")).runs.values()
    assert [(r.game, r.score) for r in as_json] == [(r.game, r.score) for r in scores]


def test_runs_without_seeds_are_numbered(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"Pong": [1, 2], "Alien": [3]}')
    (runs,) = read_scores(ScoreFile("A", tmp_path / "a.json")).runs.values()
    text = scores_csv([Algorithm("A", "A", "file", "", 0, runs, {})])
    assert text.splitlines() == ["algorithm,game,seed,score", "A,Alien,0,3.0", "A,Pong,0,1.0", "A,Pong,1,2.0"]


def test_json_holds_one_algorithm() -> None:
    two = [Algorithm(name, name, "file", "", 0, (), {}) for name in "AB"]
    with pytest.raises(UserError, match="found A, B: choose with --algorithm"):
        scores_json(two)


# --- as others write them

THREE = [("Alien", 0, 3.0), ("Pong", 0, 1.0), ("Pong", 1, 2.5)]
LONG = {"game": ["Pong", "Pong", "Alien"], "seed": [0, 1, 0], "score": [1.0, 2.5, 3.0]}
SHAPES = [
    ("json", '{"Pong": {"0": 1, "1": 2.5}, "Alien": {"0": 3}}'),
    ("json", '{"pong": {"seed_0": 1, "seed_1": "2.5"}, "alien": {"seed_0": 3}}'),
    ("json", '{"0": {"Pong": 1, "Alien": 3}, "1": {"Pong": 2.5}}'),
    (
        "json",
        '[{"env_id": "ALE/Pong-v5", "seed": 0, "episode_return": 1},'
        ' {"env_id": "ALE/Pong-v5", "seed": 1, "episode_return": 2.5},'
        ' {"env_id": "ALE/Alien-v5", "seed": 0, "episode_return": 3, "num_episodes": 100}]',
    ),
    ("json", '{"Pong": [{"seed": 0, "score": 1}, {"seed": 1, "score": 2.5}], "Alien": [{"seed": 0, "score": 3}]}'),
    ("json", json.dumps(LONG)),
    ("json", pandas.DataFrame(LONG).to_json()),
    ("json", pandas.DataFrame(LONG).to_json(orient="records")),
    ("json", pandas.DataFrame(LONG).to_json(orient="table")),
    ("json", pandas.DataFrame(LONG).to_json(orient="split")),
    ("jsonl", pandas.DataFrame(LONG).to_json(orient="records", lines=True)),
    ("csv", pandas.DataFrame(LONG).to_csv()),  # with a nameless index
    ("csv", pandas.read_csv(io.StringIO(pandas.DataFrame(LONG).to_csv())).to_csv()),  # with two
    ("csv", pandas.DataFrame(LONG).pivot(index="game", columns="seed", values="score").to_csv()),
    ("csv", pandas.DataFrame(LONG).pivot(index="seed", columns="game", values="score").to_csv()),
    (
        "csv",
        "\ufeffGame , Seed,  Score \r\nPongNoFrameskip-v4, 0.0 ,1\r\nPongNoFrameskip-v4,1.0,2.5\r\nalien,0.0,3\r\n,,\r\n",
    ),
    ("csv", "Environment;Trial;Mean Reward\nPong;0;1,0\nPong;1;2,5\nAlien;0;3\n"),
    ("tsv", "task\trun\tmean_return\nPong\t0\t1\nPong\t1\t2.5\nAlien\t0\t3\n"),
    ("csv", "seed,Pong,Alien\n0,1,3\n1,2.5,\n"),
    ("csv", ",PONG,alien\nseed_0,1,3\nseed_1,2.5,nan\n"),
    ("csv", "game,seed_0,seed_1\nPong,1,2.5\nAlien,3,NaN\n"),
    ("csv", "game,Run 0,Run 1\nPong,1,2.5\nAlien,3,None\n"),
]


@pytest.mark.parametrize(("ending", "content"), SHAPES)
def test_shapes_that_others_write(tmp_path: Path, ending: str, content: str) -> None:
    assert read(tmp_path / f"a.{ending}", content) == {"A": THREE}


def test_several_algorithms_in_one_file(tmp_path: Path) -> None:
    expected = {"REM": [("Pong", None, 1.0), ("Pong", None, 2.0)], "IRIS": [("Pong", None, 3.0)]}
    assert read(tmp_path / "a.json", '{"REM": {"Pong": [1, 2]}, "IRIS": {"Pong": [3]}}', None) == expected
    assert read(tmp_path / "a.json", '{"Pong": {"REM": [1, 2], "IRIS": [3]}}', None) == expected
    assert read(tmp_path / "a.csv", "method,task,return\nREM,pong,1\nREM,pong,2\nIRIS,pong,3\n", None) == expected
    assert read(tmp_path / "a.json", '{"algo": "REM", "scores": {"Pong": [1, 2]}}', None) == {"REM": expected["REM"]}
    assert list(read(tmp_path / "a.json", '{"a": {"REM": {"Pong": [1]}}, "b": {"REM": {"Pong": [1]}}}', None)) == [
        "a/REM",
        "b/REM",
    ]


def test_text_of_windows_and_arrays(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("game,seed,score\r\nPong,0,1\r\n".encode("utf-16"))
    (tmp_path / "b.csv").write_text("game;seed;score\nPong;0;1.5\nPong;1;1,5\n")
    numpy.savez(tmp_path / "a.npz", pong=numpy.array([1.0, 2.0]), Alien=numpy.array([3]))
    numpy.savez(tmp_path / "b.npz", REM=numpy.zeros((5, 26)))
    numpy.savez(tmp_path / "c.npz", Pong=numpy.array([object()]))
    (tmp_path / "d.npz").write_bytes(b"x")
    assert read_scores(ScoreFile("A", tmp_path / "a.csv")).runs["A"][0].score == 1.0
    runs = read_scores(ScoreFile("A", tmp_path / "a.npz")).runs["A"]
    assert [(r.game, r.score) for r in runs] == [("Alien", 3.0), ("Pong", 1.0), ("Pong", 2.0)]
    with pytest.raises(UserError, match='score is "1,5", not a number'):
        read_scores(ScoreFile("A", tmp_path / "b.csv"))
    with pytest.raises(UserError, match="without the names of its games"):
        read_scores(ScoreFile("A", tmp_path / "b.npz"))
    for name in ("c.npz", "d.npz"):
        with pytest.raises(UserError, match="not arrays by game"):
            read_scores(ScoreFile("A", tmp_path / name))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", '{"Pong": [1, null], "Alien": []}'),
        ("a.json", '{"Pong": [1, NaN], "Alien": {}}'),
        ("a.json", '{"Pong": {"0": 1, "1": "n/a"}, "Alien": null}'),
        ("a.csv", "game,seed,score\nPong,0,1\nPong,1,\nAlien,0,<NA>\n"),
        ("a.csv", "Pong,Alien\n1,nan\nNULL,\n"),
    ],
)
def test_what_has_no_score_is_a_missing_run(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    found = read_scores(ScoreFile("A", tmp_path / name))
    assert [(r.game, r.score) for r in found.runs["A"]] == [("Pong", 1.0)]
    assert {(m.algorithm, m.game) for m in found.missing} == {("A", "Pong"), ("A", "Alien")}
    all_games = collect(ReportSpec(scores=(f"A={tmp_path / name}",)))
    assert all_games.missing == found.missing  # Alien too, of which nobody has a score
    one_game = collect(ReportSpec(scores=(f"A={tmp_path / name}",), games="Pong"))
    assert {m.game for m in one_game.missing} == {"Pong"}


# --- bad entries: the file, the entry, the fix

HEAD = "game,seed,score\n"
BAD = [
    ("a.json", '{"Pnog": [1]}', "unknown game 'Pnog': did you mean Pong?"),
    ("a.json", '{"Pong": 3}', "'Pong' is 3, not a list; write one score per run"),
    ("a.json", '{"Pong": [1, "2x"]}', "'Pong' entry 2 is \"2x\", not a number"),
    ("a.json", '{"Pong": [true]}', "'Pong' entry 1 is true, not a number"),
    ("a.json", '{"Pong": [[1, 2]]}', "'Pong' entry 1 is [1, 2], not a number"),
    ("a.json", '{"Pong": [1e999]}', "a score is a finite number"),
    ("a.json", '{"Pong": [1' + "0" * 400 + "]}", "a score is a finite number"),
    ("a.json", '{"Pong": [1, 1e308, 1e308]}', "'Pong' entry 2 is 1e+308; a score is a finite number below 1e12"),
    ("a.json", '{"Pong": [1, -1e12]}', "'Pong' entry 2 is -1000000000000.0; a score is a finite number below 1e12"),
    ("a.json", '{"Pong": [' + "9" * 5000 + "]}", "not JSON"),
    ("a.csv", HEAD + "Pong,0,1e300\n", "line 2: score is 1e+300; a score is a finite number below 1e12"),
    ("a.csv", HEAD + "Pong," + "1" * 5000 + ",1\n", "give a whole number from 0, at most 18 digits"),
    ("a.json", '{"Pong": [1], "Pong": [2]}', "'Pong' stands there 2 times; keep one entry per game"),
    ("a.json", "{}", "holds no game"),
    ("a.json", "[1, 2]", "not an object of games"),
    ("a.json", "3", "not an object of games"),
    ("a.json", '{"Pong": [1', "not JSON"),
    ("a.json", "", "not JSON"),
    ("a.json", "[" * 100_000, "not JSON"),
    ("a.csv", "", "line 1: the columns are"),
    ("a.csv", "game,seed,score,score\nPong,0,1,2\n", "line 1: the columns are"),
    ("a.csv", HEAD, "holds no scores below its header"),
    ("a.csv", HEAD + "Pong,0,1\nPnog,0,1\n", "line 3: unknown game 'Pnog': did you mean Pong?"),
    ("a.csv", HEAD + "Pong,0,abc\n", 'line 2: score is "abc", not a number'),
    ("a.csv", HEAD + "Pong,0,1_000\n", 'line 2: score is "1_000", not a number'),
    ("a.csv", HEAD + "Pong,0,inf\n", "a score is a finite number"),
    ("a.csv", HEAD + "Pong,x,1\n", 'line 2: seed is "x"; give a whole number from 0'),
    ("a.csv", HEAD + "Pong,-1,1\n", "give a whole number from 0"),
    (
        "a.csv",
        HEAD + "Pong,0,1\nAlien,0,1\nPong,0,2\n",
        "a.csv line 2 already; keep one of them",
    ),
    ("a.csv", HEAD + "Pong,0\n", "line 2: has more or fewer cells than the header"),
    ("a.csv", HEAD + "Pong,0,1,2\n", "line 2: has more or fewer cells than the header"),
    ("a.csv", HEAD + '"Pong,0,1\n', "not CSV"),
    ("a.csv", "algorithm," + HEAD + ",Pong,0,1\n", "line 2: the algorithm is empty"),
    ("a.csv", "algorithm," + HEAD + "A,Pong,0,1\nA,Pong,0,1\n", "line 3: seed 0 of 'A' on Pong is at"),
    (
        "a.json",
        '{"Pnog": [1], "REM": {"Alein": [2]}, "Foo": 3}',
        "3 unknown games: 'Pnog' (did you mean Pong?), 'Alein' (did",
    ),
    ("a.csv", "env,seed,score\nPnog,0,1\nFoo,0,1\n", "2 unknown games: 'Pnog' (did you mean Pong?), 'Foo'; give an"),
    ("a.csv", "seed,Pong,length\n0,1,2\n", "unknown game 'length'"),
    ("a.json", '{"Pong": [1], "ALE/Pong-v5": [2]}', "'ALE/Pong-v5' and 'Pong' are one game"),
    ("a.json", '{"Pong": [null]}', "no run has a score"),
    ("a.json", '{"REM": [[1, 2], [3, 4]]}', "'REM' entry 1 is an array without the names of its games"),
    ("a.json", '{"game": ["Pong", "Alien"], "score": [1]}', "columns that do not fit together"),
    ("a.json", '{"Pong": {"mean": 3, "std": 1}}', "'Pong': what is 'mean'? Call the column of scores score"),
    ("a.csv", "game,reward,return\nPong,1,2\n", "several columns of scores"),
    ("a.csv", "game,seed,human_normalized_score\nPong,0,1\n", "line 1: the columns are"),
    ("a.csv", "game,step,score\nPong,100,1\nPong,200,2\n", "line 3: rows of several steps or episodes"),
    ("a.csv", "game,seed,step,score\nPong,0,100,1\nPong,0,200,2\n", "line 3: seed 0 of Pong is at"),
    ("a.csv", "name,value\nPong,1\n", "line 1: the columns are"),
    ("a.jsonl", '{"game": "Pong", "score": 1}\n{"game":\n', "line 2: not JSON"),
    ("a.json", '{"a":' * 900 + "1" + "}" * 900, "nested too deeply"),
    ("a.txt", "x", "scores are read from .csv, .tsv, .json, .jsonl, .npz files"),
    ("a", '{"Pong": [1]}', "scores are read from .csv, .tsv, .json, .jsonl, .npz files"),
]


@pytest.mark.parametrize(("name", "content", "message"), BAD)
def test_bad_entries_are_named(tmp_path: Path, name: str, content: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        read(tmp_path / name, content)
    assert error.value.exit_code == 2
    assert str(tmp_path / name) in str(error.value)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


LOST = [  # two methods, two moments or two tests that would have been the runs of one
    *(
        (f"{name},game,score\nREM,Pong,1\nIRIS,Pong,2\n", name)
        for name in ("name", "variant", "Experiment", "exp_name")
    ),
    *((f"{name},game,score\nREM,Pong,1\nIRIS,Pong,2\n", name) for name in ("policy", "baseline", "whatever it is")),
    ("variant,game,seed,score\nREM,Pong,0,1\nIRIS,Pong,1,2\n", "variant"),
    ("variant,game,seed,score\nREM,Pong,0,1\nIRIS,Alien,0,2\n", "variant"),  # of one algorithm on two games
    ("method,variant,game,seed,score\nREM,a,Pong,0,1\nREM,b,Pong,1,2\n", "variant"),
    ("split,game,score\ntrain,Pong,1\ntest,Pong,2\n", "split"),
    ("game,seed,learning_rate,score\nPong,0,0.1,1\nPong,1,0.2,2\n", "learning_rate"),
    ("game,wall_time,score\nPong,10,1\nPong,20,2\n", "wall_time"),
    ([{"name": "REM", "scores": {"Pong": [1]}}, {"name": "IRIS", "scores": {"Pong": [2]}}], "name"),
    ([{"name": "REM", "scores": {"Pong": [1]}}, {"name": "IRIS", "scores": {"Alien": [2]}}], "name"),
    ({"algorithms": [{"name": "REM", "scores": {"Pong": [1]}}, {"name": "IRIS", "scores": {"Pong": [2]}}]}, "name"),
    ({"Pong": [{"config": {"lr": 1}, "score": 1}, {"config": {"lr": 2}, "score": 2}]}, "config"),
    ({"Pong": {"scores": [1, 2], "variant": ["REM", "IRIS"]}}, "variant"),
    ({"game": ["Pong", "Pong"], "variant": ["REM", "IRIS"], "score": [1, 2]}, "variant"),
    ([{"game": "Pong", "index": 0, "score": 1}, {"game": "Pong", "index": 1, "score": 2}] * 2, "index"),
]


@pytest.mark.parametrize(("content", "column"), LOST)
def test_a_column_that_tells_rows_apart_is_never_dropped(tmp_path: Path, content: object, column: str) -> None:
    name, text = ("a.csv", content) if isinstance(content, str) else ("a.json", json.dumps(content))
    with pytest.raises(UserError, match=f"{column!r} is .*; call it algorithm, seed or step if it is one") as error:
        read(tmp_path / name, text)
    assert "\n" not in str(error.value)


STEPS = ["step", "_step", "checkpoint", "num_frames", "total_steps", "Global Step", "env_steps", "iteration", "ckpt_id"]


@pytest.mark.parametrize("name", [*STEPS, "total_env_steps", "timesteps_total", "epoch_number"])
def test_moments_of_a_run_are_no_runs(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="rows of several steps|call it algorithm, seed or step"):
        read(tmp_path / "a.csv", f"game,{name},score\nPong,100,1\nPong,200,2\n")
    with pytest.raises(UserError, match="rows of several steps"):
        read(tmp_path / "a.json", json.dumps({"Pong": {"scores": [1, 2], name: [100, 200]}}))
    with pytest.raises(UserError, match="seed 0 of Pong is at"):
        read(tmp_path / "a.csv", f"game,{name},seed,score\nPong,100,0,1\nPong,200,0,2\n")


@pytest.mark.parametrize("keys", [("step_100", "step_200"), ("100k", "epoch 7"), ("Checkpoint-1",), ("100k steps",)])
def test_a_step_is_no_algorithm(tmp_path: Path, keys: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match="is a step, not an algorithm"):
        read(tmp_path / "a.json", json.dumps({"Pong": dict.fromkeys(keys, [1])}))


def test_what_describes_a_run_with_a_seed_may_differ(tmp_path: Path) -> None:
    header = "game,seed,score,num_episodes,hardware,path,std,human_normalized_score,wall_time_s,global_step,note"
    rows = "Pong,0,1,100,a,x/0,.1,.5,10,1,n\nPong,1,2,101,b,x/1,.2,.6,20,2,n\n"
    assert read(tmp_path / "a.csv", f"{header}\n{rows}") == {"A": [("Pong", 0, 1.0), ("Pong", 1, 2.0)]}
    rows = "Pong,1,10\nPong,2,20\n"  # another column of scores tells nothing apart
    assert read(tmp_path / "a.csv", f"game,score,final_return\n{rows}") == {
        "A": [("Pong", None, 1.0), ("Pong", None, 2.0)]
    }
    without = json.dumps({"Pong": {"scores": [1, 2], "normalized_scores": [0.1, 0.2], "games": [1]}})
    assert read(tmp_path / "a.json", without) == {"A": [("Pong", None, 1.0), ("Pong", None, 2.0)]}
    text = json.dumps({"date": "today", "results": {"Pong": [1, 2]}})
    assert read(tmp_path / "a.json", text) == {"A": [("Pong", None, 1.0), ("Pong", None, 2.0)]}


@pytest.mark.parametrize(
    ("content", "column"),
    [
        ("game,mean_score,std_score,n_seeds\nPong,1,2,5\n", "std_score"),
        ("game,score,num_runs\nPong,1,5\n", "num_runs"),
        ("game,score,score_std\nPong,1,5\n", "score_std"),
        ("game,score,ci_low,ci_high\nPong,1,0,2\n", "ci_low"),
        *(
            (f"game,score,{name}\nPong,1,5\n", name)
            for name in ("standard deviation", "sigma", "Confidence Interval (95%)")
        ),
        *(
            (f"game,score,{name}\nPong,1,5\n", name)
            for name in ("max_score", "seed_list", "#seeds", "n", "\u00b1", "q1")
        ),
        ({"Pong": {"REM_mean": [1], "REM_std": [2]}}, "REM_std"),
        ({"Pong": {"mean_score": 1.0, "seeds": 3}}, "seeds"),
        ({"Pong": {"mean_score": [1.0], "std": [0.5]}}, "std"),
        ({"Pong": {"std": [0.5], "mean": [3]}}, "std"),
        ({"Pong": {"mean": [3]}}, "mean"),
        ({"Pong": {"human_normalized": [0.5, 0.6]}}, "human_normalized"),
        ({"IQM": {"Pong": [0.5]}}, "IQM"),
        ({"REM": {"normalized_scores_mean": {"Pong": [0.5]}}}, "normalized_scores_mean"),
    ],
)
def test_an_aggregate_is_no_run(tmp_path: Path, content: object, column: str) -> None:
    name, text = ("a.csv", content) if isinstance(content, str) else ("a.json", json.dumps(content))
    with pytest.raises(
        UserError, match=f"{re.escape(repr(column))} (says that the score is a mean|is a statistic or normalised)"
    ):
        read(tmp_path / name, text)


EPISODES = [
    {"Pong": {"episode_returns": [1, 2, 3]}},
    {"Pong": {"returns": [1, 2, 3]}},
    {"Pong": {"return": [1, 2]}},
    {"Pong": {"episodes": [1, 2]}},
    {"Pong": {"Test episode returns": [1]}},
    {"Pong": {"REM": {"eval_returns": [1, 2]}}},
    {"REM": {"Pong": {"rewards": [1, 2]}}},
    {"Pong": {"seed_0": {"returns": [1, 2]}}},
    {"Pong": {"episode_returns": {"0": 1, "1": 2}}},
    {"Pong": {"returns_per_episode": [[1, 2], [3, 4]]}},
    {"episode_returns": {"Pong": [1, 2]}},
    {"episodes": [{"game": "Pong", "score": 1}, {"game": "Pong", "score": 2}]},
    {"game": "Pong", "algorithm": "REM", "episodic_return": [1, 2]},
    [{"game": "Pong", "seed": 0, "all_returns": [1, 2]}],
]


@pytest.mark.parametrize("content", EPISODES)
def test_episodes_are_no_runs(tmp_path: Path, content: object) -> None:
    with pytest.raises(UserError, match="lists episodes, which are no runs; give one score per run, the mean") as error:
        read(tmp_path / "a.json", json.dumps(content), None)
    assert "\n" not in str(error.value)
    if isinstance(content, dict):
        with pytest.raises(UserError, match="lists episodes"):
            read(tmp_path / "a.jsonl", json.dumps(content) + "\n" + json.dumps(content), None)


@pytest.mark.parametrize(
    "content",
    [
        {"Pong": {"scores": [1, 2]}},
        {"Pong": {"mean_returns": [1, 2]}},
        {"Pong": {"score": 1, "returns": [3, 4]}, "Alien": {"score": 2, "returns": [3, 4]}},
        {"game": ["Pong", "Pong"], "seed": [0, 1], "episode_return": [1, 2]},
        {"Pong": {"seed": [0, 1], "returns": [1, 2]}},
        {"Return-conditioned": {"Pong": [1, 2]}},
        {"returns": {"Pong": {"seed_0": 1, "seed_1": 2}}},
    ],
)
def test_scores_of_runs_are_no_episodes(tmp_path: Path, content: object) -> None:
    (runs,) = read(tmp_path / "a.json", json.dumps(content)).values()
    assert [score for _, _, score in runs] in ([1, 2], [2, 1])


@pytest.mark.parametrize(
    "comments", ["# made by us\n", "\n# a, b\n#\n# Pong, 5 seeds\n", '"# a, b; c"\n', "sep=,\n# a\n"]
)
def test_comments_above_the_header_are_skipped(tmp_path: Path, comments: str) -> None:
    rows = "game,seed,score\nPong,0,1\nPong,1,2\n"
    assert read(tmp_path / "a.csv", comments + rows) == {"A": [("Pong", 0, 1.0), ("Pong", 1, 2.0)]}
    line = comments.count("\n") + 4
    with pytest.raises(UserError, match=f"a.csv line {line}: score is"):
        read(tmp_path / "a.csv", comments + rows + "Pong,2,x\n")
    assert read(tmp_path / "a.csv", "# made by numpy\n# " + rows) == {"A": [("Pong", 0, 1.0), ("Pong", 1, 2.0)]}


@pytest.mark.parametrize(
    "name", ["Mean", "mean", "Median", "IQM", "Optimality Gap", "Average", "Overall", "TOTAL", "std"]
)
def test_a_row_of_a_summary_is_named(tmp_path: Path, name: str) -> None:
    for file, content in (("a.csv", f"game,score\nPong,1\n{name},2\n"), ("b.csv", f"seed,Pong,{name}\n0,1,2\n")):
        with pytest.raises(UserError, match=f"line [23].*: {name!r} is a summary over games, not a game: leave it out"):
            read(tmp_path / file, content)
    with pytest.raises(UserError, match="'Mean', 'Median' are no games: leave them out"):
        read(tmp_path / "a.csv", "game,score\nPong,1\nMean,2\nMedian,2\n")


@pytest.mark.parametrize("prefix", ["atari_", "atari100k_", "Atari-100k/", "atari_100k_", "ALE/", "ale_py:ALE/"])
def test_usual_prefixes_of_games(tmp_path: Path, prefix: str) -> None:
    found = read(tmp_path / "a.json", json.dumps({f"{prefix}gopher": [1], f"{prefix}up_n_down": [2]}))
    assert found == {"A": [("Gopher", None, 1.0), ("UpNDown", None, 2.0)]}


def test_scores_of_several_steps_are_said_to_be(tmp_path: Path) -> None:
    path, spec = tmp_path / "a.csv", ReportSpec(scores=(f"A={tmp_path / 'a.csv'}",))
    path.write_text("game,seed,step,score\nPong,0,100,1\nPong,1,200,2\n")
    assert [note for note in collect(spec).notes if "of several steps (100, 200)" in note]
    path.write_text("game,seed,step,score\nPong,0,100,1\nPong,1,100,2\n")
    assert not [note for note in collect(spec).notes if "steps" in note]
    with pytest.raises(UserError, match="keep the last step of each run"):
        read(path, "game,seed,step,score\nPong,0,100,1\nPong,0,200,2\n")


SEEDS = [
    "random_seed",
    "seed_number",
    "rng",
    "rng_seed",
    "level_1",
    "Seed No.",
    "trial_id",
    "env_seed",
    "np_random_seed",
    "replica",
    "",
]


@pytest.mark.parametrize("name", SEEDS)
def test_no_seed_is_lost(tmp_path: Path, name: str) -> None:
    text = f"game,{name},score\nPong,3,1\nPong,4,2\nAlien,3,5\n"
    assert read(tmp_path / "a.csv", text) == {"A": [("Alien", 3, 5.0), ("Pong", 3, 1.0), ("Pong", 4, 2.0)]}
    with pytest.raises(UserError, match="line 4: seed 3 of Pong is at .* line 2 already"):
        read(tmp_path / "a.csv", text.replace("Alien", "Pong"))


def test_seeds_beside_scores_and_numbers_of_rows(tmp_path: Path) -> None:
    two = {"A": [("Pong", 3, 1.0), ("Pong", 4, 2.0)]}
    assert read(tmp_path / "a.json", '{"Pong": {"seeds": [3, 4], "scores": [1, 2]}}') == two
    assert read(tmp_path / "a.csv", ",game,score,seed\n7,Pong,1,3\n9,Pong,2,4\n") == two
    without = {"A": [("Pong", None, 1.0), ("Pong", None, 2.0)]}
    assert read(tmp_path / "a.csv", ",game,score\n0,Pong,1\n1,Pong,2\n") == without
    rows = [{"index": 0, "game": "Pong", "score": 1}, {"index": 1, "game": "Pong", "score": 2}]
    assert read(tmp_path / "a.json", json.dumps(rows)) == without


def test_what_spreadsheets_and_logs_write(tmp_path: Path) -> None:
    two = {"A": [("Pong", 0, -1.5), ("Pong", 1, 2.0)]}
    assert read(tmp_path / "a.csv", "sep=;\r\ngame;seed;score\r\nPong;0;-1,5\r\nPong;1;2\r\n") == two
    assert read(tmp_path / "a.csv", '"sep=,"\ngame,seed,score\nPong,0,\u22121.5\nPong,1,2\n') == two
    assert read(tmp_path / "a.csv", "game;seed;score\nPong;0;\u22121,5\nPong;1;2\n") == two
    assert read(tmp_path / "a.csv", "env,seed,score\nPongNoFrameskip-v4,0,-1.5\nALE/Pong-v5,1,2\n") == two
    lines = '{"game": "Pong", "seed": 0, "score": "\u22121.5"}\n\n{"game": "Pong", "seed": 1, "score": 2}\n'
    assert read(tmp_path / "a.json", lines) == two
    with pytest.raises(UserError, match=r"a.csv line 4: score is \"x\""):
        read(tmp_path / "a.csv", "sep=;\ngame;seed;score\nPong;0;1\nPong;1;x\n")
    with pytest.raises(UserError, match="line 2: not JSON"):
        read(tmp_path / "a.json", '{"game": "Pong", "seed": 0, "score": 1}\n{"game"\n')
    for row in ("PongNoFrameskip-v4,1", "ALE/Pong-v5,0"):
        with pytest.raises(UserError, match="are one game|seed 0 of Pong is at"):
            read(tmp_path / "a.csv", f"env,seed,score\nPong,0,1\n{row},2\n".replace(",1,2", ",0,2"))


@pytest.mark.parametrize("mark", ["-", "--", "---", "\u2013", "\u2014", "\u2212", "#N/A", "N/A", "NULL", "nan"])
def test_marks_of_missing_scores(tmp_path: Path, mark: str) -> None:
    (tmp_path / "a.csv").write_text(f"game,seed,score\nPong,0,1\nPong,1,{mark}\n")
    found = read_scores(ScoreFile("A", tmp_path / "a.csv"))
    assert (len(found.runs["A"]), [m.seed for m in found.missing]) == (1, [1])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("Pong,0,1\nPong,1,2\n", 'line 1: "Pong,0,1" is no header'),
        ("REM,Pong,0,1.5\nREM,Alien,0,2\n", "is no header"),
        ("Pong,18\nAlien,600\n", "is no header"),
        ("Pong,0,18.5\n", "is no header"),
        ("game,seed,score\nPong,0,1\n,1,2\n", "line 3: the game is empty; give its name"),
        ("game,score\n  ,2\n", "line 2: the game is empty; give its name"),
    ],
)
def test_a_table_gets_the_advice_of_a_table(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        read(tmp_path / "a.csv", content)
    assert message in str(error.value)
    assert "{" not in str(error.value)


KEYS = st.sampled_from(
    [
        "Pong",
        "pong",
        "ALE/Alien-v5",
        "game",
        "env_id",
        "seed",
        "run",
        "score",
        "return",
        "algorithm",
        "REM",
        "0",
        "seed_1",
    ]
    + ["name", "variant", "std", "seeds", "n_seeds", "index"]
    + ["step", "data", "results", "scores", "columns", "index", "", "mean", "gym:a"]
)
VALUES = st.sampled_from([1, 2.5, None, "3", "x", True, float("nan"), float("inf"), "Pong", -1, 10**30, "nan", ""])
TREES = st.recursive(VALUES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4))
TABLES = st.lists(st.lists(KEYS | VALUES.map(str), min_size=3, max_size=3), max_size=4)


@settings(max_examples=300, deadline=None)
@given(tree=TREES, rows=TABLES, separator=st.sampled_from([",", ";", "\t"]))
def test_whatever_is_in_a_file_it_is_read_or_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, tree: object, rows: list[list[str]], separator: str
) -> None:
    folder = tmp_path_factory.mktemp("any")
    (folder / "a.json").write_text(json.dumps(tree))
    (folder / "a.csv").write_text("\n".join(separator.join(row) for row in rows))
    for name in ("a.json", "a.csv"):
        said = ""
        try:
            found = read_scores(ScoreFile("A", folder / name))
        except UserError as error:
            said = str(error)
        else:
            assert all(abs(run.score) < 1e12 for runs in found.runs.values() for run in runs)
        assert not said or (said.startswith(str(folder / name)) and "\n" not in said)


def test_the_same_game_and_seed_of_two_algorithms_is_fine(tmp_path: Path) -> None:
    assert len(read(tmp_path / "a.csv", "algorithm," + HEAD + "A,Pong,0,1\nB,Pong,0,1\n", None)) == 2


def test_what_is_no_file_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="/dev/zero: scores are read from .csv"):
        read_scores(ScoreFile("A", Path("/dev/zero")))
    (tmp_path / "zero.csv").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "pipe.json")
    for name in ("zero.csv", "pipe.json"):
        with pytest.raises(UserError, match=f"{name} is not a file but a device or a pipe"):
            read_scores(ScoreFile("A", tmp_path / name))
    monkeypatch.setattr("remctl.report.scores.MAX_BYTES", 1 << 20)
    (tmp_path / "large.json").write_bytes(b" " * ((1 << 20) + 1))
    with pytest.raises(UserError, match="larger than 1 MB"):
        read_scores(ScoreFile("A", tmp_path / "large.json"))


def test_other_files(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"game,seed,score\nPong,0,\xff\n")
    with pytest.raises(UserError, match="byte 23 is not UTF-8"):
        read_scores(ScoreFile("A", tmp_path / "a.csv"))
    with pytest.raises(UserError, match="no such file or folder; .* has no 'none.json'"):
        read_scores(ScoreFile("A", tmp_path / "none.json"))
    with pytest.raises(UserError, match="is a folder"):
        read_scores(ScoreFile("A", tmp_path))
    with pytest.raises(UserError, match="names no algorithm: write --scores NAME="):
        read(tmp_path / "a.json", json.dumps({"Pong": [1]}), None)
