"""Random order within groups, vectorised: the basis of "keep this share of every group"."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["rank_in_group"]


def rank_in_group(groups: Tensor, noise: Tensor | None = None) -> Tensor:
    """The place of every item within its group, counted from 0.

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
    _, counts = torch.unique_consecutive(groups[order], return_counts=True)
    starts = (counts.cumsum(0) - counts).repeat_interleave(counts)
    ranks = torch.empty_like(groups)
    ranks[order] = torch.arange(len(groups), device=groups.device) - starts
    return ranks
