"""Soft Dice: how little predicted and true masks overlap."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

__all__ = ["soft_dice"]

_EPSILON = 1e-6


def soft_dice(logits: Tensor, target: Tensor) -> Tensor:
    """``1 - 2 sum(p y) / (sum(p^2) + sum(y^2))`` per sample, then the mean over the samples.

    The sums run over classes, background included, and pixels together, so the background dominates them. p is the
    softmax over classes, y the one-hot truth plus 1e-6; the denominator gets 1e-6 more.

    Args:
        logits: ``(B, classes, rows, columns)``.
        target: ``(B, rows, columns)`` int64 classes.

    Source: Ouaknine et al., "Multi-View Radar Semantic Segmentation", ICCV 2021, section 4; constants as released.
    """
    probability = logits.softmax(dim=1)
    truth = F.one_hot(target, logits.shape[1]).movedim(-1, 1).to(logits.dtype) + _EPSILON
    everything = (1, 2, 3)
    overlap = (probability * truth).sum(everything)
    size = probability.square().sum(everything) + truth.square().sum(everything)
    return (1 - 2 * overlap / (size + _EPSILON)).mean()
