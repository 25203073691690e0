"""VoxelSetAbstraction: PV-RCNN's keypoints, which sum up a scene.

Shi et al., "PV-RCNN: Point-Voxel Feature Set Abstraction for 3D Object Detection", CVPR 2020, section 3.2. Module names
are OpenPCDet's.

Shape legend: B frames, K keypoints of all frames together, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from adperception.geometry.point_sampling import farthest_point_sample_frames
from adperception.models.backbones.voxel_backbone_8x import (
    BEV_STRIDE,
    STAGE_CHANNELS,
    STAGE_STRIDES,
    BackboneStages,
)
from adperception.models.on_device import on_device
from adperception.models.point_modules.pointwise import PointwiseNetwork
from adperception.models.point_modules.set_abstraction import Ball, FeaturePoints, SetAbstraction
from adperception.sparse import SparseTensor
from adperception.structures import VoxelGrid

__all__ = ["Keypoints", "VoxelSetAbstraction", "bev_at"]

POINT_BALLS = (Ball(0.4, 16, (16, 16)), Ball(0.8, 16, (16, 16)))
STAGE_BALLS = (
    (Ball(0.4, 16, (16, 16)), Ball(0.8, 16, (16, 16))),
    (Ball(0.8, 16, (32, 32)), Ball(1.2, 32, (32, 32))),
    (Ball(1.2, 16, (64, 64)), Ball(2.4, 32, (64, 64))),
    (Ball(2.4, 16, (64, 64)), Ball(4.8, 32, (64, 64))),
)
"""Around every keypoint, the balls in which points and the sites of each stage of the 3D encoder are gathered."""


class Keypoints(NamedTuple):
    """Keypoints of several frames, one after the other.

    Attributes:
        xyz: ``(K, 3)`` positions in metres.
        frames: ``(K,)`` int64 frame of each keypoint.
        gathered: ``(K, C)`` the features of all sources side by side.
        features: ``(K, 128)`` what is made of them.
    """

    xyz: Tensor
    frames: Tensor
    gathered: Tensor
    features: Tensor


class VoxelSetAbstraction(nn.Module):
    """Chooses keypoints among the points and gathers features for them from the map, the points and the 3D encoder.

    Args:
        point_channels: channels per point, x, y, z included.
        grid: the voxel grid.
        bev_channels: channels of the encoder's map.
        keypoints: per frame.
        out_channels: features per keypoint.
        stage_channels: channels of the encoder's stages.

    Attributes:
        gathered_channels: features per keypoint before they are fused.
    """

    def __init__(
        self,
        point_channels: int,
        grid: VoxelGrid,
        bev_channels: int,
        keypoints: int = 2048,
        out_channels: int = 128,
        stage_channels: Sequence[int] = STAGE_CHANNELS,
    ) -> None:
        super().__init__()
        if keypoints < 1:
            raise ValueError(f"keypoints={keypoints} must be at least 1.")
        self.grid, self.keypoints, self.out_channels = grid, keypoints, out_channels
        self.SA_layers = nn.ModuleList(
            SetAbstraction(channels, balls) for channels, balls in zip(stage_channels, STAGE_BALLS, strict=True)
        )
        self.SA_rawpoints = SetAbstraction(point_channels - 3, POINT_BALLS)
        around = sum(ball.channels[-1] for balls in (POINT_BALLS, *STAGE_BALLS) for ball in balls)
        self.gathered_channels = bev_channels + around
        self.vsa_point_feature_fusion = PointwiseNetwork([self.gathered_channels, out_channels])

    def forward(self, clouds: Sequence[Tensor], stages: BackboneStages) -> Keypoints:
        """The keypoints of B clouds ``(N_b, point_channels)``; a frame without a point has none."""
        numbers = [number for number, cloud in enumerate(clouds) if len(cloud)]
        xyz, frames = self._choose(clouds, numbers)
        points = torch.cat(list(clouds))
        counts = on_device([len(cloud) for cloud in clouds], points.device, torch.int64)
        point_frames = torch.arange(len(clouds), device=points.device)
        point_frames = point_frames.repeat_interleave(counts, output_size=len(points))
        sources = [bev_at(stages.bev, self.grid, xyz, frames)]
        sources.append(self.SA_rawpoints(FeaturePoints(points[:, :3], point_frames, points[:, 3:]), xyz, frames))
        for layer, stride, sites in zip(self.SA_layers, STAGE_STRIDES, stages.sites, strict=True):
            sources.append(layer(self._centres(sites, stride), xyz, frames))
        gathered = torch.cat(sources, dim=1)
        return Keypoints(xyz, frames, gathered, self.vsa_point_feature_fusion(gathered))

    def _choose(self, clouds: Sequence[Tensor], numbers: list[int]) -> tuple[Tensor, Tensor]:
        """Positions and frames of the keypoints of the clouds at ``numbers``."""
        device = clouds[0].device
        if not numbers:
            return clouds[0].new_zeros(0, 3), torch.zeros(0, dtype=torch.int64, device=device)
        chosen = farthest_point_sample_frames([clouds[number] for number in numbers], self.keypoints)
        xyz = torch.cat([clouds[number][row, :3] for number, row in zip(numbers, chosen, strict=True)])
        return xyz, on_device(numbers, device).repeat_interleave(self.keypoints)

    def _centres(self, sites: SparseTensor, stride: int) -> FeaturePoints:
        """Active sites as points at the centres of their cells."""
        # Positions in float32, also of features in half precision, which could not tell neighbouring cells apart.
        device, dtype = sites.features.device, torch.promote_types(sites.features.dtype, torch.float32)
        low = on_device(self.grid.point_cloud_range[:3], device, dtype)
        size = on_device(self.grid.voxel_size, device, dtype) * stride
        frames, zyx = sites.coordinates[:, 0].long(), sites.coordinates[:, 1:]
        return FeaturePoints((zyx.flip(1) + 0.5) * size + low, frames, sites.features)


def bev_at(bev: Tensor, grid: VoxelGrid, xyz: Tensor, frames: Tensor) -> Tensor:
    """Values of a map at places, interpolated between its cells.

    As in OpenPCDet, the value of a cell stands at the cell's corner of smallest x and y; beyond the last cells' corners
    the map goes on with their values (OpenPCDet's fades to zero there).

    Args:
        bev: ``(B, C, H, W)``.
        grid: the grid whose voxels the map's cells hold ``BEV_STRIDE`` x ``BEV_STRIDE`` of.
        xyz: ``(K, 3)`` positions in metres.
        frames: ``(K,)`` int64 frame of each.

    Returns:
        ``(K, C)``.
    """
    _, channels, height, width = bev.shape
    low = on_device(grid.point_cloud_range[:2], xyz.device, xyz.dtype)
    size = on_device(grid.voxel_size[:2], xyz.device, xyz.dtype) * BEV_STRIDE
    x, y = ((xyz[:, :2] - low) / size).unbind(1)
    x, y = x.clamp(0, width - 1), y.clamp(0, height - 1)
    left, top = x.floor().long().clamp(max=max(width - 2, 0)), y.floor().long().clamp(max=max(height - 2, 0))
    right, bottom = (left + 1).clamp(max=width - 1), (top + 1).clamp(max=height - 1)
    share_x, share_y = (x - left)[:, None], (y - top)[:, None]
    cells = bev.permute(0, 2, 3, 1).reshape(-1, channels)  # a view of a channels-last map

    def value(row: Tensor, column: Tensor) -> Tensor:
        return cells.index_select(0, (frames * height + row) * width + column)

    upper = value(top, left) * (1 - share_x) + value(top, right) * share_x
    lower = value(bottom, left) * (1 - share_x) + value(bottom, right) * share_x
    return upper * (1 - share_y) + lower * share_y
