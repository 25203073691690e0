"""Typed values that travel through the package: units, frame and shape are in their docstrings."""

from adperception.structures.boxes3d import Boxes3D
from adperception.structures.calibration import KittiCalibration
from adperception.structures.detections import Detections
from adperception.structures.lidar_batch import LidarBatch, Voxels
from adperception.structures.lidar_frame import LidarFrame
from adperception.structures.point_cloud import XYZI, PointCloud
from adperception.structures.radar_batch import RadarBatch
from adperception.structures.radar_cube import RadarCube, RadarViews
from adperception.structures.radar_frame import RadarFrame
from adperception.structures.radar_grid import CARRADA_GRID, RadarGrid
from adperception.structures.radar_labels import (
    RadarMasks,
    RadarObjects,
    flip_label_row,
    flip_range_doppler_labels,
)
from adperception.structures.voxel_grid import VoxelGrid

__all__ = [
    "CARRADA_GRID",
    "XYZI",
    "Boxes3D",
    "Detections",
    "KittiCalibration",
    "LidarBatch",
    "LidarFrame",
    "PointCloud",
    "RadarBatch",
    "RadarCube",
    "RadarFrame",
    "RadarGrid",
    "RadarMasks",
    "RadarObjects",
    "RadarViews",
    "VoxelGrid",
    "Voxels",
    "flip_label_row",
    "flip_range_doppler_labels",
]
