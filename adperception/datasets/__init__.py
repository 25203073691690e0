"""Datasets: one class, one file, the same methods."""

from adperception.datasets.base import LidarDataset, Transform
from adperception.datasets.folder import Folder
from adperception.datasets.kitti import KITTI
from adperception.datasets.once import ONCE
from adperception.datasets.waymo import Waymo

__all__ = ["KITTI", "ONCE", "Folder", "LidarDataset", "Transform", "Waymo"]
