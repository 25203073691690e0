"""The voxel grid: range, voxel size and the shapes that follow from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["VoxelGrid"]


@dataclass(frozen=True)
class VoxelGrid:
    """A regular grid in the LiDAR frame.

    Attributes:
        point_cloud_range: ``(x_min, y_min, z_min, x_max, y_max, z_max)`` in metres.
        voxel_size: ``(x, y, z)`` in metres; each axis' extent must be a whole number of voxels.
    """

    point_cloud_range: tuple[float, float, float, float, float, float]
    voxel_size: tuple[float, float, float]

    def __post_init__(self) -> None:
        lower, upper = self.point_cloud_range[:3], self.point_cloud_range[3:]
        for axis, lo, hi, size in zip("xyz", lower, upper, self.voxel_size, strict=True):
            if size <= 0 or hi <= lo:
                raise ValueError(f"VoxelGrid: {axis} range [{lo}, {hi}] m with voxel size {size} m holds no voxel.")
            cells = (hi - lo) / size
            if abs(cells - round(cells)) > 1e-3:
                raise ValueError(
                    f"VoxelGrid: {axis} range [{lo}, {hi}] m is {cells:.4f} voxels of {size} m. "
                    f"Make the range a whole number of voxels, e.g. {axis}_max = {lo + round(cells) * size:g}."
                )

    @classmethod
    def create(cls, point_cloud_range: Sequence[float], voxel_size: Sequence[float]) -> VoxelGrid:
        """A grid from plain sequences of six and three numbers, as configs have them."""
        if len(point_cloud_range) != 6 or len(voxel_size) != 3:
            raise ValueError(
                f"VoxelGrid: point_cloud_range needs 6 numbers and voxel_size 3, not {len(point_cloud_range)} "
                f"and {len(voxel_size)}."
            )
        r, v = [float(a) for a in point_cloud_range], [float(a) for a in voxel_size]
        return cls((r[0], r[1], r[2], r[3], r[4], r[5]), (v[0], v[1], v[2]))

    @property
    def size_xyz(self) -> tuple[int, int, int]:
        """Voxels along x, y, z."""
        r, v = self.point_cloud_range, self.voxel_size
        return round((r[3] - r[0]) / v[0]), round((r[4] - r[1]) / v[1]), round((r[5] - r[2]) / v[2])

    @property
    def shape_zyx(self) -> tuple[int, int, int]:
        """Voxels along z, y, x."""
        x, y, z = self.size_xyz
        return z, y, x

    @property
    def sparse_shape(self) -> tuple[int, int, int]:
        """``(n_z + 1, n_y, n_x)``: the grid of the sparse encoders, one spare layer in z as SECOND has it."""
        z, y, x = self.shape_zyx
        return z + 1, y, x
