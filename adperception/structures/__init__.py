"""Typed values that travel through the package: units, frame and shape are in their docstrings."""

from adperception.structures.boxes3d import Boxes3D
from adperception.structures.calibration import KittiCalibration
from adperception.structures.detections import Detections
from adperception.structures.lidar_batch import LidarBatch, Voxels
from adperception.structures.lidar_frame import LidarFrame
from adperception.structures.point_cloud import XYZI, PointCloud
from adperception.structures.voxel_grid import VoxelGrid

__all__ = [
    "XYZI",
    "Boxes3D",
    "Detections",
    "KittiCalibration",
    "LidarBatch",
    "LidarFrame",
    "PointCloud",
    "VoxelGrid",
    "Voxels",
]
