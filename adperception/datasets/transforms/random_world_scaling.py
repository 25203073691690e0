"""Random scaling of a frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from adperception.registry import TRANSFORMS
from adperception.structures import Boxes3D, LidarFrame, PointCloud

__all__ = ["RandomWorldScaling"]


@TRANSFORMS.register_module()
class RandomWorldScaling:
    """Multiplies positions of points and boxes, and sizes of boxes, by one uniformly drawn factor.

    Calibration and road plane describe the recorded scene; they are dropped.

    Args:
        scale_range: smallest and largest factor.
    """

    def __init__(self, scale_range: Sequence[float] = (0.95, 1.05)) -> None:
        if len(scale_range) != 2 or not 0 < scale_range[0] <= scale_range[1]:
            raise ValueError(
                f"RandomWorldScaling: scale_range={tuple(scale_range)} must be (smallest, largest), both positive."
            )
        self.scale_range = (float(scale_range[0]), float(scale_range[1]))

    def __call__(self, frame: LidarFrame, rng: np.random.Generator) -> LidarFrame:
        """The scaled frame."""
        factor = np.float32(rng.uniform(*self.scale_range))
        points = frame.cloud.points.copy()
        points[:, :3] *= factor
        boxes = frame.boxes
        if boxes is not None:
            scaled = boxes.boxes.copy()
            scaled[:, :6] *= factor
            boxes = Boxes3D(scaled, boxes.names)
        cloud = PointCloud(points, frame.cloud.channels)
        return replace(frame, cloud=cloud, boxes=boxes, calibration=None, road_plane=None)
