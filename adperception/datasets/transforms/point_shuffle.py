"""Random order of points."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from adperception.registry import TRANSFORMS
from adperception.structures import LidarFrame

__all__ = ["PointShuffle"]


@TRANSFORMS.register_module()
class PointShuffle:
    """Permutes the points, so that the caps of hard voxelization drop random points instead of the last laser's."""

    def __call__(self, frame: LidarFrame, rng: np.random.Generator) -> LidarFrame:
        """The frame with its points in random order."""
        return replace(frame, cloud=frame.cloud.select(rng.permutation(len(frame.cloud))))
