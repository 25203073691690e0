"""The hinge on the spread of embeddings that keeps them from collapsing."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["variance_hinge", "variance_regularizer"]

EPSILON = 1e-4


def variance_hinge(embeddings: Tensor, level: float = 1 / 16) -> Tensor:
    """Mean over channels of ``max(0, level - sqrt(Var + 1e-4))``, Var unbiased over cells.

    Args:
        embeddings: ``(N, C)`` of one sample's cells, N >= 2.
        level: wanted standard deviation per channel; ``1 / sqrt(C)`` for unit vectors spread evenly, 1/16 at C = 256.

    Source: AD-L-JEPA (arXiv 2501.04969), after the variance term of VICReg (Bardes et al., ICLR 2022).
    """
    deviation = torch.sqrt(embeddings.var(dim=0, unbiased=True) + EPSILON)
    return torch.relu(level - deviation).mean()


def variance_regularizer(bev: Tensor, cells: Tensor) -> Tensor:
    """Mean over samples of the variance hinge at the selected cells.

    Args:
        bev: ``(B, C, H, W)`` embeddings.
        cells: ``(B, H, W)`` boolean. Samples with fewer than two cells have no variance and are left out.

    Returns:
        Scalar; 0, still connected to ``bev``, if no sample is left.
    """
    counts = cells.sum(dim=(1, 2)).tolist()
    rows = torch.split(bev.permute(0, 2, 3, 1)[cells], counts)
    hinges = [variance_hinge(r) for r in rows if len(r) >= 2]
    return torch.stack(hinges).mean() if hinges else bev.sum() * 0.0
