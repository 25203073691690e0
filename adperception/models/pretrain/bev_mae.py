"""BEV-MAE: pre-training a LiDAR encoder by reconstructing the points of hidden bird's-eye-view cells.

Lin et al., "BEV-MAE: Bird's Eye View Masked Autoencoders for Point Cloud Pre-training in Autonomous Driving
Scenarios", AAAI 2024. Most of the non-empty cells (columns of 8 x 8 voxels) are hidden: their voxels stay where they
are, with a shared point token in place of what was measured. A light decoder predicts, at every hidden cell, twenty
points and how many points there are.

What differs from the released code: the point token is trained, as the paper says (there it stays at its initial
zeros, because the optimizer never gets it; ``upstream=True`` freezes it); the encoder is the ``VoxelBackBone8x`` of the
other methods (there: a residual variant). Heights are in units of the height of the range, 6 m for the published Waymo
grid.

Shape legend: B batch, V voxels, N points, H x W bird's-eye-view cells, M hidden cells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from adperception.geometry.voxelization import Voxelizer
from adperception.losses.full_precision import full_precision, in_full_precision
from adperception.losses.masked_chamfer import masked_chamfer
from adperception.losses.point_density import point_density
from adperception.models.backbones.voxel_backbone_8x import BEV_STRIDE, VoxelBackBone8x
from adperception.models.base import Losses
from adperception.models.pretrain.bev_masking import draw_bev_masks, non_empty_cells
from adperception.models.pretrain.group_ranks import rank_in_group
from adperception.models.pretrain.voxel_pretraining import BEV_CHANNELS, VoxelPretraining
from adperception.registry import MODELS
from adperception.structures import LidarBatch, VoxelGrid, Voxels

__all__ = ["BEVMAE", "CellTargets", "cell_targets"]

PREDICTED_POINTS = 20
TARGET_POINTS = 30
DENSITY_UNIT = BEV_STRIDE * BEV_STRIDE
"""A density of 1 is this many points in a cell."""


@dataclass(frozen=True)
class CellTargets:
    """What is to be predicted at the M hidden cells, in order of (batch, y, x).

    Attributes:
        points: ``(M, 30, 3)``: x and y from the centre of the cell in cell sizes, z of the LiDAR frame in heights of
            the range.
        valid: ``(M, 30)`` boolean, which rows of ``points`` are points.
        density: ``(M,)`` points in the cell over 64, no voxel counting more than ``max_points_per_voxel``.
    """

    points: Tensor
    valid: Tensor
    density: Tensor


@MODELS.register_module()
class BEVMAE(VoxelPretraining):
    """BEV-MAE pre-training.

    Args:
        point_cloud_range: ``(x_min, y_min, z_min, x_max, y_max, z_max)`` in metres.
        voxel_size: ``(x, y, z)`` in metres.
        in_channels: channels per point (4: x, y, z, intensity; 5 with Waymo's elongation).
        max_points_per_voxel: points averaged per voxel, the first ones; ``None`` averages all.
        max_voxels_train: voxels kept per frame in training, the first ones.
        max_voxels_test: likewise in evaluation.
        mask_ratio: share of hidden non-empty cells.
        mask_per: ``"batch"`` or ``"sample"``: where that share is held exactly.
        upstream: keep the point token at zero, as the released code does in effect.
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
        mask_ratio: float = 0.7,
        mask_per: str = "batch",
        upstream: bool = False,
    ) -> None:
        super().__init__(
            point_cloud_range, voxel_size, in_channels, max_points_per_voxel, max_voxels_train, max_voxels_test
        )
        if not 0 < mask_ratio < 1:
            raise ValueError(f"BEVMAE: mask_ratio={mask_ratio} must lie between 0 and 1.")
        if mask_per not in ("batch", "sample"):
            raise ValueError(f'BEVMAE: mask_per="{mask_per}" is unknown. Available: batch, sample.')
        self.mask_ratio, self.mask_per, self.upstream = mask_ratio, mask_per, upstream
        self.point_token = nn.Parameter(torch.zeros(1, in_channels), requires_grad=not upstream)
        self.encoder = VoxelBackBone8x(in_channels, self.grid, BEV_CHANNELS)
        self.decoder = nn.Sequential(
            nn.Conv2d(BEV_CHANNELS, BEV_CHANNELS, 3, padding=1), nn.BatchNorm2d(BEV_CHANNELS), nn.ReLU(inplace=True)
        )
        self.points_head = nn.Conv2d(BEV_CHANNELS, 3 * PREDICTED_POINTS, 1)
        self.density_head = nn.Conv2d(BEV_CHANNELS, 1, 1)

    def forward(self, batch: LidarBatch, generator: torch.Generator | None = None) -> Losses:
        """The losses of one batch; ``generator`` draws the hidden cells and which of their points are targets."""
        voxels = batch.voxels
        occupied = non_empty_cells(voxels.coordinates, voxels.batch_size, self.encoder.bev_shape, BEV_STRIDE)
        hidden = draw_bev_masks(occupied, self.mask_ratio, self.mask_per, generator).target_cells
        targets = cell_targets(batch, hidden, self.grid, self.max_points_per_voxel, generator)
        features = self.decoder(self.encoder(self._hide(voxels, hidden)))
        points = self.points_head(features).permute(0, 2, 3, 1)[hidden]  # (M, 60), coordinate after coordinate
        points = in_full_precision(points).view(-1, 3, PREDICTED_POINTS).transpose(1, 2)
        density = in_full_precision(self.density_head(features)[:, 0][hidden])
        with full_precision(points):
            chamfer = masked_chamfer(points, targets.points, targets.valid)
            amount = point_density(density, targets.density)
        # A batch may hide no cell; every parameter still gets a gradient.
        total = chamfer + amount + 0.0 * self.point_token.sum()
        terms = {"loss": total, "loss_points": chamfer, "loss_density": amount}
        return Losses(total, {name: value.detach() for name, value in terms.items()})

    def _hide(self, voxels: Voxels, hidden: Tensor) -> Voxels:
        """The same voxels, with the point token as feature in hidden cells."""
        batch, _, y, x = voxels.coordinates.long().unbind(1)
        in_hidden = hidden[batch, y // BEV_STRIDE, x // BEV_STRIDE]
        features = torch.where(in_hidden[:, None], self.point_token, voxels.features)
        return Voxels(features, voxels.coordinates, voxels.batch_size)


def cell_targets(
    batch: LidarBatch,
    hidden: Tensor,
    grid: VoxelGrid,
    max_points_per_voxel: int | None,
    generator: torch.Generator | None = None,
) -> CellTargets:
    """Points and density of the hidden cells.

    Args:
        batch: the voxels and the points they were made of.
        hidden: ``(B, H, W)`` boolean; cells without a voxel must not be among them.
        grid: the voxel grid.
        max_points_per_voxel: what one voxel counts at most in the density; ``None``: all its points.
        generator: CPU generator that draws the points of cells with more than 30.
    """
    n_x, n_y, n_z = grid.size_xyz
    points, batch_index = torch.cat(batch.points)[:, :3], _batch_index(batch)
    # Every voxel of the batch has one number, frame after frame.
    number, inside = Voxelizer(grid, None, None).locate(points)
    number = number + batch_index * (n_z * n_y * n_x)
    b, z, y, x = batch.voxels.coordinates.long().unbind(1)
    # A voxel beyond the limit of voxels per frame is not part of the scan.
    inside &= torch.isin(number, ((b * n_z + z) * n_y + y) * n_x + x)
    points, number, batch_index = points[inside], number[inside], batch_index[inside]
    cell_y, cell_x = number // n_x % n_y // BEV_STRIDE, number % n_x // BEV_STRIDE
    slots = torch.full(hidden.shape, -1, dtype=torch.long, device=hidden.device)
    cells = int(hidden.sum())
    slots[hidden] = torch.arange(cells, device=hidden.device)
    slot = slots[batch_index, cell_y, cell_x]
    noise = torch.rand(len(slot), generator=generator).to(slot.device)
    shown = slot >= 0
    points, number, slot, noise = points[shown], number[shown], slot[shown], noise[shown]
    centres = torch.stack([cell_x[shown], cell_y[shown]], dim=1) + 0.5

    counted = slot if max_points_per_voxel is None else slot[rank_in_group(number) < max_points_per_voxel]
    density = torch.bincount(counted, minlength=cells).to(points.dtype) / DENSITY_UNIT

    low, size = grid.point_cloud_range, points.new_tensor(grid.voxel_size[:2]) * BEV_STRIDE
    local = torch.empty_like(points)
    local[:, :2] = (points[:, :2] - points.new_tensor(low[:2])) / size - centres
    local[:, 2] = points[:, 2] / (low[5] - low[2])
    place = rank_in_group(slot, noise)
    taken = place < TARGET_POINTS
    slot, place = slot[taken], place[taken]
    targets = points.new_zeros(cells, TARGET_POINTS, 3)
    targets[slot, place] = local[taken]
    valid = torch.zeros(cells, TARGET_POINTS, dtype=torch.bool, device=points.device)
    valid[slot, place] = True
    return CellTargets(targets, valid, density)


def _batch_index(batch: LidarBatch) -> Tensor:
    """``(N,)`` int64: the frame of every point."""
    counts = torch.tensor([len(points) for points in batch.points], device=batch.voxels.coordinates.device)
    return torch.arange(len(batch), device=counts.device).repeat_interleave(counts)
