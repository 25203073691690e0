"""Frames that fit any model of the zoo, small ones: what the tests of the whole zoo feed it with."""

from __future__ import annotations

from typing import Any

import numpy as np

from adperception.models.base import TrainableModel
from adperception.models.radar.base import RadarModel
from adperception.registry import MODELS
from adperception.structures import (
    Boxes3D,
    LidarFrame,
    PointCloud,
    RadarFrame,
    RadarGrid,
    RadarMasks,
    RadarObjects,
    RadarViews,
)

__all__ = ["is_radar", "quick_options", "zoo_frames"]

CHANNELS = ("x", "y", "z", "intensity", "elongation")
CUBE = (64, 64, 16)


def is_radar(options: dict[str, Any]) -> bool:
    """Whether a config's model section is a radar model's."""
    return issubclass(MODELS.find(options), RadarModel)


def quick_options(options: dict[str, Any]) -> dict[str, Any]:
    """Options that make a model quick and leave its weights' shapes alone."""
    if "cube_shape" in options:
        return {"cube_shape": CUBE, "window": {"rows": 12, "dopplers": 16, "azimuth_gate": 8, "doppler_gate": 2}}
    if is_radar(options):
        return {}
    fewer = {"rois_per_frame": 16} if "rois_per_frame" in options else {}
    return {"point_cloud_range": _cropped_range(options), **fewer}


def zoo_frames(options: dict[str, Any], model: TrainableModel) -> list[Any]:
    """Two labelled frames, after which ``model`` knows its statistics."""
    if not is_radar(options):
        return [_lidar_frame(options, index) for index in range(2)]
    made = [_radar_frame(options, index) for index in range(2)]
    model.before_training(iter(made))
    return made


def _cropped_range(options: dict[str, Any]) -> list[float]:
    """Full width and depth, but only 64 voxels along x and y, in the middle of the model's range."""
    low, high, size = options["point_cloud_range"][:3], options["point_cloud_range"][3:], options["voxel_size"]
    y = (low[1] + high[1]) / 2
    return [low[0], y - 32 * size[1], low[2], low[0] + 64 * size[0], y + 32 * size[1], high[2]]


def _lidar_frame(options: dict[str, Any], index: int) -> LidarFrame:
    box, channels = np.array(_cropped_range(options)), options["in_channels"]
    rng = np.random.default_rng(index)
    points = rng.uniform(size=(400, channels))
    points[:, :3] = box[:3] + rng.uniform(size=(400, 3)) * (box[3:] - box[:3]) * [0.7, 0.7, 1]
    cloud = PointCloud(points.astype(np.float32), CHANNELS[:channels])
    return LidarFrame(str(index), cloud, _boxes(options, box, rng))


def _boxes(options: dict[str, Any], box: np.ndarray, rng: np.random.Generator) -> Boxes3D | None:
    """An object of every class that the model knows, and one that it does not; none for models without classes."""
    if "classes" not in options:
        return None
    names = [c if isinstance(c, str) else c["name"] for c in options["classes"]]
    boxes = rng.uniform(0.5, 3.0, size=(len(names) + 1, 7))
    boxes[:, :3] = box[:3] + rng.uniform(0.2, 0.8, size=(len(boxes), 3)) * (box[3:] - box[:3])
    return Boxes3D(boxes.astype(np.float32), (*names, "Unknown"))


def _radar_frame(options: dict[str, Any], index: int) -> RadarFrame:
    """Exponential noise with one labelled object; five moments, cubes and views."""
    rng = np.random.default_rng(index)
    rows, azimuths, dopplers = CUBE
    cubes = rng.exponential(30.0, size=(5, *CUBE)).astype(np.float32)
    row, azimuth, doppler = (int(rng.integers(3, size - 3)) for size in CUBE)
    class_id = index % len(options["classes"]) + 1
    cubes[:, row, azimuth, doppler] = 5000.0
    doppler_mask = np.zeros((rows, dopplers), dtype=np.uint8)
    angle_mask = np.zeros((rows, azimuths), dtype=np.uint8)
    angle_mask[row - 2 : row + 3, azimuth - 2 : azimuth + 3] = class_id
    doppler_mask[rows - row - 2 : rows - row + 3, doppler - 2 : doppler + 3] = class_id
    objects = RadarObjects(
        np.array([[row, azimuth, doppler]], dtype=np.float32),
        np.full((1, 3), 5.0, dtype=np.float32),
        np.array([class_id]),
        np.ones(1, dtype=np.float32),
    )
    views, masks = RadarViews.processed(cubes), RadarMasks(doppler_mask, angle_mask)
    return RadarFrame(f"s/{index:06d}", RadarGrid(*CUBE), cubes, views, masks, objects)
