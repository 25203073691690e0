"""What has to be known before the two encoders of AD-L-JEPA can run, found with one wait of the host.

How many voxels are visible, how many sites either encoder has on each level, how many cells of each kind a sample has:
all follow from the masks, and the masks are drawn on the device. They are counted there and read together.

Shape legend: B batch, V voxels, H x W bird's-eye-view cells.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from adperception.models.backbones.voxel_backbone_8x import BEV_STRIDE, VoxelBackBone8x
from adperception.models.pretrain.bev_masking import BevMasks, CellCounts
from adperception.models.pretrain.voxel_pretraining import select_voxels
from adperception.sparse import PlannedSites, plan_levels, static_nonzero, uses_planned_sites
from adperception.structures import Voxels

__all__ = ["CellPlan", "EncoderInput", "plan_cells"]


@dataclass(frozen=True)
class EncoderInput:
    """What one of the encoders is given.

    Attributes:
        voxels: its voxels.
        planned: the sites of its levels, if the sparse backend wants them.
    """

    voxels: Voxels
    planned: Mapping[str, PlannedSites] | None


@dataclass(frozen=True)
class CellPlan:
    """A batch, divided by its masks.

    Attributes:
        context: the visible voxels.
        target: the hidden voxels.
        counts: cells of each kind.
    """

    context: EncoderInput
    target: EncoderInput
    counts: CellCounts


@torch.no_grad()
def plan_cells(voxels: Voxels, masks: BevMasks, encoder: VoxelBackBone8x) -> CellPlan:
    """Divide the voxels and count everything; the host waits for the device once.

    Args:
        voxels: all voxels of the batch.
        masks: which cells are visible.
        encoder: one of the encoders (they have the same levels).
    """
    coordinates, batch_size = voxels.coordinates, voxels.batch_size
    batch, _, y, x = coordinates.long().unbind(1)
    visible = masks.context_cells[batch, y // BEV_STRIDE, x // BEV_STRIDE]
    sizes = [
        visible.sum()[None],
        masks.context_cells.sum(dim=(1, 2)),
        masks.target_cells.sum(dim=(1, 2)),
        masks.target_empty.sum()[None],
    ]
    levels = None
    if uses_planned_sites(voxels.features):
        shape, kernels = encoder.grid.sparse_shape, encoder.level_kernels
        levels = plan_levels(coordinates, shape, batch_size, kernels, group=(~visible).int(), groups=2)
        sizes.append(levels.counts.flatten())
    numbers: list[int] = torch.cat(sizes).tolist()  # the one wait

    shown, *numbers = numbers
    context_cells, numbers = tuple(numbers[:batch_size]), numbers[batch_size:]
    target_cells, numbers = tuple(numbers[:batch_size]), numbers[batch_size:]
    target_empty, *level_counts = numbers
    planned: list[Mapping[str, PlannedSites] | None] = [None, None]
    if levels is not None:
        half = len(level_counts) // 2
        planned = [*levels.sites([level_counts[:half], level_counts[half:]])]
    context = select_voxels(voxels, static_nonzero(visible, shown))
    target = select_voxels(voxels, static_nonzero(~visible, len(voxels) - shown))
    return CellPlan(
        EncoderInput(context, planned[0]),
        EncoderInput(target, planned[1]),
        CellCounts(context_cells, target_cells, target_empty),
    )
