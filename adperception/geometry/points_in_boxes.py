"""Which points lie in which box."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["count_points_in_boxes", "points_in_boxes"]


def points_in_boxes(xyz: NDArray[np.floating], boxes: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Membership of N points in M boxes, faces included.

    Args:
        xyz: ``(N, >= 3)`` positions in metres.
        boxes: ``(M, 7)`` x, y, z, length, width, height, yaw (centre, metres, radians), in the frame of the points.

    Returns:
        ``(M, N)`` bool.
    """
    inside = np.zeros((len(boxes), len(xyz)), dtype=np.bool_)
    x, y, z = (np.ascontiguousarray(xyz[:, axis]) for axis in range(3))
    for row, (cx, cy, cz, length, width, height, yaw) in zip(inside, boxes.astype(np.float64), strict=True):
        reach = float(np.hypot(length, width)) / 2
        # Few points are near a box: a cheap test on x and y first, the rotation only for what is left.
        near = np.flatnonzero(
            (np.abs(x - np.float32(cx)) <= reach + 0.01) & (np.abs(y - np.float32(cy)) <= reach + 0.01)
        )
        dx, dy, dz = x[near] - cx, y[near] - cy, z[near] - cz
        along = dx * np.cos(yaw) + dy * np.sin(yaw)
        across = dy * np.cos(yaw) - dx * np.sin(yaw)
        row[near] = (np.abs(along) <= length / 2) & (np.abs(across) <= width / 2) & (np.abs(dz) <= height / 2)
    return inside


def count_points_in_boxes(xyz: NDArray[np.floating], boxes: NDArray[np.floating]) -> NDArray[np.int64]:
    """``(M,)`` numbers of points in each box; arguments as for ``points_in_boxes``."""
    return np.asarray(points_in_boxes(xyz, boxes).sum(axis=1, dtype=np.int64))
