"""Suite precision: nothing but the precision differs between the two trainings, and what is said of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from remctl import cli
from remctl.bench import precision, run
from remctl.bench.result import PrecisionEffect, TrainedLoss, read
from remctl.bench.suites import USUAL_SUITES, Group, groups
from remctl.bench.tables import tables
from remctl.config import Precision, RunConfig, differing, resolve
from remctl.errors import UserError
from remctl.train.learner import Learner
from remctl.train.phases import Track
from tests.bench.synthetic import precision_effect as effect
from tests.bench.synthetic import result
from tests.tiny import TINY

SETS = [part for text in TINY for part in ("--set", text)]
SUITE = ["bench", "--suite", "precision", "--game", "Catch", "--preset", "quick", "--device", "cpu", *SETS]


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "NUM_FRAMES", 150)
    monkeypatch.setattr(precision, "NUM_HELD_OUT", 20)
    monkeypatch.setattr(precision, "NUM_EPOCHS", 2)
    monkeypatch.setattr(precision, "STEPS_PER_EPOCH", 2)


@pytest.fixture
def _native(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that computes bf16 well, whatever the tests run on."""
    for module in (run, precision):
        monkeypatch.setattr(module, "native_precision", lambda device: "bf16")


def measured(tmp_path: Path, *arguments: str) -> PrecisionEffect:
    assert cli.run([*SUITE, "--out", str(tmp_path), *arguments]) == 0
    (found,) = read(tmp_path / "bench.json").precision
    return found


@pytest.mark.usefixtures("_native")
def test_bf16_moves_every_component_a_little(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = measured(tmp_path)
    assert list(found.losses) == list(found.batch_sizes) == ["tokenizer", "world_model", "controller"]
    for loss in found.losses.values():
        assert len(set(loss.fp32)) == len(found.seeds) == 3
        assert all(0 < abs(d) < 0.2 * abs(x) for d, x in zip(loss.differences, loss.fp32, strict=True))
    assert all(0 <= value <= 1 for values in found.comparisons.values() for value in values)
    cosines = [values for what, values in found.comparisons.items() if "cosine" in what]
    assert len(cosines) == 2
    assert all(0.9 < value < 1 for values in cosines for value in values)
    said = capsys.readouterr().out
    assert "batches of 4 (tokenizer), 4 (world model), 4 (controller) from 150 frames" in said
    assert precision.EMULATED not in said
    assert "bounds the speed-up" not in said, "nothing was timed"


@pytest.mark.usefixtures("_native")
def test_nothing_but_the_precision_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights, batches, masks, draws: with fp32 in the place of bf16 the two are the same to the bit."""
    right = RunConfig.at_precision
    monkeypatch.setattr(RunConfig, "at_precision", lambda config, wanted: right(config, "fp32"))
    found = measured(tmp_path)
    assert {d for loss in found.losses.values() for d in loss.differences} == {0.0}
    for what, values in found.comparisons.items():
        assert values == pytest.approx((0.0 if "difference" in what else 1.0,) * 3, abs=1e-12), what


@pytest.mark.usefixtures("_native")
def test_later_components_learn_from_fp32s_earlier_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, list[Tensor]] = {"world_model": [], "controller": []}

    def watched(name: str, phase: Any) -> Any:
        def train(learner: Learner, epoch: int, track: Track) -> dict[str, float]:
            earlier = [learner.buffer.tokens, *learner.agent.tokenizer.parameters()]
            earlier += learner.agent.world_model.parameters() if name == "controller" else []
            seen[name].append(torch.cat([x.detach().double().flatten() for x in earlier]))
            return phase(learner, epoch, track)

        return train

    monkeypatch.setattr(precision, "SEEDS", (0,))
    for name in seen:
        monkeypatch.setitem(precision.PHASES, name, watched(name, precision.PHASES[name]))
    measured(tmp_path)
    for first, *others in seen.values():
        assert len(others) == 3, "two epochs in each precision"
        assert all(torch.equal(first, other) for other in others)


def test_a_verdict_is_about_the_largest_of_both() -> None:
    within = TrainedLoss(fp32=(1.0, 1.3), bf16=(1.1, 1.05))
    assert within.differences == pytest.approx((0.1, -0.25))
    assert within.between_seeds == pytest.approx(0.3)
    assert not within.exceeds
    assert TrainedLoss(fp32=(1.0, 1.3), bf16=(1.0, 0.9)).exceeds
    with pytest.raises(ValueError, match="no pairs"):
        TrainedLoss(fp32=(1.0, 1.3), bf16=(1.1,))


def test_the_tables_say_which_component_exceeds_the_seeds() -> None:
    given = result(cases=(), exponents=(), bounds=(), predictions=(), packing=(), precision=(effect(),))
    made = tables(given)
    assert list(made) == ["precision", "precision_alike", "checks", "device"]
    assert made["precision"].rows == (
        ("tokenizer", "1.0000  1.3000", "+0.1000  -0.0500", "0.3000", "within the seeds"),
        ("world model", "2.0000  2.1000", "+0.2000  +0.0000", "0.1000", "bf16 exceeds the seeds"),
    )
    assert made["precision_alike"].rows == (("tokens alike", "0.5000", "0.7500"),)


def test_it_runs_only_where_it_is_asked_for() -> None:
    config = resolve("Catch", "quick", sets=TINY)
    assert run.plan([], "reduced", "cpu", None, 6, lambda scale: config).suites == USUAL_SUITES
    assert "precision" not in USUAL_SUITES


def group_of(scale: str, config: RunConfig) -> Group:
    (group,) = groups("precision", scale, None, config)  # type: ignore[arg-type]
    return group


def test_the_reduced_scale_is_the_named_configuration_with_one_layer_and_half_of_vs_channels() -> None:
    paper = resolve("Pong")
    changed = differing(paper, group_of("reduced", paper).subjects[0].config)
    batches = {key: changed.pop(f"{key}.training.batch_size")[1] for key in precision.PHASES}
    assert changed == {"world_model.num_layers": (5, 1), "tokenizer.channels": ([32, 64, 128, 256], [16, 32, 64, 128])}
    assert set(batches.values()) == {4}
    assert not differing(paper, group_of("full", paper).subjects[0].config)


def test_the_preset_is_paper_where_none_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "native_precision", lambda device: "bf16")
    asked: list[str] = []

    def config_at(scale: str) -> RunConfig:
        asked.append(scale)
        return resolve("Pong")

    run.plan(["precision"], "reduced", "cpu", None, None, config_at)
    assert asked == ["full"], "the scale at which `remctl bench` takes the preset paper"


@pytest.mark.parametrize("asked", ["auto", "fp32"])
def test_emulated_bf16_is_refused_unless_asked_for(asked: Precision, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "native_precision", lambda device: "fp32")
    config = resolve("Catch", "quick", sets=(*TINY, f"runtime.precision={asked}"))
    with pytest.raises(UserError, match="only emulates bf16.*--set runtime.precision=bf16"):
        run.plan(["precision"], "reduced", "cpu", None, None, lambda scale: config)
    run.plan(["phases"], "reduced", "cpu", None, None, lambda scale: config)


def test_emulated_bf16_that_was_asked_for_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in (run, precision):
        monkeypatch.setattr(module, "native_precision", lambda device: "fp32")
    monkeypatch.setattr(precision, "SEEDS", (0,))
    found = measured(tmp_path, "--set", "runtime.precision=bf16")
    assert all(d != 0 for loss in found.losses.values() for d in loss.differences)
    assert capsys.readouterr().out.count(precision.EMULATED) == 1
