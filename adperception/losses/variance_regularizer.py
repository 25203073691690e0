"""The hinge on the spread of embeddings that keeps them from collapsing."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["variance_hinge", "variance_regularizer"]

EPSILON = 1e-4
LEVEL = 1 / 16
"""Wanted standard deviation per channel: ``1 / sqrt(C)`` for unit vectors spread evenly, at C = 256."""


def variance_hinge(embeddings: Tensor, level: float = LEVEL) -> Tensor:
    """Mean over channels of ``max(0, level - sqrt(Var + 1e-4))``, Var unbiased over cells.

    Args:
        embeddings: ``(N, C)`` of one sample's cells, N >= 2.
        level: wanted standard deviation per channel.

    Source: AD-L-JEPA (arXiv 2501.04969), after the variance term of VICReg (Bardes et al., ICLR 2022).
    """
    deviation = torch.sqrt(embeddings.var(dim=0, unbiased=True) + EPSILON)
    return torch.relu(level - deviation).mean()


def variance_regularizer(rows: Tensor, samples: Tensor, counts: Sequence[int]) -> Tensor:
    """Mean over samples of ``variance_hinge``, for all samples at once.

    The rows of each sample are padded to the longest, so that a sum over them is exact and its order fixed (a product
    with a matrix that says what belongs to whom would be rounded to TF32 where that is on).

    Args:
        rows: ``(N, C)`` float32 embeddings of the selected cells, sample after sample.
        samples: ``(N,)`` int64, the sample of each row.
        counts: B numbers, the rows of each sample, known to the host. Samples with fewer than two rows have no
            variance and are left out.

    Returns:
        Scalar; 0, still connected to ``rows``, if no sample is left.
    """
    kept = sum(count >= 2 for count in counts)
    if not kept:
        return rows.sum() * 0.0
    batch_size, longest, channels = len(counts), max(counts), rows.shape[1]
    count = torch.tensor(counts).to(rows.device, non_blocking=True)
    first = count.cumsum(0) - count
    place = torch.arange(len(rows), device=rows.device)
    slots = samples * longest + place - first[samples]
    padded = rows.new_zeros(batch_size * longest, channels).index_copy(0, slots, rows)
    padded = padded.view(batch_size, longest, channels)
    mean = padded.sum(dim=1, keepdim=True) / count.clamp(min=1)[:, None, None]
    filled = torch.arange(longest, device=rows.device) < count[:, None]
    squares = ((padded - mean) * filled[:, :, None]).square().sum(dim=1)
    variance = squares / (count - 1).clamp(min=1)[:, None]
    hinges = torch.relu(LEVEL - torch.sqrt(variance + EPSILON)).mean(dim=1)
    return torch.where(count >= 2, hinges, 0.0).sum() / kept
