"""Specs: which runs they ask for, in which order and with which configurations; the shipped ones."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from remctl.config import config_hash, resolve
from remctl.config.presets import ACCIDENTS, SURROUNDINGS
from remctl.games import ABLATION_SUBSET, ATARI_100K
from remctl.sweep import spec as spec_module
from remctl.sweep.spec import read_spec, wanted_runs
from remctl.sweep.wanted import Spec
from remctl.variants import VARIANTS

ABLATIONS = Path(__file__).parents[2] / "ablations"
GOOD: dict[str, Any] = {
    "name": "tiny",
    "question": "Does it work?",
    "control": "rem",
    "variants": ["rem", "no_pop"],
    "games": ["Pong", "Freeway"],
    "seeds": 2,
    "preset": "paper",
}


def read(folder: Path, **changes: Any) -> Spec:
    """The good spec with some keys changed."""
    file = folder / "spec.yaml"
    file.write_text(yaml.safe_dump(GOOD | changes, sort_keys=False))
    return read_spec(file)


def configs(spec: Spec) -> dict[tuple[str, str], Any]:
    return {(run.variant, run.game): run.config for run in wanted_runs(spec)}


# --- what comes out


def test_every_variant_game_and_seed_in_that_order_as_resolve_has_them(tmp_path: Path) -> None:
    spec = read(tmp_path)
    wanted = [(v, g, s) for v in ("rem", "no_pop") for g in ("Pong", "Freeway") for s in (0, 1)]
    runs = wanted_runs(spec)
    assert [(run.variant, run.game, run.seed) for run in runs] == wanted
    for run in runs:
        assert run.config == resolve(run.game, "paper", run.variant, seed=run.seed)
        assert run.config_hash == config_hash(run.config)
    assert len({run.config_hash for run in runs}) == 8
    assert (spec.name, spec.question, spec.control) == ("tiny", "Does it work?", "rem")
    assert [(v.name, v.label) for v in spec.variants] == [("rem", "REM"), ("no_pop", "No POP")]


def test_later_wins_preset_overrides_variant_grid(tmp_path: Path) -> None:
    layers = {
        "preset": "quick",  # num_layers 2, burn_in_frames 20, entropy_weight 0.03; Freeway: temperature 0.01
        "overrides": {"world_model": {"num_layers": 3, "num_heads": 1}, "controller.entropy_weight": 0.5},
        "variants": [{"name": "own", "base": "no_pop", "overrides": {"world_model.num_heads": 4}}],
        "control": "own",
    }
    config = configs(read(tmp_path, **layers))["own", "Freeway"]
    assert config.collection.temperature == 0.01
    assert config.tokenizer.num_codes == 64
    assert (config.world_model.num_layers, config.world_model.num_heads) == (3, 4)
    assert config.world_model.observation_prediction == "token_by_token"
    assert config.controller.entropy_weight == 0.5
    assert (config.preset, config.variant, config.game) == ("quick", "own", "Freeway")
    grid = {"world_model.num_heads": [1, 2, 4], "world_model.observation_prediction": ["pop"]}
    name = "own+world_model.num_heads=1+world_model.observation_prediction=pop"
    config = configs(read(tmp_path, **layers | {"grid": grid, "control": name}))[name, "Pong"]
    assert (config.world_model.num_heads, config.world_model.observation_prediction) == (1, "pop")
    warm = read(tmp_path, overrides={"collection.temperature": 0.7})
    assert configs(warm)["rem", "Freeway"].collection.temperature == 0.7


def test_the_example_of_the_module_is_a_spec(tmp_path: Path) -> None:
    example = re.findall(r"^    .*\n", str(spec_module.__doc__), re.MULTILINE)
    (tmp_path / "spec.yaml").write_text("".join(example))
    runs = wanted_runs(read_spec(tmp_path / "spec.yaml"))
    assert len(runs) == 2 * 2 * 8 * 5
    assert {run.config.tokenizer.num_codes for run in runs} == {256}


def test_a_variant_overrides_its_base(tmp_path: Path) -> None:
    back = {"name": "back", "base": "no_latent_space", "overrides": {"controller": {"action_inputs": True}}}
    spec = read(tmp_path, variants=["rem", back, "frames_only"])
    runs = wanted_runs(spec)
    assert [run.config_hash for run in runs if run.variant == "back"] == [
        run.config_hash for run in runs if run.variant == "frames_only"
    ]


def test_a_mapping_with_a_name_of_the_switchboard_starts_from_it(tmp_path: Path) -> None:
    spec = read(tmp_path, variants=["rem", {"name": "no_pop", "label": "Without"}])
    assert spec.variants[1].label == "Without"
    assert spec.variants[1].overrides == VARIANTS["no_pop"].overrides
    assert (
        read(tmp_path, variants=["rem", {"name": "a", "overrides": {"imagination.horizon": 5}}]).variants[1].label
        == "a"
    )


@pytest.mark.parametrize(("seeds", "wanted"), [(1, (0,)), (3, (0, 1, 2)), ([7, 0, 2**31 - 1], (7, 0, 2**31 - 1))])
def test_seeds_are_a_count_or_a_list(tmp_path: Path, seeds: Any, wanted: tuple[int, ...]) -> None:
    assert read(tmp_path, seeds=seeds).seeds == wanted
    assert tuple(run.config.seed for run in wanted_runs(read(tmp_path, seeds=seeds)))[: len(wanted)] == wanted


def test_sets_of_games(tmp_path: Path) -> None:
    assert read(tmp_path, games="atari_100k").games == ATARI_100K
    assert read(tmp_path, games="ablation_subset").games == ABLATION_SUBSET
    assert read(tmp_path, games=["gym:ALE/Pong-v5", "Catch"]).games == ("gym:ALE/Pong-v5", "Catch")


# --- grid


def test_a_grid_is_the_product_with_the_variants_first_key_slowest(tmp_path: Path) -> None:
    grid = {"imagination.horizon": [5, 10], "world_model": {"training.optimizer": ["adamw"], "decay": ["log_linear"]}}
    spec = read(tmp_path, grid=grid)
    rest = "+world_model.training.optimizer=adamw+world_model.decay=log_linear"
    assert [v.name for v in spec.variants] == [
        f"rem+imagination.horizon=5{rest}",
        "rem",
        f"no_pop+imagination.horizon=5{rest}",
        "no_pop",
    ]
    assert [v.label for v in spec.variants][1] == "REM, horizon=10, optimizer=adamw, decay=log_linear"
    assert spec.control == "rem"
    assert configs(spec)["rem", "Pong"] == resolve("Pong", seed=1)
    grid = {"imagination.horizon": [5, 10], "world_model.num_layers": [1, 5]}
    assert [v.name for v in read(tmp_path, grid=grid, variants=["rem"]).variants] == [
        "rem+imagination.horizon=5+world_model.num_layers=1",
        "rem+imagination.horizon=5+world_model.num_layers=5",
        "rem+imagination.horizon=10+world_model.num_layers=1",
        "rem",
    ]


def test_values_of_a_grid_in_names_and_equal_last_words_in_labels(tmp_path: Path) -> None:
    grid = {"tokenizer.training.stop_after_epoch": [None, 100], "controller.conv_channels": [[8], [128, 64]]}
    names = [v.name for v in read(tmp_path, grid=grid, variants=["rem"]).variants]
    assert names[0] == "rem+tokenizer.training.stop_after_epoch=null+controller.conv_channels=8"
    assert names[1] == "rem"
    assert names[3].endswith("=100+controller.conv_channels=128,64")
    grid = {"tokenizer.training.learning_rate": [1e-4], "controller.training.learning_rate": [1e-4, 1e-5]}
    spec = read(tmp_path, grid=grid, variants=["rem"])
    assert spec.variants[1].name.endswith("+controller.training.learning_rate=1e-05")
    assert spec.variants[1].label.startswith("REM, tokenizer.training.learning_rate=0.0001, controller.")


def test_a_grid_may_make_possible_what_is_not_so_by_itself(tmp_path: Path) -> None:
    changes = {
        "overrides": {"tokenizer.embed_dim": 128},
        "grid": {"world_model.embed_dim": [128]},
        "variants": ["rem"],
        "control": "rem+world_model.embed_dim=128",
    }
    assert len(wanted_runs(read(tmp_path, **changes))) == 4


def test_a_point_that_changes_one_of_the_games_bears_its_own_name(tmp_path: Path) -> None:
    spec = read(tmp_path, grid={"collection.temperature": [0.01, 1.0]}, control="rem+collection.temperature=1.0")
    assert "rem" not in [v.name for v in spec.variants]  # Freeway's own is 0.01, Pong's 1
    assert "rem" in [
        v.name for v in read(tmp_path, games=["Pong"], grid={"collection.temperature": [0.01, 1.0]}).variants
    ]


# --- what is shipped

SHIPPED = {
    "accidents": 8 * 8 * 5,
    "action_inputs": 2 * 8 * 5,
    "embeddings": 2 * 8 * 5,
    "exploration": 8 * 1 * 5,
    "horizon": 4 * 8 * 5,
    "iris": 2 * 8 * 5,
    "laptop": 5 * 2 * 5,
    "latent_space": 3 * 8 * 5,
    "main": 26 * 5,
    "paper": 6 * 8 * 5,
    "pop": 2 * 8 * 5,
    "pop_components": 5 * 8 * 5,
    "smoke": 2 * 2,
    "token_scaling": 3 * 8 * 5,
    "tokenizer": 2 * 8 * 5,
}


def test_every_shipped_spec_is_counted() -> None:
    assert {file.stem for file in ABLATIONS.glob("*.yaml")} == set(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_spec_asks_for_what_it_says(name: str) -> None:
    file = ABLATIONS / f"{name}.yaml"
    spec, runs = read_spec(file), wanted_runs(read_spec(file))
    assert (spec.name, spec.control) == (name, "rem")
    assert spec.question.endswith("?")
    assert len(runs) == len({run.config_hash for run in runs}) == SHIPPED[name]
    assert f"# Costs {SHIPPED[name]} runs" in file.read_text()
    own = [run for run in runs if run.variant == "rem"]
    if name not in ("smoke", "laptop"):
        assert spec.preset == "paper"
        assert all(run.config == resolve(run.game, seed=run.seed) for run in own)


def test_the_same_configuration_is_the_same_run_in_every_spec() -> None:
    hashes = {name: {run.config_hash for run in wanted_runs(read_spec(ABLATIONS / f"{name}.yaml"))} for name in SHIPPED}
    assert hashes["pop"] | hashes["tokenizer"] | hashes["embeddings"] | hashes["action_inputs"] < hashes["paper"]
    assert len(hashes["paper"] & hashes["token_scaling"]) == 2 * 8 * 5  # REM and 4x4
    assert len(hashes["paper"] & hashes["latent_space"]) == 2 * 8 * 5
    assert len(hashes["paper"] & hashes["main"]) == 8 * 5


def test_accidents_are_each_correction_alone_and_all_together() -> None:
    spec = read_spec(ABLATIONS / "accidents.yaml")
    *alone, surroundings, _ = [v.overrides for v in spec.variants[1:]]
    assert sorted(alone, key=str) == sorted(({key: value} for key, value in ACCIDENTS.items()), key=str)
    assert surroundings == {key: value for key, value in SURROUNDINGS.items() if key != "tokenizer.further_levels"}
    for run in wanted_runs(spec):
        if run.variant == "corrected":
            assert run.config_hash == config_hash(resolve(run.game, "corrected", seed=run.seed))
