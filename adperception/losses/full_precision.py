"""Losses, statistics and boxes are computed in float32, whatever precision the network runs in."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["full_precision", "in_full_precision"]


def full_precision(tensor: Tensor) -> torch.autocast:
    """A context (or decorator) without autocast on the device of ``tensor``: operators compute in their inputs' type.

    It does not convert what exists already; ``in_full_precision`` does.
    """
    return torch.autocast(tensor.device.type, enabled=False)


def in_full_precision(tensor: Tensor) -> Tensor:
    """``tensor`` itself, or a float32 copy if it is in half precision. For selected rows, not for maps with many
    channels."""
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor
