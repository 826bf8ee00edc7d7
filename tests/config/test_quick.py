"""`quick` finds the sizes of an environment by its id."""

from __future__ import annotations

import pytest

from remctl.config import resolve


@pytest.mark.parametrize(
    ("game", "epochs", "grid", "blocks", "enlarge"),
    [
        ("Catch", 9, 4, 7, "bilinear"),
        ("Pong", 4, 8, 10, "bilinear"),
        ("gym:bsuite/catch-v0", 8, 4, 9, "nearest"),
        ("gym:MiniGrid-Empty-Random-5x5-v0", 8, 4, 12, "bilinear"),
        ("gym:minigrid:MiniGrid-Empty-Random-5x5-v0", 8, 4, 12, "bilinear"),
        ("gym:CartPole-v1", 4, 8, 10, "bilinear"),
    ],
)
def test_sizes_by_environment(game: str, epochs: int, grid: int, blocks: int, enlarge: str) -> None:
    config = resolve(game, "quick")
    sizes = config.training.num_epochs, config.tokenizer.grid_size, config.world_model.sequence_blocks
    assert (*sizes, config.environment.enlarge) == (epochs, grid, blocks, enlarge)
