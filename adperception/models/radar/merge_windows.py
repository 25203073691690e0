"""From patches to full masks: section 3.5 of ERASE-Net's fact sheet.

Shape legend: B frames, N windows, C classes without background, R x A x D cube cells.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from adperception.models.radar.patch_segmenter import PatchScores
from adperception.models.radar.window_gather import WindowCells, paste_maximum

__all__ = ["ClassDecision", "flip_range_doppler", "foreground", "merge_windows"]

ClassDecision = Literal["object", "product"]


def foreground(scores: PatchScores, decision: ClassDecision) -> tuple[Tensor, Tensor]:
    """Probability of every class in every cell of the windows: ``(N, C, h, w)`` and ``(N, C, h, A)``.

    With the object class head, ``"object"`` lets it alone say what the object is (nothing, if background is likelier
    than all classes together), and leaves to the patches which cells belong to it; ``"product"`` multiplies the
    probabilities of both. Without the head the patches' probabilities stand.
    """
    doppler, angle = scores.range_doppler.softmax(dim=1), scores.range_angle.softmax(dim=1)
    if scores.objects is None:
        return doppler[:, 1:], angle[:, 1:]
    objects = scores.objects.softmax(dim=1)[:, :, None, None]
    if decision == "product":
        return doppler[:, 1:] * objects[:, 1:], angle[:, 1:] * objects[:, 1:]
    likeliest = objects[:, 1:] >= objects[:, 1:].amax(dim=1, keepdim=True)
    is_object = likeliest & (objects[:, :1] <= 0.5)
    return (1 - doppler[:, :1]) * is_object, (1 - angle[:, :1]) * is_object


def merge_windows(
    range_doppler: Tensor, range_angle: Tensor, cells: WindowCells, batch_size: int, shape: tuple[int, int, int]
) -> tuple[Tensor, Tensor]:
    """Full label maps: background where no window lies; where several do, the largest probability of a class counts.

    A cell's label is the largest of ``1 - max_c F(c)``, F(1), F(2), ...

    Args:
        range_doppler: ``(N, C, h, w)`` probabilities of the classes, row 0 far.
        range_angle: ``(N, C, h, A)``.
        cells: where the windows lie.
        batch_size: B.
        shape: ``(R, A, D)``.

    Returns:
        int64 ``(B, R, D)`` with **row 0 near** (label rows, see ``flip_label_row``), and ``(B, R, A)`` with row 0 far.
    """
    rows, azimuths, dopplers = shape

    def label(maps: Tensor) -> Tensor:
        likeliest, class_id = maps.max(dim=1)
        return torch.where(likeliest > 1 - likeliest, class_id + 1, 0)

    doppler = label(paste_maximum(range_doppler, cells, batch_size, rows, dopplers, "range_doppler"))
    angle = label(paste_maximum(range_angle, cells, batch_size, rows, azimuths, "range_angle"))
    return flip_range_doppler(doppler), angle


def flip_range_doppler(mask: Tensor) -> Tensor:
    """``structures.flip_range_doppler_labels`` for tensors ``(B, R, D)``: row r to ``R - r``, the same both ways."""
    turned = mask.flip(1)
    last = torch.where(turned[:, -2:-1] > 0, turned[:, -2:-1], turned[:, -1:])
    return torch.cat([torch.zeros_like(last), turned[:, :-2], last], dim=1)
