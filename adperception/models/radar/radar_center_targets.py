"""What ERASE-Net's detector should say: Gaussian peaks at the centres of labelled objects.

Shape legend: B frames, C classes, M objects of the batch, R x D range and Doppler cells, H x D heat-map cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from adperception.models.on_device import on_device
from adperception.models.radar.center_detector import HEATMAP_STRIDE
from adperception.structures import RadarObjects

__all__ = ["LabelledCenters", "RadarCenterTargets", "labelled_centers", "radar_center_targets"]


@dataclass(frozen=True)
class LabelledCenters:
    """The objects of a batch, one after the other.

    Attributes:
        frames: ``(M,)`` int64, which of the B frames.
        cells: ``(M, 3)`` range row, azimuth column, Doppler column; row 0 far, not rounded.
        sizes: ``(M, 3)`` extents in cells, 0 where unknown.
        classes: ``(M,)`` int64, 1 and up.
    """

    frames: Tensor
    cells: Tensor
    sizes: Tensor
    classes: Tensor


def labelled_centers(objects: Sequence[RadarObjects], device: torch.device) -> LabelledCenters:
    """The objects of B frames as tensors."""

    def joined(parts: list[np.ndarray]) -> Tensor:
        return torch.from_numpy(np.concatenate(parts)).to(device, non_blocking=True)

    counts = torch.tensor([len(o) for o in objects])
    return LabelledCenters(
        frames=torch.repeat_interleave(torch.arange(len(objects)), counts).to(device, non_blocking=True),
        cells=joined([o.cells for o in objects]),
        sizes=joined([o.sizes for o in objects]),
        classes=joined([o.class_ids for o in objects]),
    )


@dataclass(frozen=True)
class RadarCenterTargets:
    """What the maps of a batch should be.

    Attributes:
        heatmaps: ``(B, C, H, D)``, 1 at the centres of objects, falling off around them.
        frames: ``(M,)`` int64 frame of each object.
        rows: ``(M,)`` int64 heat-map row of its centre.
        columns: ``(M,)`` int64 heat-map column of its centre.
        offsets: ``(M, 2)`` place of the centre inside that cell, range and Doppler, 0 to 1.
    """

    heatmaps: Tensor
    frames: Tensor
    rows: Tensor
    columns: Tensor
    offsets: Tensor


def radar_center_targets(
    centers: LabelledCenters, batch_size: int, class_count: int, range_bins: int, doppler_bins: int
) -> RadarCenterTargets:
    """Peaks ``exp(-di^2 / 2 si^2 - dk^2 / 2 sk^2)`` with deviations of a sixth of the extent, at least one cell.

    Of overlapping peaks of one class the higher value stays. Doppler distances wrap around.

    Source: fact sheet of ERASE-Net, section 3.2 (our reconstruction); Zhou et al., "Objects as Points", 2019.
    """
    stride = on_device(HEATMAP_STRIDE, centers.cells.device, centers.cells.dtype)
    height, width = -(-range_bins // HEATMAP_STRIDE[0]), -(-doppler_bins // HEATMAP_STRIDE[1])
    place = centers.cells[:, ::2] / stride
    row = place[:, 0].floor().long().clamp(0, height - 1)
    column = place[:, 1].floor().long()
    offsets = torch.stack([place[:, 0] - row, place[:, 1] - column], dim=1).clamp(0, 1)
    column = column % width
    deviation = (centers.sizes[:, ::2] / stride / 6).clamp(min=1)

    rows = torch.arange(height, device=place.device)
    columns = torch.arange(width, device=place.device)
    di = (rows - row[:, None]) / deviation[:, :1]
    dk = ((columns - column[:, None] + width // 2) % width - width // 2) / deviation[:, 1:]
    peaks = torch.exp(-(di.square()[:, :, None] + dk.square()[:, None, :]) / 2)
    heatmaps = place.new_zeros(batch_size * class_count, height, width)
    channel = centers.frames * class_count + centers.classes - 1
    heatmaps.scatter_reduce_(0, channel[:, None, None].expand_as(peaks), peaks, "amax")
    return RadarCenterTargets(
        heatmaps.view(batch_size, class_count, height, width), centers.frames, row, column, offsets
    )
