"""Which site every row of a sparse convolution reads, as the ``triton`` backend keeps it.

Shape legend: N input sites, M output sites (rows), K taps.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

import adperception.sparse.triton_operators  # registers the operators  # noqa: F401
from adperception.sparse.rulebook import Kernel, Shape
from adperception.sparse.site_levels import plan_levels

if TYPE_CHECKING:
    from adperception.sparse.tensor import SparseTensor

__all__ = ["SortedSites", "TapTable", "build_table"]


@dataclass(frozen=True)
class SortedSites:
    """Sites of a grid, ready to be looked up.

    Attributes:
        keys: ``(N,)`` linear keys in ascending order, int32 if the whole grid can be numbered with it.
        positions: ``(N,)`` int32, where each of them stands among the coordinates.
        shape: the grid.
    """

    keys: Tensor
    positions: Tensor
    shape: Shape

    @classmethod
    def of(cls, coordinates: Tensor, shape: Shape, batch_size: int) -> SortedSites:
        """Sort ``(N, 4)`` coordinates (batch, z, y, x)."""
        keys, positions = torch.ops.adperception.sort_sites(coordinates, list(shape), batch_size)
        return cls(keys, positions, shape)


@dataclass
class TapTable:
    """Which site every row reads at every tap.

    Attributes:
        sources: ``(K, M)`` int32 position of the site, or -1; column m belongs to row ``order[m]``.
        order: ``(M,)`` int32, the rows sorted by the set of taps that they use.
        sites: number of sites that are read, N.
        coordinates: ``(M, 4)`` int32 cells of the rows (batch, z, y, x).
        spatial_shape: their grid.
        kernel: the kernel it was built for.
        source: the coordinates that are read.
        submanifold: rows and sites are the same, so that the table read backwards is itself.
    """

    sources: Tensor
    order: Tensor
    sites: int
    coordinates: Tensor
    spatial_shape: Shape
    kernel: Kernel
    source: Tensor
    submanifold: bool
    _inverse: tuple[Tensor, Tensor] | None = None
    _blocks: dict[tuple[bool, int], tuple[Tensor, Tensor]] = field(default_factory=dict)
    _pairs: dict[tuple[int, int], tuple[Tensor, Tensor, Tensor]] = field(default_factory=dict)

    @classmethod
    def build(
        cls,
        sites: SortedSites,
        source: Tensor,
        coordinates: Tensor,
        spatial_shape: Shape,
        kernel: Kernel,
        *,
        submanifold: bool,
    ) -> TapTable:
        """Look up all neighbours.

        Args:
            sites: what is read.
            source: its coordinates ``(N, 4)``.
            coordinates: ``(M, 4)`` output sites; for a submanifold kernel ``source`` itself.
            spatial_shape: the output grid.
            kernel: extents, strides, paddings; only extents count for a submanifold kernel.
            submanifold: centred kernel of stride 1.
        """
        padding = tuple(k // 2 for k in kernel.size) if submanifold else kernel.padding
        sources, order = torch.ops.adperception.tap_table(
            sites.keys,
            sites.positions,
            coordinates,
            list(sites.shape),
            list(kernel.size),
            list(kernel.stride),
            list(padding),
        )
        return cls(sources, order, len(source), coordinates, spatial_shape, kernel, source, submanifold)

    def read_backwards(self) -> tuple[Tensor, Tensor]:
        """``sources`` ``(K, N)`` and ``order`` of the input gradient. Submanifold: the same, with mirrored taps."""
        if self.submanifold:
            return self.sources, self.order
        if self._inverse is None:
            self._inverse = torch.ops.adperception.invert_table(self.sources, self.order, self.sites)
        return self._inverse

    def blocks(self, rows: int, *, backwards: bool = False) -> tuple[Tensor, Tensor]:
        """The taps used by each block of ``rows`` rows, and their number."""
        backwards = backwards and not self.submanifold
        if (backwards, rows) not in self._blocks:
            sources = self.read_backwards()[0] if backwards else self.sources
            self._blocks[backwards, rows] = torch.ops.adperception.block_taps(sources, rows)
        return self._blocks[backwards, rows]

    def pairs(self, segments: int, least: int) -> tuple[Tensor, Tensor, Tensor]:
        """Rows and sites of all pairs, tap after tap, and how they are cut into segments."""
        if (segments, least) not in self._pairs:
            self._pairs[segments, least] = torch.ops.adperception.tap_pairs(self.sources, self.order, segments, least)
        return self._pairs[segments, least]


def build_table(x: SparseTensor, kernel: Kernel, layer: str, *, submanifold: bool, key: str | None) -> TapTable:
    """The table of a layer on the sites of ``x``.

    Output sites of a strided layer are taken from ``x.cache.planned[key]``. Without an entry they are found here, and
    the host has to wait for their number.
    """
    sites = _sorted_sites(x)
    if submanifold:
        return TapTable.build(sites, x.coordinates, x.coordinates, x.spatial_shape, kernel, submanifold=True)
    planned = x.cache.planned.get(key) if key is not None else None
    if planned is None:
        pending = plan_levels(x.coordinates, x.spatial_shape, x.batch_size, [(layer, kernel)])
        planned = pending.sites(pending.counts.tolist())[0][layer]
    return TapTable.build(sites, x.coordinates, planned.coordinates, planned.spatial_shape, kernel, submanifold=False)


def _sorted_sites(x: SparseTensor) -> SortedSites:
    for coordinates, known in x.cache.sorted_sites:
        if coordinates is x.coordinates:
            return known  # type: ignore[no-any-return]
    sites = SortedSites.of(x.coordinates, x.spatial_shape, x.batch_size)
    x.cache.sorted_sites.append((x.coordinates, sites))
    return sites
