"""Random mirroring of a frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from adperception.datasets.formats.kitti_boxes import wrap_angle
from adperception.registry import TRANSFORMS
from adperception.structures import Boxes3D, LidarFrame, PointCloud

__all__ = ["RandomWorldFlip"]


@TRANSFORMS.register_module()
class RandomWorldFlip:
    """Mirrors points and boxes, each axis with its own coin.

    Mirroring about the x axis turns y into -y and yaw into -yaw; about the y axis, x into -x and yaw into pi - yaw.
    Calibration and road plane describe the recorded scene; they are dropped.

    Args:
        axes: ``"x"``, ``"y"`` or both, in the order of the draws.
        probability: of each flip.
    """

    def __init__(self, axes: Sequence[str] = ("x",), probability: float = 0.5) -> None:
        if not set(axes) <= {"x", "y"} or len(set(axes)) != len(axes):
            raise ValueError(f'RandomWorldFlip: axes={list(axes)} may hold "x" and "y", each once.')
        if not 0 <= probability <= 1:
            raise ValueError(f"RandomWorldFlip: probability={probability} must lie in 0..1.")
        self.axes = tuple(axes)
        self.probability = probability

    def __call__(self, frame: LidarFrame, rng: np.random.Generator) -> LidarFrame:
        """The mirrored (or unchanged) frame."""
        flipped = [axis for axis in self.axes if rng.random() < self.probability]
        if not flipped:
            return frame
        points = frame.cloud.points.copy()
        boxes = None if frame.boxes is None else frame.boxes.boxes.copy()
        for axis in flipped:
            column = 1 if axis == "x" else 0
            points[:, column] *= -1
            if boxes is not None:
                boxes[:, column] *= -1
                boxes[:, 6] = wrap_angle(-boxes[:, 6] if axis == "x" else np.pi - boxes[:, 6])
        return replace(
            frame,
            cloud=PointCloud(points, frame.cloud.channels),
            boxes=None if boxes is None or frame.boxes is None else Boxes3D(boxes, frame.boxes.names),
            calibration=None,
            road_plane=None,
        )
