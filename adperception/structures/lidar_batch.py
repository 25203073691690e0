"""A batch of voxelised LiDAR frames: what LiDAR models are fed with."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from adperception.structures.boxes3d import Boxes3D

__all__ = ["LidarBatch", "Voxels"]


@dataclass(frozen=True)
class Voxels:
    """Occupied voxels of a batch.

    Attributes:
        features: ``(V, C)`` float32, per voxel the mean over its points of the raw channels (metres, intensity).
        coordinates: ``(V, 4)`` int32 ``(batch, z, y, x)``.
        batch_size: number of frames, also counting frames without a voxel.
    """

    features: Tensor
    coordinates: Tensor
    batch_size: int

    def __len__(self) -> int:
        return int(self.features.shape[0])

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Voxels:
        """The same voxels on ``device``."""
        return Voxels(
            self.features.to(device, non_blocking=non_blocking),
            self.coordinates.to(device, non_blocking=non_blocking),
            self.batch_size,
        )

    def pin_memory(self) -> Voxels:
        """The same voxels in page-locked memory, for asynchronous copies to a GPU."""
        return Voxels(self.features.pin_memory(), self.coordinates.pin_memory(), self.batch_size)


@dataclass(frozen=True)
class LidarBatch:
    """B frames.

    Attributes:
        frame_ids: B frame names.
        voxels: the voxelised clouds.
        points: B tensors ``(N_b, C)`` float32 of the points inside the grid, in the LiDAR frame.
        boxes: B label sets, or ``None`` if any frame is unlabelled.
    """

    frame_ids: tuple[str, ...]
    voxels: Voxels
    points: tuple[Tensor, ...]
    boxes: tuple[Boxes3D, ...] | None = None

    def __len__(self) -> int:
        return len(self.frame_ids)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> LidarBatch:
        """The same batch with its tensors on ``device``."""
        return replace(
            self,
            voxels=self.voxels.to(device, non_blocking=non_blocking),
            points=tuple(p.to(device, non_blocking=non_blocking) for p in self.points),
        )

    def pin_memory(self) -> LidarBatch:
        """The same batch in page-locked memory (called by the data loader)."""
        return replace(self, voxels=self.voxels.pin_memory(), points=tuple(p.pin_memory() for p in self.points))
