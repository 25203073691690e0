"""Boxes of other libraries to and from the package's boxes. (KITTI's camera boxes: ``kitti_boxes.py``.)"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from adperception.structures import Boxes3D

__all__ = ["from_mmdet3d_v1", "to_mmdet3d_v1", "yaw_from_quaternion"]


def from_mmdet3d_v1(boxes: NDArray[np.floating], names: Sequence[str]) -> Boxes3D:
    """Boxes of mmdetection3d from version 1.0 on (the tensor of ``LiDARInstance3DBoxes``).

    They are ``(x, y, z, dx, dy, dz, yaw)`` in metres, with z of the *bottom* face; dx lies along the heading and yaw is
    counter-clockwise from +x, as here. (Versions before 1.0 turned yaw the other way and swapped dx and dy.)

    Args:
        boxes: ``(M, >= 7)``; further columns (velocities) are left out.
        names: M class names.

    Raises:
        ValueError: for another shape.
    """
    if boxes.ndim != 2 or boxes.shape[1] < 7:
        raise ValueError(f"from_mmdet3d_v1: boxes have shape {boxes.shape}, expected (M, 7) or wider.")
    ours = boxes[:, :7].astype(np.float64)
    ours[:, 2] += ours[:, 5] / 2
    return Boxes3D(ours.astype(np.float32), tuple(names))


def to_mmdet3d_v1(boxes: Boxes3D) -> NDArray[np.float32]:
    """``(M, 7)`` as ``LiDARInstance3DBoxes`` has them: see ``from_mmdet3d_v1``."""
    theirs = boxes.boxes.astype(np.float64)
    theirs[:, 2] -= theirs[:, 5] / 2
    return theirs.astype(np.float32)


def yaw_from_quaternion(quaternions: NDArray[np.floating]) -> NDArray[np.float64]:
    """Heading ``(M,)`` in radians, -pi..pi, of rotations ``(M, 4)`` given as unit quaternions (w, x, y, z).

    The direction of the rotated x axis seen from above; roll and pitch, which boxes here do not have, are left out.
    """
    w, x, y, z = np.asarray(quaternions, dtype=np.float64).reshape(-1, 4).T
    return np.asarray(np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z)))
