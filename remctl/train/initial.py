"""Initial weights: each parameter is drawn from a stream of its own, which bears its name.

A parameter that two variants have in the same shape, with the same layer around it, starts with the same values in both,
whatever else either of them builds before it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from remctl.train.seeding import Randomness


def draw_weights(module: nn.Module, random: Randomness) -> None:
    """Draw the parameters of `module`, on the CPU, anew: by the rules of its layers, each from the stream of its name.

    Layers are reset as torch's are, by `reset_parameters` or, as yet-another-retnet has it, `_reset_parameters`; what a layer
    holds before the layer itself, which may overrule it. torch's own generator is seeded.
    """
    names = module.named_parameters(remove_duplicate=False)
    seeds = {id(parameter): random.stream_seed("initial weights", name) for name, parameter in names}
    with _StreamOfEach(seeds):
        for layer in reversed(list(module.modules())):  # of a module and what it holds, the module comes first
            reset: Callable[[], None] | None
            reset = getattr(layer, "reset_parameters", None) or getattr(layer, "_reset_parameters", None)
            if reset is not None:
                reset()


class _StreamOfEach(TorchFunctionMode):
    """Seeds torch's generator before anything is done to a parameter: by `seeds`, from id(parameter)."""

    def __init__(self, seeds: Mapping[int, int]) -> None:
        super().__init__()
        self.seeds = seeds

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        filled = args[0] if args else kwargs.get("tensor")  # so torch.nn.init names it
        if id(filled) in self.seeds:
            torch.default_generator.manual_seed(self.seeds[id(filled)])
        return function(*args, **kwargs)
