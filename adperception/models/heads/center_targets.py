"""Heat maps with a peak at every object, and what is to be said there.

Shape legend: B frames, K classes, H x W cells, M objects of the batch, R the largest radius.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from adperception.models.backbones.voxel_backbone_8x import BEV_STRIDE
from adperception.models.heads.labelled_boxes import LabelledBoxes
from adperception.models.on_device import on_device
from adperception.structures import VoxelGrid

__all__ = ["CenterTargets", "PendingCenterTargets", "center_targets", "draw_peaks", "peak_radius"]

MIN_OVERLAP = 0.1
MIN_RADIUS = 2


@dataclass(frozen=True)
class CenterTargets:
    """What the maps of a batch should be.

    Attributes:
        heatmaps: ``(B, K, H, W)``, 1 at the centres of objects, falling off around them.
        cells: ``(M,)`` int64 positions ``(frame * H + y) * W + x`` of the centres, frame by frame.
        codes: ``(M, 8)`` offset of the centre from its cell's corner in x, y (cells); z (metres); logarithms of length,
            width, height; cosine and sine of the yaw.
    """

    heatmaps: Tensor
    cells: Tensor
    codes: Tensor


@dataclass(frozen=True)
class PendingCenterTargets:
    """Targets whose peaks are not drawn yet, as the host does not know how large they are.

    Attributes:
        shape: B, K, H, W.
        channels: ``(M,)`` int64 the map of each object, ``frame * K + class``.
        places: ``(M, 2)`` int64 x, y of its cell.
        radii: ``(M,)`` int64 radius of its peak, cells.
        codes: see ``CenterTargets``.
        reach: scalar int64 on the device: the largest radius; 0 without objects.
    """

    shape: tuple[int, int, int, int]
    channels: Tensor
    places: Tensor
    radii: Tensor
    codes: Tensor
    reach: Tensor

    def known(self, reach: int) -> CenterTargets:
        """The targets, given what ``self.reach`` holds; runs without a wait of the host."""
        _, class_count, height, width = self.shape
        heatmaps = self.codes.new_zeros(self.shape)
        draw_peaks(heatmaps.view(-1, height, width), self.channels, self.places, self.radii, reach)
        frame = torch.div(self.channels, class_count, rounding_mode="floor")
        return CenterTargets(heatmaps, (frame * height + self.places[:, 1]) * width + self.places[:, 0], self.codes)


def center_targets(
    frames: Sequence[LabelledBoxes], class_count: int, grid: VoxelGrid, bev_shape: tuple[int, int]
) -> PendingCenterTargets:
    """The targets of B frames' objects. A centre outside the range goes to the border cell next to it.

    Source: Yin et al., "Center-based 3D Object Detection and Tracking", CVPR 2021, section 4, as in OpenPCDet.
    """
    height, width = bev_shape
    boxes, labels = torch.cat([f.boxes for f in frames]), torch.cat([f.labels for f in frames])
    device, dtype = boxes.device, boxes.dtype
    frame = on_device([number for number, objects in enumerate(frames) for _ in range(len(objects))], device)
    # Tensors, not Python numbers: torch turns a division by a number into a product on CUDA, which rounds differently,
    # and a centre on a cell border would change its cell with the device.
    minimum = on_device(grid.point_cloud_range[:2], device, dtype)
    size = on_device(grid.voxel_size[:2], device, dtype)
    place = (boxes[:, :2] - minimum) / size / BEV_STRIDE
    place = place.clamp(min=0).minimum(on_device([width - 0.5, height - 0.5], device, dtype))
    cell = place.long()
    length_width = boxes[:, 3:5] / size / BEV_STRIDE
    radius = peak_radius(length_width[:, 0], length_width[:, 1]).long().clamp(min=MIN_RADIUS)
    yaw = boxes[:, 6:]
    codes = torch.cat([place - cell, boxes[:, 2:3], boxes[:, 3:6].log(), yaw.cos(), yaw.sin()], dim=1)
    reach = radius.max() if len(radius) else torch.zeros((), dtype=torch.int64, device=device)
    shape = (len(frames), class_count, height, width)
    return PendingCenterTargets(shape, frame.long() * class_count + labels, cell, radius, codes, reach)


def peak_radius(length: Tensor, width: Tensor, min_overlap: float = MIN_OVERLAP) -> Tensor:
    """How far a box's corners may be off until its IoU with the true one falls below ``min_overlap``.

    The smallest of three cases: one corner out and one in, both in, both out. As in CornerNet's published code, on
    which all published weights rest, the roots of the three quadratics are taken as ``(b + sqrt(b^2 - 4ac)) / 2``,
    without the division by ``a``.

    Args:
        length: ``(M,)`` in cells.
        width: ``(M,)`` in cells.
        min_overlap: IoU that is still good.

    Source: Law and Deng, CornerNet, ECCV 2018, section 3.2.
    """
    around, area = length + width, length * width
    cases = (
        (1.0, around, area * (1 - min_overlap) / (1 + min_overlap)),
        (4.0, 2 * around, area * (1 - min_overlap)),
        (4.0 * min_overlap, -2 * min_overlap * around, area * (min_overlap - 1)),
    )
    roots = [(b + torch.sqrt(b**2 - 4 * a * c)) / 2 for a, b, c in cases]
    return torch.stack(roots).amin(dim=0)


def draw_peaks(maps: Tensor, channel: Tensor, cell: Tensor, radius: Tensor, reach: int) -> None:
    """Draw Gaussian peaks into ``maps`` in place; where they overlap, the higher value stays.

    Args:
        maps: ``(C, H, W)``, contiguous, nowhere negative.
        channel: ``(M,)`` int64 the map of each peak.
        cell: ``(M, 2)`` int64 x, y of its top, inside the map.
        radius: ``(M,)`` int64 cells; the peak fills a square of side ``2 * radius + 1``, its standard deviation is a
            sixth of that.
        reach: the largest radius, or more.
    """
    if not len(channel):
        return
    _, height, width = maps.shape
    step = torch.arange(-reach, reach + 1, device=maps.device)
    dy, dx = (d.flatten()[None] for d in torch.meshgrid(step, step, indexing="ij"))  # (1, (2R + 1)^2)
    sigma = (2 * radius[:, None] + 1).to(maps.dtype) / 6
    values = torch.exp(-(dx**2 + dy**2) / (2 * sigma**2))
    x, y = cell[:, :1] + dx, cell[:, 1:] + dy
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    drawn = inside & (dx.abs() <= radius[:, None]) & (dy.abs() <= radius[:, None])
    # What is not to be drawn goes to the top of its peak as a zero, which changes nothing there.
    y, x = torch.where(drawn, y, cell[:, 1:]), torch.where(drawn, x, cell[:, :1])
    index = (channel[:, None] * height + y) * width + x
    maps.view(-1).scatter_reduce_(0, index.flatten(), torch.where(drawn, values, 0.0).flatten(), "amax")
