"""Loss of the predicted number of points in bird's-eye-view cells."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

__all__ = ["point_density"]


def point_density(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean smooth-L1 distance (quadratic below 1) between densities.

    Args:
        predicted: ``(M,)`` for M cells.
        target: ``(M,)``.

    Returns:
        Scalar; 0, still connected to ``predicted``, if there is no cell.

    Source: BEV-MAE (Lin et al., AAAI 2024), its density prediction loss.
    """
    if not len(predicted):
        return predicted.sum()
    return F.smooth_l1_loss(predicted, target)
