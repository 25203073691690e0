"""Focal loss on independent sigmoids: the classification loss of anchor heads."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

__all__ = ["sigmoid_focal"]


def sigmoid_focal(logits: Tensor, targets: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Cross-entropy that counts the less, the better an output is already.

    With p the probability given to the truth, ``-a * (1 - p) ** gamma * log(p)``; ``a`` is alpha for positive targets
    and 1 - alpha for the others.

    Args:
        logits: any shape.
        targets: of the same shape, 0 or 1.
        alpha: weight of positive targets.
        gamma: how strongly easy outputs are damped.

    Returns:
        The loss of every element, not reduced.

    Source: Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, equation 5.
    """
    probability = logits.sigmoid()
    miss = targets * (1.0 - probability) + (1.0 - targets) * probability
    weight = targets * alpha + (1.0 - targets) * (1.0 - alpha)
    entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return weight * miss**gamma * entropy
