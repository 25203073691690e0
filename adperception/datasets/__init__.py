"""Datasets: one class, one file, the same methods."""

from adperception.datasets.argoverse2 import Argoverse2
from adperception.datasets.base import LidarDataset, Transform
from adperception.datasets.carrada import CARRADA
from adperception.datasets.folder import Folder
from adperception.datasets.kitti import KITTI
from adperception.datasets.once import ONCE
from adperception.datasets.radar_folder import RadarFolder
from adperception.datasets.raddet import RADDet
from adperception.datasets.waymo import Waymo

__all__ = [
    "CARRADA",
    "KITTI",
    "ONCE",
    "Argoverse2",
    "Folder",
    "LidarDataset",
    "RADDet",
    "RadarFolder",
    "Transform",
    "Waymo",
]
