"""CenterPoint: a sparse 3D encoder, a 2D network on its bird's-eye-view map, and objects as points of a heat map.

Yin et al., "Center-based 3D Object Detection and Tracking", CVPR 2021: its first stage without velocities. By default
in the form that OpenPCDet calls "without ResNet", whose encoder is the same as SECOND's. Module names are OpenPCDet's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from adperception.models.backbones.level_plan import read_sizes
from adperception.models.base import Losses
from adperception.models.detectors.voxel_detector import VoxelDetector
from adperception.models.heads.center_head import CenterHead, CenterOutputs
from adperception.models.heads.labelled_boxes import LabelledBoxes, labelled_boxes
from adperception.models.heads.scored_boxes import ScoredBoxes, Suppression
from adperception.registry import MODELS
from adperception.sparse import PlannedSites
from adperception.structures import LidarBatch, Voxels

__all__ = ["CenterPoint"]


@MODELS.register_module()
class CenterPoint(VoxelDetector):
    """CenterPoint, one stage, one group of classes.

    Args:
        point_cloud_range: ``(x_min, y_min, z_min, x_max, y_max, z_max)`` in metres.
        voxel_size: ``(x, y, z)`` in metres.
        classes: names of the classes.
        in_channels: channels per point (4: x, y, z, intensity; 5 with Waymo's elongation).
        max_points_per_voxel: points averaged per voxel, the first ones; ``None`` averages all.
        max_voxels_train: voxels kept per frame in training, the first ones.
        max_voxels_test: likewise in evaluation.
        bev_layers: layers of each block of the 2D network after its first.
        bev_filters: channels of each block.
        bev_upsample_filters: channels of each block in the stacked output.
        top_k: cells made into boxes per frame, those with the highest scores of any class.
        score_threshold: boxes with a lower score are not given.
        nms_iou: of two boxes that overlap by more than this, seen from above, the better is given.
        nms_pre_max: boxes that are compared, the best ones.
        nms_post_max: boxes that are given at most.
        backbone: ``"VoxelBackBone8x"``, which pre-training trains, or ``"VoxelResBackBone8x"`` with residual blocks.
    """

    def __init__(
        self,
        point_cloud_range: Sequence[float],
        voxel_size: Sequence[float],
        classes: Sequence[str],
        in_channels: int = 5,
        max_points_per_voxel: int | None = 5,
        max_voxels_train: int = 150_000,
        max_voxels_test: int = 150_000,
        bev_layers: Sequence[int] = (5, 5),
        bev_filters: Sequence[int] = (128, 256),
        bev_upsample_filters: Sequence[int] = (256, 256),
        top_k: int = 500,
        score_threshold: float = 0.1,
        nms_iou: float = 0.7,
        nms_pre_max: int = 4096,
        nms_post_max: int = 500,
        backbone: str = "VoxelBackBone8x",
    ) -> None:
        if not classes or not all(isinstance(c, str) for c in classes) or len(set(classes)) < len(classes):
            raise ValueError(f"CenterPoint: classes={list(classes)} must be one or more different names.")
        if top_k < 1:
            raise ValueError(f"CenterPoint: top_k={top_k} must be at least 1.")
        super().__init__(
            point_cloud_range,
            voxel_size,
            classes,
            in_channels,
            max_points_per_voxel,
            max_voxels_train,
            max_voxels_test,
            bev_layers,
            bev_filters,
            bev_upsample_filters,
            backbone,
        )
        self.suppression = Suppression(score_threshold, nms_iou, nms_pre_max, nms_post_max)
        self.dense_head = CenterHead(
            self.backbone_2d.out_channels, len(classes), self.grid, self.backbone_3d.bev_shape, top_k=top_k
        )

    def forward(self, batch: LidarBatch, generator: torch.Generator | None = None) -> Losses:
        """The losses of one labelled batch; nothing is drawn."""
        frames = labelled_boxes(batch, self.class_names, self.grid)
        pending = self.dense_head.pending_targets(frames)
        (reach,), planned = read_sizes(self.backbone_3d, batch.voxels, pending.reach[None])
        outputs = self.head_outputs(batch.voxels, planned)
        return Losses.sum_of(self.dense_head.losses(outputs, pending.known(reach)))

    def head_outputs(self, voxels: Voxels, planned: Mapping[str, PlannedSites] | None = None) -> CenterOutputs:
        """What the head says about every cell."""
        return self.dense_head(self.bev_features(voxels, planned))  # type: ignore[no-any-return]

    def losses(self, outputs: CenterOutputs, frames: Sequence[LabelledBoxes]) -> Losses:
        """The losses of given outputs, given each frame's objects."""
        return Losses.sum_of(self.dense_head.losses(outputs, self.dense_head.targets(frames)))

    def detect(self, voxels: Voxels) -> list[ScoredBoxes]:
        """The objects of each frame, best first."""
        return [self.suppression(found) for found in self.dense_head.decode(self.head_outputs(voxels))]
