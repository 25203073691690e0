"""Active sites of a whole chain of strided sparse convolutions, straight from the input, with one wait of the host.

Layer by layer, each strided convolution would make the host wait: how many sites it activates is known on the device
only. But along every axis, the cells that one input voxel reaches form an interval, and so do the cells that an
interval reaches: cell o of a convolution (size k, stride s, padding p) looks at the cells ``o s - p`` to
``o s - p + k - 1``, so it meets the interval [lo, hi] for ``ceil((lo + p - k + 1) / s) <= o <= floor((hi + p) / s)``.
In three dimensions the reached cells are products of intervals, because the convolutions are.

So every voxel's cells on every level can be listed at once, padded to the largest number there can be. One sort brings
equal cells together, the first of each is a site, and how many there are per level is counted on the device. The caller
reads all counts together with whatever else it wants to know, and from then on all sizes are known.

Shape legend: V voxels, L levels, G groups of voxels that are planned side by side, K padded cells per voxel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from adperception.sparse.rulebook import Kernel, Shape, strided_output_shape
from adperception.sparse.static_nonzero import static_nonzero

__all__ = ["PendingLevels", "PlannedSites", "plan_levels"]


@dataclass(frozen=True)
class PlannedSites:
    """The output sites of one strided convolution.

    Attributes:
        coordinates: ``(M, 4)`` int32 ``(batch, z, y, x)``, sorted by it.
        spatial_shape: output grid ``(D, H, W)``.
    """

    coordinates: Tensor
    spatial_shape: Shape


@dataclass(frozen=True)
class PendingLevels:
    """Levels whose sites are found, but not how many there are, as far as the host knows.

    Attributes:
        counts: ``(G, L)`` int64 on the device: sites per group and level.
        names: key of the convolution of each level.
        shapes: output grid of each level.
        batch_size: number of grids B.
        keys: ``(N,)`` all cells of all groups and levels as numbers, sorted, with repetitions. Numbers of a level of
            a group follow those of the level before; within a level they are ordered by (batch, z, y, x).
        first: ``(N,)`` boolean: which of them are the first of their kind.
    """

    counts: Tensor
    names: tuple[str, ...]
    shapes: tuple[Shape, ...]
    batch_size: int
    keys: Tensor
    first: Tensor

    def sites(self, counts: Sequence[Sequence[int]]) -> list[dict[str, PlannedSites]]:
        """The sites of every group, by key of the convolution; runs without a wait of the host.

        Args:
            counts: ``(G, L)`` numbers, what ``self.counts`` holds (``self.counts.tolist()``).
        """
        flat = [count for group in counts for count in group]
        if [len(group) for group in counts] != [len(self.names)] * len(self.counts):
            raise ValueError(
                f"PendingLevels.sites: counts of {[len(group) for group in counts]} levels do not fit "
                f"{len(self.counts)} groups of {len(self.names)} levels. Pass what PendingLevels.counts holds."
            )
        keys = self.keys[static_nonzero(self.first, sum(flat))]
        offsets = _offsets(self.shapes, self.batch_size, len(counts))
        planned: list[dict[str, PlannedSites]] = []
        for number, (offset, part) in enumerate(zip(offsets, torch.split(keys, flat), strict=False)):
            level = number % len(self.names)
            if level == 0:
                planned.append({})
            shape = self.shapes[level]
            planned[-1][self.names[level]] = PlannedSites(_coordinates(part - offset, shape), shape)
        return planned


@torch.no_grad()
def plan_levels(
    coordinates: Tensor,
    shape: Shape,
    batch_size: int,
    kernels: Sequence[tuple[str, Kernel]],
    group: Tensor | None = None,
    groups: int = 1,
) -> PendingLevels:
    """Find the active sites of every level of a chain of strided sparse convolutions; no wait of the host.

    Submanifold convolutions in between change nothing. The sites and their order are those of
    ``build_strided_rulebook`` level by level.

    Args:
        coordinates: ``(V, 4)`` active input sites ``(batch, z, y, x)``, in any order.
        shape: input grid ``(D, H, W)``.
        batch_size: number of grids B.
        kernels: key and kernel of each strided convolution, from the input on.
        group: ``(V,)`` integers in 0 .. ``groups - 1``: voxels of different groups are inputs of different chains (the
            two encoders of AD-L-JEPA), planned in the same sort; one chain if ``None``. Voxels of group ``groups`` or
            more are left out.
        groups: number of groups G.

    Raises:
        ValueError: if an axis would shrink to nothing, or there is no level or no group.
    """
    if not kernels or groups < 1:
        raise ValueError(f"plan_levels: {len(kernels)} levels of {groups} groups; there must be one of each at least.")
    shapes = [shape]
    for name, kernel in kernels:
        shapes.append(strided_output_shape(shapes[-1], kernel, name))
    offsets = _offsets(shapes[1:], batch_size, groups)
    dtype = torch.int32 if offsets[-1] < torch.iinfo(torch.int32).max else torch.int64
    sentinel = offsets[-1]  # past every cell: where a padded place holds no cell
    batch, *zyx = coordinates.to(dtype).unbind(1)
    base = torch.zeros_like(batch) if group is None else group.to(dtype) * (offsets[-1] // groups)

    low, high = list(zyx), list(zyx)
    if group is not None:
        high[0] = high[0].masked_fill(group >= groups, -1)
    widths = [1, 1, 1]
    keys = []
    for level, (_, kernel) in enumerate(kernels):
        cells, valid = [], []
        for axis in range(3):
            size, stride, padding = kernel.size[axis], kernel.stride[axis], kernel.padding[axis]
            # An interval without a cell (the border of the grid was cut off, or the stride skips it) stays without.
            empty = low[axis] > high[axis]
            low[axis] = -torch.div(size - 1 - padding - low[axis], stride, rounding_mode="floor")
            high[axis] = torch.div(high[axis] + padding, stride, rounding_mode="floor")
            low[axis] = low[axis].clamp(min=0)
            high[axis] = high[axis].clamp(max=shapes[level + 1][axis] - 1).masked_fill(empty, -1)
            widths[axis] = (widths[axis] + size - 2) // stride + 1
            cell = low[axis][:, None] + torch.arange(widths[axis], dtype=dtype, device=batch.device)
            cells.append(cell)
            valid.append(cell <= high[axis][:, None])
        z, y, x = cells[0][:, :, None, None], cells[1][:, None, :, None], cells[2][:, None, None, :]
        inside = valid[0][:, :, None, None] & valid[1][:, None, :, None] & valid[2][:, None, None, :]
        depth, height, width = shapes[level + 1]
        key = ((batch[:, None, None, None] * depth + z) * height + y) * width + x
        key = key + (base + offsets[level])[:, None, None, None]
        keys.append(torch.where(inside, key, sentinel).flatten())
    ordered = torch.sort(torch.cat(keys)).values
    first = ordered != sentinel
    first[1:] &= ordered[1:] != ordered[:-1]
    # How many first ones lie below each border between levels; the differences are the levels' counts.
    running = torch.nn.functional.pad(first.cumsum(0), (1, 0))
    borders = torch.searchsorted(ordered, torch.tensor(offsets, dtype=dtype).to(batch.device, non_blocking=True))
    counts = running[borders].diff().view(groups, len(kernels))
    names = tuple(name for name, _ in kernels)
    return PendingLevels(counts, names, tuple(shapes[1:]), batch_size, ordered, first)


def _offsets(shapes: Sequence[Shape], batch_size: int, groups: int) -> list[int]:
    """Where the numbers of every level of every group begin, and behind the last one the end: G * L + 1 numbers."""
    offsets = [0]
    for shape in [*shapes] * groups:
        offsets.append(offsets[-1] + batch_size * math.prod(shape))
    return offsets


def _coordinates(cells: Tensor, shape: Shape) -> Tensor:
    """``(M, 4)`` int32 ``(batch, z, y, x)`` of ``(M,)`` cell numbers."""
    columns = []
    for size in reversed(shape):
        columns.append(cells % size)
        cells = torch.div(cells, size, rounding_mode="floor")
    return torch.stack([cells, *reversed(columns)], dim=1).to(torch.int32)
