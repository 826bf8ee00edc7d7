"""Presets, variants, the numbers of the paper, and the table of text against code."""

from __future__ import annotations

from typing import Any

import pytest

from remctl.config import config_hash, differing, keys, resolve
from remctl.config.effects import without_effect
from remctl.config.presets import CORRECTIONS, DESCRIPTIONS, PAPER_TEXT, PRESET_VARIANTS
from remctl.explain import explain_key
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
    ("real frames that C sees first", "imagination.burn_in_frames", 20, 10),
    ("where imagination may start", "imagination.imagine_from", "third_frame", "any_frame"),
    ("no_pop", "world_model.observation_prediction", "pop", None),
    ("optimiser of V", "tokenizer.training.optimizer", "adamw", None),
    ("optimiser of C", "controller.training.optimizer", "adamw", None),
    ("weight decay of V", "tokenizer.training.weight_decay", 0.01, None),
    ("weight decay of C", "controller.training.weight_decay", 0.01, None),
    ("steps after an imagined end", "imagination.mask_after_end", False, None),
    ("batches", "training.sampling", "passes", "steps"),
    ("acting before C is trained", "collection.untrained_policy", "controller", None),
    ("C's memory when an epoch begins", "collection.controller_memory", "burned_in", None),
    ("a time limit in training", "environment.time_limit_ends", True, None),
    ("a game over on a step's last raw frame", "environment.late_game_over", True, None),
    ("a game that ends after a lost life", "environment.dead_starts", True, None),
    ("further levels of the tokenizer", "tokenizer.further_levels", "doubled", None),
    ("the action fed in burn-in at 4x4", "imagination.burn_in_action_every", "observation", None),
]

# The protocol, tables 4 to 7, section A of the paper and the published code: every key but the rows above and what only
# this project or IRIS has; of those what must be off.
PAPER = {
    "environment.frame_skip": 4,
    "environment.frame_size": 64,
    "environment.sticky_probability": 0.0,
    "environment.full_action_space": False,
    "environment.max_noops_train": 30,
    "environment.noops_test": 1,
    "environment.time_limit_train_frames": 20_000,
    "environment.time_limit_test_frames": 108_000,
    "environment.end_on_life_loss": True,
    "collection.initial_steps": 0,
    "collection.temperature": 1.0,
    "collection.steps_per_epoch": 200,
    "collection.last_epoch": 500,
    "collection.epsilon": 0.01,
    "tokenizer.architecture": "convolutional",
    "tokenizer.grid_size": 8,
    "tokenizer.channels": [32, 64, 128, 256],
    "tokenizer.num_groups": 8,
    "tokenizer.norm_eps": 1e-6,
    "tokenizer.num_codes": 512,
    "tokenizer.embed_dim": 256,
    "tokenizer.codebook_init": "uniform",
    "tokenizer.warmup": "none",
    "tokenizer.perceptual": "lpips",
    "tokenizer.codebook_weight": 1.0,
    "tokenizer.commitment_weight": 1.0,
    "tokenizer.training.start_after_epoch": 5,
    "tokenizer.training.stop_after_epoch": None,
    "tokenizer.training.steps_per_epoch": 200,
    "tokenizer.training.first_epoch_extra_steps": 0,
    "tokenizer.training.batch_size": 128,
    "tokenizer.training.learning_rate": 1e-4,
    "tokenizer.training.gradient_clip": 10.0,
    "world_model.architecture": "retnet",
    "world_model.observation_embeddings": "tokenizer",
    "world_model.prediction_tokens": "separate",
    "world_model.block_states": "parallel",
    "world_model.weight_init": "default",
    "world_model.layer_norm_eps": 1e-6,
    "world_model.num_layers": 5,
    "world_model.num_heads": 4,
    "world_model.embed_dim": 256,
    "world_model.ffn_dim": 1024,
    "world_model.dropout": 0.1,
    "world_model.blocks_per_chunk": 3,
    "world_model.context_blocks": 2,
    "world_model.sequence_blocks": 10,
    "world_model.training.start_after_epoch": 25,
    "world_model.training.stop_after_epoch": None,
    "world_model.training.steps_per_epoch": 200,
    "world_model.training.first_epoch_extra_steps": 0,
    "world_model.training.batch_size": 64,
    "world_model.training.optimizer": "adamw",
    "world_model.training.learning_rate": 2e-4,
    "world_model.training.weight_decay": 0.05,
    "world_model.training.gradient_clip": 100.0,
    "imagination.horizon": 10,
    "controller.observes": "codes",
    "controller.action_inputs": True,
    "controller.conv_channels": [128, 64],
    "controller.hidden_dim": 512,
    "controller.discount": 0.995,
    "controller.lambda": 0.95,
    "controller.entropy_weight": 0.001,
    "controller.training.start_after_epoch": 50,
    "controller.training.stop_after_epoch": None,
    "controller.training.steps_per_epoch": 100,
    "controller.training.first_epoch_extra_steps": 0,
    "controller.training.batch_size": 128,
    "controller.training.learning_rate": 1e-4,
    "controller.training.gradient_clip": 3.0,
    "evaluation.every_epochs": 10,
    "evaluation.num_episodes": 16,
    "evaluation.num_envs": 8,
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


def test_every_key_of_the_paper_or_its_code_is_pinned() -> None:
    rows = {key for _, key, _, _ in TEXT_AGAINST_CODE}
    published = {key for key in keys() if explain_key(key).source not in ("", "ours", "IRIS")} - {"game"}
    assert published <= PAPER.keys() | rows
    assert not rows & PAPER.keys()


@pytest.mark.parametrize(("what", "key", "code", "text"), TEXT_AGAINST_CODE)
def test_text_against_code_is_an_option_with_the_codes_side_as_default(
    what: str, key: str, code: Any, text: Any
) -> None:
    assert keys(resolve("Pong"))[key] == code, what
    assert keys(resolve("Pong", preset="paper-text"))[key] == (code if text is None else text), what


def test_paper_text_changes_those_rows_and_nothing_else() -> None:
    rows = {key: text for _, key, _, text in TEXT_AGAINST_CODE if text is not None}
    assert changed(resolve("Pong", preset="paper-text"), resolve("Pong")) == rows == PAPER_TEXT


def test_corrected_changes_the_accidents_and_nothing_else() -> None:
    assert changed(resolve("Pong", preset="corrected", sets=["tokenizer.grid_size=4"]), resolve("Pong")) == {
        "tokenizer.grid_size": 4,
        "tokenizer.further_levels": "repeated",
        "training.sampling": "steps",
        "environment.late_game_over": False,
        "environment.dead_starts": False,
        "environment.time_limit_ends": False,
        "collection.untrained_policy": "uniform",
        "collection.controller_memory": "carried",
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
    assert quick.runtime.precision == "fp32"
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
    own, idle = keys(control), without_effect(control)  # of IRIS, for example, POP's prediction tokens
    declared = {k: v for k, v in VARIANTS[name].overrides.items() if v != own[k] and k not in without_effect(variant)}
    assert changed(variant, control) == {k: v for k, v in declared.items() if k not in idle or "iris" in name}
    if preset == "paper":
        assert changed(variant, control) == VARIANTS[name].overrides
    assert variant.variant == (PRESET_VARIANTS.get(preset, name) if name == "rem" else name)


# The baseline's numbers (Micheli et al. 2023).
IRIS = {
    "tokenizer.grid_size": 4,
    "tokenizer.channels": [64] * 5,
    "tokenizer.num_res_blocks": 2,
    "tokenizer.attention_resolutions": [8, 16],
    "tokenizer.num_codes": 512,
    "tokenizer.embed_dim": 512,
    "tokenizer.lpips_head_dropout": True,
    "tokenizer.training.batch_size": 256,
    "world_model.num_layers": 10,
    "world_model.num_heads": 4,
    "world_model.embed_dim": 256,
    "world_model.dropout": 0.1,
    "world_model.sequence_blocks": 20,
    "world_model.context_blocks": 1,
    "world_model.training.batch_size": 64,
    "world_model.training.optimizer": "adamw",
    "world_model.training.learning_rate": 1e-4,
    "world_model.training.weight_decay": 0.01,
    "world_model.training.gradient_clip": 10.0,
    "imagination.horizon": 20,
    "controller.observes": "frames",
    "controller.hidden_dim": 512,
    "controller.training.batch_size": 64,
    "controller.training.steps_per_epoch": 200,
    "evaluation.every_epochs": 5,
    "training.sampling": "episodes",
}
IRIS_AT_REM_CONFIGURATION = {
    "tokenizer.grid_size": 8,
    "world_model.sequence_blocks": 10,
    "imagination.horizon": 10,
    "controller.training.batch_size": 128,
    "controller.training.steps_per_epoch": 100,
}


def test_iris_has_the_baselines_numbers_at_both_settings() -> None:
    published, as_rem = resolve("Pong", preset="iris"), resolve("Pong", preset="iris-rem")
    assert {key: keys(published)[key] for key in IRIS} == IRIS
    assert changed(as_rem, published) == IRIS_AT_REM_CONFIGURATION
    assert (published.num_imagined_steps, published.min_segment_blocks) == (20, 1)
    assert as_rem.num_imagined_steps == 10


@pytest.mark.parametrize(("preset", "variant"), PRESET_VARIANTS.items())
def test_a_preset_of_the_switchboard_is_its_variant_and_bears_its_label(preset: str, variant: str) -> None:
    by_preset, by_variant = resolve("Freeway", preset=preset, seed=3), resolve("Freeway", variant=variant, seed=3)
    assert config_hash(by_preset) == config_hash(by_variant)
    assert (by_preset.preset, by_preset.variant) == (preset, variant)
    assert resolve("Freeway", preset=preset, variant="no_action_inputs").variant == "no_action_inputs"
