"""Cross-entropy with a weight per class: the pixel loss of radar segmentation."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

__all__ = ["CARRADA_CLASS_WEIGHTS", "inverse_frequency_weights", "weighted_cross_entropy"]

CARRADA_CLASS_WEIGHTS: dict[str, tuple[float, ...]] = {
    "range_doppler": (0.0004236998233593304, 0.4749960642363426, 0.4175089566101426, 0.1070712793301555),
    "range_angle": (0.00012380283547712211, 0.49374198702138145, 0.4158134117152977, 0.09032079842784382),
}
"""What published CARRADA models use: background, pedestrian, cyclist, car."""


def weighted_cross_entropy(logits: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """``sum_i w[t_i] (-log p_i[t_i]) / sum_i w[t_i]`` over all pixels of the batch, p the softmax over classes.

    Args:
        logits: ``(B, classes, rows, columns)``.
        target: ``(B, rows, columns)`` int64 classes.
        weights: ``(classes,)``.

    Source: Ouaknine et al., "Multi-View Radar Semantic Segmentation", ICCV 2021, section 4.
    """
    return F.cross_entropy(logits, target, weight=weights.to(logits.dtype))


def inverse_frequency_weights(counts: Sequence[float]) -> tuple[float, ...]:
    """Weights ``(1 / n_c) / sum_k (1 / n_k)`` from the pixels of each class over the labelled frames.

    A class without a pixel gets the weight of the rarest one that has some: too much would silence all others, and
    nothing would ignore it in the frames that were not counted.

    Raises:
        ValueError: if a count is negative or all are zero.
    """
    present = [count for count in counts if count > 0]
    if not present or min(counts) < 0:
        raise ValueError(
            f"class weights: the pixel counts {list(counts)} must not be negative and not all be zero. Check that the "
            "training frames have masks."
        )
    inverse = [1.0 / (count if count > 0 else min(present)) for count in counts]
    return tuple(value / sum(inverse) for value in inverse)
