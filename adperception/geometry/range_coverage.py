"""Does a range hold any point at all? Wrong units or a wrong sensor height show here first."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from adperception.structures import VoxelGrid

__all__ = ["check_range_coverage", "in_range"]


def in_range(xyz: NDArray[np.floating], point_cloud_range: tuple[float, ...]) -> NDArray[np.bool_]:
    """``(N,)`` bool: minimum <= position < maximum (metres, x, y, z) for ``(N, >= 3)`` positions."""
    low, high = point_cloud_range[:3], point_cloud_range[3:]
    inside = (xyz[:, 0] >= low[0]) & (xyz[:, 0] < high[0])
    for axis in (1, 2):
        inside &= (xyz[:, axis] >= low[axis]) & (xyz[:, axis] < high[axis])
    return np.asarray(inside)


def check_range_coverage(clouds: Iterable[NDArray[np.floating]], grid: VoxelGrid) -> None:
    """Refuse to work on clouds of which not one point lies in the grid.

    A single frame without a point in range is legal in training; all of them, or the one cloud that is to be encoded,
    is a mistake. Stops reading at the first cloud that has a point inside.

    Args:
        clouds: arrays ``(N, >= 3)``, x, y, z in metres first.
        grid: whose ``point_cloud_range`` is asked.

    Raises:
        ValueError: with the number of points and their span per axis.
    """
    total, low, high = 0, np.full(3, np.inf), np.full(3, -np.inf)
    for cloud in clouds:
        if in_range(cloud, grid.point_cloud_range).any():
            return
        total += len(cloud)
        low = np.minimum(low, cloud[:, :3].min(axis=0, initial=np.inf))
        high = np.maximum(high, cloud[:, :3].max(axis=0, initial=-np.inf))
    limits = ", ".join(f"{v:g}" for v in grid.point_cloud_range)
    if not total:
        raise ValueError(f"voxelize: there is not a single point (point_cloud_range=[{limits}]). The clouds are empty.")
    spans = ", ".join(f"{axis} {a:.1f}…{b:.1f}" for axis, a, b in zip("xyz", low, high, strict=True))
    raise ValueError(
        f"voxelize: 0 of {total:,} points are inside point_cloud_range=[{limits}] (points span {spans}). "
        "Check units (metres) and sensor height."
    )
