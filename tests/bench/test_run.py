"""`remctl bench` from the command line to its files, on Catch with tiny networks."""

import json
import math
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from remctl import cli
from remctl.bench import run, timing
from remctl.bench.result import FORMAT, Result, read
from remctl.config import config_hash, resolve
from remctl.precision import native_precision
from remctl.runs.provenance import PACKAGES
from tests.tiny import TINY

SETS = [part for text in TINY for part in ("--set", text)]
PHASES = ["bench", "--suite", "phases", "--game", "Catch", "--preset", "quick", "--device", "cpu", *SETS]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bench")
    assert cli.run([*PHASES, "--out", str(out / "a"), "--json", str(out / "copy.json")]) == 0
    return out


@pytest.fixture(scope="module")
def result(finished: Path) -> Result:
    return read(finished / "a" / "bench.json")


def test_the_files_of_a_benchmark(finished: Path) -> None:
    names = {str(p.relative_to(finished)) for p in finished.rglob("*") if p.is_file()}
    assert {"copy.json", "a/bench.json", "a/tables.md", "a/figures/bench_phases.png"} <= names
    assert (finished / "copy.json").read_bytes() == (finished / "a" / "bench.json").read_bytes()
    assert "Phases" in (finished / "a" / "tables.md").read_text()


def test_every_phase_has_its_rounds_and_says_what_it_is_of(result: Result) -> None:
    config = resolve("Catch", "quick", sets=TINY)
    assert [c.phase for c in result.cases] == ["tokenizer", "world_model", "controller", "collect", "encode", "test"]
    assert {c.config_hash for c in result.cases} == {config_hash(config)}
    for case in result.cases:
        assert len(case.seconds) == 6
        assert min(case.seconds) <= case.spread.low <= case.median <= case.spread.high <= max(case.seconds)
    controller = next(c for c in result.cases if c.phase == "controller")
    assert controller.imagined_steps == 4 * config.num_imagined_steps
    assert controller.imagined_tokens == controller.imagined_steps * 16
    assert controller.per_epoch_s == pytest.approx(2 * controller.median)
    assert controller.per_imagined_step_s == pytest.approx(controller.median / controller.imagined_steps)
    assert controller.per_imagined_token_s == pytest.approx(controller.median / controller.imagined_tokens)
    assert {c.per_imagined_step_s for c in result.cases if c.phase != "controller"} == {None}
    assert controller.counts is not None
    assert controller.predicted is not None
    assert controller.counts.model_calls == controller.predicted.model_calls == 1 + config.num_rewarded_steps
    assert controller.counts.model_operations == controller.predicted.model_operations


def test_machine_code_and_libraries_stand_beside_the_numbers(result: Result) -> None:
    assert (result.format, result.complete, result.scale) == (FORMAT, True, "reduced")
    assert set(result.provenance["packages"]) >= set(PACKAGES)
    assert result.provenance["machine"]["cpu"]
    assert set(result.device.matmul_flops_per_s) == {"fp32", native_precision(torch.device("cpu"))}
    assert min(*result.device.matmul_flops_per_s.values(), result.device.copy_bytes_per_s) > 1e8
    assert len(result.device.calibration) == 6
    assert {c.calibration for c in result.cases} == {result.device.calibration}
    (prediction,) = result.predictions
    assert prediction.hours == pytest.approx(sum(prediction.phase_hours.values()))


def test_it_compares_to_itself_without_a_difference(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(finished / "copy.json")
    assert cli.run(["bench", "compare", file, file, "--json"]) == 0
    verdicts = [c["verdict"] for c in json.loads(capsys.readouterr().out)["cases"]]
    assert verdicts == ["no difference"] * 6


def test_checking_times_nothing_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([*PHASES, "--check", "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "token by token" in said
    assert "operations of imagination = cost model" in said
    assert not list(tmp_path.rglob("*.json"))


def test_what_was_measured_before_a_signal_is_kept_and_said_to_be_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the fourth round of eight; an earlier benchmark in the same folder stays as it is."""
    (tmp_path / "bench.json").write_text("an earlier one")
    right, rounds = timing.seconds_of, []

    def interrupted(work, device, repeats=1) -> float:
        rounds.append(work)
        if len(rounds) == 4 * 7 + 3:  # a round has six works and the calibration; the first does not count
            os.kill(os.getpid(), signal.SIGTERM)
        return right(work, device, repeats)

    monkeypatch.setattr(timing, "seconds_of", interrupted)
    status = cli.run([*PHASES, "--rounds", "8", "--out", str(tmp_path)])
    assert status == 128 + 15
    assert "bench.partial.json holds what was measured" in capsys.readouterr().out
    assert (tmp_path / "bench.json").read_text() == "an earlier one"
    kept = read(tmp_path / "bench.partial.json")
    assert not kept.complete
    assert [len(c.seconds) for c in kept.cases] == [3] * 6
    assert {c.phase for c in kept.cases if c.counts} == {"tokenizer", "world_model", "controller"}


def test_what_cannot_be_written_is_refused_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "measure_group", lambda *args: pytest.fail("measured"))
    (tmp_path / "file").write_text("")
    (tmp_path / "link.json").symlink_to(tmp_path / "file")
    for name in ("bench.json", "tables.md"):
        (tmp_path / f"taken {name}" / name).mkdir(parents=True)
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "figures").write_text("")
    targets = [
        *(["--out", str(tmp_path / name)] for name in ("file", "taken bench.json", "taken tables.md", "half")),
        *(["--json", str(tmp_path / name)] for name in ("half", "link.json", "file/x.json")),
        ["--json", "/dev/full"],
        ["--json", ""],
        ["--check", "--json", str(tmp_path / "x.json")],
    ]
    for arguments in targets:
        assert cli.run([*PHASES, "--out", str(tmp_path / "out"), *arguments]) == 2, arguments
        assert capsys.readouterr().err.count("\n") == 1, arguments
    assert not list(tmp_path.rglob("*.tmp*"))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--suite", "papers"], "did you mean paper"),
        (["--scale", "tiny"], "allowed: full, reduced"),
        (["--suite", "paper", "--preset", "quick"], "add --suite phases"),
        (["--batch", "0"], "--batch"),
        (["--rounds", "5"], "allowed is greater than or equal to 6"),
        (["--suite", "phases", "--game", "Pongg"], "Pong"),
        (["--device", "cuda:9"], "--device cuda:9"),
        (["compare", "nowhere.json", "nowhere.json"], "no such file"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], expected: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["bench", *arguments]) != 0
    said = capfd.readouterr().err
    assert expected in said
    assert said.count("\n") == 1


def test_help_and_compare_need_no_torch() -> None:
    script = (
        "import sys; from remctl.cli import run\n"
        "try: run(['bench', 'compare', 'a', 'b'])\n"
        "except SystemExit: pass\n"
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)


def test_what_there_is_no_time_for_is_left_out_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two groups the second would begin after the budget of the whole reduced benchmark."""
    config = resolve("Catch", "quick", sets=TINY)
    whole = run.plan([], "reduced", "cpu", None, 6, lambda scale: config)
    assert whole.budget_s == run.REDUCED_BUDGET_S
    asked = run.plan(["phases"], "reduced", "cpu", None, 6, lambda scale: config)
    assert asked.budget_s == math.inf
    late = replace(asked.groups[0], suite="scaling", axis="num_layers")
    clock = iter([0.0, 10.0, run.REDUCED_BUDGET_S + 1])  # the beginning, and each group's
    monkeypatch.setattr(run, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    todo = replace(asked, groups=(*asked.groups, late), budget_s=whole.budget_s)
    result = run.run(todo, [tmp_path / "bench.json"], ["bench"])
    assert result.complete
    assert {case.suite for case in result.cases} == {"phases"}
    assert result.scaled[-1] == "Left out, for time: scaling, num layers. `remctl bench --suite scaling` measures that."
    assert read(tmp_path / "bench.json") == result
