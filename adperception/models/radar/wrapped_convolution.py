"""Convolutions on radar maps: the second axis (Doppler or azimuth) wraps around, range ends."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["ConvNorm", "upsample_to"]


class ConvNorm(nn.Sequential):
    """A 3 x 3 convolution without bias, batch norm, LeakyReLU: ``(B, C, range, columns)``.

    Columns are padded with what lies on the other side, rows with zeros.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        stride: of rows and columns; an odd number of cells is rounded up.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: tuple[int, int] = (1, 1)) -> None:
        super().__init__(
            nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=(1, 0), bias=False),
            nn.BatchNorm2d(out_channels),
            nn.LeakyReLU(0.01, inplace=True),
        )

    def forward(self, maps: Tensor) -> Tensor:
        """The features of ``maps``."""
        features = torch.cat([maps[..., -1:], maps, maps[..., :1]], dim=-1)
        for layer in self:
            features = layer(features)
        return features


def upsample_to(maps: Tensor, like: Tensor) -> Tensor:
    """``maps`` repeated to the rows and columns of ``like``."""
    return F.interpolate(maps, size=like.shape[-2:], mode="nearest")
