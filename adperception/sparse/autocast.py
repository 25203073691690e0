"""What ``torch.autocast`` means for a sparse convolution: its features go in, and come out, in the lower precision."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["autocast_type", "in_autocast_type"]


def autocast_type(features: Tensor) -> torch.dtype:
    """The type in which a product of ``features`` is computed here: autocast's for float32, else their own."""
    device = features.device.type
    if features.dtype == torch.float64 or not torch.is_autocast_enabled(device):
        return features.dtype
    return torch.get_autocast_dtype(device)


def in_autocast_type(features: Tensor) -> Tensor:
    """``features`` in that type."""
    return features.to(autocast_type(features))
