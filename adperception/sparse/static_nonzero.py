"""Positions of the true entries of a mask whose number is known: ``nonzero`` without asking the device."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["static_nonzero"]


def static_nonzero(mask: Tensor, count: int) -> Tensor:
    """What ``mask.nonzero()`` finds, without a wait of the host for the device.

    ``nonzero`` has to ask the device how much memory its result needs. Here the caller says so: every true entry
    writes its position to its place in a result of known size, every other one to a slot that is cut off.

    Args:
        mask: ``(N,)`` boolean.
        count: how many entries are true. It is not checked (that would be a wait); a wrong one gives an index error
            or places that nobody wrote to.

    Returns:
        ``(count,)`` int64, ascending.
    """
    if not len(mask):
        return torch.zeros(count, dtype=torch.int64, device=mask.device)
    place = torch.where(mask, mask.cumsum(0) - 1, count)
    positions = torch.empty(count + 1, dtype=torch.int64, device=mask.device)
    positions.scatter_(0, place, torch.arange(len(mask), device=mask.device))
    return positions[:count]
