"""PV-RCNN: SECOND's boxes as proposals, refined with features of keypoints.

Shi et al., "PV-RCNN: Point-Voxel Feature Set Abstraction for 3D Object Detection", CVPR 2020. The first stage is
SECOND. Keypoints, spread over the scene, gather features from points, 3D encoder and map; a small network says which
of them lie on objects; a second stage looks at the keypoints around every proposal and gives it a box and a score.
Module names are OpenPCDet's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch

from adperception.geometry.nms import rotated_nms
from adperception.losses.full_precision import full_precision, in_full_precision
from adperception.models.backbones.level_plan import read_sizes
from adperception.models.base import Losses
from adperception.models.detectors.second import SECOND
from adperception.models.detectors.voxel_detector import in_dense_layout
from adperception.models.heads.anchor_head import AnchorOutputs
from adperception.models.heads.box_coder import DIRECTION_OFFSET
from adperception.models.heads.labelled_boxes import labelled_boxes
from adperception.models.heads.point_head import PointHead
from adperception.models.heads.roi_head import RoIHead, decode_rois
from adperception.models.heads.roi_targets import sample_rois
from adperception.models.heads.scored_boxes import ScoredBoxes
from adperception.models.point_modules.set_abstraction import FeaturePoints
from adperception.models.point_modules.voxel_set_abstraction import Keypoints, VoxelSetAbstraction
from adperception.registry import MODELS
from adperception.sparse import PlannedSites
from adperception.structures import Detections, LidarBatch

__all__ = ["PVRCNN"]


class ProposalLimits(NamedTuple):
    """How many boxes of the first stage become proposals.

    Attributes:
        pre_max: boxes that are compared, the best ones.
        post_max: proposals at most.
        nms_iou: of two boxes that overlap by more than this, seen from above, the better becomes one.
    """

    pre_max: int
    post_max: int
    nms_iou: float


TRAINING = ProposalLimits(pre_max=9000, post_max=512, nms_iou=0.8)
PREDICTION = ProposalLimits(pre_max=1024, post_max=100, nms_iou=0.7)


class FirstStage(NamedTuple):
    """What is known before the proposals are refined.

    Attributes:
        anchors: outputs of the first stage.
        keypoints: the keypoints.
        logits: ``(K,)`` of keypoints being on objects.
    """

    anchors: AnchorOutputs
    keypoints: Keypoints
    logits: torch.Tensor


@MODELS.register_module()
class PVRCNN(SECOND):
    """PV-RCNN.

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
        keypoints: keypoints per frame.
        rois_per_frame: proposals that the second stage learns from in each frame.
        roi_grid_size: places along each axis of a proposal where the second stage looks.
        dropout: rate of the second stage's dropout layers.
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
        keypoints: int = 2048,
        rois_per_frame: int = 128,
        roi_grid_size: int = 6,
        dropout: float = 0.3,
        score_threshold: float = 0.1,
        nms_iou: float = 0.1,
        nms_pre_max: int = 4096,
        nms_post_max: int = 500,
        direction_offset: float = DIRECTION_OFFSET,
        backbone: str = "VoxelBackBone8x",
    ) -> None:
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
            score_threshold,
            nms_iou,
            nms_pre_max,
            nms_post_max,
            direction_offset,
            backbone,
        )
        if rois_per_frame < 1:
            raise ValueError(f"PVRCNN: rois_per_frame={rois_per_frame} must be at least 1.")
        self.rois_per_frame = rois_per_frame
        self.pfe = VoxelSetAbstraction(
            in_channels,
            self.grid,
            self.backbone_3d.bev_channels,
            keypoints,
            stage_channels=self.backbone_3d.stage_channels,
        )
        self.point_head = PointHead(self.pfe.gathered_channels)
        self.roi_head = RoIHead(self.pfe.out_channels, roi_grid_size, dropout)

    def forward(self, batch: LidarBatch, generator: torch.Generator | None = None) -> Losses:
        """The losses of one labelled batch; ``generator`` draws proposals to learn from, and dropout."""
        frames = labelled_boxes(batch, self.class_names, self.grid)
        pending = self.dense_head.pending_targets(frames)
        (count,), planned = read_sizes(self.backbone_3d, batch.voxels, pending.count[None])
        stage = self.first_stage(batch, planned)
        targets = sample_rois(self.proposals(stage.anchors, TRAINING), frames, self.rois_per_frame, generator)
        outputs = self.roi_head(targets.rois, targets.frames, _weighted(stage), generator)
        terms = self.dense_head.losses(stage.anchors, pending.known(count))
        terms["loss_point"] = self.point_head.loss(stage.logits, stage.keypoints.xyz, stage.keypoints.frames, frames)
        terms |= self.roi_head.losses(outputs, targets)
        return Losses.sum_of(terms)

    def first_stage(self, batch: LidarBatch, planned: Mapping[str, PlannedSites] | None = None) -> FirstStage:
        """Everything up to the proposals; ``planned`` as for the encoder."""
        stages = self.backbone_3d.stages(batch.voxels, planned)
        anchors = self.dense_head(self.backbone_2d(in_dense_layout(stages.bev)))
        keypoints = self.pfe(batch.points, stages)
        return FirstStage(anchors, keypoints, self.point_head(keypoints.gathered))

    @torch.no_grad()
    def proposals(self, outputs: AnchorOutputs, limits: ProposalLimits) -> list[ScoredBoxes]:
        """The best boxes of the first stage in each frame, with logits as scores."""
        scores, labels = in_full_precision(outputs.classes).max(dim=-1)
        found = []
        for one in zip(self.dense_head.decode(outputs), scores, labels, strict=True):
            frame = ScoredBoxes(*one)
            # The second stage learns from these: an infinite size would make its gradients NaN.
            frame = frame.select(frame.boxes.isfinite().all(dim=-1))
            kept = rotated_nms(
                frame.boxes, frame.scores, limits.nms_iou, pre_max=limits.pre_max, post_max=limits.post_max
            )
            found.append(frame.select(kept))
        return found

    @torch.no_grad()
    def predict(self, batch: LidarBatch) -> list[Detections]:
        """The objects found in each frame, best first; none in a frame without a voxel."""
        stage = self.first_stage(batch)
        proposals = self.proposals(stage.anchors, PREDICTION)
        counts = [len(found.boxes) for found in proposals]
        rois = torch.cat([found.boxes for found in proposals])
        frames = torch.arange(len(counts), device=rois.device)
        frames = frames.repeat_interleave(torch.tensor(counts, device=rois.device))
        outputs = self.roi_head(rois, frames, _weighted(stage))
        with full_precision(rois):
            boxes = torch.split(decode_rois(in_full_precision(outputs.boxes), rois), counts)
        scores = torch.split(in_full_precision(outputs.scores).sigmoid(), counts)
        refined = [
            self.suppression(ScoredBoxes(box, score, found.labels))
            for box, score, found in zip(boxes, scores, proposals, strict=True)
        ]
        return self.to_detections(refined, batch.voxels)


def _weighted(stage: FirstStage) -> FeaturePoints:
    """The keypoints' features, each weighted with how surely it lies on an object (section 3.2 of the paper)."""
    xyz, frames, _, features = stage.keypoints
    return FeaturePoints(xyz, frames, features * stage.logits.sigmoid()[:, None])
