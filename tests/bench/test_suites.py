"""The suites: what they put side by side, and that a scaled configuration says what was scaled."""

import pytest

from remctl.bench.suites import (
    REDUCED_BATCH,
    SCALED,
    SEQUENCE_MODELS,
    SUITES,
    Group,
    groups,
    published_size,
    what_was_scaled,
)
from remctl.config import build, differing, resolve

PAPER = resolve("Pong")
BATCHES = {f"{part}.training.batch_size" for part in ("tokenizer", "world_model", "controller")}


def subjects(suite: str, scale: str = "full", batch: int | None = None) -> dict[str, object]:
    (group,) = groups(suite, scale, batch, PAPER)  # type: ignore[arg-type]
    return {s.name: s for s in group.subjects}


def test_the_full_scale_measures_the_published_configurations_themselves() -> None:
    found = subjects("paper")
    expected = {
        "REM": resolve("Pong"),
        "IRIS": resolve("Pong", "iris"),
        "IRIS, REM's configuration": resolve("Pong", "iris-rem"),
    }
    assert {name: differing(s.config, expected[name]) for name, s in found.items()} == dict.fromkeys(expected, {})  # type: ignore[attr-defined]
    assert list(found)[0] == "REM", "what the others are compared to"


def test_ablations_and_components_differ_from_rem_in_what_they_name_and_nothing_else() -> None:
    changed = {
        name: set(differing(PAPER, s.config))  # type: ignore[attr-defined]
        for suite in ("ablations", "components")
        for name, s in subjects(suite).items()
    }
    assert changed == {
        "REM": set(),
        "No POP": {"world_model.observation_prediction"},
        "No latent-space C (two factors)": {"controller.observes", "controller.action_inputs"},
        "One prediction token": {"world_model.prediction_tokens"},
        "Sequential states": {"world_model.block_states"},
        "Chunks of 1 block": {"world_model.blocks_per_chunk"},
        "One chunk": {"world_model.blocks_per_chunk"},
    }


@pytest.mark.parametrize("suite", [s for s in SUITES if s != "phases"])
@pytest.mark.parametrize("scale", ["full", "reduced"])
def test_a_batch_size_is_for_everything(suite: str, scale: str) -> None:
    for group in groups(suite, scale, 5, PAPER):  # type: ignore[arg-type]
        if group.axis != "batch_size":
            for subject in group.subjects:
                parts = (subject.config.tokenizer, subject.config.world_model, subject.config.controller)
                assert {part.training.batch_size for part in parts} == {5}


def test_the_reduced_scale_keeps_networks_and_tokens_and_says_what_it_changed() -> None:
    for name, subject in subjects("paper", "reduced").items():
        full = subjects("paper")[name]
        changes = differing(full.config, subject.config)  # type: ignore[attr-defined]
        assert set(changes) == BATCHES | {"imagination.burn_in_frames", "imagination.horizon"}
    said = " ".join(what_was_scaled(SUITES, "reduced", None))
    assert str(REDUCED_BATCH) in said
    assert "horizon" in said
    assert "burn-in" in said
    assert "2 layers" in said
    assert "preset quick" in said
    assert what_was_scaled(SUITES, "full", None) == ()
    assert "5" in what_was_scaled(SUITES, "full", 5)[0]


@pytest.mark.parametrize("scale", ["full", "reduced"])
def test_scaling_varies_one_quantity_and_the_three_models_imagine_equally_much(scale: str) -> None:
    found = groups("scaling", scale, None, PAPER)  # type: ignore[arg-type]
    assert [g.axis for g in found] == list(SCALED[scale])  # type: ignore[index]
    for group in found:
        wanted = SCALED[scale][group.axis or ""]  # type: ignore[index]
        assert [(s.value, s.name) for s in group.subjects] == [(v, name) for v in wanted for name in SEQUENCE_MODELS]
        assert [group.baseline(s).name for s in group.subjects] == ["POP"] * len(group.subjects)
        assert all(group.baseline(s).value == s.value for s in group.subjects)
        for value in wanted:
            assert len({s.config.num_rewarded_steps for s in group.subjects if s.value == value}) == 1
        value_of = {
            "tokens_per_obs": lambda c: c.tokenizer.tokens_per_obs,
            "imagined_steps": lambda c: c.num_rewarded_steps,
            "batch_size": lambda c: c.controller.training.batch_size,
            "num_layers": lambda c: c.world_model.num_layers,
        }[group.axis or ""]
        assert [value_of(s.config) for s in group.subjects] == [s.value for s in group.subjects]
    assert _varied(found) == set(SCALED[scale])  # type: ignore[index]


def _varied(found: list[Group]) -> set[str]:
    """Axes along which POP's configuration changes in that quantity's keys alone."""
    keys = {
        "tokens_per_obs": {"tokenizer.grid_size"},
        "imagined_steps": {"imagination.horizon"},
        "batch_size": BATCHES,
        "num_layers": {"world_model.num_layers"},
    }
    axes = {g.axis or "": [s.config for s in g.subjects if s.name == "POP"] for g in found}
    return {axis for axis, (first, *rest) in axes.items() if all(set(differing(first, c)) == keys[axis] for c in rest)}


def test_phases_measures_the_given_configuration_as_it_is() -> None:
    catch = resolve("Catch", "quick", sets=["world_model.num_layers=3"])
    (group,) = groups("phases", "reduced", None, catch)
    assert not differing(catch, group.subjects[0].config)
    assert group.subjects[0].config.game == "Catch"
    assert group.subjects[0].name == "quick, rem, Catch"


def test_the_bounds_are_of_the_published_agent() -> None:
    config = published_size("POP", {"tokens_per_obs": 64, "batch_size": 128})
    assert set(differing(PAPER, config)) == {"world_model.training.batch_size"}, "V's and C's are 128 as published"
    assert build({}) == PAPER
