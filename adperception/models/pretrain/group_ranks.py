"""Random order within groups, vectorised: the basis of "keep this share of every group"."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["rank_in_group"]


def rank_in_group(groups: Tensor, noise: Tensor | None = None) -> Tensor:
    """The place of every item within its group, counted from 0; runs without a wait of the host.

    Args:
        groups: ``(N,)`` int64 group of each item.
        noise: ``(N,)`` draws; items of a group are ordered by them, or by their position if ``None``.

    Returns:
        ``(N,)`` int64.
    """
    if noise is None:
        order = torch.argsort(groups, stable=True)
    else:
        order = torch.argsort(noise, stable=True)
        order = order[torch.argsort(groups[order], stable=True)]
    ordered = groups[order]
    place = torch.arange(len(groups), device=groups.device)
    begins = torch.ones_like(ordered, dtype=torch.bool)
    begins[1:] = ordered[1:] != ordered[:-1]
    starts = torch.where(begins, place, 0).cummax(dim=0).values
    return torch.empty_like(groups).scatter_(0, order, place - starts)
