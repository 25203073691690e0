"""Channels-last weights for two-dimensional convolutions: what tensor cores read without turning tensors around."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["use_channels_last"]


def use_channels_last(model: nn.Module) -> int:
    """Lay out the weights of all ``Conv2d`` and ``ConvTranspose2d`` channels-last; their outputs follow.

    Numbers, names and shapes stay; checkpoints and weights files are written contiguous. Call it before the optimizer
    is built, whose moments lie as the weights do. Not for CPUs, where sums would come out in another order.

    Returns:
        How many weights were laid out.
    """
    convolutions = [module for module in model.modules() if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d))]
    for convolution in convolutions:
        convolution.weight.data = convolution.weight.data.contiguous(memory_format=torch.channels_last)
    return len(convolutions)
