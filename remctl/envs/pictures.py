"""What an environment renders, as RGB of uint8: which numbers are black and which are white is decided once."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from remctl.errors import UserError
from remctl.interfaces import Frame

TOLERANCE = 1e-3  # of the range: by so much rounding may take numbers out of it; they are clipped
UNIT, BYTES, UINT16 = (0.0, 1.0), (0.0, 255.0), (0.0, 65535.0)


class Pictures:
    """Converts the pictures of one environment, (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), whose alpha is dropped.

    uint8 is 0 to 255, bool black and white. Where the observation space has the picture's shape and type of numbers, and finite
    bounds, they are black and white. Of other numbers the first picture decides, `range`, for all later ones: floats are 0
    to 1 if its largest is at most 1 + TOLERANCE, else 0 to 255; integers are 0 to 255 if its largest is above 1, uint16 is 0
    to 65535 if that is above 255. UserError for anything else, and for a picture that contradicts the range.
    """

    def __init__(self, env_id: str, space: gymnasium.Space[Any] | None = None) -> None:
        self.range: tuple[float, float] | None = None
        self._env_id = env_id
        self._space = space if isinstance(space, gymnasium.spaces.Box) else None

    def rgb(self, picture: Any) -> Frame:
        """Return a picture as uint8 (H, W, 3)."""
        given = np.asarray(picture)
        colors = self._colors(given, picture)
        declared = self._declared(given)
        if declared is None and colors.dtype in (np.uint8, bool):
            return np.ascontiguousarray(colors * np.uint8(255) if colors.dtype == bool else colors)
        if not np.isfinite(colors).all():
            raise self._refused("numbers that are not finite: fix the environment")
        smallest, largest = float(colors.min()), float(colors.max())
        if declared is None and self.range is None:
            self.range = self._judged(colors.dtype, smallest, largest)
        low, high = declared or self.range or BYTES
        slack = TOLERANCE * (high - low)
        if smallest < low - slack or largest > high + slack:
            source = "its observation_space" if declared else "its first picture"
            raise self._refused(
                f"{colors.dtype} numbers from {smallest:g} to {largest:g}, but {source} says {low:g} to {high:g}: "
                "let render() return uint8, 0 to 255"
            )
        scaled = (colors.astype(np.float64) - low) * (255.0 / (high - low))
        return scaled.round().clip(0, 255).astype(np.uint8)

    def _colors(self, given: np.ndarray, picture: Any) -> np.ndarray:
        image = given[..., None] if given.ndim == 2 else given
        if image.ndim != 3 or image.shape[2] not in (1, 3, 4) or not image.size or image.dtype.kind not in "buif":
            what = f"{given.dtype} {given.shape}" if isinstance(picture, np.ndarray) else type(picture).__name__
            raise self._refused(f"{what}, no image of shape (H, W), (H, W, 3) or (H, W, 4): choose another")
        return image[..., :3] if image.shape[2] > 1 else image.repeat(3, axis=2)

    def _declared(self, given: np.ndarray) -> tuple[float, float] | None:
        """The bounds of the observation space, if this picture is an observation; of uint8 those of a mask alone."""
        space = self._space
        if space is None or space.shape != given.shape or space.dtype != given.dtype or given.dtype == bool:
            return None
        bounds = float(space.low.min()), float(space.high.max())
        if not np.isfinite(bounds).all() or bounds[0] >= bounds[1] or (given.dtype == np.uint8 and bounds != UNIT):
            return None
        of_type = given.dtype.kind in "ui" and bounds[1] == np.iinfo(given.dtype).max
        return None if of_type and given.dtype != np.uint16 else bounds

    def _judged(self, dtype: np.dtype[Any], smallest: float, largest: float) -> tuple[float, float]:
        """The range that a first picture without a declared one shows."""
        numbers = f"{dtype} numbers from {smallest:g} to {largest:g}"
        mend = "let render() return uint8, 0 to 255, or an observation_space of its shape and type state the range"
        if smallest < -TOLERANCE:
            raise self._refused(f"{numbers}, below 0: {mend}")
        if dtype.kind == "f" and largest <= 1 + TOLERANCE:
            return UNIT
        if dtype == np.uint16 and largest > 255:
            return UINT16
        if largest > 255 * (1 + TOLERANCE):
            raise self._refused(f"{numbers}, above 255: {mend}")
        if dtype == np.uint16 or (dtype.kind in "ui" and largest <= 1):
            raise self._refused(f"{numbers}, which may be dark, or of a smaller range: {mend}")
        return BYTES

    def _refused(self, what: str) -> UserError:
        return UserError(f"gym:{self._env_id} renders {what}")
