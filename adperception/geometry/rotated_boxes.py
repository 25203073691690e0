"""Do boxes collide, seen from above? Exact, by separating axes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["bev_collisions"]


def bev_collisions(a: NDArray[np.floating], b: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Which rectangles of ``a`` and ``b`` overlap in the x-y plane; touching ones do not.

    Two convex shapes are apart if and only if a line separates them; for rectangles it suffices to look along the four
    side directions of the pair (separating axis theorem).

    Args:
        a: ``(A, 7)`` boxes x, y, z, length, width, height, yaw (metres, radians).
        b: ``(B, 7)`` boxes of the same kind.

    Returns:
        ``(A, B)`` bool.
    """
    first, second = a.astype(np.float64), b.astype(np.float64)
    return ~(_separated(first, second) | _separated(second, first).T)


def _separated(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.bool_]:
    """``(A, B)`` bool: apart along a side direction of a."""
    offset = b[None, :, :2] - a[:, None, :2]
    cos, sin = np.cos(a[:, 6])[:, None], np.sin(a[:, 6])[:, None]
    along = np.abs(offset[..., 0] * cos + offset[..., 1] * sin)
    across = np.abs(offset[..., 1] * cos - offset[..., 0] * sin)
    turn = b[None, :, 6] - a[:, None, 6]
    c, s = np.abs(np.cos(turn)), np.abs(np.sin(turn))
    half_length, half_width = b[None, :, 3] / 2, b[None, :, 4] / 2
    beyond_ends = along >= a[:, 3:4] / 2 + half_length * c + half_width * s
    beyond_sides = across >= a[:, 4:5] / 2 + half_length * s + half_width * c
    return np.asarray(beyond_ends | beyond_sides)
