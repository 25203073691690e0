"""Peak convolution: every cell against a ring of reference cells around it, as CFAR detectors compare.

Zhang et al., "PeakConv: Learning Peak Receptive Field for Radar Semantic Segmentation", CVPR 2023 (its plain form, with
one reference cell on each side). Names and layout of the weights are those of the released code.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["DoublePeakConvBlock", "PeakConv"]

_SLOPE = 0.01


class PeakConv(nn.Module):
    """``y(c) = b + sum_n W_n (x(c) - x(c + d_n))`` over the N cells of a ring; outside of the map x is 0.

    The ring is the border of a square that leaves out the cell and ``guard_cells`` around it: 16 cells for one guard
    cell, 24 for two. It starts at the upper left: top row, right column, bottom row and left column, rows from the left
    and columns from the top, the corners belonging to the rows.

    As ``W_n x(c)`` is the same product for all n, it is done once with the sum of the weights, which leaves two dilated
    convolutions for the rows and columns of the ring: nothing is sampled or stored N times.

    Args:
        in_channels: channels in.
        out_channels: channels out.
        guard_cells: cells between the cell and the ring, on each side.

    Raises:
        ValueError: if ``guard_cells`` is negative.
    """

    def __init__(self, in_channels: int, out_channels: int, guard_cells: int = 1) -> None:
        super().__init__()
        if guard_cells < 0:
            raise ValueError(f"PeakConv: guard_cells={guard_cells} must not be negative.")
        self.reach = guard_cells + 1
        # Holds the weights in the released layout, four ring cells per row; it is never called.
        self.peak_conv = nn.Conv2d(in_channels, out_channels, (2 * self.reach, 4))

    def forward(self, values: Tensor) -> Tensor:
        """``(B, in, H, W)`` to ``(B, out, H, W)``."""
        reach, side = self.reach, 2 * self.reach + 1
        weights = self.peak_conv.weight.flatten(2)
        top, right, bottom, left = weights.split_with_sizes([side, side - 2, side, side - 2], 2)
        rows = torch.stack([top, bottom], dim=2)
        columns = torch.stack([left, right], dim=3)
        center = F.conv2d(values, weights.sum(2)[:, :, None, None], self.peak_conv.bias)
        ring = F.conv2d(values, rows, padding=reach, dilation=(2 * reach, 1))
        ring = ring + F.conv2d(values, columns, padding=(reach - 1, reach), dilation=(1, 2 * reach))
        return center - ring


class DoublePeakConvBlock(nn.Module):
    """Twice peak convolution, batch norm, leaky ReLU.

    Args:
        in_channels: channels in.
        out_channels: channels out.
        guard_cells: see ``PeakConv``.
    """

    def __init__(self, in_channels: int, out_channels: int, guard_cells: int = 1) -> None:
        super().__init__()
        self.pk_conv1 = PeakConv(in_channels, out_channels, guard_cells)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.pk_conv2 = PeakConv(out_channels, out_channels, guard_cells)
        self.bn2 = nn.BatchNorm2d(out_channels)

    def forward(self, values: Tensor) -> Tensor:
        """``(B, in, H, W)`` to ``(B, out, H, W)``."""
        values = F.leaky_relu(self.bn1(self.pk_conv1(values)), _SLOPE)
        return F.leaky_relu(self.bn2(self.pk_conv2(values)), _SLOPE)
