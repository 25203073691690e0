"""SECOND: a sparse 3D encoder, a 2D network on its bird's-eye-view map, and anchors.

Yan et al., "SECOND: Sparsely Embedded Convolutional Detection", Sensors 2018, in the form that OpenPCDet gave it: all
classes share one head. Module names are OpenPCDet's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from adperception.losses.full_precision import in_full_precision
from adperception.models.backbones.level_plan import read_sizes
from adperception.models.base import Losses
from adperception.models.detectors.voxel_detector import VoxelDetector
from adperception.models.heads.anchor_head import AnchorHead, AnchorOutputs
from adperception.models.heads.anchors import parse_anchor_classes
from adperception.models.heads.box_coder import DIRECTION_OFFSET
from adperception.models.heads.labelled_boxes import LabelledBoxes, labelled_boxes
from adperception.models.heads.scored_boxes import ScoredBoxes, Suppression
from adperception.registry import MODELS
from adperception.sparse import PlannedSites
from adperception.structures import LidarBatch, Voxels

__all__ = ["SECOND"]


@MODELS.register_module()
class SECOND(VoxelDetector):
    """SECOND.

    Args:
        point_cloud_range: ``(x_min, y_min, z_min, x_max, y_max, z_max)`` in metres.
        voxel_size: ``(x, y, z)`` in metres.
        classes: per class a section ``name``, ``size`` (length, width, height in metres), ``bottom`` (z of the
            anchor's underside in metres), ``matched_iou``, ``unmatched_iou``; see ``AnchorClass``.
        in_channels: channels per point (4: x, y, z, intensity; 5 with Waymo's elongation).
        max_points_per_voxel: points averaged per voxel, the first ones; ``None`` averages all.
        max_voxels_train: voxels kept per frame in training, the first ones.
        max_voxels_test: likewise in evaluation.
        bev_layers: layers of each block of the 2D network after its first.
        bev_filters: channels of each block.
        bev_upsample_filters: channels of each block in the stacked output.
        score_threshold: boxes with a lower score are not given.
        nms_iou: of two boxes that overlap by more than this, seen from above, the better is given.
        nms_pre_max: boxes that are compared, the best ones.
        nms_post_max: boxes that are given at most.
        direction_offset: where the first of the two direction bins begins, radians. Weights make sense only with the
            one that they were trained with: by default 0.78539 in OpenPCDet, -pi/2 in mmdetection3d.
        backbone: ``"VoxelBackBone8x"``, which pre-training trains, or ``"VoxelResBackBone8x"`` with residual blocks.
    """

    def __init__(
        self,
        point_cloud_range: Sequence[float],
        voxel_size: Sequence[float],
        classes: Sequence[Mapping[str, Any]],
        in_channels: int = 4,
        max_points_per_voxel: int | None = 5,
        max_voxels_train: int = 16_000,
        max_voxels_test: int = 40_000,
        bev_layers: Sequence[int] = (5, 5),
        bev_filters: Sequence[int] = (128, 256),
        bev_upsample_filters: Sequence[int] = (256, 256),
        score_threshold: float = 0.1,
        nms_iou: float = 0.01,
        nms_pre_max: int = 4096,
        nms_post_max: int = 500,
        direction_offset: float = DIRECTION_OFFSET,
        backbone: str = "VoxelBackBone8x",
    ) -> None:
        anchor_classes = parse_anchor_classes(type(self).__name__, classes)
        super().__init__(
            point_cloud_range,
            voxel_size,
            [c.name for c in anchor_classes],
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
        self.dense_head = AnchorHead(
            self.backbone_2d.out_channels, anchor_classes, self.grid, self.backbone_3d.bev_shape, direction_offset
        )

    @property
    def direction_offset(self) -> float:
        """Where the first of the two direction bins begins, radians."""
        return self.dense_head.direction_offset

    def forward(self, batch: LidarBatch, generator: torch.Generator | None = None) -> Losses:
        """The losses of one labelled batch; nothing is drawn."""
        frames = labelled_boxes(batch, self.class_names, self.grid)
        pending = self.dense_head.pending_targets(frames)
        (count,), planned = read_sizes(self.backbone_3d, batch.voxels, pending.count[None])
        outputs = self.head_outputs(batch.voxels, planned)
        return Losses.sum_of(self.dense_head.losses(outputs, pending.known(count)))

    def head_outputs(self, voxels: Voxels, planned: Mapping[str, PlannedSites] | None = None) -> AnchorOutputs:
        """What the head says about every anchor."""
        return self.dense_head(self.bev_features(voxels, planned))  # type: ignore[no-any-return]

    def losses(self, outputs: AnchorOutputs, frames: Sequence[LabelledBoxes]) -> Losses:
        """The losses of given outputs, given each frame's objects."""
        return Losses.sum_of(self.dense_head.losses(outputs, self.dense_head.targets(frames)))

    def detect(self, voxels: Voxels) -> list[ScoredBoxes]:
        """The objects of each frame, best first."""
        outputs = self.head_outputs(voxels)
        boxes = self.dense_head.decode(outputs)
        scores, labels = in_full_precision(outputs.classes).sigmoid().max(dim=-1)
        return [self.suppression(ScoredBoxes(*one)) for one in zip(boxes, scores, labels, strict=True)]
