"""VoxelBackBone8x: the sparse 3D encoder of SECOND (Yan et al., Sensors 2018), as OpenPCDet shapes it.

Twelve sparse convolutions in five stages take a voxel grid to an eighth of its resolution along x and y. Module names
are OpenPCDet's, so that a state dict of either side fits the other without a table.

Shape legend: B batch, D0 x H0 x W0 the sparse grid (z, y, x), H = H0 / 8, W = W0 / 8.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from adperception.sparse import (
    PlannedSites,
    SparseBatchNorm1d,
    SparseConv3d,
    SparseSequential,
    SparseTensor,
    SubMConv3d,
    name_layers,
    plan_levels,
    uses_planned_sites,
)
from adperception.sparse.rulebook import Kernel
from adperception.structures import VoxelGrid, Voxels

__all__ = [
    "BEV_STRIDE",
    "STAGE_CHANNELS",
    "STAGE_STRIDES",
    "BackboneStages",
    "VoxelBackBone8x",
    "bev_layers",
    "down",
    "sub",
]

BEV_STRIDE = 8
"""Voxels per bird's-eye-view cell along x and y."""

OUT_CHANNELS = 128

STAGE_CHANNELS = (16, 32, 64, 64)
"""Channels that ``conv1`` to ``conv4`` give."""

STAGE_STRIDES = (1, 2, 4, 8)
"""Input voxels per site of ``conv1`` to ``conv4`` along each axis."""


class BackboneStages(NamedTuple):
    """Everything that detectors look at.

    Attributes:
        sites: what ``conv1`` to ``conv4`` give: sparse tensors of ``stage_channels`` at ``STAGE_STRIDES``.
        bev: ``(B, 256, H, W)`` the map.
    """

    sites: tuple[SparseTensor, ...]
    bev: Tensor


def sub(in_channels: int, out_channels: int, key: str) -> SparseSequential:
    """A submanifold 3 x 3 x 3 convolution, norm and ReLU."""
    return _with_norm(SubMConv3d(in_channels, out_channels, 3, key=key), out_channels)


def down(in_channels: int, out_channels: int, key: str, padding: int | Sequence[int] = 1) -> SparseSequential:
    """A 3 x 3 x 3 convolution of stride 2, norm and ReLU."""
    conv = SparseConv3d(in_channels, out_channels, 3, stride=2, padding=padding, key=key)
    return _with_norm(conv, out_channels)


def _with_norm(conv: nn.Module, channels: int) -> SparseSequential:
    return SparseSequential(conv, SparseBatchNorm1d(channels, eps=1e-3, momentum=0.01), nn.ReLU(inplace=True))


def bev_layers(n_z: int) -> int:
    """Layers along z that the encoder leaves of ``n_z`` voxels; 0 if it cannot take so few."""
    depth = n_z + 1
    for kernel, stride, padding in ((3, 2, 1), (3, 2, 1), (3, 2, 0), (3, 2, 0)):
        depth = (depth + 2 * padding - kernel) // stride + 1
        if depth < 1:
            return 0
    return depth


class VoxelBackBone8x(nn.Module):
    """Voxels to a bird's-eye-view map.

    Args:
        in_channels: features per voxel (4: x, y, z, intensity; 5: and elongation).
        grid: the voxel grid. x and y must be multiples of 8 voxels.
        bev_channels: channels that the map is expected to have, 256 for published checkpoints; they follow from the
            depth of the grid as ``128 * layers``.

    Raises:
        ValueError: if the grid does not fit.

    Attributes:
        stage_channels: channels that ``conv1`` to ``conv4`` give.
    """

    stage_channels: ClassVar[tuple[int, int, int, int]] = STAGE_CHANNELS

    def __init__(self, in_channels: int, grid: VoxelGrid, bev_channels: int = 256) -> None:
        super().__init__()
        self.in_channels, self.grid, self.bev_channels = in_channels, grid, bev_channels
        _check_grid(type(self).__name__, grid, bev_channels)
        self.conv_input = sub(in_channels, 16, "subm1")
        self.conv1, self.conv2, self.conv3, self.conv4 = self._make_stages()
        out = SparseConv3d(self.stage_channels[-1], OUT_CHANNELS, (3, 1, 1), stride=(2, 1, 1), key="spconv_down2")
        self.conv_out = _with_norm(out, OUT_CHANNELS)
        name_layers(self, f"{type(self).__module__.rpartition('.')[2]}.")

    def _make_stages(self) -> tuple[SparseSequential, SparseSequential, SparseSequential, SparseSequential]:
        """``conv1`` to ``conv4``."""
        return (
            SparseSequential(sub(16, 16, "subm1")),
            SparseSequential(down(16, 32, "spconv2"), sub(32, 32, "subm2"), sub(32, 32, "subm2")),
            SparseSequential(down(32, 64, "spconv3"), sub(64, 64, "subm3"), sub(64, 64, "subm3")),
            SparseSequential(down(64, 64, "spconv4", (0, 1, 1)), sub(64, 64, "subm4"), sub(64, 64, "subm4")),
        )

    @property
    def bev_shape(self) -> tuple[int, int]:
        """``(H, W)`` of the map."""
        _, y, x = self.grid.shape_zyx
        return y // BEV_STRIDE, x // BEV_STRIDE

    @property
    def level_kernels(self) -> tuple[tuple[str, Kernel], ...]:
        """Key and kernel of every strided convolution, in order: what ``plan_levels`` wants to know."""
        strided = (module for module in self.modules() if isinstance(module, SparseConv3d))
        return tuple((str(conv.key), conv.kernel) for conv in strided)

    def forward(self, voxels: Voxels, planned: Mapping[str, PlannedSites] | None = None) -> Tensor:
        """``(B, 256, H, W)``, channel = ``c * 2 + z``, channels-last in memory; zeros where nothing was active.

        Args:
            voxels: the voxels.
            planned: the sites of all levels (``plan_levels`` with ``level_kernels``). Without them the encoder plans
                itself where the backend wants it, which makes the host wait once.
        """
        x = self._first_stage(voxels, planned)
        for stage in (self.conv1, self.conv2, self.conv3, self.conv4, self.conv_out):
            x = stage(x)
        return x.dense().flatten(1, 2)

    def stages(self, voxels: Voxels, planned: Mapping[str, PlannedSites] | None = None) -> BackboneStages:
        """The same map, and the sparse tensors that it was made from."""
        x = self._first_stage(voxels, planned)
        sites = []
        for stage in (self.conv1, self.conv2, self.conv3, self.conv4):
            x = stage(x)
            sites.append(x)
        return BackboneStages(tuple(sites), self.conv_out(x).dense().flatten(1, 2))

    def _first_stage(self, voxels: Voxels, planned: Mapping[str, PlannedSites] | None) -> SparseTensor:
        """``conv_input``, in float32 whatever autocast says.

        Its input are metres: at 70 m, bfloat16 numbers lie 0.5 m apart, ten voxels.
        """
        with torch.autocast(voxels.features.device.type, enabled=False):
            return self.conv_input(self._input(voxels, planned))  # type: ignore[no-any-return]

    def _input(self, voxels: Voxels, planned: Mapping[str, PlannedSites] | None) -> SparseTensor:
        shape = self.grid.sparse_shape
        if planned is None and uses_planned_sites(voxels.features):
            pending = plan_levels(voxels.coordinates, shape, voxels.batch_size, self.level_kernels)
            (planned,) = pending.sites(pending.counts.tolist())
        return SparseTensor(voxels.features, voxels.coordinates, shape, voxels.batch_size, planned=planned)


def _check_grid(name: str, grid: VoxelGrid, bev_channels: int) -> None:
    n_z, n_y, n_x = grid.shape_zyx
    for axis, n in (("x", n_x), ("y", n_y)):
        if n % BEV_STRIDE:
            raise ValueError(
                f"{name}: {n} voxels along {axis} are not a multiple of {BEV_STRIDE}. Change the range along "
                f"{axis} to {n - n % BEV_STRIDE} or {n - n % BEV_STRIDE + BEV_STRIDE} voxels."
            )
    layers = bev_layers(n_z)
    if layers * OUT_CHANNELS == bev_channels:
        return
    fitting = [n for n in range(1, 1000) if bev_layers(n) * OUT_CHANNELS == bev_channels]
    if not fitting:
        raise ValueError(f"{name}: bev_channels={bev_channels} is not a multiple of {OUT_CHANNELS}.")
    height = grid.point_cloud_range[5] - grid.point_cloud_range[2]
    nearest = min(fitting, key=lambda n: abs(n - n_z))
    raise ValueError(
        f"{name}: n_z = {n_z} voxels along z (range {height:g} m, voxel size {grid.voxel_size[2]:g} m) give "
        f"{layers * OUT_CHANNELS} BEV channels, expected {bev_channels}. That needs {fitting[0]} to {fitting[-1]} "
        f"voxels along z: the nearest voxel size is {height / nearest:g} m ({nearest} voxels)."
    )
