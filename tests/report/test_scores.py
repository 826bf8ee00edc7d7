"""Score files: what is read, what is written, and every kind of bad entry."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remctl.errors import UserError
from remctl.report.collect import means_of
from remctl.report.results import Algorithm
from remctl.report.scores import ScoreFile, parse_option, read_scores, scores_csv, scores_json


def read(path: Path, content: str, name: str | None = "A") -> dict[str, list[tuple[str, int | None, float]]]:
    path.write_text(content)
    found = read_scores(ScoreFile(name, path))
    return {algorithm: [(run.game, run.seed, run.score) for run in runs] for algorithm, runs in found.items()}


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
    assert [run.path for run in read_scores(ScoreFile("A", path))["A"]] == [f"{path} line 2", f"{path} line 3"]


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
    (scores,) = read_scores(ScoreFile('a, "b"', folder / "a.csv")).values()
    algorithm = Algorithm('a, "b"', "", "file", "", 0, scores, means_of(scores))
    (folder / "b.csv").write_text(scores_csv([algorithm]))
    (folder / "b.json").write_text(scores_json([algorithm]))
    (again,) = read_scores(ScoreFile(None, folder / "b.csv")).items()
    assert (again[0], [(r.game, r.seed, r.score) for r in again[1]]) == (
        algorithm.name,
        [(r.game, r.seed, r.score) for r in scores],
    )
    (as_json,) = read_scores(ScoreFile("x", folder / "b.json")).values()
    assert [(r.game, r.score) for r in as_json] == [(r.game, r.score) for r in scores]


def test_runs_without_seeds_are_numbered(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"Pong": [1, 2], "Alien": [3]}')
    (runs,) = read_scores(ScoreFile("A", tmp_path / "a.json")).values()
    text = scores_csv([Algorithm("A", "A", "file", "", 0, runs, {})])
    assert text.splitlines() == ["algorithm,game,seed,score", "A,Alien,0,3.0", "A,Pong,0,1.0", "A,Pong,1,2.0"]


def test_json_holds_one_algorithm() -> None:
    two = [Algorithm(name, name, "file", "", 0, (), {}) for name in "AB"]
    with pytest.raises(UserError, match="found A, B: choose with --algorithm"):
        scores_json(two)


# --- bad entries: the file, the entry, the fix

HEAD = "game,seed,score\n"
BAD = [
    ("a.json", '{"Pnog": [1]}', "unknown game 'Pnog': did you mean Pong?"),
    ("a.json", '{"pong": [1]}', "did you mean Pong?"),
    ("a.json", '{"Pong": []}', "'Pong' is an empty list; give its scores"),
    ("a.json", '{"Pong": 3}', "'Pong' is 3, not a list; write one score per run"),
    ("a.json", '{"Pong": {"0": 3}}', "'Pong' is {\"0\": 3}, not a list"),
    ("a.json", '{"Pong": [1, "2"]}', "'Pong' entry 2 is \"2\", not a number"),
    ("a.json", '{"Pong": [true]}', "'Pong' entry 1 is true, not a number"),
    ("a.json", '{"Pong": [null]}', "'Pong' entry 1 is null, not a number"),
    ("a.json", '{"Pong": [[1, 2]]}', "'Pong' entry 1 is [1, 2], not a number"),
    ("a.json", '{"Pong": [NaN]}', "'Pong' entry 1 is NaN; a score is a finite number"),
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
    ("a.csv", "game,score\nPong,1\n", 'the columns are "game,score"; write algorithm,game,seed,score'),
    ("a.csv", "game,seed,score,score\nPong,0,1,2\n", "line 1: the columns are"),
    ("a.csv", HEAD, "holds no scores below its header"),
    ("a.csv", HEAD + "Pong,0,1\nPnog,0,1\n", "line 3: unknown game 'Pnog': did you mean Pong?"),
    ("a.csv", HEAD + "Pong,0,abc\n", 'line 2: score is "abc", not a number'),
    ("a.csv", HEAD + "Pong,0,\n", 'line 2: score is "", not a number'),
    ("a.csv", HEAD + "Pong,0,1_000\n", 'line 2: score is "1_000", not a number'),
    ("a.csv", HEAD + "Pong,0,nan\n", "line 2: score is NaN; a score is a finite number"),
    ("a.csv", HEAD + "Pong,0,inf\n", "a score is a finite number"),
    ("a.csv", HEAD + "Pong,x,1\n", 'line 2: seed is "x"; give a whole number from 0'),
    ("a.csv", HEAD + "Pong,-1,1\n", "give a whole number from 0"),
    ("a.csv", HEAD + "Pong,1.0,1\n", "give a whole number from 0"),
    (
        "a.csv",
        HEAD + "Pong,0,1\nAlien,0,1\nPong,0,2\n",
        "line 4: seed 0 of Pong is on line 2 already; keep one of them",
    ),
    ("a.csv", HEAD + "Pong,0\n", "line 2: has more or fewer cells than the header"),
    ("a.csv", HEAD + "Pong,0,1,2\n", "line 2: has more or fewer cells than the header"),
    ("a.csv", HEAD + '"Pong,0,1\n', "not CSV"),
    ("a.csv", "algorithm," + HEAD + ",Pong,0,1\n", "line 2: the algorithm is empty"),
    ("a.csv", "algorithm," + HEAD + "A,Pong,0,1\nA,Pong,0,1\n", "seed 0 of 'A' on Pong is on line 2 already"),
    ("a.txt", "x", "scores are read from .json and .csv files"),
    ("a", '{"Pong": [1]}', "scores are read from .json and .csv files"),
]


@pytest.mark.parametrize(("name", "content", "message"), BAD)
def test_bad_entries_are_named(tmp_path: Path, name: str, content: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        read(tmp_path / name, content)
    assert error.value.exit_code == 2
    assert str(tmp_path / name) in str(error.value)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_the_same_game_and_seed_of_two_algorithms_is_fine(tmp_path: Path) -> None:
    assert len(read(tmp_path / "a.csv", "algorithm," + HEAD + "A,Pong,0,1\nB,Pong,0,1\n", None)) == 2


def test_what_is_no_file_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="/dev/zero: scores are read from .json and .csv files"):
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
    with pytest.raises(UserError, match="no such file or folder while reading"):
        read_scores(ScoreFile("A", tmp_path / "none.json"))
    with pytest.raises(UserError, match="is a folder"):
        read_scores(ScoreFile("A", tmp_path))
    with pytest.raises(UserError, match="names no algorithm: write --scores NAME="):
        read(tmp_path / "a.json", json.dumps({"Pong": [1]}), None)
