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


VARIANTS: dict[str, Variant] = {
    "rem": Variant("REM", "Section 2"),
    "no_pop": Variant("No POP", "Section 3.2", {"world_model.observation_prediction": "token_by_token"}),
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
}
