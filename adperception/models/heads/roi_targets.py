"""Which proposals a second stage learns from, and what it should say about them.

Shape legend: N proposals and M objects of a frame, R chosen regions of interest of all frames together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from adperception.geometry.rotated_iou import rotated_iou_3d
from adperception.losses.full_precision import full_precision
from adperception.models.heads.labelled_boxes import LabelledBoxes
from adperception.models.heads.scored_boxes import ScoredBoxes

__all__ = ["RoITargets", "sample_rois"]

BOX_IOU = 0.55
"""Regions that overlap an object of their class by more than this (3D IoU) learn its box."""
EASY_IOU = 0.1
"""Regions that overlap every object by less are easy to tell from objects."""
CERTAIN, HOPELESS = 0.75, 0.25
"""3D IoU from which a region's score should be 1, and up to which it should be 0; linear in between."""
FOREGROUND_SHARE = 0.5
"""Share of regions that learn boxes, at most."""
HARD_SHARE = 0.8
"""Share of hard ones among the other regions, at most."""


class RoITargets(NamedTuple):
    """Regions to learn from.

    Attributes:
        rois: ``(R, 7)`` the regions (metres, radians, LiDAR frame).
        frames: ``(R,)`` int64 frame of each region.
        scores: ``(R,)`` in 0..1, what its score should be.
        foreground: ``(F,)`` int64 the regions that learn a box.
        boxes: ``(F, 7)`` the boxes that these should find.
    """

    rois: Tensor
    frames: Tensor
    scores: Tensor
    foreground: Tensor
    boxes: Tensor


@torch.no_grad()
def sample_rois(
    proposals: Sequence[ScoredBoxes],
    objects: Sequence[LabelledBoxes],
    per_frame: int,
    generator: torch.Generator | None = None,
) -> RoITargets:
    """Choose ``per_frame`` proposals in each frame, good and bad ones.

    Half of them, if there are as many, overlap an object; of the rest up to four fifths overlap one a little. Bad ones
    may be chosen repeatedly, good ones only where nothing is bad. Only objects of the proposal's class count.

    Args:
        proposals: each frame's proposals.
        objects: each frame's objects.
        per_frame: how many to choose; a frame without a proposal gives none.
        generator: a CPU generator that draws them.

    Source: Shi et al., PV-RCNN, section 3.4, with the figures of OpenPCDet's KITTI config.
    """
    rois, frames, ious, boxes = [], [], [], []
    for number, (found, truth) in enumerate(zip(proposals, objects, strict=True)):
        overlaps, nearest = _best_overlaps(found, truth)
        chosen = _draw(overlaps.cpu(), per_frame, generator).to(overlaps.device)
        rois.append(found.boxes[chosen])
        frames.append(torch.full_like(chosen, number))
        ious.append(overlaps[chosen])
        # Without objects nothing is foreground; any box fills the place.
        boxes.append(truth.boxes[nearest[chosen]] if len(truth) else found.boxes[chosen])
    iou = torch.cat(ious)
    foreground = (iou > BOX_IOU).nonzero().squeeze(1)
    return RoITargets(
        torch.cat(rois),
        torch.cat(frames),
        ((iou - HOPELESS) / (CERTAIN - HOPELESS)).clamp(0, 1),
        foreground,
        torch.cat(boxes)[foreground],
    )


def _best_overlaps(found: ScoredBoxes, truth: LabelledBoxes) -> tuple[Tensor, Tensor]:
    """``(N,)`` largest 3D IoU with an object of the same class, and ``(N,)`` that object's position."""
    if not len(truth):
        return found.scores.new_zeros(len(found.boxes)), torch.zeros_like(found.labels)
    with full_precision(found.boxes):
        overlaps = rotated_iou_3d(found.boxes, truth.boxes)
    best = overlaps.masked_fill(found.labels[:, None] != truth.labels, 0.0).max(dim=1)
    return best.values, best.indices


def _draw(overlaps: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    """``(count,)`` positions of proposals with the given ``(N,)`` overlaps, all on the CPU."""

    def repeated(positions: Tensor, number: int) -> Tensor:
        return positions[torch.randint(max(len(positions), 1), (number,), generator=generator)]

    good = (overlaps >= BOX_IOU).nonzero().squeeze(1)
    hard = ((overlaps < BOX_IOU) & (overlaps >= EASY_IOU)).nonzero().squeeze(1)
    easy = (overlaps < EASY_IOU).nonzero().squeeze(1)
    if not len(hard) + len(easy):
        return repeated(good, count if len(good) else 0)
    taken = good[torch.randperm(len(good), generator=generator)][: round(FOREGROUND_SHARE * count)]
    rest = count - len(taken)
    from_hard = rest if not len(easy) else min(int(rest * HARD_SHARE), len(hard))
    return torch.cat([taken, repeated(hard, from_hard), repeated(easy, rest - from_hard)])
