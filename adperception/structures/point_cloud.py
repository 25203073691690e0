"""A LiDAR sweep as typed values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["XYZI", "PointCloud"]

XYZI: tuple[str, ...] = ("x", "y", "z", "intensity")
"""Channels of a KITTI or ONCE sweep."""


@dataclass(frozen=True)
class PointCloud:
    """Points of one sweep in the LiDAR frame (x forward, y left, z up).

    Attributes:
        points: ``(N, C)`` float32. The first three channels are x, y, z in metres; the rest as named in
            ``channels`` (intensity in 0..1).
        channels: names of the C channels, starting with ``x, y, z``.

    Raises:
        ValueError: if the array is not two-dimensional or its width differs from the channel names.
    """

    points: NDArray[np.float32]
    channels: tuple[str, ...] = XYZI

    def __post_init__(self) -> None:
        if self.points.ndim != 2 or self.points.shape[1] != len(self.channels):
            raise ValueError(
                f"PointCloud: points have shape {self.points.shape}, but {len(self.channels)} channels are "
                f"declared ({', '.join(self.channels)}). Declare the channels that the file really has."
            )
        if self.channels[:3] != ("x", "y", "z"):
            raise ValueError(f"PointCloud: channels must start with x, y, z, not {self.channels[:3]}.")

    def __len__(self) -> int:
        return int(self.points.shape[0])

    @property
    def xyz(self) -> NDArray[np.float32]:
        """``(N, 3)`` positions in metres (a view)."""
        return self.points[:, :3]

    def select(self, index: NDArray[np.bool_] | NDArray[np.integer]) -> PointCloud:
        """The points at ``index`` (a boolean mask or positions), in that order."""
        return PointCloud(self.points[index], self.channels)
