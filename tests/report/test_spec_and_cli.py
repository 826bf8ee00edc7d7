"""Report specs and the verbs: what they take, what they refuse, in one line."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from remctl.errors import UserError
from remctl.games import ABLATION_SUBSET, ATARI_100K
from remctl.report.curves import read_training
from remctl.report.results import FIGURES
from remctl.report.spec import DEFAULT_CAPTIONS, read_spec, selected_games
from tests.report.conftest import MakeRun

SPECS = Path(__file__).parents[2] / "reports"


# --- specs


@pytest.mark.parametrize("path", sorted(SPECS.glob("*.yaml")), ids=lambda p: p.stem)
def test_the_specs_that_come_with_it(path: Path) -> None:
    spec = read_spec(path, {})
    assert spec.title
    assert spec.question
    assert spec.wanted_figures
    ablation = SPECS.parent / "ablations" / f"{Path(spec.runs[0]).name}.yaml"
    assert ablation.is_file()
    assert f"remctl ablate {ablation.stem}\n" in path.read_text()


def test_what_is_given_goes_over_the_spec(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("title: Mine\nreps: 1e3\nseed: 4\ngames: [Pong, ablation_subset]\npublished: [table8]\n")
    spec = read_spec(file, {"seed": 7, "games": None, "control": "x"})
    assert (spec.title, spec.reps, spec.seed, spec.control) == ("Mine", 1000, 7, "x")
    assert spec.selected == (*ABLATION_SUBSET[:7], "Pong", "RoadRunner")
    assert spec.published == ("table8",)
    given = read_spec(file, {"published": True})
    assert (given.published, given.epoch_times) == (("table1", "table8"), True)
    assert read_spec(file, {"published": False}).published == ()


def test_runs_that_are_not_there_yet(tmp_path: Path) -> None:
    from remctl.report.write import compute

    file = tmp_path / "a.yaml"
    file.write_text(f"runs: [{tmp_path}/soon]\nruns_optional: true\npublished: [table1]\nreps: 100\n")
    assert (
        f"{tmp_path}/soon does not exist yet: none of its runs is in this report."
        in compute(read_spec(file, {}), "").notes
    )
    with pytest.raises(UserError, match="no such folder"):
        compute(read_spec(file, {"runs": (f"{tmp_path}/typo",)}), "")


def test_defaults() -> None:
    spec = read_spec(None, {})
    assert (spec.reps, spec.seed, spec.missing, spec.ragged, spec.selected) == (50_000, 0, "common-games", "all", None)
    assert set(DEFAULT_CAPTIONS) == set(FIGURES) == {f.name for f in spec.wanted_figures}
    assert selected_games("atari_100k") == ATARI_100K
    assert selected_games("Pong, Catch,Alien,Pong") == ("Alien", "Pong", "Catch")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("titel: x", "unknown key 'titel'; known: title, question, runs"),
        ("games: Pnog", "games: given 'Pnog'; unknown game 'Pnog': did you mean Pong?"),
        ("reps: 3", "reps: given '3'; allowed: greater than or equal to 100"),
        ("missing: ignore", "missing: given 'ignore'; allowed: 'common-games' or 'fail'"),
        ("figures: {pie: x}", "figures.pie"),
        ("published: [table2]", "published.0: given 'table2'; allowed: 'table1' or 'table8'"),
        ("runs: runs/quick", "runs: given 'runs/quick'"),
        ("[1]", "not a mapping"),
        ("a: [", "not YAML"),
        ("seed: -1", "seed: given '-1'"),
    ],
)
def test_bad_specs(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(text)
    with pytest.raises(UserError) as error:
        read_spec(file, {})
    assert str(error.value).startswith(str(file))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


# --- curves and times


def test_curves_and_times(make_run: MakeRun, tmp_path: Path) -> None:
    from remctl.report.collect import collect
    from remctl.report.spec import ReportSpec

    def epochs(offset: float) -> list[dict[str, float | None]]:
        return [
            {
                "collect/env_steps": 200,
                "test/return_mean": offset,
                "controller/wall_s": 1.0 + offset,
                "epoch/wall_s": 9.0,
            },
            {"collect/env_steps": 400, "test/return_mean": None, "controller/wall_s": 3.0 + offset},
            {"test/return_mean": 2.0 + offset},
        ]

    make_run("rem", "Pong", 0, 1.0, epochs=epochs(0.0), wall_s={"controller": 10.0, "epoch": 50.0})
    make_run("rem", "Pong", 1, 1.0, epochs=[*epochs(1.0), {"test/return_mean": 7}], wall_s={"controller": 30.0})
    make_run("rem", "Pong", 2, 1.0, epochs=epochs(0.0), wall_s={}, device="GPU B")
    make_run("rem", "Pong", 3, None, epochs=epochs(100.0))
    (algorithm,) = collect(ReportSpec(runs=(str(tmp_path / "runs"),))).algorithms
    (curve,), timings = read_training(algorithm, ("test/return_mean", "unknown"))
    assert (curve.epochs, curve.num_runs, curve.env_steps) == ((1, 3, 4), (3, 3, 1), (200, 400, 400))
    assert curve.mean == pytest.approx((1 / 3, 7 / 3, 7))
    assert curve.std == pytest.approx((3**-0.5, 3**-0.5, 0))
    found = {(t.hardware, t.phase): (t.epoch_s, t.total_s, t.num_runs) for t in timings}
    assert found["GPU A", "controller"] == (2.5, 20.0, 2)  # median of 1, 3, 2, 4
    assert found["GPU A", "run"] == (None, 20.0, 2)  # an epoch's time is its phases' and counts once
    assert found["GPU B", "controller"] == (2.0, None, 1)
    assert [t.phase for t in timings if t.hardware == "GPU A"] == ["controller", "epoch", "run"]


def test_a_test_is_drawn_at_the_epoch_and_the_steps_of_the_agent_that_was_tested(make_run: MakeRun) -> None:
    from remctl.report.collect import collect
    from remctl.report.spec import ReportSpec

    trained = [{"collect/env_steps": 100 * epoch, "controller/loss": float(epoch)} for epoch in (1, 2, 3, 4)]
    trained[3] |= {"test/of_epoch": 2, "test/return_mean": 7.0, "test/wall_s": 0.1}
    run = make_run("rem", "Pong", 0, 1.0, epochs=trained)
    (algorithm,) = collect(ReportSpec(runs=(str(run),))).algorithms
    curves, timings = read_training(algorithm, ("test/return_mean", "controller/loss"))
    assert [(c.epochs, c.env_steps, c.mean) for c in curves] == [
        ((2,), (200,), (7.0,)),
        ((1, 2, 3, 4), (100, 200, 300, 400), (1.0, 2.0, 3.0, 4.0)),
    ]
    assert "test" in [t.phase for t in timings]


def test_curves_leave_out_what_is_no_number(make_run: MakeRun) -> None:
    from remctl.report.collect import collect
    from remctl.report.spec import ReportSpec

    run = make_run("rem", "Pong", 0, 1.0)
    values = ["1e400", "NaN", "1" + "0" * 400, "true", "1e12", "2.5"]
    lines = [f'{{"epoch": {i + 1}, "test/return_mean": {v}, "controller/wall_s": {v}}}\n' for i, v in enumerate(values)]
    (run / "metrics.jsonl").write_text("".join([*lines, '{"epoch": 1e400, "test/return_mean": 1.0}\n']))
    (algorithm,) = collect(ReportSpec(runs=(str(run),))).algorithms
    (curve,), timings = read_training(algorithm, ("test/return_mean",))
    assert (curve.epochs, curve.mean) == ((6,), (2.5,))
    assert [t.epoch_s for t in timings if t.phase == "controller"] == [2.5]


# --- verbs


def test_report_verb(cli: Callable, make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["/usr/bin/remctl", "report", "runs", "--reps", "100"])
    make_run("rem", "Pong", 0, 3.0)
    make_run("no_pop", "Pong", 0, 2.0)
    (tmp_path / "iris.json").write_text('{"Pong": [14.6, 15.0]}')
    line = (
        "report runs --scores IRIS=iris.json --published --games Pong --control no_pop --reps 100 --seed 3 --format csv"
    )
    done = cli(*line.split())
    assert (done.status, done.err) == (0, "")
    assert "Report: 9 algorithms, 1 game" in done.out
    assert done.out.endswith("runs/report\n")
    about = json.loads(Path("runs/report/report.json").read_text())
    assert (about["control"], about["seed"], about["reps"]) == ("no_pop", 3, 100)
    assert about["command"] == "remctl report runs --reps 100"
    with Path("runs/report/aggregates.csv").open() as file:
        names = list(dict.fromkeys(row["algorithm"] for row in csv.DictReader(file)))
    assert names[:3] == ["no_pop", "rem", "IRIS"]
    assert "paper/IRIS" in names
    Path("a.yaml").write_text("runs: [runs]\nreps: 100\n")
    assert cli("report", "--spec", "a.yaml", "--format", "md", "--out", "there").out.endswith("there\n")
    assert cli("report", "--spec", "a.yaml", "--format", "md").out.endswith("runs/report/a\n")


def test_scores_export(cli: Callable, make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_run("rem", "Pong", 0, 3.0)
    make_run("rem", "Pong", 1, 0.1 + 0.2)
    make_run("no_pop", "Pong", 0, 2.0)
    make_run("no_pop", "Pong", 1, None)
    expected = "algorithm,game,seed,score\nrem,Pong,0,3.0\nrem,Pong,1,0.30000000000000004\nno_pop,Pong,0,2.0\n"
    missing = "1 run missing, not scored: no_pop Pong seed 1 (epoch 0 of 600).\n"
    assert cli("scores", "export", "runs") == (0, expected, missing)
    assert cli("scores", "export", "runs", "--out", "d/a.csv") == (0, "d/a.csv\n", missing)
    assert Path("d/a.csv").read_text() == expected
    assert cli("scores", "export", "runs", "--algorithm", "rem", "--out", "a.json") == (0, "a.json\n", "")
    assert json.loads(Path("a.json").read_text()) == {"Pong": [3.0, 0.1 + 0.2]}
    done = cli("report", "--scores", "d/a.csv", "--scores", "other=a.json", "--format", "csv", "--reps", "100")
    assert done.status == 0


def test_damaged_runs_are_said_by_export_and_report(
    cli: Callable, make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_run("rem", "Pong", 0, 3.0)
    (make_run("rem", "Pong", 1, 4.0) / "result.json").write_text("{")
    (make_run("rem", "Pong", 2, 5.0) / "config.yaml").unlink()
    status, out, err = cli("scores", "export", "runs")
    assert (status, out) == (0, "algorithm,game,seed,score\nrem,Pong,0,3.0\n")
    assert err.startswith("2 runs missing, not scored: rem Pong seed 1 (")
    assert "seed_1/result.json is damaged" in err
    assert "seed_2/config.yaml is gone: restore it" in err
    reported = cli("report", "runs", "--format", "csv", "--reps", "100", "--out", "r")
    assert err in reported.out
    rows = {row["seed"]: row for row in json.loads(cli("status", "quick", "--json").out)["runs"]}
    assert "seed_2/config.yaml is gone: restore it" in rows[2]["reason"]


BAD = [
    ("report", "nothing to report on: give run folders, --scores NAME=FILE, --published, --bench FILE or --spec"),
    ("report nowhere", "nowhere: no such folder"),
    ("report nowhere --spec reports/y.yaml", "nowhere: no such folder"),
    (
        "report --spec none.yaml",
        "no report spec 'none.yaml' (there is no such file): known: ablations, paper, smoke, x, y",
    ),
    ("report --published --format gif", "--format: given 'gif'; allowed: all, or some of csv, md, tex"),
    ("report --published --games Pnog", "--games: given 'Pnog'; unknown game 'Pnog': did you mean Pong?"),
    ("report --published --reps 1", "--reps: given '1'; allowed: greater than or equal to 100"),
    ("report --published --missing no", "--missing: given 'no'; allowed: 'common-games' or 'fail'"),
    ("report --published --control x", "--control: no algorithm is called 'x'; choose one of SimPLe"),
    ("report --scores =x", "write NAME=FILE"),
    ("report --scores a=none.json", "none.json: no such file or folder;"),
    ("report --scores a=bda.json", "bda.json: no such file or folder; did you mean bad.json?"),
    ("report --published --games Pnog,Alein", "2 unknown games: 'Pnog' (did you mean Pong?), 'Alein' (did"),
    ("report --scores a=bad.json", "bad.json: unknown game 'Pnog': did you mean Pong?"),
    ("report going", "rem/Pong/seed_1: not finished (epoch 0 of 600): run the same train command again"),
    ("scores export", "nothing to export"),
    ("scores export going --out a.txt", "--out a.txt: give a name that ends in .csv or .json"),
    ("scores export runs --algorithm x", "--algorithm: no finished run of 'x'; there are rem"),
    ("scores", "choose one of export"),
]


@pytest.mark.parametrize(("line", "message"), BAD, ids=[line for line, _ in BAD])
def test_bad_input_is_one_line(
    cli: Callable, make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    make_run("rem", "Pong", 0, 3.0)
    make_run("rem", "Pong", 1, None).rename(tmp_path / "seed_1")
    (tmp_path / "going" / "quick" / "rem" / "Pong").mkdir(parents=True)
    (tmp_path / "seed_1").rename(tmp_path / "going" / "quick" / "rem" / "Pong" / "seed_1")
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "x.yaml").write_text("")
    (tmp_path / "reports" / "y.yaml").write_text("runs: [soon]\nruns_optional: true\npublished: [table1]\n")
    (tmp_path / "bad.json").write_text('{"Pnog": [1]}')
    done = cli(*line.split())
    assert done.status in (1, 2)
    assert (done.out, done.err.count("\n")) == ("", 1)
    assert done.err.startswith("remctl: ")
    assert message in done.err
    assert not (tmp_path / "runs" / "report").exists()


def test_a_report_imports_no_torch(tmp_path: Path) -> None:
    line = f"report --published --format csv,md,tex --out {tmp_path}"
    code = f"import sys; from remctl.cli import run; assert run({line.split()!r}) == 0"
    code += "; print([n for n in ('torch', 'gymnasium', 'ale_py', 'matplotlib') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.splitlines()[-1] == "[]"
