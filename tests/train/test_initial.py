"""Initial weights drawn by name follow the rules of their layers."""

import pytest
import torch

from remctl.config import resolve
from remctl.rem.controller import Controller
from remctl.rem.tokenizer import Tokenizer
from remctl.rem.world_model import WorldModel
from remctl.train.build import build_agent
from remctl.train.initial import draw_weights
from remctl.train.seeding import Randomness

CPU = torch.device("cpu")


@pytest.mark.parametrize("weight_init", ["default", "gpt"])
def test_parameters_keep_the_distributions_that_constructors_give_them(weight_init: str) -> None:
    """Beside modules as they are constructed, in one stream: constants are the same, others have the same spread."""
    config = resolve("Catch", "quick", sets=(f"world_model.weight_init={weight_init}",))
    agent = build_agent(config, 3, CPU)
    v, m, size = config.tokenizer, config.world_model, config.environment.frame_size
    constructed = {
        "tokenizer": Tokenizer(v, size),
        "world_model": WorldModel(m, 3, v.tokens_per_obs, v.num_codes),
        "controller": Controller(config.controller, 3, v.embed_dim, v.grid_size, size),
    }
    for name, module in constructed.items():
        ours = dict(agent.components[name].named_parameters())
        for parameter, theirs in module.named_parameters():
            if theirs.numel() > 1 and theirs.unique().numel() == 1:
                assert torch.equal(ours[parameter], theirs), parameter
            elif theirs.numel() >= 500:
                assert ours[parameter].std().item() == pytest.approx(theirs.std().item(), rel=0.15), parameter


def test_layers_are_copies_only_if_configured() -> None:
    for layer_init in ("copies", "independent"):
        sets = ("world_model.num_layers=3", f"world_model.layer_init={layer_init}")
        layers = build_agent(resolve("Catch", "quick", sets=sets), 3, CPU).world_model.retnet.decoder.layers
        first, *others = ([p.detach() for p in layer.parameters()] for layer in layers)
        for other in others:
            assert all(map(torch.equal, first, other)) is (layer_init == "copies")


class Odd(torch.nn.Module):
    """Overrules what its layer draws, by the package's name for it, with a bound of its own."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.wide = torch.nn.Linear(width, width)
        self.table = torch.nn.Embedding(500, 4)

    def _reset_parameters(self) -> None:
        torch.nn.init.uniform_(self.table.weight, 2.0, 3.0)


def test_a_module_overrules_its_layers_and_no_parameter_shifts_another() -> None:
    found = []
    for width in (3, 30):
        odd = Odd(width)
        draw_weights(odd, Randomness(0, 0, "odd"))
        found.append(odd.table.weight.detach())
    assert torch.equal(*found)
    assert 2 <= found[0].min() < found[0].max() < 3
    again = Odd(3)
    draw_weights(again, Randomness(1, 0, "odd"))
    assert not torch.equal(again.table.weight, found[0])
