"""Boxes relative to anchors, and headings as a bin and a rest.

Boxes are ``(..., 7)`` x, y, z, length, width, height, yaw (metres, radians).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = [
    "DIRECTION_BINS",
    "DIRECTION_OFFSET",
    "decode_boxes",
    "direction_bins",
    "encode_boxes",
    "limit_period",
    "turn_to_bins",
]

DIRECTION_BINS = 2
DIRECTION_OFFSET = 0.78539
"""Unless told otherwise, headings from this angle on, for half a turn, are bin 0 (radians; OpenPCDet's)."""

_BIN = 2 * math.pi / DIRECTION_BINS


def encode_boxes(boxes: Tensor, anchors: Tensor) -> Tensor:
    """``(N, 7)`` codes of boxes relative to anchors.

    Offsets in x and y are in diagonals of the anchor, in z in heights of the anchor; sizes are logarithms of ratios,
    the heading is a difference.

    Source: Yan et al., SECOND, Sensors 2018, equation 1 (VoxelNet's code).
    """
    diagonal = torch.hypot(anchors[:, 3:4], anchors[:, 4:5])
    return torch.cat(
        [
            (boxes[:, :2] - anchors[:, :2]) / diagonal,
            (boxes[:, 2:3] - anchors[:, 2:3]) / anchors[:, 5:6],
            torch.log(boxes[:, 3:6] / anchors[:, 3:6]),
            boxes[:, 6:] - anchors[:, 6:],
        ],
        dim=1,
    )


def decode_boxes(codes: Tensor, anchors: Tensor) -> Tensor:
    """The inverse of ``encode_boxes``; ``(..., N, 7)`` codes with ``(N, 7)`` anchors."""
    diagonal = torch.hypot(anchors[:, 3:4], anchors[:, 4:5])
    return torch.cat(
        [
            codes[..., :2] * diagonal + anchors[:, :2],
            codes[..., 2:3] * anchors[:, 5:6] + anchors[:, 2:3],
            codes[..., 3:6].exp() * anchors[:, 3:6],
            codes[..., 6:] + anchors[:, 6:],
        ],
        dim=-1,
    )


def limit_period(angles: Tensor, period: float) -> Tensor:
    """The angles moved by whole periods into [0, period)."""
    return angles - torch.floor(angles / period) * period


def direction_bins(yaw: Tensor, offset: float = DIRECTION_OFFSET) -> Tensor:
    """The bin (0 or 1, int64) of each heading: which of two half turns it lies in; bin 0 begins at ``offset``."""
    turned = limit_period(yaw - offset, 2 * math.pi)
    return (turned / _BIN).floor().long().clamp(0, DIRECTION_BINS - 1)


def turn_to_bins(yaw: Tensor, bins: Tensor, offset: float = DIRECTION_OFFSET) -> Tensor:
    """Headings turned by half turns until they lie in their bins, of which the first begins at ``offset``."""
    return limit_period(yaw - offset, _BIN) + offset + _BIN * bins
