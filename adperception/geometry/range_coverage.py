"""Does a range hold any point at all? Wrong units or a wrong sensor height show here first."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from adperception.structures import VoxelGrid

__all__ = ["RangeCoverage", "check_range_coverage", "in_range"]


def in_range(xyz: NDArray[np.floating], point_cloud_range: tuple[float, ...]) -> NDArray[np.bool_]:
    """``(N,)`` bool: minimum <= position < maximum (metres, x, y, z) for ``(N, >= 3)`` positions."""
    low, high = point_cloud_range[:3], point_cloud_range[3:]
    inside = (xyz[:, 0] >= low[0]) & (xyz[:, 0] < high[0])
    for axis in (1, 2):
        inside &= (xyz[:, axis] >= low[axis]) & (xyz[:, axis] < high[axis])
    return np.asarray(inside)


class RangeCoverage:
    """Counts points inside a range, cloud by cloud.

    Attributes:
        total: number of points seen.
        inside: of these, points in the range.
    """

    def __init__(self, grid: VoxelGrid) -> None:
        self.total = self.inside = 0
        self._range = grid.point_cloud_range
        self._low, self._high = np.full(3, np.inf), np.full(3, -np.inf)

    def add(self, cloud: NDArray[np.floating]) -> None:
        """Count the points of a cloud ``(N, >= 3)``, x, y, z in metres first."""
        self.total += len(cloud)
        self.inside += int(np.count_nonzero(in_range(cloud, self._range)))
        self._low = np.minimum(self._low, cloud[:, :3].min(axis=0, initial=np.inf))
        self._high = np.maximum(self._high, cloud[:, :3].max(axis=0, initial=-np.inf))

    def require_points(self) -> None:
        """Refuse to go on if not one point was inside.

        Raises:
            ValueError: with the number of points and their span per axis.
        """
        if self.inside:
            return
        limits = ", ".join(f"{v:g}" for v in self._range)
        if not self.total:
            raise ValueError(
                f"voxelize: there is not a single point (point_cloud_range=[{limits}]). The clouds are empty."
            )
        spans = ", ".join(f"{axis} {a:.1f}…{b:.1f}" for axis, a, b in zip("xyz", self._low, self._high, strict=True))
        raise ValueError(
            f"voxelize: 0 of {self.total:,} points are inside point_cloud_range=[{limits}] (points span {spans}). "
            "Check units (metres) and sensor height."
        )


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
    coverage = RangeCoverage(grid)
    for cloud in clouds:
        coverage.add(cloud)
        if coverage.inside:
            return
    coverage.require_points()
