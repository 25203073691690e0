"""Chamfer distance between predicted points and a varying number of true ones."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["masked_chamfer"]


def masked_chamfer(predicted: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Squared distance of every predicted point to the nearest true one, plus the reverse.

    The first mean is over all predicted points, the second over all true points of the batch, so that cells with many
    true points count more in the second.

    Args:
        predicted: ``(M, P, 3)`` for M cells.
        target: ``(M, T, 3)``.
        valid: ``(M, T)`` boolean, which rows of ``target`` are points. A cell without any is left out.

    Returns:
        Scalar; 0, still connected to ``predicted``, if no cell is left.

    Source: BEV-MAE (Lin et al., AAAI 2024), its point-cloud reconstruction loss.
    """
    has_points = valid.any(dim=1)
    if not bool(has_points.all()):
        predicted, target, valid = predicted[has_points], target[has_points], valid[has_points]
    if not len(predicted):
        return predicted.sum()
    with torch.no_grad():  # the nearest neighbours; distances with a gradient are then made of the pairs alone
        distances = torch.cdist(predicted, target, compute_mode="donot_use_mm_for_euclid_dist")
        distances = distances.masked_fill(~valid[:, None], torch.inf)
        nearest_target, nearest_predicted = distances.argmin(dim=2), distances.argmin(dim=1)
    to_target = (predicted - _take(target, nearest_target)).square().sum(dim=2)
    to_predicted = (_take(predicted, nearest_predicted) - target).square().sum(dim=2)
    return to_target.mean() + to_predicted[valid].mean()


def _take(points: Tensor, index: Tensor) -> Tensor:
    """``(M, K, 3)``: rows ``index`` ``(M, K)`` of ``points`` ``(M, N, 3)``."""
    return torch.gather(points, 1, index[..., None].expand(-1, -1, points.shape[2]))
