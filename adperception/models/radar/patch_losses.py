"""Losses of ERASE-Net's segmenter: section 3.6 of its fact sheet.

Shape legend: N windows, C classes without background, h x w rows and Doppler columns of a window, A azimuth columns.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from torch.nn import functional as F

from adperception.models.radar.patch_segmenter import PatchScores

__all__ = ["patch_losses"]


def patch_losses(
    scores: PatchScores,
    range_doppler: Tensor,
    range_angle: Tensor,
    classes: Tensor,
    class_weights: tuple[Tensor, Tensor],
    weights: Mapping[str, float],
) -> dict[str, Tensor]:
    """The weighted terms; their sum is to be minimised.

    Args:
        scores: of N windows, at least one.
        range_doppler: ``(N, h, w)`` int64 true classes.
        range_angle: ``(N, h, A)``.
        classes: ``(N,)`` int64 true classes of the objects, 0 for clutter.
        class_weights: of both views' cross-entropy.
        weights: of cross_entropy, dice, coherence and object.
    """
    terms: dict[str, Tensor] = {}
    views = (("rd", scores.range_doppler, range_doppler), ("ra", scores.range_angle, range_angle))
    for (name, logits, target), weight in zip(views, class_weights, strict=True):
        terms[f"loss_{name}"] = weights["cross_entropy"] * F.cross_entropy(logits, target, weight) + weights[
            "dice"
        ] * _soft_dice(logits, target)
    doppler, angle = (logits.softmax(dim=1).amax(dim=3) for _, logits, _ in views)
    terms["loss_coherence"] = weights["coherence"] * F.mse_loss(doppler, angle)
    if scores.objects is not None:
        terms["loss_object"] = weights["object"] * F.cross_entropy(scores.objects, classes)
    return terms


def _soft_dice(logits: Tensor, target: Tensor) -> Tensor:
    probability = logits.softmax(dim=1)
    truth = F.one_hot(target, logits.shape[1]).permute(0, 3, 1, 2).to(logits.dtype)
    overlap = (probability * truth).sum(dim=(1, 2, 3))
    total = (probability.square() + truth).sum(dim=(1, 2, 3))
    return (1 - 2 * overlap / (total + 1e-6)).mean()
