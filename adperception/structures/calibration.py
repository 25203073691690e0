"""The calibration between a LiDAR and a camera, as KITTI gives it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["KittiCalibration"]


@dataclass(frozen=True)
class KittiCalibration:
    """Projection of LiDAR points into KITTI's rectified camera frame and the image of camera 2.

    The rectified camera frame has x right, y down, z forward (metres).

    Attributes:
        p2: ``(3, 4)`` projection of the rectified camera frame to pixels of camera 2.
        r0_rect: ``(3, 3)`` rectifying rotation.
        velo_to_cam: ``(3, 4)`` rigid transform of the LiDAR frame to the unrectified camera frame.
    """

    p2: NDArray[np.float64]
    r0_rect: NDArray[np.float64]
    velo_to_cam: NDArray[np.float64]

    @property
    def lidar_to_rect(self) -> NDArray[np.float64]:
        """``(4, 4)`` homogeneous transform of the LiDAR frame to the rectified camera frame."""
        rect, velo = np.eye(4), np.eye(4)
        rect[:3, :3] = self.r0_rect
        velo[:3] = self.velo_to_cam
        return np.asarray(rect @ velo)

    def to_rect(self, xyz: NDArray[np.floating]) -> NDArray[np.float64]:
        """LiDAR positions ``(N, 3)`` to the rectified camera frame, metres."""
        m = self.lidar_to_rect
        return np.asarray(xyz @ m[:3, :3].T + m[:3, 3])

    def from_rect(self, xyz: NDArray[np.floating]) -> NDArray[np.float64]:
        """Rectified camera positions ``(N, 3)`` to the LiDAR frame, metres."""
        m = np.linalg.inv(self.lidar_to_rect)
        return np.asarray(xyz @ m[:3, :3].T + m[:3, 3])

    def rect_to_image(self, xyz: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Pixel positions ``(N, 2)`` (column, row) and depth ``(N,)`` in metres of rectified camera positions."""
        projected = xyz @ self.p2[:, :3].T + self.p2[:, 3]
        depth = projected[:, 2] - self.p2[2, 3]
        return np.asarray(projected[:, :2] / projected[:, 2:3]), np.asarray(depth)
