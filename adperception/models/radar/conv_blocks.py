"""Building blocks of the multi-view radar networks; module names are those of the released MVRSS code."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adperception.losses.full_precision import full_precision

__all__ = [
    "DoubleConvBlock",
    "DoubleConvBlock3d",
    "SingleConvBlock",
    "initialise_like_mvrss",
    "join_views",
    "pad_one_column",
    "upsample_rows",
    "upsample_rows_and_columns",
]

_SLOPE = 0.01
"""Of every leaky ReLU."""


class SingleConvBlock(nn.Module):
    """Convolution, batch norm, leaky ReLU; rows and columns stay as many.

    Args:
        in_channels: channels in.
        out_channels: channels out.
        kernel_size: 1 or 3.
        dilation: distance of the kernel's taps.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3, dilation: int = 1) -> None:
        super().__init__()
        padding = dilation * (kernel_size // 2)
        self.block = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, kernel_size, padding=padding, dilation=dilation),
            nn.BatchNorm2d(out_channels),
            nn.LeakyReLU(_SLOPE),
        )

    def forward(self, values: Tensor) -> Tensor:
        """``(B, in, H, W)`` to ``(B, out, H, W)``."""
        return self.block(values)  # type: ignore[no-any-return]


class DoubleConvBlock(nn.Module):
    """Twice 3x3 convolution, batch norm, leaky ReLU.

    Args:
        in_channels: channels in.
        out_channels: channels out.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 3, padding=1),
            nn.BatchNorm2d(out_channels),
            nn.LeakyReLU(_SLOPE),
            nn.Conv2d(out_channels, out_channels, 3, padding=1),
            nn.BatchNorm2d(out_channels),
            nn.LeakyReLU(_SLOPE),
        )

    def forward(self, values: Tensor) -> Tensor:
        """``(B, in, H, W)`` to ``(B, out, H, W)``."""
        return self.block(values)  # type: ignore[no-any-return]


class DoubleConvBlock3d(nn.Module):
    """Twice 3x3x3 convolution, batch norm, leaky ReLU; time is not padded, so that five moments become one.

    Args:
        in_channels: channels in.
        out_channels: channels out.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.Conv3d(in_channels, out_channels, 3, padding=(0, 1, 1)),
            nn.BatchNorm3d(out_channels),
            nn.LeakyReLU(_SLOPE),
            nn.Conv3d(out_channels, out_channels, 3, padding=(0, 1, 1)),
            nn.BatchNorm3d(out_channels),
            nn.LeakyReLU(_SLOPE),
        )

    def forward(self, values: Tensor) -> Tensor:
        """``(B, in, T, H, W)`` to ``(B, out, T - 4, H, W)``."""
        if values.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
            # oneDNN's bfloat16 gradient of the second convolution's weights is NaN for some sizes, 32 x 32 cells among
            # them (torch 2.13 on a CPU with AMX).
            with full_precision(values):
                return self.block(values.float())  # type: ignore[no-any-return]
        return self.block(values)  # type: ignore[no-any-return]


def pad_one_column(values: Tensor) -> Tensor:
    """One more column of zeros at the end: max pooling with kernel 2 and column stride 1 then keeps their number."""
    if torch.compiler.is_compiling():
        # onnxruntime merges a Pad into the MaxPool behind it, which then pads with -inf (seen up to version 1.31).
        return torch.cat([values, torch.zeros_like(values[..., :1])], dim=-1)
    return F.pad(values, (0, 1))


def join_views(features: Sequence[Tensor], like: Tensor) -> Tensor:
    """Features of several views ``(B, C, H, W)`` stacked as channels, those of another size resized to ``like``."""
    size = like.shape[2:]
    fitted = [f if f.shape[2:] == size else F.interpolate(f, size, mode="bilinear") for f in features]
    return torch.cat(fitted, dim=1)


def upsample_rows(in_channels: int, out_channels: int) -> nn.ConvTranspose2d:
    """Twice the rows."""
    return nn.ConvTranspose2d(in_channels, out_channels, (2, 1), stride=(2, 1))


def upsample_rows_and_columns(in_channels: int, out_channels: int) -> nn.ConvTranspose2d:
    """Twice the rows and columns."""
    return nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2)


def initialise_like_mvrss(model: nn.Module) -> None:
    """Xavier-uniform weights and zero biases for plain 2D convolutions; all others keep torch's own start."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
