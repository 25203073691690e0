"""Datasets: one class, one file, the same methods."""

from adperception.datasets.argoverse2 import Argoverse2
from adperception.datasets.base import LidarDataset, Transform
from adperception.datasets.folder import Folder
from adperception.datasets.kitti import KITTI

__all__ = ["KITTI", "Argoverse2", "Folder", "LidarDataset", "Transform"]
