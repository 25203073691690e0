"""One small model of every family of the zoo with a labelled batch, for tests that go through a training step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch

from adperception.models.base import TrainableModel
from adperception.models.detectors.centerpoint import CenterPoint
from adperception.models.detectors.pv_rcnn import PVRCNN
from adperception.models.detectors.second import SECOND
from adperception.models.pretrain.ad_l_jepa import ADLJEPA
from adperception.models.pretrain.bev_mae import BEVMAE
from adperception.models.pretrain.occupancy_mae import OccupancyMAE
from adperception.models.radar.erase_net import ERASENet
from adperception.models.radar.mv_net import MVNet
from adperception.models.radar.pkcin_net import PKCInNet
from adperception.models.radar.tmva_net import TMVANet
from adperception.structures import Boxes3D, LidarFrame, PointCloud, RadarGrid
from tests.models.radar.cube_frames import GRID as CUBE_GRID
from tests.models.radar.cube_frames import cube_frame
from tests.models.radar.view_frames import view_frames

__all__ = ["MODELS", "Step"]

RANGE, SIZE = [0.0, -12.8, -3.0, 25.6, 12.8, 1.0], [0.1, 0.1, 0.1]
BOXES = np.array(
    [
        [4.0, -2.0, -1.0, 4.0, 1.7, 1.5, 0.2],
        [9.0, 3.0, -1.0, 3.8, 1.6, 1.5, -1.9],
        [18.0, -8.0, -1.0, 4.1, 1.7, 1.5, 1.4],
        [6.5, 2.5, -0.8, 0.8, 0.7, 1.7, 2.6],
        [12.5, 9.5, -0.8, 0.8, 0.6, 1.7, 0.6],
    ],
    dtype=np.float32,
)
NAMES = ("Car", "Car", "Car", "Pedestrian", "Pedestrian")
CLASSES: list[dict[str, Any]] = [
    dict(name="Car", size=[3.9, 1.6, 1.56], bottom=-1.78, matched_iou=0.6, unmatched_iou=0.45),
    dict(name="Pedestrian", size=[0.8, 0.6, 1.73], bottom=-0.6, matched_iou=0.5, unmatched_iou=0.35),
]
MAP = dict(bev_layers=[1, 1], bev_filters=[32, 32], bev_upsample_filters=[32, 32])
RADAR_GRID = RadarGrid(32, 32, 8)


class Step(NamedTuple):
    """What a training step is made of.

    Attributes:
        model: in training mode.
        batch: labelled frames.
    """

    model: TrainableModel
    batch: Any


def lidar_frames() -> list[LidarFrame]:
    """Three scans of a ground plane with boxes on it, of all, of two and of none of the objects."""
    frames = []
    for index, objects in enumerate((range(5), (1, 3), ())):
        rng = np.random.default_rng(index)
        ground = rng.uniform([0, -12.8, -1.8, 0.1], [25.6, 12.8, -1.7, 0.3], size=(3000, 4))
        clouds = [ground]
        for x, y, z, length, width, height, yaw in BOXES[list(objects)]:
            local = rng.uniform(-0.5, 0.5, size=(300, 3))
            local[np.arange(300), rng.integers(0, 3, 300)] = rng.choice([-0.5, 0.5], 300)
            local *= [length, width, height]
            turned_x = local[:, 0] * np.cos(yaw) - local[:, 1] * np.sin(yaw)
            turned_y = local[:, 0] * np.sin(yaw) + local[:, 1] * np.cos(yaw)
            shine = 0.4 + 0.5 * (local[:, 0] > 0)
            clouds.append(np.column_stack([turned_x + x, turned_y + y, local[:, 2] + z, shine]))
        labels = Boxes3D(BOXES[list(objects)].reshape(-1, 7), tuple(NAMES[k] for k in objects))
        frames.append(LidarFrame(f"{index}", PointCloud(np.concatenate(clouds).astype(np.float32)), labels))
    return frames


def _lidar(kind: Callable[..., TrainableModel], **options: Any) -> Callable[[], Step]:
    def build() -> Step:
        torch.manual_seed(0)
        model = kind(point_cloud_range=RANGE, voxel_size=SIZE, in_channels=4, **options)
        return Step(model.train(), model.collate(training=True)(lidar_frames()))

    return build


def _radar(kind: Callable[..., TrainableModel], moments: int, **options: Any) -> Callable[[], Step]:
    def build() -> Step:
        torch.manual_seed(0)
        model = kind(normalization="carrada_tvt", class_weights="carrada", **options)
        frames = view_frames(3, moments, RADAR_GRID)
        return Step(model.train(), model.collate(training=True)(frames))

    return build


def _erase_net() -> Step:
    torch.manual_seed(0)
    frames = [cube_frame([(10, 8, 4, 1), (22, 20, 14, 3)], 0), cube_frame([(6, 25, 10, 2)], 1), cube_frame([], 2)]
    model = ERASENet(cube_shape=CUBE_GRID.shape, moments=2, phases=[0.0, 0.0, 1.0])
    model.before_training(frames)
    return Step(model.train(), model.collate(training=True)(frames))


MODELS: dict[str, Callable[[], Step]] = {
    "ad_l_jepa": _lidar(ADLJEPA),
    "occupancy_mae": _lidar(OccupancyMAE),
    "bev_mae": _lidar(BEVMAE),
    "second": _lidar(SECOND, classes=CLASSES, **MAP),
    "centerpoint": _lidar(CenterPoint, classes=["Car", "Pedestrian"], **MAP),
    "pv_rcnn": _lidar(PVRCNN, classes=CLASSES, keypoints=128, rois_per_frame=32, roi_grid_size=2, **MAP),
    "tmva_net": _radar(TMVANet, 5),
    "mv_net": _radar(MVNet, 3),
    "pkcin_net": _radar(PKCInNet, 5),
    "erase_net": _erase_net,
}
