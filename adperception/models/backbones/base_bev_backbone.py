"""BaseBEVBackbone: the 2D network of SECOND between bird's-eye-view map and head, as OpenPCDet shapes it.

A pyramid of blocks, each at half the resolution of the one before; every block's output is brought back to the
resolution of the input, and all are stacked. Module names are OpenPCDet's.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

__all__ = ["BaseBEVBackbone"]


def _norm_relu(channels: int) -> list[nn.Module]:
    return [nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01), nn.ReLU(inplace=True)]


def _block(in_channels: int, out_channels: int, stride: int, layers: int) -> nn.Sequential:
    # The first position is a padding layer in OpenPCDet. Here the convolution pads, which saves a copy of the map; the
    # place is kept so that the numbers of the others agree.
    first = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
    modules: list[nn.Module] = [nn.Identity(), first, *_norm_relu(out_channels)]
    for _ in range(layers):
        modules += [nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False), *_norm_relu(out_channels)]
    return nn.Sequential(*modules)


class BaseBEVBackbone(nn.Module):
    """``(B, C, H, W)`` to ``(B, out_channels, H, W)``.

    Args:
        in_channels: channels of the input map.
        layer_nums: per block, how many 3 x 3 convolutions follow its first one.
        filters: per block, its channels.
        upsample_filters: per block, the channels of its part of the output.

    Attributes:
        out_channels: sum of ``upsample_filters``.
        stride: H and W must be multiples of it: 2 for two blocks, 4 for three.

    Raises:
        ValueError: if the lists are empty, of different lengths, or hold impossible numbers.
    """

    def __init__(
        self,
        in_channels: int,
        layer_nums: Sequence[int] = (5, 5),
        filters: Sequence[int] = (128, 256),
        upsample_filters: Sequence[int] = (256, 256),
    ) -> None:
        super().__init__()
        if not len(layer_nums) == len(filters) == len(upsample_filters) >= 1:
            raise ValueError(
                f"BaseBEVBackbone: layer_nums={list(layer_nums)}, filters={list(filters)} and "
                f"upsample_filters={list(upsample_filters)} need one number per block each."
            )
        for name, values, least in (
            ("layer_nums", layer_nums, 0),
            ("filters", filters, 1),
            ("upsample_filters", upsample_filters, 1),
        ):
            if min(values) < least:
                raise ValueError(f"BaseBEVBackbone: {name}={list(values)} must be {least} or more each.")
        self.out_channels = sum(upsample_filters)
        self.stride = 2 ** (len(filters) - 1)
        self.blocks = nn.ModuleList(
            _block(before, after, 1 if number == 0 else 2, layers)
            for number, ((before, after), layers) in enumerate(
                zip(pairwise([in_channels, *filters]), layer_nums, strict=True)
            )
        )
        self.deblocks = nn.ModuleList(
            nn.Sequential(
                nn.ConvTranspose2d(channels, up, 2**number, stride=2**number, bias=False),
                *_norm_relu(up),
            )
            for number, (channels, up) in enumerate(zip(filters, upsample_filters, strict=True))
        )

    def forward(self, bev: Tensor) -> Tensor:
        """The stacked outputs of all blocks."""
        outputs = []
        for block, deblock in zip(self.blocks, self.deblocks, strict=True):
            bev = block(bev)
            outputs.append(deblock(bev))
        return torch.cat(outputs, dim=1)
