"""LPIPS' weights as published agents carry them, of the tokenizer's training. Nothing that acts or imagines reads them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from remctl.errors import MachineError
from remctl.rem.perceptual import CONVS_PER_LEVEL, SCALE, SHIFT
from remctl.weights import CONV_INDICES, NUM_HEADS, lpips_path, lpips_shapes, lpips_status, read_lpips

PREFIX = "tokenizer.lpips."


def published(weights: Mapping[str, Any]) -> dict[str, Tensor]:
    """{key: tensor} of the arrays that `remctl.weights.read_lpips` returns."""
    levels = [level for level, count in enumerate(CONVS_PER_LEVEL, 1) for _ in range(count)]
    made = {
        f"scaling_layer.{name}": torch.tensor(values).view(1, 3, 1, 1)
        for name, values in (("shift", SHIFT), ("scale", SCALE))
    }
    for index, level in zip(CONV_INDICES, levels, strict=True):
        made |= {
            f"net.slice{level}.{index}.{kind}": torch.tensor(weights[f"features.{index}.{kind}"])
            for kind in ("weight", "bias")
        }
    made |= {f"lin{i}.model.1.weight": torch.tensor(weights[f"heads.{i}.weight"]) for i in range(NUM_HEADS)}
    return {f"{PREFIX}{key}": tensor for key, tensor in made.items()}


def shaped() -> dict[str, Tensor]:
    """{key: tensor} without values, of the right shapes."""
    import numpy as np

    return published({name: np.empty(shape, np.float32) for name, shape in lpips_shapes().items()})


def cached() -> dict[str, Tensor]:
    """{key: tensor} from the user's cache. Raises MachineError, with what to do, where they are not."""
    status = lpips_status()
    if status.state != "ready":
        raise MachineError(f"{status.line}: {status.fix}, or --without-lpips leaves them out")
    return published(read_lpips(lpips_path()))
