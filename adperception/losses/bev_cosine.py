"""Cosine distance between predicted and target embeddings of bird's-eye-view cells."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

__all__ = ["bev_cosine"]


def bev_cosine(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean of ``1 - cos(target, prediction)`` over cells.

    Args:
        prediction: ``(N, C)`` embeddings of the selected cells of the whole batch.
        target: ``(N, C)``.

    Returns:
        Scalar in [0, 2]; 0, still connected to ``prediction``, if no cell is selected.

    Source: AD-L-JEPA (arXiv 2501.04969), the distance inside its prediction loss.
    """
    if len(prediction) == 0:
        return prediction.sum()
    return (1.0 - F.cosine_similarity(target, prediction, dim=1, eps=1e-8)).mean()
