"""Transforms of LiDAR and radar frames: one class, one file. All chance comes from the generator that is passed in.

The order that OpenPCDet's training has for LiDAR: ground-truth sampling, flip, rotation, scaling, range crop, shuffle.
"""

from adperception.datasets.transforms.ground_truth_sampling import GroundTruthSampling
from adperception.datasets.transforms.mvrss_flip import MVRSSFlip
from adperception.datasets.transforms.point_shuffle import PointShuffle
from adperception.datasets.transforms.radar_mirror import RadarMirror
from adperception.datasets.transforms.random_world_flip import RandomWorldFlip
from adperception.datasets.transforms.random_world_rotation import RandomWorldRotation
from adperception.datasets.transforms.random_world_scaling import RandomWorldScaling
from adperception.datasets.transforms.range_crop import RangeCrop

__all__ = [
    "GroundTruthSampling",
    "MVRSSFlip",
    "PointShuffle",
    "RadarMirror",
    "RandomWorldFlip",
    "RandomWorldRotation",
    "RandomWorldScaling",
    "RangeCrop",
]
