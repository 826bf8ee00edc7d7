"""Initial weights: each parameter is drawn from its own random stream, which has the parameter's name.

Two variants that have a parameter of the same name and shape, in the same kind of layer, start with the same values in it.
What else they build does not matter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from remctl.train.seeding import Randomness


def draw_weights(module: nn.Module, random: Randomness) -> None:
    """Draw the parameters of `module` again, by the rules of its layers, each from the stream of its name.

    Parameters must be on the CPU. A layer is reset by its `reset_parameters`, as torch's layers, or by `_reset_parameters`, as
    yet-another-retnet's. Inner layers come first, so that the layer that contains them may overwrite their values. torch's
    own generator is left seeded.
    """
    names = module.named_parameters(remove_duplicate=False)
    seeds = {id(parameter): random.stream_seed("initial weights", name) for name, parameter in names}
    with _StreamOfEach(seeds):
        for layer in reversed(list(module.modules())):  # modules() lists a module before those inside it
            reset: Callable[[], None] | None
            reset = getattr(layer, "reset_parameters", None) or getattr(layer, "_reset_parameters", None)
            if reset is not None:
                reset()


class _StreamOfEach(TorchFunctionMode):
    """Seed torch's generator before any operation on a parameter. `seeds`: the seed of each, by id(parameter)."""

    def __init__(self, seeds: Mapping[int, int]) -> None:
        super().__init__()
        self.seeds = seeds

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        filled = args[0] if args else kwargs.get("tensor")  # torch.nn.init calls it `tensor`
        if id(filled) in self.seeds:
            torch.default_generator.manual_seed(self.seeds[id(filled)])
        return function(*args, **kwargs)
