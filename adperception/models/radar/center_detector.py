"""Stage A of ERASE-Net: where in range and Doppler are objects?

Shape legend: B frames, T moments, C classes, R x D range and Doppler cells, H x D = ceil(R / 2) x D heat-map cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from adperception.losses.full_precision import in_full_precision
from adperception.models.radar.wrapped_convolution import ConvNorm, upsample_to

__all__ = ["HEATMAP_STRIDE", "CenterDetector", "CenterMaps"]

HEATMAP_STRIDE = (2, 1)
"""Range rows and Doppler columns per heat-map cell."""

_PRIOR = -2.19
"""Score 0.1 at every cell at the start."""


class CenterMaps(NamedTuple):
    """What the detector says about every heat-map cell.

    Attributes:
        heatmap: ``(B, C, H, D)`` logits of a centre of each class.
        offset: ``(B, 2, H, D)`` place of the centre inside its cell, range and Doppler, in heat-map cells.
    """

    heatmap: Tensor
    offset: Tensor


class CenterDetector(nn.Module):
    """A U-shaped network over range-Doppler projections; its heat map has every second range row.

    Doppler is halved only once, at the deepest level: it has few columns and separates objects best.

    Args:
        in_channels: projections times moments.
        class_count: C.
        widths: channels of the four levels.
    """

    def __init__(self, in_channels: int, class_count: int, widths: Sequence[int]) -> None:
        super().__init__()
        w0, w1, w2, w3 = widths
        self.e0 = nn.Sequential(ConvNorm(in_channels, w0), ConvNorm(w0, w0))
        self.e1 = nn.Sequential(ConvNorm(w0, w1, stride=(2, 1)), ConvNorm(w1, w1))
        self.e2 = nn.Sequential(ConvNorm(w1, w2, stride=(2, 1)), ConvNorm(w2, w2))
        self.e3 = nn.Sequential(ConvNorm(w2, w3, stride=(2, 2)), ConvNorm(w3, w3))
        self.l2 = ConvNorm(w3 + w2, w2)
        self.l1 = ConvNorm(w2 + w1, w1)
        self.heatmap = nn.Sequential(ConvNorm(w1, w1), nn.Conv2d(w1, class_count, 1))
        self.offset = nn.Sequential(ConvNorm(w1, w1), nn.Conv2d(w1, 2, 1))
        nn.init.constant_(self.heatmap[-1].bias, _PRIOR)  # type: ignore[arg-type]

    def forward(self, projections: Tensor) -> CenterMaps:
        """The maps of normalised projections ``(B, in_channels, R, D)``, row 0 far."""
        # Channels last: a third faster on CPUs.
        e1 = self.e1(self.e0(projections.contiguous(memory_format=torch.channels_last)))
        e2 = self.e2(e1)
        l2 = self.l2(torch.cat([upsample_to(self.e3(e2), e2), e2], dim=1))
        l1 = self.l1(torch.cat([upsample_to(l2, e1), e1], dim=1))
        # Places are read from the offsets, so they and what follows are float32 whatever precision this runs in.
        return CenterMaps(in_full_precision(self.heatmap(l1)), in_full_precision(self.offset(l1)))
