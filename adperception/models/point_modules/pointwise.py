"""Fully connected layers that treat every row alike, with OpenPCDet's tensor shapes and positions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adperception.sparse import SparseBatchNorm1d

__all__ = ["DrawnDropout", "PointwiseLinear", "PointwiseNetwork"]


class PointwiseLinear(nn.Module):
    """A linear layer on ``(R, in_channels)`` rows whose weight is stored like that of a 1 x 1 convolution.

    Args:
        in_channels: columns of the input.
        out_channels: columns of the output.
        kernel_axes: trailing axes of size 1 of the weight: 0 for a linear layer, 1 or 2 for a 1D or 2D convolution.
        bias: whether there is one.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_axes: int = 0, bias: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, *[1] * kernel_axes))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))  # as torch's own layers

    @property
    def matrix(self) -> Tensor:
        """``(out_channels, in_channels)`` the weight without its trailing axes."""
        return self.weight.flatten(1)

    def forward(self, rows: Tensor) -> Tensor:
        """``(R, out_channels)``."""
        return F.linear(rows, self.matrix, self.bias)


class DrawnDropout(nn.Module):
    """Dropout whose draws come from a given generator, so that a step can be repeated bit by bit.

    Args:
        rate: share of entries set to zero in training, 0 <= rate < 1.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"dropout={rate} must be at least 0 and below 1.")
        self.rate = rate

    def forward(self, rows: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The same shape; ``generator`` is a CPU generator (``None``: torch's own)."""
        if not self.training or self.rate == 0:
            return rows
        kept = torch.rand(rows.shape, generator=generator) >= self.rate  # on the CPU: the same on every device
        return rows * kept.to(rows.device) / (1 - self.rate)


class PointwiseNetwork(nn.Sequential):
    """Layers of linear, batch norm and ReLU on ``(R, channels[0])`` rows.

    Args:
        channels: columns of the input and of each layer.
        kernel_axes: see ``PointwiseLinear``.
        outputs: columns of a last linear layer with bias and nothing after it; 0: there is none.
        dropout: rate of a dropout layer after the first layer; ``None``: there is none.
    """

    def __init__(
        self, channels: Sequence[int], kernel_axes: int = 0, outputs: int = 0, dropout: float | None = None
    ) -> None:
        layers: list[nn.Module] = []
        for number, (before, after) in enumerate(pairwise(channels)):
            layers += [PointwiseLinear(before, after, kernel_axes), SparseBatchNorm1d(after), nn.ReLU(inplace=True)]
            if number == 0 and dropout is not None:
                layers.append(DrawnDropout(dropout))
        if outputs:
            layers.append(PointwiseLinear(channels[-1], outputs, kernel_axes, bias=True))
        super().__init__(*layers)

    def forward(self, input: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The output of the last layer; ``generator`` draws the dropout."""
        for layer in self:
            input = layer(input, generator) if isinstance(layer, DrawnDropout) else layer(input)
        return input
