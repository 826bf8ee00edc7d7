"""How a configuration comes about: what wins, scalars, the identity of a run, and its file."""

from __future__ import annotations

from pathlib import Path

import pytest

from remctl.config import config_hash, from_yaml, resolve, to_yaml
from remctl.config.presets import DESCRIPTIONS
from remctl.errors import UserError

# --- order


def test_later_wins_file_over_variant_and_set_over_file(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("tokenizer: {grid_size: 16}\nworld_model.num_layers: 4\n")
    config = resolve("Pong", variant="tokenizer_4x4", file=file, sets=["world_model.num_layers=7"], seed=3)
    assert (config.tokenizer.grid_size, config.world_model.num_layers, config.seed) == (16, 7, 3)
    assert resolve("Pong", sets=["world_model.num_layers=7", "world_model.num_layers=8"]).world_model.num_layers == 8


@pytest.mark.parametrize("text", ["", "# nothing\n", "world_model:\n", "{}"])
def test_a_file_without_keys(tmp_path: Path, text: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(text)
    if text.startswith("world_model"):
        with pytest.raises(UserError, match=r"world_model is a section"):
            resolve("Pong", file=file)
    else:
        assert resolve("Pong", file=file) == resolve("Pong")


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 0.001), ("1.0e-3", 0.001), (".5", 0.5), ("1", 1.0), ("+2E-1", 0.2), ("'0.25'", 0.25)],
)
def test_numbers_as_people_write_them(text: str, value: float) -> None:
    assert resolve("Pong", sets=[f"tokenizer.training.learning_rate={text}"]).tokenizer.training.learning_rate == value


def test_scalars_are_those_of_yaml_1_2() -> None:
    assert resolve("Pong", sets=["world_model.num_layers=010"]).world_model.num_layers == 10
    assert (
        resolve("Pong", sets=["tokenizer.training.stop_after_epoch=null"]).tokenizer.training.stop_after_epoch is None
    )
    assert resolve("Pong", sets=["environment.end_on_life_loss=no"]).environment.end_on_life_loss is False
    with pytest.raises(UserError, match=r"training\.num_epochs: given '12:30'; allowed: integer"):
        resolve("Pong", sets=["training.num_epochs=12:30"])


# --- its file


@pytest.mark.parametrize("preset", DESCRIPTIONS)
@pytest.mark.parametrize("game", ["Pong", "Catch", "Freeway", "gym:CartPole-v1"])
def test_round_trip_through_yaml(tmp_path: Path, game: str, preset: str) -> None:
    config = resolve(game, preset=preset, variant="no_pop", seed=7)
    file = tmp_path / "config.yaml"
    file.write_text(to_yaml(config))
    assert from_yaml(file) == config
    assert file.read_text().startswith(f"# config_hash: {config_hash(config)}\n")


def test_a_configuration_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        resolve("Pong").tokenizer.grid_size = 4  # type: ignore[misc]
