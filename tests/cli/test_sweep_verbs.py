"""`remctl ablate`, `status`, `cancel`, `retry`, `logs` as they are typed: what they print, and what they refuse."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from remctl.sweep.records import submissions
from remctl.sweep.spec import read_spec, wanted_runs
from tests.cli.conftest import Outcome
from tests.sweep.support import attempt, begin, record, tiny_spec, write_spec

Cli = Callable[..., Outcome]


@pytest.fixture(autouse=True)
def _no_slurm_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("remctl.sweep.launch.has_slurm", lambda: False)


def test_a_dry_run_says_what_and_why_and_starts_nothing(cli: Cli, tmp_path: Path) -> None:
    spec, out = write_spec(tmp_path), tmp_path / "runs"
    runs = wanted_runs(read_spec(spec))
    begin(out, runs[0], epoch=4, done=True)
    begin(out, runs[1], epoch=2)
    before = sorted(out.rglob("*"))
    done = cli("ablate", str(spec), "--out", str(out), "--dry-run")
    assert done.status == 0, done.err
    assert "Does it work?" in done.out
    assert "1 to skip" in done.out
    assert "1 to resume" in done.out
    assert "2 to run" in done.out
    assert "epoch 2 of 4" in done.out
    assert "nothing was started" in done.out
    assert sorted(out.rglob("*")) == before


def test_a_dry_run_in_json_has_the_hours(cli: Cli, tmp_path: Path) -> None:
    spec, out = write_spec(tmp_path), tmp_path / "runs"
    begin(out, wanted_runs(read_spec(spec))[0], epoch=2)
    plan = json.loads(cli("ablate", str(spec), "--out", str(out), "--dry-run", "--json").out)
    assert [action["action"] for action in plan["actions"]] == ["resume", "run", "run", "run"]
    # 2 s per epoch: 2 epochs are done, 2 of this run and 3 x 4 of the others are left.
    assert plan["gpu_hours"]["used"] == pytest.approx(4 / 3600)
    assert plan["gpu_hours"]["left"] == pytest.approx(28 / 3600)


def test_status_shows_every_state_with_its_reason(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "runs"
    spec, runs = tiny_spec(tmp_path)
    begin(out, runs[0], epoch=4, done=True)
    begin(out, runs[1], epoch=3)
    made = record(out, runs[2:3], executor="local")
    attempt(out, runs[2], "start", made)
    attempt(out, runs[2], "end", made, outcome="failed", error="remctl: disk full while writing x")
    from remctl.sweep.observe import find_places
    from remctl.sweep.records import submissions, write_experiment

    write_experiment(out, spec, find_places(out, spec.name, runs, submissions(out)), runs)
    (out / "tiny" / runs[2].variant / "Catch" / "seed_0" / "job.log").write_text("remctl: disk full while writing x\n")
    shown = cli("status", "tiny", "--out", str(out))
    assert shown.status == 0
    assert "1 failed, 1 stopped, 1 to do, 1 done" in shown.out
    assert "disk full while writing x [1 of 3]" in shown.out
    assert "job.log" in shown.out
    asked = json.loads(cli("status", "tiny", "--out", str(out), "--json").out)
    assert [run["state"] for run in asked["runs"]] == ["done", "stopped", "failed", "to do"]
    assert asked["runs"][1]["epoch_s"] == 2.0
    every = cli("status", "--out", str(out))
    assert "tiny" in every.out
    assert cli("retry", "tiny", "rem/Pong", "--out", str(out)).status == 2


@pytest.mark.parametrize("num_good", [0, 1])
def test_a_run_whose_configuration_cannot_be_read_hides_no_other(num_good: int, cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "runs"
    _, runs = tiny_spec(tmp_path)
    bad, *good = [begin(out, run, epoch=4, done=True, experiment="by_hand") for run in runs[: num_good + 1]]
    begin(out, runs[3], done=True, experiment="other")
    (bad / "config.yaml").write_text("a: [")
    every = cli("status", "--out", str(out))
    assert (every.status, "by_hand" in every.out, "other" in every.out) == (0, True, True)
    shown = cli("status", "by_hand", "--out", str(out))
    assert (shown.status, f"{bad}/config.yaml is damaged" in shown.out) == (0, True)
    asked = json.loads(cli("status", "by_hand", "--out", str(out), "--json").out)
    assert [(run["variant"], run["seed"], run["state"]) for run in asked["runs"]] == [
        *(("rem", 1, "done") for _ in good),
        ("rem", 0, "blocked"),
    ]


def test_a_shipped_spec_is_retried_from_any_folder(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from remctl.shipped import find

    handed: list[int] = []
    monkeypatch.setattr("remctl.sweep.local.start_queue", lambda submission, out: handed.append(len(submission.tasks)))
    out = tmp_path / "runs"
    monkeypatch.chdir(tmp_path)
    assert cli("ablate", "smoke", "--out", str(out)).status == 0
    assert json.loads((out / "smoke" / "experiment.json").read_text())["spec"] == "remctl:smoke"
    runs = wanted_runs(read_spec(find("ablations", "smoke")))
    (made,) = submissions(out)
    attempt(out, runs[0], "start", made)
    attempt(out, runs[0], "end", made, outcome="failed", error="x")
    (tmp_path / "ablations").mkdir()
    (tmp_path / "ablations" / "smoke.yaml").write_text("not what was launched")
    assert cli("retry", "smoke", "rem/Catch/seed_0", "--out", str(out)).status == 0
    assert handed == [4, 1]
    gone = json.loads((out / "smoke" / "experiment.json").read_text()) | {"spec": "/nowhere/smoke.yaml"}
    (out / "smoke" / "experiment.json").write_text(json.dumps(gone))
    assert "launched with /nowhere/smoke.yaml, which is gone" in cli("retry", "smoke", "--out", str(out)).err


def test_runs_of_another_experiment_are_said_to_be(cli: Cli, tmp_path: Path) -> None:
    spec, runs = tiny_spec(tmp_path)
    out = tmp_path / "runs"
    begin(out, runs[0], epoch=4, done=True, experiment="other")
    begin(out, runs[1], epoch=2, experiment="other")
    begin(out, runs[2], epoch=4, done=True)
    shown = cli("ablate", str(spec.path), "--out", str(out), "--dry-run", "--json").out
    reasons = [action["reason"] for action in json.loads(shown)["actions"]]
    assert reasons[:3] == ["done in other, score 0.5", "epoch 2 of 4 in other", "done, score 0.5"]


@pytest.mark.parametrize("text", ["{", "[1]", '{"score": 1}'])
def test_every_verb_says_the_same_about_a_damaged_result(text: str, cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "runs"
    run = begin(out, tiny_spec(tmp_path)[1][0], epoch=4, done=True, experiment="mine")
    (run / "result.json").write_text(text)
    sentence = f"{run / 'result.json'} is damaged: remove it, and the same command tests the trained agent again"
    assert sentence in cli("status", str(run)).out
    got = cli("scores", "export", str(run))
    assert sentence in got.out + got.err
    got = cli("train", "--from", str(run / "config.yaml"), "--out", str(out), "--name", "mine")
    assert sentence in got.err
    (run / "config.yaml").write_text("")
    (said,) = [line for line in cli("status", str(run)).out.splitlines() if "config.yaml is damaged" in line]
    assert said.count("restore it from a copy") == 1
    assert "restore the run's" not in said


@pytest.mark.parametrize(
    "given",
    [
        "--preset paper",
        "--preset=quick",
        "--seed 0",
        "--variant rem",
        "--game Catch",
        "--config x.yaml",
        "--from x.yaml",
    ],
)
def test_what_cannot_go_with_continue_is_refused_whatever_its_value(given: str, cli: Cli, tmp_path: Path) -> None:
    run = begin(tmp_path / "runs", tiny_spec(tmp_path)[1][0], epoch=4, done=True)
    got = cli("train", "--continue", str(run), "--set", "training.num_epochs=9", *given.split())
    name = given.partition(" ")[0].partition("=")[0]
    assert (got.status, got.err) == (2, f"remctl: --continue gives the whole configuration: leave out {name}\n")
    if name != "--from":
        for verb in ("train", "config show"):
            got = cli(*verb.split(), "--from", str(run / "config.yaml"), *given.split())
            assert got.err == f"remctl: --from gives the whole configuration: leave out {name}\n"
    got = cli("train", "--continue", str(run), "--set", "seed=3")
    assert "with another seed it would be another run: train a new run, with --seed" in got.err


def test_logs_shows_the_end(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "job.log").write_text("\n".join(f"line {i}" for i in range(100)))
    assert cli("logs", str(tmp_path), "-n", "2").out == "line 98\nline 99\n"


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("ablate", "nowhere.yaml"), "nowhere.yaml"),
        (("ablate", "embedding"), "no ablation spec 'embedding': did you mean embeddings?"),
        (("ablate", "ablations/smoke.yaml", "--executor", "pbs", "--dry-run"), "allowed are auto, slurm, local"),
        (("ablate", "ablations/smoke.yaml", "--executor", "pbs"), "allowed are auto, slurm, local"),
        (("ablate", "ablations/smoke.yaml", "--executor", "slurm"), "no sbatch here"),
        (("ablate", "ablations/smoke.yaml", "--max-parallel", "0"), "max-parallel"),
        (("ablate", "ablations/smoke.yaml", "--runs-per-gpu", "many"), "runs-per-gpu"),
        (("status", "nothing"), "no experiment 'nothing'"),
        (("status",), "no experiments in"),
        (("cancel", "nothing"), "no experiment 'nothing'"),
        (("retry", "nothing"), "no experiment 'nothing'"),
        (("logs", "nowhere"), "no experiment 'nowhere'"),
        (("train", "--from", "nowhere.yaml"), "nowhere.yaml"),
        (("train", "--from", "x.yaml", "--game", "Pong"), "--from gives the whole"),
        (("train",), "no game given"),
    ],
)
def test_bad_input_gets_one_line(args: tuple[str, ...], says: str, cli: Cli, tmp_path: Path) -> None:
    where = () if args[0] in ("train", "logs") else ("--out", str(tmp_path / "runs"))
    got = cli(*args, *where)
    assert got.status in (1, 2)
    assert says in got.err
    assert got.err.count("\n") == 1
    assert not (tmp_path / "runs").exists()
