"""Cutting a frame to a range."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from adperception.geometry import in_range
from adperception.registry import TRANSFORMS
from adperception.structures import LidarFrame

__all__ = ["RangeCrop"]


@TRANSFORMS.register_module()
class RangeCrop:
    """Keeps the points in a range (minimum <= p < maximum) and the boxes with at least one corner in it.

    Args:
        point_cloud_range: ``(x_min, y_min, z_min, x_max, y_max, z_max)`` in metres.
    """

    def __init__(self, point_cloud_range: Sequence[float]) -> None:
        limits = tuple(float(v) for v in point_cloud_range)
        if len(limits) != 6 or any(low >= high for low, high in zip(limits[:3], limits[3:], strict=True)):
            raise ValueError(
                f"RangeCrop: point_cloud_range={limits} must be (x_min, y_min, z_min, x_max, y_max, z_max) in metres, "
                "each minimum below its maximum."
            )
        self.point_cloud_range = limits

    def __call__(self, frame: LidarFrame, rng: np.random.Generator) -> LidarFrame:
        """The cut frame; nothing is drawn."""
        boxes = frame.boxes
        if boxes is not None:
            corners = boxes.corners()
            inside = in_range(corners.reshape(-1, 3), self.point_cloud_range).reshape(-1, 8)
            boxes = boxes.select(np.flatnonzero(inside.any(axis=1)))
        return replace(frame, cloud=frame.cloud.select(in_range(frame.cloud.xyz, self.point_cloud_range)), boxes=boxes)
