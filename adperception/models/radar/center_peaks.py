"""Candidates of ERASE-Net: peaks of the heat map, refined by the offset map, with an azimuth from the cube.

Shape legend: B frames, K candidates per frame, C classes, R x A x D cube cells, H x D heat-map cells.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from adperception.losses.full_precision import full_precision
from adperception.models.on_device import on_device
from adperception.models.radar.center_detector import HEATMAP_STRIDE, CenterMaps

__all__ = ["Candidates", "find_azimuths", "find_peaks"]

_ROW_WEIGHTS = (1.0, 1.0, 0.5)
"""Of the rows around a place: labels lie up to one row nearer than the echo (``flip_label_row``)."""
_DOPPLER_WEIGHTS = (0.5, 1.0, 0.5)
_TINY = 1e-12


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
    places = (corner + at_cells(maps.offset)) * on_device(HEATMAP_STRIDE, scores.device, scores.dtype)
    places = torch.stack([places[..., 0], places[..., 1].remainder(columns)], dim=-1)
    found = at_cells(scores) * (values > 0)[..., None]
    return Candidates(places, found)


def find_azimuths(cubes: Tensor, frames: Tensor, rows: Tensor, dopplers: Tensor, beam: int) -> Tensor:
    """The azimuth column where the 3 x 3 range-Doppler cells around a place have most of their power.

    Each cell's power counts relative to its mean over azimuth. In plain sums, static clutter in the Doppler column
    next to a slow object decides: on simulated CARRADA cubes of 64 x 64 x 16 cells they find the beam of 44 % of the
    objects, relative ones of 96 %. The sum is smoothed with a window as wide as the beam (its first and last column
    count half, so that it is symmetric) before its maximum is taken.

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
    step = torch.arange(-1, 2, device=cubes.device)
    row, doppler = rows[:, None] + step, (dopplers[:, None] + step) % doppler_bins
    row_weights, doppler_weights = (on_device(w, cubes.device, cubes.dtype) for w in (_ROW_WEIGHTS, _DOPPLER_WEIGHTS))
    weights = row_weights[:, None] * doppler_weights
    weights = weights * ((row >= 0) & (row < range_bins))[:, :, None]  # (N, 3, 3)
    cells = cubes[
        frames[:, None, None, None],
        row.clamp(0, range_bins - 1)[:, :, None, None],
        torch.arange(azimuth_bins, device=cubes.device),
        doppler[:, None, :, None],
    ].square()
    relative = cells / (cells.mean(dim=3, keepdim=True) + _TINY)
    power = (relative * weights[..., None]).sum((1, 2))
    half = max(1, beam // 2)
    wrapped = torch.cat([power[:, azimuth_bins - half :], power, power[:, :half]], dim=1)
    window = on_device([0.5, *[1.0] * (2 * half - 1), 0.5], power.device, power.dtype)[None, None]
    with full_precision(power):
        return F.conv1d(wrapped[:, None], window)[:, 0].argmax(dim=1)
