"""Catch, the toy: learned in minutes on two cores, so that the whole agent can be tried and tested without a GPU.

A ball falls through a grid of 8x8 cells, a paddle one cell wide waits below. Play at random averages about -0.75.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from remctl.interfaces import EnvStep, Frame

GRID = 8

_BACKGROUND = (16, 16, 40)
_BALL = (240, 220, 60)
_PADDLE = (60, 200, 240)


class Catch:
    """A falling ball to catch; 7 actions make an episode.

    Frames are uint8 (frame_size, frame_size, 3) RGB, of 8x8 square cells. The ball starts in a random column of the
    top row and falls one cell per step; the paddle starts in a random column of the bottom row and moves one cell
    left, stays, or moves one cell right, stopping at the walls. The reward is 0 until the ball is in the bottom row,
    then 1 if the paddle is in the ball's column, else -1, and the game is over.
    `frame_size` must be a multiple of 8 (ValueError).
    """

    num_actions: int = 3
    action_names: tuple[str, ...] = ("LEFT", "STAY", "RIGHT")
    is_new_game: bool = True

    def __init__(self, *, frame_size: int = 64) -> None:
        if frame_size < GRID or frame_size % GRID:
            raise ValueError(f"Catch draws {GRID}x{GRID} cells: frame_size {frame_size} must be a multiple of {GRID}")
        self._cell = frame_size // GRID
        self._ball_row = GRID - 1
        self._ball_column = 0
        self._paddle_column = 0

    def reset(self, rng: np.random.Generator) -> Frame:
        """Drop a new ball; `rng` draws its column and the paddle's."""
        self._ball_row = 0
        self._ball_column, self._paddle_column = (int(column) for column in rng.integers(GRID, size=2))
        return self._draw()

    def step(self, action: int) -> EnvStep:
        """Move the paddle by action - 1 cells, then let the ball fall one cell."""
        assert self._ball_row < GRID - 1, "step() after the end: call reset() first"
        assert 0 <= action < self.num_actions, f"action {action} of {self.num_actions}"
        self._paddle_column = min(max(self._paddle_column + int(action) - 1, 0), GRID - 1)
        self._ball_row += 1
        over = self._ball_row == GRID - 1
        return EnvStep(self._draw(), self._score() if over else 0.0, over, False, over)

    def get_state(self) -> dict[str, Any]:
        """The position of ball and paddle, in cells."""
        return {"ball": [self._ball_row, self._ball_column], "paddle": self._paddle_column}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from a state of `get_state`."""
        self._ball_row, self._ball_column = state["ball"]
        self._paddle_column = state["paddle"]

    def close(self) -> None:
        """Nothing to close."""

    def _score(self) -> float:
        return 1.0 if self._paddle_column == self._ball_column else -1.0

    def _draw(self) -> Frame:
        cells = np.full((GRID, GRID, 3), _BACKGROUND, np.uint8)
        cells[GRID - 1, self._paddle_column] = _PADDLE
        cells[self._ball_row, self._ball_column] = _BALL  # drawn last: a caught ball hides the paddle
        return cells.repeat(self._cell, axis=0).repeat(self._cell, axis=1)
