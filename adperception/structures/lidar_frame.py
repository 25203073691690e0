"""One labelled or unlabelled LiDAR frame: what a dataset yields and what transforms work on."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from adperception.structures.boxes3d import Boxes3D
from adperception.structures.calibration import KittiCalibration
from adperception.structures.point_cloud import PointCloud

__all__ = ["LidarFrame"]


@dataclass(frozen=True)
class LidarFrame:
    """A sweep with what is known about it.

    Attributes:
        frame_id: name of the frame, unique within its dataset (``"000008"``).
        cloud: the points.
        boxes: labelled objects in the LiDAR frame; ``None`` for an unlabelled frame (not the same as no objects).
        calibration: LiDAR-camera calibration where the dataset has one.
        image_size: ``(height, width)`` in pixels of the camera image where known.
        road_plane: ``(4,)`` a, b, c, d of the road a x + b y + c z + d = 0 in the LiDAR frame (metres, unit normal
            pointing up) where known.
        notes: what a transform or reader wants to say about this frame (e.g. NaN points that were dropped).
    """

    frame_id: str
    cloud: PointCloud
    boxes: Boxes3D | None = None
    calibration: KittiCalibration | None = None
    image_size: tuple[int, int] | None = None
    road_plane: NDArray[np.float64] | None = None
    notes: tuple[str, ...] = field(default=())
