"""The presets: `paper` (published behaviour), `quick` (minutes on a CPU), `corrected`, `paper-text`, and the baseline's.

A preset is a flat mapping of dotted keys to values, laid over the schema's defaults.
"""

from __future__ import annotations

from remctl.config.quick import Overrides, quick_overrides
from remctl.games import kind
from remctl.variants import VARIANTS

# What the published code does around the networks where nobody would expect it, as one would.
SURROUNDINGS: Overrides = {
    "environment.late_game_over": False,
    "environment.dead_starts": False,
    "environment.time_limit_ends": False,
    "collection.untrained_policy": "uniform",
    "collection.controller_memory": "carried",
    "tokenizer.further_levels": "repeated",
    "training.sampling": "steps",
}

# What looks like an accident in how the agent is trained, mended.
ACCIDENTS: Overrides = {
    "imagination.burn_in_actions": "all",
    "collection.executed_action_to_controller": True,
    "imagination.mask_after_end": True,
    "imagination.imagine_from": "any_frame",
    "world_model.loss_rule": "supervise_starts",
}

CORRECTIONS = ACCIDENTS | SURROUNDINGS

PAPER_TEXT: Overrides = {
    "tokenizer.reconstruction": "l1",
    "world_model.ffn_activation": "gelu",
    "world_model.decay": "power_of_two",
    "imagination.burn_in_frames": 10,  # Algorithm 7: C sees H real frames
    "imagination.imagined_steps": "text",
    "imagination.last_step": "used",
    "imagination.burn_in_actions": "all",
    "imagination.imagine_from": "any_frame",
    "collection.executed_action_to_controller": True,
    "world_model.loss_rule": "supervise_starts",
    "training.sampling": "steps",
}

# Presets that are `paper` with a variant of the switchboard, where the overrides are written; they bear its label.
PRESET_VARIANTS = {"iris": "iris", "iris-rem": "iris_rem"}

DESCRIPTIONS = {
    "paper": "the published agent, published behaviour; 100,000 steps; needs a GPU",
    "quick": "small networks, corrected behaviour; minutes on two CPU cores; sizes by kind of game",
    "corrected": "paper with its accidents corrected, in training and around it",
    "paper-text": "paper with the text's side wherever text and published code differ",
    "iris": "the baseline as published: Transformer, VQGAN tokenizer, 16 tokens, horizon 20; needs a GPU",
    "iris-rem": "the baseline with REM's 64 tokens, horizon 10, and controller batches; needs a GPU",
}

# Section A.5: on Freeway the policy is sampled nearly greedily, or no reward is ever seen.
GAME_OVERRIDES: dict[str, Overrides] = {"Freeway": {"collection.temperature": 0.01}}
# Gymnasium environments are not Atari: their actions are meant to be taken one by one.
GYM_OVERRIDES: Overrides = {"environment.frame_skip": 1}


def preset_overrides(preset: str, game: str) -> Overrides:
    """The dotted overrides of `preset` for `game`. The name must be one of DESCRIPTIONS."""
    table: dict[str, Overrides] = {"paper": {}, "corrected": CORRECTIONS, "paper-text": PAPER_TEXT}
    table["quick"] = CORRECTIONS | quick_overrides(game)
    table |= {name: VARIANTS[variant].overrides for name, variant in PRESET_VARIANTS.items()}
    return table[preset] | GAME_OVERRIDES.get(game, GYM_OVERRIDES if kind(game) == "gym" else {})
