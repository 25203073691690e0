"""What the pre-training methods of voxel encoders share: voxelised input, and the encoder's map of a whole cloud."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adperception.geometry.range_coverage import check_range_coverage
from adperception.geometry.voxelization import VoxelCollate, Voxelizer
from adperception.models.backbones.voxel_backbone_8x import VoxelBackBone8x
from adperception.models.base import TrainableModel
from adperception.structures import LidarFrame, PointCloud, VoxelGrid, Voxels

__all__ = ["BEV_CHANNELS", "VoxelPretraining", "select_voxels"]

BEV_CHANNELS = 256
"""Channels of the encoder's map."""


class VoxelPretraining(TrainableModel):
    """Base of the methods that pre-train a ``VoxelBackBone8x``; the first of ``ENCODERS`` is the one to be used.

    Args:
        point_cloud_range: ``(x_min, y_min, z_min, x_max, y_max, z_max)`` in metres.
        voxel_size: ``(x, y, z)`` in metres.
        in_channels: channels per point.
        max_points_per_voxel: points averaged per voxel, the first ones; ``None`` averages all.
        max_voxels_train: voxels kept per frame in training, the first ones.
        max_voxels_test: likewise in evaluation.
    """

    def __init__(
        self,
        point_cloud_range: Sequence[float],
        voxel_size: Sequence[float],
        in_channels: int,
        max_points_per_voxel: int | None,
        max_voxels_train: int,
        max_voxels_test: int,
    ) -> None:
        super().__init__()
        self.grid = VoxelGrid.create(point_cloud_range, voxel_size)
        self.in_channels = in_channels
        self.max_points_per_voxel = max_points_per_voxel
        self.max_voxels_train, self.max_voxels_test = max_voxels_train, max_voxels_test

    @property
    def online_encoder(self) -> VoxelBackBone8x:
        """The encoder that fine-tuning takes."""
        prefix = next(iter(self.ENCODERS.values()))
        return cast(VoxelBackBone8x, self.get_submodule(prefix.removesuffix(".")))

    def collate(self, training: bool) -> VoxelCollate:
        """Frames to a voxelised batch, with the voxel limit of training or of evaluation."""
        limit = self.max_voxels_train if training else self.max_voxels_test
        return VoxelCollate(Voxelizer(self.grid, self.max_points_per_voxel, limit), self.in_channels)

    @torch.no_grad()
    def encode(self, points: PointCloud | NDArray[np.float32] | Tensor) -> Tensor:
        """The bird's-eye-view map of one whole cloud, nothing hidden: what a detector starts from.

        Args:
            points: ``(N, in_channels)`` in the LiDAR frame, metres; intensity in 0..1.

        Returns:
            ``(1, 256, H, W)`` on the model's device, from the encoder in evaluation mode.

        Raises:
            ValueError: if no point lies inside the range, or the channels differ from the model's.
        """
        if isinstance(points, Tensor):
            points = points.detach().cpu().numpy()
        if not isinstance(points, PointCloud):
            channels = ("x", "y", "z", "intensity", "elongation")[: points.shape[1]]
            points = PointCloud(np.asarray(points, dtype=np.float32), channels)
        check_range_coverage([points.xyz], self.grid)
        encoder = self.online_encoder
        device = next(encoder.parameters()).device
        batch = self.collate(training=False)([LidarFrame("points", points)]).to(device)
        was_training = encoder.training
        encoder.eval()
        try:
            return encoder(batch.voxels)  # type: ignore[no-any-return]
        finally:
            encoder.train(was_training)


def select_voxels(voxels: Voxels, positions: Tensor) -> Voxels:
    """The voxels at ``positions`` ``(n,)`` int64, in that order."""
    features, coordinates = (t.index_select(0, positions) for t in (voxels.features, voxels.coordinates))
    return Voxels(features, coordinates, voxels.batch_size)
