"""Points to voxels with mean features, hard (capped) or dynamic, vectorised, on any device.

Shape legend: N points, C channels, V voxels, P points kept per voxel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adperception.structures import LidarBatch, LidarFrame, VoxelGrid, Voxels

__all__ = ["VoxelCollate", "Voxelizer", "voxelize_by_loop"]


@dataclass(frozen=True)
class Voxelizer:
    """Turns the points of one frame into voxels.

    Hard mode has the order semantics of OpenPCDet (and of spconv's point-to-voxel): points are visited in order; a
    voxel comes into being with its first point, as long as there are fewer than ``max_voxels``; each voxel takes its
    first ``max_points_per_voxel`` points, whenever they come. What exceeds either cap is dropped.

    Attributes:
        grid: range and voxel size. A point lies in voxel floor((p - minimum) / size), computed in float32.
        max_points_per_voxel: cap of points per voxel; ``None`` keeps all (dynamic voxelization).
        max_voxels: cap of voxels per frame; ``None``: no cap.
    """

    grid: VoxelGrid
    max_points_per_voxel: int | None
    max_voxels: int | None

    def __post_init__(self) -> None:
        for name in ("max_points_per_voxel", "max_voxels"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"Voxelizer: {name} is {value}, expected at least 1, or None for no cap.")

    def __call__(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Voxels of one frame, in the order of their first points.

        Args:
            points: ``(N, C)`` float32, x, y, z in metres first; points outside the grid are ignored.

        Returns:
            ``(V, C)`` float32, the mean over the points of each voxel, and ``(V, 3)`` int32 coordinates (z, y, x).
        """
        cells, inside = self.locate(points)
        if not bool(inside.all()):
            points, cells = points[inside], cells[inside]
        return self.voxelize_located(points, cells)

    def locate(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Voxel numbers of points.

        Returns:
            ``(N,)`` int64 number ``(z * n_y + y) * n_x + x`` of the voxel (meaningless outside the grid) and ``(N,)``
            bool, whether the point lies in the grid.
        """
        n_x, n_y, n_z = self.grid.size_xyz
        # Tensors, not Python numbers: torch turns a division by a number into a product on CUDA, which rounds
        # differently, and a point on a voxel border would change its voxel with the device.
        minimum = points.new_tensor(self.grid.point_cloud_range[:3])
        size = points.new_tensor(self.grid.voxel_size)
        index = torch.floor((points[:, :3] - minimum) / size)
        limit = index.new_tensor([n_x, n_y, n_z])
        inside = ((index >= 0) & (index < limit)).all(dim=1)  # NaN compares false: never inside
        x, y, z = index.nan_to_num(0, 0, 0).long().unbind(1)
        return (z * n_y + y) * n_x + x, inside

    def voxelize_located(self, points: Tensor, cells: Tensor) -> tuple[Tensor, Tensor]:
        """The same as calling the voxelizer, for points that ``locate`` found inside, with their voxel numbers."""
        n_x, n_y, _ = self.grid.size_xyz
        if not len(points):
            return points.new_zeros((0, points.shape[1])), cells.new_zeros((0, 3), dtype=torch.int32)
        by_cell, order = torch.sort(cells, stable=True)  # stable: points of one voxel stay in their order
        voxel_cells, counts = torch.unique_consecutive(by_cell, return_counts=True)
        starts = counts.cumsum(0) - counts
        by_first_point = torch.argsort(order[starts])[: self.max_voxels]
        starts, counts, voxel_cells = starts[by_first_point], counts[by_first_point], voxel_cells[by_first_point]
        if self.max_points_per_voxel is not None:
            counts = counts.clamp(max=self.max_points_per_voxel)
        features = _segment_means(points, order, starts, counts)
        z, rest = voxel_cells // (n_y * n_x), voxel_cells % (n_y * n_x)
        return features, torch.stack([z, rest // n_x, rest % n_x], dim=1).int()


def _segment_means(points: Tensor, order: Tensor, starts: Tensor, counts: Tensor) -> Tensor:
    """Means ``(V, C)`` of the points ``order[start : start + count]`` of each voxel.

    A segment reduction adds in point order and without atomics, so the same points give the same bits every time.
    """
    within = torch.arange(int(counts.sum()), device=points.device)
    within -= (counts.cumsum(0) - counts).repeat_interleave(counts)
    members = order[starts.repeat_interleave(counts) + within]
    return torch.segment_reduce(points[members], "sum", lengths=counts, unsafe=True) / counts[:, None]


def voxelize_by_loop(
    voxelizer: Voxelizer, points: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """The readable twin of ``Voxelizer.__call__``: one point after the other, as the definition says it."""
    minimum = np.array(voxelizer.grid.point_cloud_range[:3], dtype=np.float32)
    size = np.array(voxelizer.grid.voxel_size, dtype=np.float32)
    max_points = voxelizer.max_points_per_voxel or len(points)
    max_voxels = voxelizer.max_voxels or len(points)
    members: dict[tuple[int, int, int], list[NDArray[np.float32]]] = {}
    for point in points:
        x, y, z = (int(i) for i in np.floor((point[:3] - minimum) / size))
        if not all(0 <= i < n for i, n in zip((x, y, z), voxelizer.grid.size_xyz, strict=True)):
            continue
        if (z, y, x) not in members:
            if len(members) == max_voxels:
                continue
            members[z, y, x] = []
        if len(members[z, y, x]) < max_points:
            members[z, y, x].append(point)
    features = [np.add.reduce(np.stack(m), axis=0) / np.float32(len(m)) for m in members.values()]
    return (
        np.array(features, dtype=np.float32).reshape(-1, points.shape[1]),
        np.array(list(members), dtype=np.int32).reshape(-1, 3),
    )


@dataclass(frozen=True)
class VoxelCollate:
    """Turns dataset frames into a voxelised batch (picklable, so it can run in data workers).

    Attributes:
        voxelizer: voxelises each frame by itself.
        in_channels: what the model reads: the channel names, or only how many they are.
    """

    voxelizer: Voxelizer
    in_channels: int | Sequence[str]

    def __call__(self, frames: Sequence[LidarFrame]) -> LidarBatch:
        """A batch of B frames; a frame without a point in the grid is legal and has no voxel.

        Raises:
            ValueError: for an empty list, or a cloud whose channels are not those the model reads.
        """
        if not frames:
            raise ValueError("VoxelCollate: the list of frames is empty; a batch needs at least one frame.")
        features, coordinates, clouds = [], [], []
        for number, frame in enumerate(frames):
            self._check_channels(frame)
            points = torch.from_numpy(np.ascontiguousarray(frame.cloud.points))
            cells, inside = self.voxelizer.locate(points)
            points, cells = points[inside], cells[inside]  # a copy: the batch never shares memory with the dataset
            feature, zyx = self.voxelizer.voxelize_located(points, cells)
            features.append(feature)
            coordinates.append(torch.cat([zyx.new_full((len(zyx), 1), number), zyx], dim=1))
            clouds.append(points)
        boxes = [frame.boxes for frame in frames if frame.boxes is not None]
        return LidarBatch(
            frame_ids=tuple(frame.frame_id for frame in frames),
            voxels=Voxels(torch.cat(features), torch.cat(coordinates), len(frames)),
            points=tuple(clouds),
            boxes=tuple(boxes) if len(boxes) == len(frames) else None,
        )

    def _check_channels(self, frame: LidarFrame) -> None:
        channels, wanted = frame.cloud.channels, self.in_channels
        if (len(channels) == wanted) if isinstance(wanted, int) else (channels == tuple(wanted)):
            return
        described = f"{wanted} channels" if isinstance(wanted, int) else f"({', '.join(wanted)})"
        raise ValueError(
            f"frame {frame.frame_id}: the cloud has the channels ({', '.join(channels)}), the model reads {described}. "
            "Set the dataset's channels or the model's in_channels so that they agree."
        )
