"""What SECOND, CenterPoint and their like have in common: voxels to a bird's-eye-view map, boxes to detections."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from adperception.geometry.voxelization import VoxelCollate, Voxelizer
from adperception.models.backbones.base_bev_backbone import BaseBEVBackbone
from adperception.models.backbones.voxel_backbone_8x import BEV_STRIDE, VoxelBackBone8x
from adperception.models.backbones.voxel_res_backbone_8x import VoxelResBackBone8x
from adperception.models.base import DetectionModel
from adperception.models.heads.scored_boxes import ScoredBoxes
from adperception.sparse import PlannedSites
from adperception.structures import Detections, LidarBatch, VoxelGrid, Voxels

__all__ = ["BACKBONES", "VoxelDetector", "in_dense_layout"]

BACKBONES: Mapping[str, type[VoxelBackBone8x]] = {
    "VoxelBackBone8x": VoxelBackBone8x,
    "VoxelResBackBone8x": VoxelResBackBone8x,
}
"""3D encoders by the name that configs use."""


class VoxelDetector(DetectionModel):
    """Base of detectors that look at a bird's-eye-view map of a sparse 3D encoder.

    Args:
        point_cloud_range: ``(x_min, y_min, z_min, x_max, y_max, z_max)`` in metres.
        voxel_size: ``(x, y, z)`` in metres.
        class_names: the classes to find.
        in_channels: channels per point.
        max_points_per_voxel: points averaged per voxel, the first ones; ``None`` averages all.
        max_voxels_train: voxels kept per frame in training, the first ones.
        max_voxels_test: likewise in evaluation.
        bev_layers: layers of each block of ``backbone_2d`` after its first.
        bev_filters: channels of each block.
        bev_upsample_filters: channels of each block in the stacked output.
        backbone: ``"VoxelBackBone8x"`` or ``"VoxelResBackBone8x"``: which 3D encoder.

    Attributes:
        grid: the voxel grid.
        class_names: the classes, in the order of the outputs.
        backbone_3d: voxels to a map ``(B, 256, H, W)``; takes the weights of a pre-trained encoder.
        backbone_2d: that map to ``(B, C, H, W)``.

    Raises:
        ValueError: if an option is impossible or the grid does not fit the backbones.
    """

    COMPILED: ClassVar[tuple[str, ...]] = ("backbone_2d",)

    def __init__(
        self,
        point_cloud_range: Sequence[float],
        voxel_size: Sequence[float],
        class_names: Sequence[str],
        in_channels: int,
        max_points_per_voxel: int | None,
        max_voxels_train: int,
        max_voxels_test: int,
        bev_layers: Sequence[int],
        bev_filters: Sequence[int],
        bev_upsample_filters: Sequence[int],
        backbone: str = "VoxelBackBone8x",
    ) -> None:
        super().__init__()
        self.grid = VoxelGrid.create(point_cloud_range, voxel_size)
        self.class_names = tuple(class_names)
        self.in_channels = in_channels
        self.max_points_per_voxel = max_points_per_voxel
        self.max_voxels_train, self.max_voxels_test = max_voxels_train, max_voxels_test
        if backbone not in BACKBONES:
            raise ValueError(
                f'{type(self).__name__}: backbone="{backbone}" is unknown. Available: {", ".join(BACKBONES)}.'
            )
        self.backbone_3d = BACKBONES[backbone](in_channels, self.grid)
        self.backbone_2d = BaseBEVBackbone(self.backbone_3d.bev_channels, bev_layers, bev_filters, bev_upsample_filters)
        for axis, cells in zip("yx", self.backbone_3d.bev_shape, strict=True):
            if cells % self.backbone_2d.stride:
                step = BEV_STRIDE * self.backbone_2d.stride
                raise ValueError(
                    f"{type(self).__name__}: {cells * BEV_STRIDE} voxels along {axis} are not a multiple of {step}, "
                    f"which {len(bev_filters)} blocks of backbone_2d need. Change point_cloud_range along {axis}."
                )

    def bev_features(self, voxels: Voxels, planned: Mapping[str, PlannedSites] | None = None) -> Tensor:
        """``(B, C, H, W)`` the map that the head looks at; ``planned`` as for the encoder."""
        return self.backbone_2d(in_dense_layout(self.backbone_3d(voxels, planned)))  # type: ignore[no-any-return]

    @abstractmethod
    def detect(self, voxels: Voxels) -> list[ScoredBoxes]:
        """The objects of each frame as tensors, best first."""

    @torch.no_grad()
    def predict(self, batch: LidarBatch) -> list[Detections]:
        """The objects found in each frame, best first; none in a frame without a voxel."""
        return self.to_detections(self.detect(batch.voxels), batch.voxels)

    def to_detections(self, found: Sequence[ScoredBoxes], voxels: Voxels) -> list[Detections]:
        """Each frame's boxes with class names, on the CPU; none where the frame has no voxel."""
        occupied = torch.bincount(voxels.coordinates[:, 0].long(), minlength=voxels.batch_size).tolist()
        return [
            boxes.to_detections(self.class_names) if count else Detections.empty()
            for boxes, count in zip(found, occupied, strict=True)
        ]

    def collate(self, training: bool) -> VoxelCollate:
        """Frames to a voxelised batch, with the voxel limit of training or of evaluation."""
        limit = self.max_voxels_train if training else self.max_voxels_test
        return VoxelCollate(Voxelizer(self.grid, self.max_points_per_voxel, limit), self.in_channels)


def in_dense_layout(bev: Tensor) -> Tensor:
    """The encoder's map in the memory order that ``backbone_2d`` should get: plain on a CPU, channels-last elsewhere.

    The map is channels-last. Batch normalisation on CPUs adds up such maps with errors fifty times as large as of plain
    ones (7e-5 of the output of ``backbone_2d`` instead of 1.5e-6), and the speed is about the same.
    """
    return bev.contiguous() if bev.device.type == "cpu" else bev
