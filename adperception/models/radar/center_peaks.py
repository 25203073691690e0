"""Candidates of ERASE-Net: peaks of the heat map, refined by the offset map, with an azimuth from the cube.

Shape legend: B frames, K candidates per frame, C classes, R x A x D cube cells, H x D heat-map cells.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from adperception.models.radar.center_detector import HEATMAP_STRIDE, CenterMaps

__all__ = ["Candidates", "find_azimuths", "find_peaks"]

_NEIGHBOURS = (-1, 0, 1)


@dataclass(frozen=True)
class Candidates:
    """The K best peaks of each frame, best first; frames with fewer peaks are filled up with score 0.

    Attributes:
        places: ``(B, K, 2)`` range row (row 0 far) and Doppler column, not rounded.
        scores: ``(B, K, C)`` scores of the classes at the peak.
    """

    places: Tensor
    scores: Tensor

    @property
    def best(self) -> Tensor:
        """``(B, K)``: the score of the best class."""
        return self.scores.amax(dim=2)


def find_peaks(maps: CenterMaps, count: int, columns: int) -> Candidates:
    """The ``count`` best cells that are the maximum of their 3 x 3 neighbourhood in some class.

    Peaks of several classes in one cell are one candidate with the scores of all classes.

    Args:
        maps: the detector's output.
        count: K.
        columns: D, to wrap the Doppler column.
    """
    scores = maps.heatmap.sigmoid()
    height, width = scores.shape[2:]
    wrapped = torch.cat([scores[..., -1:], scores, scores[..., :1]], dim=-1)
    highest = F.max_pool2d(wrapped, 3, stride=1, padding=(1, 0))
    peaks = torch.where(scores >= highest, scores, torch.zeros_like(scores)).amax(dim=1)
    values, cells = peaks.flatten(1).topk(min(count, height * width), dim=1)

    def at_cells(values: Tensor) -> Tensor:
        index = cells[:, None].expand(-1, values.shape[1], -1)
        return values.flatten(2).gather(2, index).transpose(1, 2)

    corner = torch.stack([cells // width, cells % width], dim=-1)
    places = (corner + at_cells(maps.offset)) * scores.new_tensor(HEATMAP_STRIDE)
    places = torch.stack([places[..., 0], places[..., 1].remainder(columns)], dim=-1)
    found = at_cells(scores) * (values > 0)[..., None]
    return Candidates(places, found)


def find_azimuths(cubes: Tensor, frames: Tensor, rows: Tensor, dopplers: Tensor, beam: int) -> Tensor:
    """The azimuth column from which most power comes in the 3 x 3 range-Doppler cells around a place.

    The power is smoothed with a window as wide as the beam (its first and last column count half, so that it is
    symmetric) before its maximum is taken.

    Args:
        cubes: ``(B, R, A, D)`` magnitudes of one moment.
        frames: ``(N,)`` int64, which of the B.
        rows: ``(N,)`` int64 range rows.
        dopplers: ``(N,)`` int64 Doppler columns.
        beam: width of the antenna's beam, columns.

    Returns:
        ``(N,)`` int64 columns.
    """
    _, range_bins, azimuth_bins, doppler_bins = cubes.shape
    step = torch.tensor(_NEIGHBOURS, device=cubes.device)
    row, doppler = rows[:, None] + step, (dopplers[:, None] + step) % doppler_bins
    inside = ((row >= 0) & (row < range_bins)).to(cubes.dtype)
    azimuth = torch.arange(azimuth_bins, device=cubes.device)
    cells = cubes[
        frames[:, None, None, None],
        row.clamp(0, range_bins - 1)[:, :, None, None],
        azimuth[:, None],
        doppler[:, None, None, :],
    ]
    power = (cells.square().sum(3) * inside[:, :, None]).sum(1)
    half = max(1, beam // 2)
    wrapped = torch.cat([power[:, azimuth_bins - half :], power, power[:, :half]], dim=1)
    weights = power.new_ones(1, 1, 2 * half + 1)
    weights[..., 0] = weights[..., -1] = 0.5
    return F.conv1d(wrapped[:, None], weights)[:, 0].argmax(dim=1)
