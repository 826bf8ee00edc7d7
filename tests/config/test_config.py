"""Presets, variants, the table of text against code, the identity of a run, and its file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from remctl.config import config_hash, differing, from_yaml, keys, resolve, to_yaml
from remctl.config.presets import CORRECTIONS, DESCRIPTIONS, PAPER_TEXT
from remctl.errors import UserError
from remctl.variants import VARIANTS

# Row by row: what, key, the published code (default), the paper's text (None: the text says nothing).
TEXT_AGAINST_CODE = [
    ("reconstruction loss", "tokenizer.reconstruction", "mse", "l1"),
    ("FFN activation", "world_model.ffn_activation", "swish", "gelu"),
    ("decay of head i", "world_model.decay", "log_linear", "power_of_two"),
    ("prediction tokens", "world_model.spare_prediction_token", False, None),
    ("imagined steps", "imagination.imagined_steps", "published", "text"),
    ("actions during burn-in", "imagination.burn_in_actions", "published", "all"),
    ("action under epsilon", "collection.executed_action_to_controller", False, True),
    ("layers' initialisation", "world_model.layer_init", "copies", None),
    ("environment seeding", "environment.seeding", "seeded", None),
    ("LPIPS heads' dropout", "tokenizer.lpips_head_dropout", False, None),
    ("first imagined reward and end", "world_model.loss_rule", "published", "supervise_starts"),
    ("last imagined step", "imagination.last_step", "unused", "used"),
    ("where imagination may start", "imagination.imagine_from", "third_frame", "any_frame"),
    ("no_pop", "world_model.observation_prediction", "pop", None),
    ("optimiser of V", "tokenizer.training.optimizer", "adamw", None),
    ("optimiser of C", "controller.training.optimizer", "adamw", None),
    ("weight decay of V", "tokenizer.training.weight_decay", 0.01, None),
    ("weight decay of C", "controller.training.weight_decay", 0.01, None),
    ("steps after an imagined end", "imagination.mask_after_end", False, None),
]

# Tables 4 to 7 and section A of the paper, as far as a number can be mistyped.
PAPER = {
    "environment.frame_skip": 4,
    "environment.frame_size": 64,
    "environment.max_noops_train": 30,
    "collection.steps_per_epoch": 200,
    "collection.last_epoch": 500,
    "collection.epsilon": 0.01,
    "tokenizer.grid_size": 8,
    "tokenizer.channels": [32, 64, 128, 256],
    "tokenizer.num_codes": 512,
    "tokenizer.embed_dim": 256,
    "tokenizer.perceptual": "lpips",
    "tokenizer.training.start_after_epoch": 5,
    "tokenizer.training.batch_size": 128,
    "world_model.num_layers": 5,
    "world_model.num_heads": 4,
    "world_model.embed_dim": 256,
    "world_model.ffn_dim": 1024,
    "world_model.dropout": 0.1,
    "world_model.blocks_per_chunk": 3,
    "world_model.context_blocks": 2,
    "world_model.sequence_blocks": 10,
    "world_model.training.start_after_epoch": 25,
    "world_model.training.batch_size": 64,
    "imagination.horizon": 10,
    "imagination.burn_in_frames": 20,
    "controller.conv_channels": [128, 64],
    "controller.hidden_dim": 512,
    "controller.discount": 0.995,
    "controller.lambda": 0.95,
    "controller.entropy_weight": 0.001,
    "controller.training.start_after_epoch": 50,
    "controller.training.batch_size": 128,
    "evaluation.temperature": 0.5,
    "evaluation.final_episodes": 100,
    "training.num_epochs": 600,
}


def changed(config, against) -> dict[str, Any]:
    """What `config` has otherwise than `against`, by key."""
    return {key: new for key, (_, new) in differing(against, config).items()}


# --- presets


def test_paper_is_the_default_and_has_the_papers_numbers() -> None:
    assert resolve("Pong") == resolve("Pong", preset="paper")
    assert {key: keys(resolve("Pong"))[key] for key in PAPER} == PAPER


@pytest.mark.parametrize(("what", "key", "code", "text"), TEXT_AGAINST_CODE)
def test_text_against_code_is_an_option_with_the_codes_side_as_default(
    what: str, key: str, code: Any, text: Any
) -> None:
    assert keys(resolve("Pong"))[key] == code, what
    assert keys(resolve("Pong", preset="paper-text"))[key] == (code if text is None else text), what


def test_paper_text_changes_those_rows_and_nothing_else() -> None:
    rows = {key: text for _, key, _, text in TEXT_AGAINST_CODE if text is not None}
    assert changed(resolve("Pong", preset="paper-text"), resolve("Pong")) == rows == PAPER_TEXT


def test_corrected_changes_the_five_accidents_and_nothing_else() -> None:
    assert changed(resolve("Pong", preset="corrected"), resolve("Pong")) == {
        "imagination.burn_in_actions": "all",
        "collection.executed_action_to_controller": True,
        "imagination.mask_after_end": True,
        "imagination.imagine_from": "any_frame",
        "world_model.loss_rule": "supervise_starts",
    }


@pytest.mark.parametrize("game", ["Pong", "Catch", "gym:CartPole-v1"])
def test_quick_is_corrected_small_and_needs_no_weights(game: str) -> None:
    quick = resolve(game, preset="quick")
    assert {key: keys(quick)[key] for key in CORRECTIONS} == CORRECTIONS
    assert quick.tokenizer.perceptual == "pixel"
    assert quick.training.precision == "fp32"
    assert quick.training.num_epochs < 20


def test_quick_has_sizes_for_a_toy_and_for_atari() -> None:
    toy, atari = (resolve(game, preset="quick") for game in ("Catch", "Pong"))
    assert toy.tokenizer.tokens_per_obs == 16
    assert atari.tokenizer.tokens_per_obs == 64
    assert resolve("gym:CartPole-v1", preset="quick").tokenizer == atari.tokenizer


def test_rollout_lengths_are_derived() -> None:
    paper, text = resolve("Pong"), resolve("Pong", preset="paper-text")
    assert (paper.num_imagined_steps, paper.num_rewarded_steps, paper.min_segment_blocks) == (9, 8, 3)
    assert (text.num_imagined_steps, text.num_rewarded_steps, text.min_segment_blocks) == (10, 10, 2)


@pytest.mark.parametrize("preset", DESCRIPTIONS)
def test_freeway_is_played_nearly_greedily_and_no_other_game(preset: str) -> None:
    assert resolve("Freeway", preset=preset).collection.temperature == 0.01
    assert resolve("Pong", preset=preset).collection.temperature == 1.0


# --- variants

# Figures 9, 10, 13, 14 and 15 of the paper, and one of our own (frames_only).
ABLATIONS = {
    "rem": {},
    "no_pop": {"world_model.observation_prediction": "token_by_token"},
    "separate_embeddings": {"world_model.observation_embeddings": "separate"},
    "tokenizer_4x4": {"tokenizer.grid_size": 4},
    "no_action_inputs": {"controller.action_inputs": False},
    "no_latent_space": {"controller.observes": "frames", "controller.action_inputs": False},
    "frames_only": {"controller.observes": "frames"},
}


@pytest.mark.parametrize("name", ABLATIONS)
def test_the_ablations_are_the_papers(name: str) -> None:
    assert VARIANTS[name].overrides == ABLATIONS[name]


@pytest.mark.parametrize("preset", DESCRIPTIONS)
@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_changes_exactly_what_it_declares(name: str, preset: str) -> None:
    control, variant = resolve("Pong", preset=preset), resolve("Pong", preset=preset, variant=name)
    assert changed(variant, control) == VARIANTS[name].overrides
    assert variant.variant == name


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


# --- identity


def test_hash_ignores_labels_and_runtime() -> None:
    base = config_hash(resolve("Pong"))
    assert config_hash(resolve("Pong", sets=["runtime.trackers=[wandb]"])) == base
    grid_4 = resolve("Pong", sets=["tokenizer.grid_size=4"])
    assert config_hash(resolve("Pong", variant="tokenizer_4x4")) == config_hash(grid_4) != base
    corrected = [f"{key}={str(value).lower()}" for key, value in CORRECTIONS.items()]
    assert config_hash(resolve("Pong", sets=corrected)) == config_hash(resolve("Pong", preset="corrected"))


def test_hash_covers_every_other_key(monkeypatch: pytest.MonkeyPatch) -> None:
    config, base, flat = resolve("Pong"), config_hash(resolve("Pong")), keys(resolve("Pong"))
    for key in flat:
        monkeypatch.setattr(sys.modules["remctl.config.resolve"], "keys", lambda _, key=key: flat | {key: "other"})
        covered = key not in ("preset", "variant") and not key.startswith("runtime.")
        assert (config_hash(config) != base) == covered, key


def test_hash_is_of_values_not_of_spellings() -> None:
    assert config_hash(resolve("Pong")) == config_hash(resolve("Pong", sets=["collection.epsilon=1e-2"]))
    assert len(config_hash(resolve("Pong"))) == 12


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
