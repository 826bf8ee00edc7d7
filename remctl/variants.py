"""The ablation switchboard: every variant of the paper's ablations as overrides of the control.

Each is reachable from configuration alone; nothing else in the code knows a variant's name.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Variant:
    """`overrides`: dotted configuration keys it changes against the control, and nothing else."""

    label: str
    source: str
    overrides: dict[str, Any] = field(default_factory=dict)


# The baseline as published (Micheli et al. 2023), as far as it is not as REM is.
IRIS: dict[str, Any] = {
    "tokenizer.architecture": "vqgan",
    "tokenizer.grid_size": 4,
    "tokenizer.channels": [64, 64, 64, 64, 64],
    "tokenizer.num_groups": 32,
    "tokenizer.embed_dim": 512,
    "tokenizer.reconstruction": "l1",
    "tokenizer.lpips_head_dropout": True,
    "tokenizer.training.batch_size": 256,
    "tokenizer.training.optimizer": "adam",
    "tokenizer.training.weight_decay": 0.0,
    "world_model.architecture": "transformer",
    "world_model.observation_prediction": "token_by_token",
    "world_model.observation_embeddings": "separate",
    "world_model.num_layers": 10,
    "world_model.ffn_activation": "gelu",
    "world_model.layer_norm_eps": 1e-5,
    "world_model.weight_init": "gpt",
    "world_model.context_blocks": 1,
    "world_model.sequence_blocks": 20,
    "world_model.loss_rule": "all_positions",
    "world_model.training.learning_rate": 1e-4,
    "world_model.training.weight_decay": 0.01,
    "world_model.training.gradient_clip": 10.0,
    "imagination.horizon": 20,
    "imagination.imagine_from": "any_frame",
    "controller.observes": "frames",
    "controller.action_inputs": False,
    "controller.training.steps_per_epoch": 200,
    "controller.training.batch_size": 64,
    "controller.training.optimizer": "adam",
    "controller.training.weight_decay": 0.0,
    "controller.training.gradient_clip": 10.0,
    "evaluation.every_epochs": 5,
    "training.sampling": "episodes",
}

# Figure 11: what IRIS has as REM has it in the comparison at REM's configuration. Its window is then REM's segment.
SHARED_WITH_REM = (
    "tokenizer.grid_size",
    "world_model.sequence_blocks",
    "imagination.horizon",
    "controller.training.steps_per_epoch",
    "controller.training.batch_size",
)
IRIS_REM = {key: value for key, value in IRIS.items() if key not in SHARED_WITH_REM}

VARIANTS: dict[str, Variant] = {
    "rem": Variant("REM", "Section 2"),
    "no_pop": Variant("No POP", "Section 3.2", {"world_model.observation_prediction": "token_by_token"}),
    "shared_prediction_token": Variant("One prediction token", "ours", {"world_model.prediction_tokens": "shared"}),
    "sequential_states": Variant("Sequential states", "ours", {"world_model.block_states": "sequential"}),
    "separate_embeddings": Variant(
        "Separate M emb.", "Section 3.2", {"world_model.observation_embeddings": "separate"}
    ),
    "tokenizer_4x4": Variant("4x4 tokenizer", "Section 3.2", {"tokenizer.grid_size": 4}),
    "no_action_inputs": Variant("C w/o action inputs", "Section 3.2", {"controller.action_inputs": False}),
    "no_latent_space": Variant(
        "No latent-space C (two factors)",
        "Section 3.2",
        {"controller.observes": "frames", "controller.action_inputs": False},
    ),
    "frames_only": Variant("Frames only (one factor)", "ours", {"controller.observes": "frames"}),
    "iris": Variant("IRIS", "Section 3", IRIS),
    "iris_rem": Variant("IRIS, REM's configuration", "Figure 11", IRIS_REM),
}


def label_of(name: str) -> str:
    """Return a variant's label; of another name, that name."""
    return VARIANTS[name].label if name in VARIANTS else name
