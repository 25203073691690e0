"""Focal loss on heat maps with soft peaks: the classification loss of centre heads."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["center_focal"]

SMALLEST = 1e-4


def center_focal(logits: Tensor, heatmaps: Tensor, alpha: float = 2.0, beta: float = 4.0) -> Tensor:
    """Cells at a centre are positive; the others are negative, the less so the nearer they lie to one.

    Args:
        logits: ``(B, K, H, W)``; probabilities are kept in [1e-4, 1 - 1e-4].
        heatmaps: ``(B, K, H, W)`` targets, 1 at centres and falling off around them.
        alpha: damping of easy cells.
        beta: damping of negatives near a centre.

    Returns:
        Scalar: the sum over cells divided by the number of centres in the batch (by 1 if there is none).

    Source: Law and Deng, "CornerNet: Detecting Objects as Paired Keypoints", ECCV 2018, equation 1.
    """
    probability = logits.sigmoid().clamp(SMALLEST, 1.0 - SMALLEST)
    is_center = heatmaps == 1.0
    # Not selected by the mask, which would have to be counted first.
    positive = torch.where(is_center, (1.0 - probability) ** alpha * probability.log(), 0.0)
    negative = probability**alpha * (1.0 - heatmaps) ** beta * (1.0 - probability).log()  # 0 at centres
    return -(positive.sum() + negative.sum()) / is_center.sum().clamp(min=1)
