"""Occupancy-MAE: pre-training a LiDAR encoder by filling in the occupancy of a scan of which it sees a part.

Min et al., "Occupancy-MAE: Self-supervised Pre-training Large-scale LiDAR Point Clouds with Masked Occupancy
Autoencoders", IEEE TIV 2023. Voxels are dropped at random, more of them near the sensor where they are dense; the
encoder sees the rest; a small dense decoder predicts which voxels of the whole grid are occupied.

What differs from the released code by default: distances are metres from the sensor (there: voxels from the corner of
the grid, so that practically everything counts as far), and voxels are drawn without replacement and per frame (there:
a shuffle that repeats elements, over the batch). ``upstream=True`` brings both back; repeated voxels are passed to the
encoder once. Decoder, loss and targets are the same.

Shape legend: B batch, V voxels, D0 x H0 x W0 the sparse grid (z, y, x).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from adperception.losses.occupancy_bce import occupancy_bce
from adperception.models.backbones.level_plan import read_sizes
from adperception.models.backbones.voxel_backbone_8x import VoxelBackBone8x, bev_layers
from adperception.models.base import Losses
from adperception.models.pretrain.range_masking import draw_range_mask, draw_upstream_range_mask
from adperception.models.pretrain.voxel_pretraining import BEV_CHANNELS, VoxelPretraining, select_voxels
from adperception.registry import MODELS
from adperception.sparse import static_nonzero
from adperception.structures import LidarBatch, VoxelGrid

__all__ = ["OccupancyDecoder", "OccupancyMAE"]


class OccupancyDecoder(nn.Module):
    """Three transposed convolutions from the encoder's map to a logit per voxel; 117,800 parameters.

    Along x and y each doubles the resolution. Along z two layers become 4, 14 and 41, the depth of the published grids
    (40 voxels and a spare layer); for deeper grids the last stride grows and the surplus is cut off.

    Args:
        grid: the voxel grid.
    """

    def __init__(self, grid: VoxelGrid) -> None:
        super().__init__()
        self.sparse_shape = grid.sparse_shape
        self.layers = bev_layers(grid.shape_zyx[0])
        channels = BEV_CHANNELS // self.layers
        depth = 4 * (2 * self.layers - 1) + 2  # after two of the three layers
        stride = max(3, -(-(self.sparse_shape[0] - 2) // (depth - 1)))
        self.deconv1 = _up(channels, 32, (2, 2, 2))
        self.deconv2 = _up(32, 8, (4, 2, 2))
        # The kernel grows with the stride, so that no layer of the grid is out of its reach.
        self.deconv3 = nn.ConvTranspose3d(
            8, 1, (stride, 3, 3), stride=(stride, 2, 2), padding=1, output_padding=1, bias=False
        )

    def forward(self, bev: Tensor) -> Tensor:
        """Logits ``(B, D0, H0, W0)`` from the map ``(B, 256, H, W)``."""
        batch, _, height, width = bev.shape
        volume = bev.reshape(batch, -1, self.layers, height, width).contiguous()
        logits: Tensor = self.deconv3(self.deconv2(self.deconv1(volume))).squeeze(1)
        return logits[:, : self.sparse_shape[0]]


def _up(in_channels: int, out_channels: int, stride: tuple[int, int, int]) -> nn.Sequential:
    conv = nn.ConvTranspose3d(in_channels, out_channels, 3, stride=stride, padding=1, output_padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm3d(out_channels), nn.ReLU(inplace=True))


@MODELS.register_module()
class OccupancyMAE(VoxelPretraining):
    """Occupancy-MAE pre-training.

    Args:
        point_cloud_range: ``(x_min, y_min, z_min, x_max, y_max, z_max)`` in metres.
        voxel_size: ``(x, y, z)`` in metres.
        in_channels: channels per point (4: x, y, z, intensity; 5 with Waymo's elongation).
        max_points_per_voxel: points averaged per voxel, the first ones; ``None`` averages all.
        max_voxels_train: voxels kept per frame in training, the first ones.
        max_voxels_test: likewise in evaluation.
        ring_limits: outer radius of the inner rings around the sensor, in metres (in voxels if ``upstream``).
        keep_shares: share of voxels shown to the encoder per ring, one more than there are limits.
        upstream: mask as the released code does, its slips included (see the module's text).
    """

    ENCODERS: ClassVar[Mapping[str, str]] = {"encoder": "encoder."}

    COMPILED: ClassVar[tuple[str, ...]] = ("decoder",)

    def __init__(
        self,
        point_cloud_range: Sequence[float],
        voxel_size: Sequence[float],
        in_channels: int = 4,
        max_points_per_voxel: int | None = 5,
        max_voxels_train: int = 16_000,
        max_voxels_test: int = 40_000,
        ring_limits: Sequence[float] = (30.0, 50.0),
        keep_shares: Sequence[float] = (0.5, 0.7, 0.7),
        upstream: bool = False,
    ) -> None:
        super().__init__(
            point_cloud_range, voxel_size, in_channels, max_points_per_voxel, max_voxels_train, max_voxels_test
        )
        if len(keep_shares) != len(ring_limits) + 1 or list(ring_limits) != sorted(ring_limits):
            raise ValueError(
                f"OccupancyMAE: ring_limits={list(ring_limits)} must grow and have one entry fewer than "
                f"keep_shares={list(keep_shares)}."
            )
        if not all(0 < share < 1 for share in keep_shares):
            raise ValueError(f"OccupancyMAE: keep_shares={list(keep_shares)} must lie between 0 and 1.")
        self.ring_limits, self.keep_shares, self.upstream = tuple(ring_limits), tuple(keep_shares), upstream
        self.encoder = VoxelBackBone8x(in_channels, self.grid, BEV_CHANNELS)
        self.decoder = OccupancyDecoder(self.grid)

    def forward(self, batch: LidarBatch, generator: torch.Generator | None = None) -> Losses:
        """The losses of one batch; ``generator`` draws which voxels the encoder sees."""
        voxels = batch.voxels
        if self.upstream:
            keep = draw_upstream_range_mask(voxels.coordinates, self.ring_limits, self.keep_shares, generator)
        else:
            keep = draw_range_mask(
                voxels.coordinates, voxels.batch_size, self.grid, self.ring_limits, self.keep_shares, generator
            )
        (kept,), planned = read_sizes(self.encoder, voxels, keep.sum()[None], keep)
        logits = self.decoder(self.encoder(select_voxels(voxels, static_nonzero(keep, kept)), planned))
        loss = occupancy_bce(logits, voxels.coordinates)
        return Losses(
            loss.mean,
            {
                "loss": loss.mean.detach(),
                "loss_occupied": loss.occupied,
                "loss_empty": loss.empty,
                "kept_share": keep.float().mean() if len(keep) else loss.empty.new_zeros(()),
            },
        )
