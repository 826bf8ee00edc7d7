"""`quick` finds the sizes of an environment by its id."""

from __future__ import annotations

import pytest

from remctl.config.quick import (
    QUICK_ATARI,
    QUICK_BSUITE_CATCH,
    QUICK_MINATAR,
    QUICK_MINIGRID,
    QUICK_OBSTACLES,
    QUICK_TOY,
    Overrides,
    quick_overrides,
)


@pytest.mark.parametrize(
    ("game", "sizes"),
    [
        ("Catch", QUICK_TOY),
        ("Pong", QUICK_ATARI),
        ("gym:bsuite/catch-v0", QUICK_BSUITE_CATCH),
        ("gym:MiniGrid-Empty-Random-5x5-v0", QUICK_MINIGRID),
        ("gym:minigrid:MiniGrid-Empty-Random-5x5-v0", QUICK_MINIGRID),
        ("gym:MiniGrid-Dynamic-Obstacles-5x5-v0", QUICK_OBSTACLES),
        ("gym:MinAtar/Breakout-v0", QUICK_MINATAR),
        ("gym:CartPole-v1", QUICK_ATARI),
    ],
)
def test_sizes_by_environment(game: str, sizes: Overrides) -> None:
    assert quick_overrides(game) is sizes
