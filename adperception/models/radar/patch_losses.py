"""Losses of ERASE-Net's segmenter: section 3.6 of its fact sheet.

Shape legend: N windows, C classes without background, h x w rows and Doppler columns of a window, A azimuth columns.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from adperception.losses.full_precision import full_precision
from adperception.losses.soft_dice import soft_dice
from adperception.losses.view_coherence import view_coherence
from adperception.losses.weighted_cross_entropy import weighted_cross_entropy
from adperception.models.radar.patch_segmenter import PatchScores

__all__ = ["patch_losses"]


def patch_losses(
    scores: PatchScores,
    range_doppler: Tensor,
    range_angle: Tensor,
    classes: Tensor,
    class_weights: tuple[Tensor, Tensor],
    object_weights: Tensor,
    weights: Mapping[str, float],
    *,
    foreground_only: bool = False,
    label_smoothing: float = 0.0,
) -> dict[str, Tensor]:
    """The weighted terms; their sum is to be minimised.

    Args:
        scores: of N windows, at least one.
        range_doppler: ``(N, h, w)`` int64 true classes.
        range_angle: ``(N, h, A)``.
        classes: ``(N,)`` int64 true classes of the objects, 0 for clutter.
        class_weights: of both views' cross-entropy.
        object_weights: ``(1 + C,)`` of the object class head's cross-entropy.
        weights: of cross_entropy, dice, coherence and object.
        foreground_only: cells are background or foreground, whatever their class; a cell's foreground probability is
            the sum over the classes, its weight the mean of theirs.
        label_smoothing: of the object class head's cross-entropy.
    """
    terms: dict[str, Tensor] = {}
    with full_precision(classes):
        views = {"rd": (scores.range_doppler, range_doppler), "ra": (scores.range_angle, range_angle)}
        cell_weights = dict(zip(views, class_weights, strict=True))
        if foreground_only:
            views = {name: (_foreground(logits), (target > 0).long()) for name, (logits, target) in views.items()}
            cell_weights = {name: torch.stack([w[0], w[1:].mean()]) for name, w in cell_weights.items()}
        for name, (logits, target) in views.items():
            entropy = weights["cross_entropy"] * weighted_cross_entropy(logits, target, cell_weights[name])
            terms[f"loss_{name}"] = entropy + weights["dice"] * soft_dice(logits, target)
        # Both patches have the same rows; the loss expects range-Doppler with row 0 near.
        coherence = view_coherence(views["rd"][0].flip(2), views["ra"][0])
        terms["loss_coherence"] = weights["coherence"] * coherence
        if scores.objects is not None:
            terms["loss_object"] = weights["object"] * F.cross_entropy(
                scores.objects, classes, weight=object_weights, label_smoothing=label_smoothing
            )
    return terms


def _foreground(logits: Tensor) -> Tensor:
    """Logits ``(N, 2, h, w)`` of background and of any class."""
    return torch.stack([logits[:, 0], logits[:, 1:].logsumexp(dim=1)], dim=1)
