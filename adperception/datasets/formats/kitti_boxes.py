"""KITTI's camera boxes to and from the package's boxes.

KITTI gives the centre of the bottom face in the rectified camera frame (x right, y down, z forward) and the heading
about the camera's y axis; ``Boxes3D`` has the box centre in the LiDAR frame (x forward, y left, z up) and yaw about z.
As in the common KITTI tool kits, yaw = -rotation_y - pi/2: the small tilt between the axes is left out.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from adperception.datasets.formats.kitti_label import DONT_CARE, KittiObject
from adperception.structures import Boxes3D, KittiCalibration

__all__ = ["from_kitti_camera", "project_boxes", "to_kitti_camera", "wrap_angle"]

_NEAR_M = 0.1
# Corner numbers of the 12 edges of a box, in the order of Boxes3D.corners().
_EDGES = np.array([(0, 1), (1, 2), (2, 3), (3, 0), (4, 5), (5, 6), (6, 7), (7, 4), (0, 4), (1, 5), (2, 6), (3, 7)])


def wrap_angle(angle: NDArray[np.floating]) -> NDArray[np.float64]:
    """Angles in radians brought to [-pi, pi)."""
    return np.asarray((np.asarray(angle, dtype=np.float64) + np.pi) % (2 * np.pi) - np.pi)


def from_kitti_camera(objects: Sequence[KittiObject], calibration: KittiCalibration) -> Boxes3D:
    """Boxes in the LiDAR frame of all objects but ``DontCare`` areas, in the same order."""
    solid = [o for o in objects if o.name != DONT_CARE]
    if not solid:
        return Boxes3D.empty()
    height, width, length = np.array([o.dimensions for o in solid]).T
    bottom = calibration.from_rect(np.array([o.location for o in solid]))
    yaw = wrap_angle(-np.array([o.rotation_y for o in solid]) - np.pi / 2)
    boxes = np.column_stack([bottom[:, :2], bottom[:, 2] + height / 2, length, width, height, yaw])
    return Boxes3D(boxes.astype(np.float32), tuple(o.name for o in solid))


def to_kitti_camera(
    boxes: Boxes3D, calibration: KittiCalibration, image_size: tuple[int, int] | None = None
) -> list[KittiObject]:
    """KITTI objects of boxes in the LiDAR frame.

    Args:
        boxes: M boxes.
        calibration: of the frame.
        image_size: ``(height, width)`` in pixels, to which the 2D boxes are clipped; ``None``: not clipped.

    Returns:
        M objects. ``box_2d`` surrounds the projected 3D box (zeros where it lies behind the camera), ``alpha`` follows
        from the position, truncation and occlusion are 0: they cannot be known from a box.
    """
    if not len(boxes):
        return []
    b = boxes.boxes.astype(np.float64)
    bottom = calibration.to_rect(np.column_stack([b[:, :2], b[:, 2] - b[:, 5] / 2]))
    rotation_y = wrap_angle(-b[:, 6] - np.pi / 2)
    alpha = wrap_angle(rotation_y - np.arctan2(bottom[:, 0], bottom[:, 2]))
    box_2d = project_boxes(boxes, calibration, image_size)
    return [
        KittiObject(
            name=name,
            truncation=0.0,
            occlusion=0,
            alpha=float(alpha[i]),
            box_2d=(float(box_2d[i, 0]), float(box_2d[i, 1]), float(box_2d[i, 2]), float(box_2d[i, 3])),
            dimensions=(float(b[i, 5]), float(b[i, 4]), float(b[i, 3])),
            location=(float(bottom[i, 0]), float(bottom[i, 1]), float(bottom[i, 2])),
            rotation_y=float(rotation_y[i]),
        )
        for i, name in enumerate(boxes.names)
    ]


def project_boxes(
    boxes: Boxes3D, calibration: KittiCalibration, image_size: tuple[int, int] | None = None
) -> NDArray[np.float64]:
    """The image rectangles that surround the projected boxes.

    Edges are cut 0.1 m in front of the camera, so a box that reaches behind it still projects to what is seen of it.

    Returns:
        ``(M, 4)`` left, top, right, bottom in pixels of camera 2, clipped to ``image_size`` if given; zeros for a box
        wholly behind the camera.
    """
    rectangles = np.zeros((len(boxes), 4))
    if not len(boxes):
        return rectangles
    corners = calibration.to_rect(boxes.corners().reshape(-1, 3)).reshape(-1, 8, 3)
    start, end = corners[:, _EDGES[:, 0]], corners[:, _EDGES[:, 1]]
    rise = end[..., 2] - start[..., 2]
    share = (_NEAR_M - start[..., 2]) / np.where(np.abs(rise) < 1e-9, 1.0, rise)
    crossing = start + np.clip(share, 0, 1)[..., None] * (end - start)
    crosses = (start[..., 2] < _NEAR_M) != (end[..., 2] < _NEAR_M)
    candidates = np.concatenate([corners, crossing], axis=1)
    seen = np.concatenate([corners[..., 2] >= _NEAR_M, crosses], axis=1)
    pixels = np.zeros((*seen.shape, 2))
    pixels[seen] = calibration.rect_to_image(candidates[seen])[0]
    visible = seen.any(axis=1)
    rectangles[:, :2] = np.where(seen[..., None], pixels, np.inf).min(axis=1)
    rectangles[:, 2:] = np.where(seen[..., None], pixels, -np.inf).max(axis=1)
    rectangles[~visible] = 0
    if image_size is not None:
        height, width = image_size
        limits = np.array([width - 1, height - 1, width - 1, height - 1])
        rectangles = np.clip(rectangles, 0, limits)
    return rectangles
