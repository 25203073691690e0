"""Losses and statistics are computed in float32, whatever precision the network runs in."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["full_precision"]


def full_precision(tensor: Tensor) -> torch.autocast:
    """A context (or decorator) without autocast on the device of ``tensor``: operators compute in their inputs' type.

    It does not convert what exists already: call ``.float()`` on the selected rows, not on whole maps.
    """
    return torch.autocast(tensor.device.type, enabled=False)
