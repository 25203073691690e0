"""The one wait of a training step: everything that only the device knows is read together, the encoder's levels too."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from adperception.models.backbones.voxel_backbone_8x import VoxelBackBone8x
from adperception.sparse import PlannedSites, plan_levels, uses_planned_sites
from adperception.structures import Voxels

__all__ = ["read_sizes"]


@torch.no_grad()
def read_sizes(
    encoder: VoxelBackBone8x, voxels: Voxels, sizes: Tensor, kept: Tensor | None = None
) -> tuple[list[int], Mapping[str, PlannedSites] | None]:
    """Read numbers from the device, with those that the encoder needs to know.

    Args:
        encoder: the encoder that the voxels go through.
        voxels: the batch.
        sizes: ``(n,)`` int64 numbers that the model needs.
        kept: ``(V,)`` boolean, which voxels the encoder will be given; all if ``None``.

    Returns:
        The n numbers, and the sites of the encoder's levels if the sparse backend wants them.
    """
    if not uses_planned_sites(voxels.features):
        return sizes.tolist(), None
    group = None if kept is None else (~kept).int()  # group 1 is left out
    levels = plan_levels(voxels.coordinates, encoder.grid.sparse_shape, voxels.batch_size, encoder.level_kernels, group)
    numbers: list[int] = torch.cat([sizes, levels.counts.flatten()]).tolist()
    (planned,) = levels.sites([numbers[len(sizes) :]])
    return numbers[: len(sizes)], planned
