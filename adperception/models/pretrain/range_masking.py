"""Which voxels Occupancy-MAE shows to its encoder: a share that depends on the distance from the sensor."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from adperception.models.on_device import on_device
from adperception.models.pretrain.group_ranks import rank_in_group
from adperception.structures import VoxelGrid

__all__ = ["draw_range_mask", "draw_upstream_range_mask"]


def draw_range_mask(
    coordinates: Tensor,
    batch_size: int,
    grid: VoxelGrid,
    limits: Sequence[float],
    shares: Sequence[float],
    generator: torch.Generator | None = None,
) -> Tensor:
    """``(V,)`` boolean: which voxels are kept.

    Of the n voxels of a frame in a ring, ``int(n * share)`` are kept, drawn without replacement.

    Args:
        coordinates: ``(V, 4)`` ``(batch, z, y, x)``.
        batch_size: number of frames.
        grid: says where the voxels are. Distances are horizontal, from the sensor (the origin) to the voxel's centre.
        limits: outer radius of every ring but the last, in metres, e.g. ``(30, 50)``.
        shares: kept share per ring.
        generator: CPU generator; torch's global one if ``None``.
    """
    batch, _, y, x = coordinates.long().unbind(1)
    low, size = grid.point_cloud_range, grid.voxel_size
    distance = torch.hypot(low[0] + (x + 0.5) * size[0], low[1] + (y + 0.5) * size[1])
    groups = batch * len(shares) + _ring(distance, limits)
    noise = torch.rand(len(groups), generator=generator).to(groups.device, non_blocking=True)
    return rank_in_group(groups, noise) < _quota(groups, batch_size, shares)[groups]


def draw_upstream_range_mask(
    coordinates: Tensor, limits: Sequence[float], shares: Sequence[float], generator: torch.Generator | None = None
) -> Tensor:
    """``(V,)`` boolean: which voxels the released code keeps, its two slips included.

    The "distance" is counted in voxels from the grid's corner, so that nearly all voxels fall into the last ring; and
    Python's ``random.shuffle`` on a tensor overwrites elements instead of swapping them: place p ends up with the
    element of a place drawn from 0..p. The first ``int(n * share)`` places of the batch's n voxels per ring are then
    full of repetitions, and only about half as many voxels are kept as meant.

    Args:
        coordinates: see ``draw_range_mask``.
        limits: likewise, in voxels.
        shares: likewise.
        generator: likewise.
    """
    _, _, y, x = coordinates.long().unbind(1)
    groups = _ring(torch.hypot(y.double(), x.double()), limits)
    place = rank_in_group(groups)
    draws = torch.rand(len(groups), generator=generator, dtype=torch.float64).to(groups.device, non_blocking=True)
    source = (draws * (place + 1)).long().minimum(place)
    chosen = place < _quota(groups, 1, shares)[groups]
    # (ring, place) -> voxel: rings are contiguous after a stable sort, and places count within them.
    order = torch.argsort(groups, stable=True)
    counts = groups.new_zeros(len(shares)).scatter_add_(0, groups, torch.ones_like(groups))
    starts = counts.cumsum(0) - counts
    keep = torch.zeros(len(groups), dtype=torch.bool, device=groups.device)
    keep[order[(starts[groups] + source)[chosen]]] = True
    return keep


def _ring(distance: Tensor, limits: Sequence[float]) -> Tensor:
    """``(V,)`` int64: 0 up to and with the first limit, and so on."""
    return torch.bucketize(distance, on_device(limits, distance.device, distance.dtype))


def _quota(groups: Tensor, batch_size: int, shares: Sequence[float]) -> Tensor:
    """``(G,)`` int64: how many members each group keeps; group g has the share number ``g % len(shares)``."""
    # Not bincount, which would ask for the largest group.
    counts = groups.new_zeros(batch_size * len(shares)).scatter_add_(0, groups, torch.ones_like(groups))
    return (counts * on_device(shares, groups.device, torch.float64).repeat(batch_size)).long()
