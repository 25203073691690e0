"""Random rotation of a frame about the vertical axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from adperception.datasets.formats.kitti_boxes import wrap_angle
from adperception.registry import TRANSFORMS
from adperception.structures import Boxes3D, LidarFrame, PointCloud

__all__ = ["RandomWorldRotation"]


@TRANSFORMS.register_module()
class RandomWorldRotation:
    """Turns points and boxes about the sensor's z axis by one uniformly drawn angle.

    Calibration and road plane describe the recorded scene; they are dropped.

    Args:
        angle_range: smallest and largest angle in radians, counter-clockwise (default -pi/4..pi/4).
    """

    def __init__(self, angle_range: Sequence[float] = (-0.78539816, 0.78539816)) -> None:
        if len(angle_range) != 2 or not angle_range[0] <= angle_range[1]:
            raise ValueError(
                f"RandomWorldRotation: angle_range={tuple(angle_range)} must be (smallest, largest) radians."
            )
        self.angle_range = (float(angle_range[0]), float(angle_range[1]))

    def __call__(self, frame: LidarFrame, rng: np.random.Generator) -> LidarFrame:
        """The turned frame."""
        angle = rng.uniform(*self.angle_range)
        cos, sin = np.cos(angle), np.sin(angle)
        turn = np.array([[cos, sin], [-sin, cos]], dtype=np.float32)  # row vectors: p' = p @ turn
        points = frame.cloud.points.copy()
        points[:, :2] = points[:, :2] @ turn
        boxes = frame.boxes
        if boxes is not None:
            turned = boxes.boxes.copy()
            turned[:, :2] = turned[:, :2] @ turn
            turned[:, 6] = wrap_angle(turned[:, 6] + angle)
            boxes = Boxes3D(turned, boxes.names)
        cloud = PointCloud(points, frame.cloud.channels)
        return replace(frame, cloud=cloud, boxes=boxes, calibration=None, road_plane=None)
