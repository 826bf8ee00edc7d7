"""An experiment's name, a run's path and a folder are understood by every verb alike; near misses are named."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from remctl.runs.layout import RunFolder
from remctl.sweep.observe import RunState, find_places
from remctl.sweep.records import RunRef, requested, write_experiment
from remctl.sweep.status import Row, choose
from tests.cli.conftest import Outcome
from tests.sweep.support import attempt, begin, record, tiny_spec

Cli = Callable[..., Outcome]
RUN = "tiny/rem/Catch/seed_1"
WHOLE = ["tiny", "tiny/", "runs/tiny", "./runs/tiny", "{here}/runs/tiny", "{here}/runs/tiny/experiment.json"]
ONE = [RUN, f"runs/{RUN}", f"runs/{RUN}/", f"{{here}}/runs/{RUN}", f"runs/{RUN}/config.yaml", f"runs/{RUN}/checkpoints"]
NOT_BEGUN = ["tiny/no_action_inputs/Catch/seed_1", "runs/tiny/no_action_inputs/Catch/seed_1"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An experiment of four runs: done, failed, failed, not begun; beside it runs that were started by hand."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("remctl.sweep.launch.has_slurm", lambda: False)
    out = tmp_path / "runs"
    spec, runs = tiny_spec(tmp_path)
    begin(out, runs[0], 4, done=True)
    made = record(out, runs[:3], executor="local")
    for run in runs[1:3]:
        folder = begin(out, run, 2)
        attempt(out, run, "start", made)
        attempt(out, run, "end", made, outcome="failed", error="disk full")
        (folder / "job.log").write_text(f"first\nlast of {run.variant} {run.seed}\n")
    write_experiment(out, spec, find_places(out, spec.name, runs, []), runs)
    (tmp_path / "other").mkdir()
    by_hand = begin(out, tiny_spec(tmp_path / "other", more=("imagination.horizon=4",))[1][1], 3, experiment="mine")
    (by_hand / "train.log").write_text("by hand\n")
    return tmp_path


def states(cli: Cli, name: str) -> list[str]:
    got = cli("status", name, "--json")
    assert got.status == 0, got.err
    return [run["state"] for run in json.loads(got.out)["runs"]]


@pytest.mark.parametrize("name", WHOLE)
def test_an_experiment(name: str, cli: Cli, here: Path) -> None:
    assert states(cli, name.format(here=here)) == ["done", "failed", "failed", "to do"]
    shown = cli("logs", name.format(here=here), "-n", "1").out.splitlines()
    assert [line for line in shown if line.startswith("last")] == ["last of rem 1", "last of no_action_inputs 0"]
    assert sum(line.startswith("==> ") for line in shown) == 2


@pytest.mark.parametrize("name", ONE)
def test_one_run(name: str, cli: Cli, here: Path) -> None:
    assert states(cli, name.format(here=here)) == ["failed"]
    if "checkpoints" not in name and "yaml" not in name:
        assert cli("logs", name.format(here=here), "-n", "1").out == "last of rem 1\n"


def test_a_part_of_an_experiment(cli: Cli) -> None:
    assert states(cli, "tiny/rem") == states(cli, "runs/tiny/rem/Catch") == ["done", "failed"]
    assert cli("logs", "tiny/rem", "-n", "1").out == "last of rem 1\n"


@pytest.mark.parametrize("name", NOT_BEGUN)
def test_a_run_whose_folder_is_not_there_yet(name: str, cli: Cli) -> None:
    assert states(cli, name) == ["to do"]
    got = cli("logs", name)
    assert (got.status, got.err.count("\n")) == (2, 1)
    assert "no log yet, because no run has started" in got.err


@pytest.mark.parametrize("name", ["mine", "runs/mine", "mine/rem/Catch/seed_1", "runs/mine/rem", "./runs/mine"])
def test_runs_that_were_started_by_hand(name: str, cli: Cli) -> None:
    assert states(cli, name) == ["stopped"]
    assert cli("logs", name).out == "by hand\n"
    got = cli("retry", name)
    command = "remctl train --from runs/mine/rem/Catch/seed_1/config.yaml --name mine"
    assert f"was started by hand: `{command}` resumes mine/rem/Catch/seed_1\n" in got.err
    assert "nothing of" in cli("cancel", name).out


def test_what_resumes_a_run_that_was_started_by_hand(cli: Cli, here: Path, runner: object) -> None:
    (here / "runs").rename(here / "elsewhere")
    run = here / "elsewhere/mine/rem/Catch/seed_1"
    said = cli("retry", "elsewhere/mine/rem").err
    command = said.split("`")[1]
    assert command.endswith("--name mine --out elsewhere")
    assert cli(*command.split()[1:]).status == 0
    (_, (config,), options) = runner.calls[0]  # type: ignore[attr-defined]
    assert (config.seed, options["experiment"], options["out"]) == (1, "mine", Path("elsewhere"))
    shutil.copytree(run, here / "moved")
    assert "and moved: to resume" in cli("retry", "moved").err
    begin(
        here / "elsewhere",
        tiny_spec(here / "other", more=("imagination.horizon=4",))[1][1],
        done=True,
        experiment="mine",
    )
    got = cli("retry", str(run))
    assert (got.status, got.out) == (0, f"{run} was started by hand, and it is done\n")
    (run / "result.json").write_text("{")
    assert "is damaged" in cli("retry", str(run)).err


def test_a_run_elsewhere(cli: Cli, here: Path) -> None:
    (here / "runs/mine/rem/Catch/seed_1").rename(here / "moved")
    assert states(cli, "moved") == ["stopped"]
    assert cli("logs", "moved").out == "by hand\n"


def test_from_inside_a_folder(cli: Cli, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(here / "runs")
    assert states(cli, "tiny") == ["done", "failed", "failed", "to do"]
    monkeypatch.chdir(here / "runs" / RUN)
    assert states(cli, ".") == ["failed"]
    assert cli("logs", ".", "-n", "1").out == "last of rem 1\n"
    assert "no experiment 'tyni'" in cli("status", "tyni").err


def test_any_folder_of_runs(cli: Cli, here: Path) -> None:
    """As `report` and `scores export` take them: copied runs side by side, and experiments at any depth."""
    for seed, done in ((0, True), (1, False)):
        run = here / f"runs/tiny/rem/Catch/seed_{seed}"
        shutil.copytree(run, here / f"flat/run {seed}")
        assert (run / "result.json").exists() == done
    assert states(cli, "flat") == ["done", "stopped"]
    assert states(cli, "flat/run 0") == ["done"]
    assert cli("logs", "flat", "-n", "1").out == "last of rem 1\n"
    assert "nothing of flat" in cli("cancel", "flat").out
    assert "to resume" in cli("retry", "flat").err
    (here / "deep/2026").mkdir(parents=True)
    (here / "runs").rename(here / "deep/2026/runs")
    for name, known in (("deep", "2026/runs/"), ("deep/2026", "runs/"), ("deep/2026/runs", "")):
        found = json.loads(cli("status", name, "--json").out)
        assert [e["name"] for e in found] == [f"{known}mine", f"{known}tiny"]
        assert [run["state"] for run in found[1]["runs"]] == ["done", "failed", "failed", "to do"]
        for verb in ("cancel", "retry", "logs"):
            got = cli(verb, name)
            assert "name one of them (deep/2026/runs/mine, deep/2026/runs/tiny)" in got.err
            assert (got.status, got.err.count("\n")) == (2, 1)
    assert states(cli, "deep/2026/runs/tiny") == ["done", "failed", "failed", "to do"]
    names = [e["name"] for e in json.loads(cli("status", ".", "--json").out)]
    assert names == ["deep/2026/runs/mine", "deep/2026/runs/tiny", "flat/run 0", "flat/run 1"]


def test_hours_are_those_of_the_rows_that_are_shown(cli: Cli) -> None:
    def used(name: str) -> float:
        return float(json.loads(cli("status", name, "--json").out)["gpu_hours"]["used"])

    assert used("tiny/rem/Catch/seed_0") == pytest.approx(8 / 3600)
    assert used("tiny/rem/Catch/seed_1") == pytest.approx(4 / 3600)
    assert used("tiny/rem") == pytest.approx(12 / 3600)
    assert used("tiny") == pytest.approx(16 / 3600)
    assert "nothing is left" in cli("status", "tiny/rem/Catch/seed_0").out
    assert "measured epochs" in cli("status", "tiny/rem/Catch/seed_1").out


def test_several_paths_of_runs_are_all_taken(cli: Cli, here: Path) -> None:
    one, other = "runs/tiny/rem/Catch/seed_1", "runs/tiny/no_action_inputs/Catch/seed_0"
    both = ["last of rem 1", "last of no_action_inputs 0"]
    for paths in (
        [one, other],
        ["tiny", one, other],
        [one, str(here / other)],
        [one, "tiny/no_action_inputs/Catch/seed_0"],
    ):
        assert [line for line in cli("logs", *paths, "-n", "1").out.splitlines() if line.startswith("last")] == both
    assert cli("logs", "tiny", f"{one}/config.yaml", "-n", "1").out == "last of rem 1\n"
    assert cli("logs", "runs/tiny/rem", one, "-n", "1").out == "last of rem 1\n"
    assert "no run 'runs/mine/rem'" in cli("logs", one, "runs/mine/rem").err


def test_a_folder_of_experiments(cli: Cli, here: Path) -> None:
    for name in ("runs", "./runs", str(here / "runs")):
        assert [e["name"] for e in json.loads(cli("status", name, "--json").out)] == ["mine", "tiny"]
        for verb in ("cancel", "retry", "logs"):
            got = cli(verb, name)
            assert "is a folder of experiments: name one of them (mine, tiny)" in got.err
            assert (got.status, got.err.count("\n")) == (2, 1)


@pytest.mark.parametrize("name", ["runs/tiny/rem", RUN, "tiny seed_1", "tiny/rem seed_1"])
def test_retry_takes_the_chosen_alone(name: str, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    handed: list[str] = []
    monkeypatch.setattr(
        "remctl.sweep.local.start_queue", lambda s, out: handed.extend(ref.path for task in s.tasks for ref in task)
    )
    got = cli("retry", *name.split())
    assert got.status == 0, got.err
    assert handed == [RUN]


def test_cancel_stops_the_process_of_a_run_named_by_its_path(cli: Cli, here: Path) -> None:
    run = RunFolder(here / "runs/mine/rem/Catch/seed_1")
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom remctl.runs.layout import RunFolder\n"
        "from remctl.runs.lock import locked\n"
        "with locked(RunFolder(Path(sys.argv[1]))):\n    print('held', flush=True)\n    time.sleep(50)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(run.path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        assert cli("cancel", "runs/mine/rem/Catch/seed_1").out.startswith("1 of mine told to stop")
        assert process.wait(20) != 0


def test_cancel_of_a_part_leaves_the_others(cli: Cli, here: Path) -> None:
    runs = tiny_spec(here)[1]
    made = record(here / "runs", runs[1:3], executor="local")
    lock = made.path / "queue.lock"
    code = f"import fcntl, sys, time\nf = open({str(lock)!r}, 'w')\nfcntl.flock(f, 2)\nprint(1, flush=True)\ntime.sleep(50)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as queue:
        assert queue.stdout
        queue.stdout.readline()
        assert cli("cancel", f"runs/{RUN}").out.startswith("1 of tiny told to stop")
        queue.terminate()
    assert requested(RunFolder(here / "runs" / RUN), "cancel") == {made.id}
    assert not (here / "runs/tiny/no_action_inputs/Catch/seed_0/requests.jsonl").exists()


ONE_SCORE = [f"tiny/rem/Catch/seed_0{inside}" for inside in ("", "/result.json", "/checkpoints", "/config.yaml")]


@pytest.mark.parametrize(
    "name", ["tiny", "runs/tiny", "./runs/tiny", "runs/tiny/experiment.json", "runs/tiny/rem", *ONE_SCORE]
)
def test_scores_are_exported_by_every_name(name: str, cli: Cli, here: Path) -> None:
    folder = here / "runs/tiny/rem/Catch/seed_0"
    about = {"score": 0.5, "game": "Catch", "seed": 0, "variant": "rem"}
    about["config_hash"] = tiny_spec(here)[1][0].config_hash
    (folder / "result.json").write_text(json.dumps(about))
    assert "rem,Catch,0,0.5" in cli("scores", "export", name).out.replace('"', "")
    got = cli("report", name, "--out", str(here / "report"), "--format", "csv", "--reps", "100")
    assert got.status == 0, got.err
    assert (here / "report" / "runs.csv").is_file()


@pytest.mark.parametrize("verb", ["status", "cancel", "retry", "logs", "report", "scores export", "eval", "inspect"])
@pytest.mark.parametrize("name", ["tny", "runs/tny", "/nowhere/tny", "", "tny/rem/Catch/seed_0", "\x1b[2J"])
def test_a_wrong_name_gets_one_line(verb: str, name: str, cli: Cli, here: Path) -> None:
    before = sorted(here.rglob("*"))
    got = cli(*verb.split(), name)
    assert (got.status, got.out) == (2, "")
    assert got.err.count("\n") == 1
    assert "\x1b" not in got.err
    if name == "tny" and verb not in ("eval", "inspect"):
        assert "did you mean tiny?" in got.err
    assert sorted(here.rglob("*")) == before


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("status", "tiny/rme"), "no run 'rme' in this experiment: did you mean rem?"),
        (("cancel", "tiny", "sed_1"), "no run 'sed_1' in this experiment: did you mean seed_1"),
        (("cancel", "tiny/rem", "no_action_inputs"), "no run 'no_action_inputs' in this experiment"),
        (("retry", "tiny/rem/Catch/seed_7"), "no run 'rem/Catch/seed_7' in this experiment: did you mean"),
        (("logs", "tiny", "Pong"), "no run 'Pong' in this experiment: name one as tiny/rem/Catch/seed_0"),
    ],
)
def test_a_wrong_part_gets_the_nearest(args: tuple[str, ...], says: str, cli: Cli) -> None:
    got = cli(*args)
    assert (got.status, got.err.count("\n")) == (2, 1)
    assert says in got.err


def test_eval_takes_the_path_that_status_prints(cli: Cli, runner: object) -> None:
    cli("eval", RUN)
    assert str(runner.calls[0][1][0]) == os.path.join("runs", RUN)  # type: ignore[attr-defined]


def test_a_variant_with_the_experiments_name_is_not_the_whole_experiment() -> None:
    refs = [RunRef(variant, "Catch", 0, "", f"no_pop/{variant}/Catch/seed_0", 1) for variant in ("rem", "no_pop")]
    rows = [Row(ref, RunState("absent", Path("x"))) for ref in refs]
    for name in ("no_pop", "no_pop/no_pop", "no_pop/Catch", "no_pop/no_pop/Catch/seed_0"):
        assert [row.ref.variant for row in choose(rows, [name])] == ["no_pop"], name
    assert len(choose(rows, ["Catch"])) == 2
