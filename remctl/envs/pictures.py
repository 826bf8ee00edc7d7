"""Convert what an environment renders to RGB of uint8. Which numbers are black and white is decided once."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from remctl.errors import UserError
from remctl.interfaces import Frame

TOLERANCE = 1e-3  # share of the range by which rounding may exceed it; such numbers are clipped
UNIT, BYTES, UINT16 = (0.0, 1.0), (0.0, 255.0), (0.0, 65535.0)


class Pictures:
    """Converts the pictures of one environment.

    Accepted shapes: (H, W), (H, W, 1), (H, W, 3), and (H, W, 4), of which alpha is dropped.

    The range of numbers from black to white is, by the first rule that applies:

    1. bool: False to True.
    2. The bounds of the observation space, if it has the picture's shape and type of numbers and its bounds are finite. Bounds
       of uint8 count only if they are 0 to 1. The largest value of an integer type is taken for a bound only of uint16.
    3. uint8: 0 to 255.
    4. floats: 0 to 1 if the first picture's largest number is at most 1 + TOLERANCE, else 0 to 255.
    5. uint16: 0 to 65535 if the first picture's largest number is above 255. Otherwise refused: it may be a dark picture.
    6. other integers: 0 to 255 if the first picture's largest number is above 1. Otherwise refused, for the same reason.

    Rules 4 to 6 decide once: `range` holds for all later pictures. Their first picture must have no number below 0, and, unless
    it is of 0 to 65535, none above 255. UserError for another shape or type, for numbers that are not finite, and for a
    picture outside the range by more than TOLERANCE.
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
        """Return the bounds that the observation space gives this picture; None if rule 2 does not apply."""
        space = self._space
        if space is None or space.shape != given.shape or space.dtype != given.dtype or given.dtype == bool:
            return None
        bounds = float(space.low.min()), float(space.high.max())
        if not np.isfinite(bounds).all() or bounds[0] >= bounds[1] or (given.dtype == np.uint8 and bounds != UNIT):
            return None
        of_type = given.dtype.kind in "ui" and bounds[1] == np.iinfo(given.dtype).max
        return None if of_type and given.dtype != np.uint16 else bounds

    def _judged(self, dtype: np.dtype[Any], smallest: float, largest: float) -> tuple[float, float]:
        """Return the range that a first picture implies, by rules 4 to 6."""
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
