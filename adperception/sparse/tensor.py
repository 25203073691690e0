"""Sparse 3D tensors: features at integer coordinates of a batch of grids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from adperception.sparse.checks import check_coordinates
from adperception.sparse.rulebook import Rulebook
from adperception.sparse.site_levels import PlannedSites

__all__ = ["RulebookCache", "SparseTensor"]


@dataclass
class RulebookCache:
    """Rulebooks shared by all tensors that descend from one input, each built once per key.

    Attributes:
        rulebooks: key of a layer (``"subm1"``) to the rulebook of its coordinate set.
        backend_state: what spconv, which builds its own rulebooks, keeps for the same keys.
        tables: key of a layer to its ``TapTable`` (``triton`` backend).
        sorted_sites: coordinates and their ``SortedSites``, shared by the tables that read them (``triton`` backend).
        planned: key of a strided layer (``"spconv2"``) to its output sites, where they are known beforehand
            (``plan_levels``).
    """

    rulebooks: dict[str, Rulebook] = field(default_factory=dict)
    backend_state: dict[str, Any] = field(default_factory=dict)
    tables: dict[str, Any] = field(default_factory=dict)
    sorted_sites: list[tuple[Tensor, Any]] = field(default_factory=list)
    planned: dict[str, PlannedSites] = field(default_factory=dict)


class SparseTensor:
    """N active sites of B grids.

    Args:
        features: ``(N, C)`` floating point.
        coordinates: ``(N, 4)`` int32 ``(batch, z, y, x)``, unique rows in any order.
        spatial_shape: ``(D, H, W)`` cells of the grid along z, y, x.
        batch_size: number of grids B, also counting empty ones.
        cache: what descendants of one input share; a new one for an input from outside.
        planned: output sites of strided layers by their key, from ``plan_levels`` on these very coordinates. A backend
            that builds rulebooks on the device then need not ask how many there are.

    Raises:
        ValueError: if shapes, types or devices do not fit together, or (on the first batches and in debug mode)
            if a coordinate lies outside the grid; in debug mode also for duplicate coordinates.
    """

    def __init__(
        self,
        features: Tensor,
        coordinates: Tensor,
        spatial_shape: Sequence[int],
        batch_size: int,
        *,
        cache: RulebookCache | None = None,
        planned: Mapping[str, PlannedSites] | None = None,
    ) -> None:
        self.features = features
        self.coordinates = coordinates
        self.spatial_shape: tuple[int, int, int] = (int(spatial_shape[0]), int(spatial_shape[1]), int(spatial_shape[2]))
        self.batch_size = int(batch_size)
        if cache is None:  # an input from outside; descendants are right by construction
            check_coordinates(features, coordinates, self.spatial_shape, self.batch_size)
            cache = RulebookCache()
        if planned is not None:
            cache.planned.update(planned)
        self.cache = cache

    def __len__(self) -> int:
        return int(self.features.shape[0])

    def __repr__(self) -> str:
        return (
            f"SparseTensor(sites={len(self)}, channels={self.features.shape[1]}, shape={self.spatial_shape}, "
            f"batch_size={self.batch_size}, device={self.features.device})"
        )

    def replace_features(self, features: Tensor) -> SparseTensor:
        """The same sites with other features ``(N, C')``; rulebooks stay shared."""
        return SparseTensor(features, self.coordinates, self.spatial_shape, self.batch_size, cache=self.cache)

    def dense(self) -> Tensor:
        """``(B, C, D, H, W)`` with zeros at inactive sites.

        The memory order is (B, H, W, C, D), so that flattening channels and z into a bird's-eye-view map
        ``(B, C * D, H, W)`` is a view in channels-last layout and not a copy.
        """
        depth, height, width = self.spatial_shape
        channels = self.features.shape[1]
        batch, z, y, x = self.coordinates.long().unbind(1)
        grid = self.features.new_zeros(self.batch_size * height * width, channels, depth)
        cells = (batch * height + y) * width + x
        channel = torch.arange(channels, device=z.device)
        # In place: an out-of-place index_put would copy the whole map.
        grid.index_put_((cells[:, None], channel[None], z[:, None]), self.features)
        return grid.view(self.batch_size, height, width, channels, depth).permute(0, 3, 4, 1, 2)
