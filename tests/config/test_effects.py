"""Keys without effect: refused where a user sets them, and no part of a run's identity."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path

import pytest

from remctl.cli import run
from remctl.config import config_hash, differing, keys, resolve
from remctl.config.effects import LIMITS, TOYS_LACK, refuse_without_effect, without_effect
from remctl.config.resolve import keys_of
from remctl.errors import UserError
from remctl.sweep.spec import read_spec

# game, preset, what makes it idle, the key with another value than its preset's
IDLE = [
    ("Catch", "quick", (), "environment.frame_skip=2"),
    ("Catch", "quick", (), "environment.sticky_probability=0.25"),
    ("Catch", "quick", (), "environment.time_limit_test_frames=400"),
    ("gym:CartPole-v1", "quick", (), "environment.sticky_probability=0.25"),
    ("gym:CartPole-v1", "quick", (), "environment.full_action_space=true"),
    ("gym:CartPole-v1", "quick", (), "environment.max_noops_train=3"),
    ("gym:CartPole-v1", "quick", (), "environment.noops_test=0"),
    ("gym:CartPole-v1", "quick", (), "environment.end_on_life_loss=false"),
    ("gym:CartPole-v1", "paper", (), "environment.late_game_over=false"),
    ("Catch", "paper", (), "environment.time_limit_ends=false"),
    ("Pong", "paper", ("environment.end_on_life_loss=false",), "environment.dead_starts=false"),
    ("Pong", "paper", (), "tokenizer.further_levels=repeated"),
    ("Pong", "paper", (), "imagination.burn_in_action_every=block"),
    ("Pong", "corrected", ("tokenizer.grid_size=4",), "imagination.burn_in_action_every=block"),
    ("Pong", "paper", (), "tokenizer.num_res_blocks=3"),
    ("Pong", "paper", (), "tokenizer.attention_resolutions=[4]"),
    ("Pong", "paper", (), "tokenizer.warmup_steps=5"),
    ("Catch", "quick", (), "tokenizer.warmup_margin=0.5"),
    ("Pong", "quick", (), "tokenizer.lpips_head_dropout=true"),
    ("Pong", "paper", ("world_model.observation_prediction=token_by_token",), "world_model.prediction_tokens=shared"),
    (
        "Pong",
        "paper",
        ("world_model.observation_prediction=token_by_token",),
        "world_model.spare_prediction_token=true",
    ),
    ("Pong", "iris", (), "world_model.decay=power_of_two"),
    ("Pong", "iris", (), "world_model.layer_init=independent"),
    ("Pong", "iris", (), "world_model.blocks_per_chunk=1"),
    ("Pong", "paper", ("controller.observes=frames",), "controller.conv_channels=[8]"),
    ("Pong", "paper", ("controller.action_inputs=false",), "imagination.burn_in_actions=all"),
    ("Pong", "paper", ("controller.action_inputs=false",), "collection.executed_action_to_controller=true"),
    ("Pong", "paper", ("collection.epsilon=0",), "collection.executed_action_to_controller=true"),
    (
        "Pong",
        "paper",
        ("imagination.burn_in_frames=0", "world_model.context_blocks=1"),
        "imagination.burn_in_actions=all",
    ),
    ("Catch", "quick", (), "collection.last_epoch=9"),
    ("Catch", "quick", (), "world_model.training.stop_after_epoch=9"),
    ("Catch", "quick", ("controller.training.start_after_epoch=9",), "controller.training.learning_rate=0.5"),
]


@pytest.mark.parametrize(("game", "preset", "made_idle", "idle"), IDLE, ids=[f"{g} {i}" for g, _, _, i in IDLE])
def test_a_key_without_effect_is_refused_and_makes_no_other_run(
    game: str, preset: str, made_idle: tuple[str, ...], idle: str
) -> None:
    before, after = resolve(game, preset, sets=made_idle), resolve(game, preset, sets=(*made_idle, idle))
    assert before != after
    assert config_hash(before) == config_hash(after)
    assert differing(before, after) == {}
    if idle.split("=")[0] in LIMITS:
        refuse_without_effect(after, keys_of([idle]), lambda: before)
        return
    with pytest.raises(UserError, match=r"has no effect here: .*; leave it out"):
        refuse_without_effect(after, keys_of([idle]), lambda: before)


@pytest.mark.parametrize("game", ["Pong", "Catch", "gym:CartPole-v1"])
@pytest.mark.parametrize("preset", ["paper", "quick", "iris", "corrected"])
def test_nothing_that_a_preset_changes_of_paper_is_without_effect_except_for_a_kind_of_game(
    game: str, preset: str
) -> None:
    """A preset's own key without effect would be a mistake in this table or in the preset."""
    paper, config = keys(resolve(game)), resolve(game, preset)
    changed = {key for key, value in keys(config).items() if value != paper[key]}
    of_other_grids = {"tokenizer.warmup_margin", "tokenizer.further_levels"}
    assert not changed & without_effect(config).keys() - of_other_grids - set(TOYS_LACK)


def test_with_effect_nothing_is_refused() -> None:
    sets = [
        "environment.frame_skip=2",
        "tokenizer.warmup=fixed",
        "tokenizer.warmup_steps=3",
        "controller.conv_channels=[8]",
    ]
    refuse_without_effect(resolve("Pong", sets=sets), keys_of(sets), lambda: resolve("Pong"))
    gym = ["environment.frame_skip=2", "environment.time_limit_train_frames=50"]
    refuse_without_effect(resolve("gym:CartPole-v1", sets=gym), keys_of(gym), lambda: resolve("gym:CartPole-v1"))
    assert config_hash(resolve("gym:CartPole-v1", sets=gym)) != config_hash(resolve("gym:CartPole-v1"))


@pytest.mark.parametrize("preset", ["paper", "quick", "iris", "corrected"])
@pytest.mark.parametrize("game", ["Pong", "Catch", "gym:CartPole-v1"])
def test_only_the_value_that_a_key_would_have_anyway_is_accepted(game: str, preset: str) -> None:
    """Whatever the schema's default is."""
    config = resolve(game, preset)
    values, defaults = keys(config), keys()
    for key in without_effect(config).keys() - set(LIMITS):
        own = f"{key}={json.dumps(values[key])}"
        refuse_without_effect(resolve(game, preset, sets=[own]), keys_of([own]), lambda: config)
        if values[key] == defaults[key] or key == "environment.frame_skip":
            continue
        default = f"{key}={json.dumps(defaults[key])}"
        with pytest.raises(UserError, match=f"{key} has no effect here"):
            refuse_without_effect(resolve(game, preset, sets=[default]), keys_of([default]), lambda: config)


def test_the_command_line_refuses_a_default_without_effect(capsys: pytest.CaptureFixture[str]) -> None:
    args = ("config", "show", "--preset", "quick", "--game", "Catch", "--set")
    assert run([*args, "environment.dead_starts=true"]) == 2
    assert "environment.dead_starts has no effect here: Catch has none" in capsys.readouterr().err
    assert run([*args, "environment.dead_starts=false"]) == 0


SPEC = """name: idle
question: Does it matter?
control: rem
variants: [rem, {{name: other, overrides: {{{own}}}}}]
games: {games}
seeds: 1
preset: quick
"""


@pytest.mark.parametrize(
    ("own", "games", "message"),
    [
        ("environment.frame_skip: 2", "[Catch]", r":4: environment.frame_skip has no effect here: Catch has none"),
        (
            "environment.frame_skip: 2, controller.discount: 0.9",
            "[Pong, Catch]",
            r"no effect here: .* \(variant 'other', Catch\)",
        ),
        ("tokenizer.lpips_head_dropout: true", "[Pong]", "no effect here: tokenizer.perceptual is pixel"),
    ],
)
def test_a_spec_whose_variant_changes_nothing_is_refused(tmp_path: Path, own: str, games: str, message: str) -> None:
    file = tmp_path / "idle.yaml"
    file.write_text(SPEC.format(own=own, games=games))
    with pytest.raises(UserError, match=message):
        read_spec(file)


@pytest.mark.parametrize("value", ["true", "false"])
def test_specs_and_their_sets_are_judged_by_what_they_would_be_without(value: str, tmp_path: Path) -> None:
    """quick has no dead starts, the schema's default has."""
    file, plain = tmp_path / "own.yaml", tmp_path / "plain.yaml"
    file.write_text(SPEC.format(own=f"controller.discount: 0.9, environment.dead_starts: {value}", games="[Catch]"))
    plain.write_text(SPEC.format(own="controller.discount: 0.9", games="[Catch]"))
    with pytest.raises(UserError, match="dead_starts has no effect") if value == "true" else nullcontext():
        read_spec(file)
    with pytest.raises(UserError, match="dead_starts has no effect") if value == "true" else nullcontext():
        read_spec(plain, sets=[f"environment.dead_starts={value}"])


def test_a_grid_over_a_key_without_effect_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "idle.yaml"
    text = SPEC.format(own="controller.discount: 0.9", games="[Catch]")
    file.write_text(text + "grid: {environment.noops_test: [1, 2]}\n")
    with pytest.raises(UserError, match="environment.noops_test has no effect here"):
        read_spec(file)
