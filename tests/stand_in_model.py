"""A joint-embedding model small enough to compute by hand: the interface of the real ones, nothing else."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from adperception.models.base import Losses, Pruning
from adperception.structures import LidarBatch, VoxelGrid, Voxels


@dataclass(frozen=True)
class StandInMasks:
    context_cells: Tensor
    target_cells: Tensor
    context_empty: Tensor
    target_empty: Tensor


@dataclass(frozen=True)
class StandInEmbeddings:
    context: Tensor
    prediction: Tensor
    target: Tensor
    masks: StandInMasks


class StandInModel(nn.Module):
    """Mean features of the voxels of each 8 x 8 BEV cell, lifted to C channels by a linear map and batch norm."""

    pruning = Pruning()

    def __init__(self, channels: int = 8, collapsed: bool = False, momentum: float = 0.01) -> None:
        super().__init__()
        self.grid = VoxelGrid((0.0, -6.4, -3.0, 12.8, 6.4, 1.0), (0.1, 0.1, 0.1))
        generator = torch.Generator().manual_seed(3)
        self.lift = nn.Conv2d(4, channels, 1, bias=False)
        with torch.no_grad():
            self.lift.weight.copy_(torch.randn(self.lift.weight.shape, generator=generator))
        self.norm = nn.BatchNorm2d(channels, momentum=momentum)
        self.empty_token = nn.Parameter(torch.randn(1, channels, 1, 1, generator=generator))
        self.mask_token = nn.Parameter(torch.randn(1, channels, 1, 1, generator=generator))
        self.collapsed = collapsed

    def cells(self, batch: LidarBatch) -> tuple[Tensor, Tensor]:
        """Raw cell features (B, 4, H, W) and occupancy (B, H, W)."""
        x, y, _ = self.grid.size_xyz
        height, width = y // 8, x // 8
        index = batch.voxels.coordinates.long()
        flat = (index[:, 0] * height + index[:, 2] // 8) * width + index[:, 3] // 8
        sums = torch.zeros(len(batch) * height * width, 4).index_add_(0, flat, batch.voxels.features)
        counts = torch.zeros(len(sums)).index_add_(0, flat, torch.ones(len(flat)))
        mean = sums / counts.clamp(min=1)[:, None]
        return mean.view(len(batch), height, width, 4).permute(0, 3, 1, 2), (counts > 0).view(-1, height, width)

    def encode(self, points: Tensor) -> Tensor:
        index = self._voxel_index(points)
        coordinates = torch.cat([torch.zeros(len(points), 1, dtype=torch.int32), index], 1)
        raw, occupied = self.cells(LidarBatch(("one",), Voxels(points, coordinates, 1), (points,)))
        return self.lift(raw).relu() * occupied[:, None]

    def _voxel_index(self, points: Tensor) -> Tensor:
        lower = torch.tensor(self.grid.point_cloud_range[:3])
        return ((points[:, :3] - lower) / torch.tensor(self.grid.voxel_size)).int().flip(1)

    def embed(self, batch: LidarBatch, generator: torch.Generator | None = None) -> StandInEmbeddings:
        raw, occupied = self.cells(batch)
        hidden = torch.rand(occupied.shape, generator=generator) < 0.5
        masks = StandInMasks(occupied & ~hidden, occupied & hidden, ~occupied & ~hidden, ~occupied & hidden)
        features = self.norm(self.lift(raw)).relu() + 0.01
        if self.collapsed:
            features = torch.ones_like(features)
        target = functional.normalize(torch.where(occupied[:, None], features, self.empty_token), dim=1)
        context = torch.where(masks.context_empty[:, None], self.empty_token, self.mask_token)
        context = functional.normalize(torch.where(masks.context_cells[:, None], features, context), dim=1)
        prediction = functional.normalize(target + 0.1 * context, dim=1)
        return StandInEmbeddings(context, prediction, target, masks)

    def forward(self, batch: LidarBatch, generator: torch.Generator | None = None) -> Losses:
        return self.losses(self.embed(batch, generator))

    def losses(self, e: StandInEmbeddings) -> Losses:
        distance = 1 - (e.prediction * e.target).sum(1)
        hidden = distance[e.masks.target_cells].mean()
        return Losses(hidden, {"loss_cells": hidden, "statistic": hidden})


def make_batch(seed: int, frames: int = 2) -> LidarBatch:
    """Voxels around a few walls and a ground strip; features are the voxel centres and an intensity."""
    rng = np.random.default_rng(seed)
    grid = VoxelGrid((0.0, -6.4, -3.0, 12.8, 6.4, 1.0), (0.1, 0.1, 0.1))
    coordinates, features, points = [], [], []
    for frame in range(frames):
        y, x = rng.integers(0, 128, size=(2, 400))
        y[:250] = (y[:250] // 6) + 10
        z = rng.integers(0, 40, 400)
        centres = np.stack([x * 0.1 + 0.05, y * 0.1 - 6.35, z * 0.1 - 2.95, rng.uniform(0, 1, 400)], 1)
        coordinates.append(np.stack([np.full(400, frame), z, y, x], 1))
        features.append(centres)
        points.append(torch.tensor(centres, dtype=torch.float32))
    assert grid.size_xyz == (128, 128, 40)
    return LidarBatch(
        tuple(f"{seed:03d}_{frame}" for frame in range(frames)),
        Voxels(
            torch.tensor(np.concatenate(features), dtype=torch.float32),
            torch.tensor(np.concatenate(coordinates), dtype=torch.int32),
            frames,
        ),
        tuple(points),
    )
