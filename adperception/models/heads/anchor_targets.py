"""Which anchor is to find which object.

Shape legend: B frames, H x W cells, K classes, R headings, N = H * W * K * R anchors, M objects, P positive anchors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from adperception.models.heads.anchors import AnchorClass
from adperception.models.heads.box_coder import limit_period
from adperception.models.heads.labelled_boxes import LabelledBoxes

__all__ = ["BACKGROUND", "IGNORED", "AnchorTargets", "assign_anchors"]

BACKGROUND, IGNORED = 0, -1


@dataclass(frozen=True)
class AnchorTargets:
    """What the anchors of a batch are trained to say.

    Attributes:
        labels: ``(B, N)`` int64: class number + 1, ``BACKGROUND`` (0) or ``IGNORED`` (-1).
        positives: ``(P,)`` int64 positions in the flattened ``labels`` of the anchors that have an object, ascending.
        boxes: ``(P, 7)`` the object of each of them.
    """

    labels: Tensor
    positives: Tensor
    boxes: Tensor


def assign_anchors(anchors: Tensor, classes: Sequence[AnchorClass], frames: Sequence[LabelledBoxes]) -> AnchorTargets:
    """Compare every anchor with the objects of its class.

    Boxes are seen from above and turned to the nearest axis. An anchor that overlaps an object of its class by
    ``matched_iou`` or more is positive for the one it overlaps most. So is, however little it overlaps, each anchor
    that overlaps some object as much as the best anchor does, so that no object goes without. Of the rest, those below
    ``unmatched_iou`` for all objects are background.

    Args:
        anchors: ``(H, W, K, R, 7)`` from ``make_anchors``.
        classes: the K classes.
        frames: B frames' objects, on the device of the anchors.

    Source: Yan et al., SECOND, Sensors 2018, section 3.2.1, as in OpenPCDet's ``AxisAlignedTargetAssigner``.
    """
    shape = anchors.shape[:4]
    labels = torch.empty(len(frames), *shape, dtype=torch.int64, device=anchors.device)
    boxes = []
    for frame, objects in enumerate(frames):
        nearest = torch.zeros(shape, dtype=torch.int64, device=anchors.device)
        for number, c in enumerate(classes):
            mine = (objects.labels == number).nonzero()[:, 0]
            positive, background, best = _match(anchors[:, :, number], objects.boxes[mine], c)
            labels[frame, :, :, number] = torch.where(
                positive, number + 1, torch.where(background, BACKGROUND, IGNORED)
            )
            if len(mine):
                nearest[:, :, number] = mine[best]
        boxes.append(objects.boxes[nearest[labels[frame] > 0]])
    labels = labels.flatten(1)
    return AnchorTargets(labels, (labels.flatten() > 0).nonzero()[:, 0], torch.cat(boxes))


def _match(anchors: Tensor, boxes: Tensor, c: AnchorClass) -> tuple[Tensor, Tensor, Tensor]:
    """``(H, W, R)`` bool positive, bool background, and int64 the object that each anchor overlaps most."""
    shape = anchors.shape[:3]
    if not len(boxes):
        nothing = torch.zeros(shape, dtype=torch.bool, device=anchors.device)
        return nothing, ~nothing, nothing.long()
    iou = _aligned_iou(anchors, boxes)  # (M, R, H, W)
    most, best = iou.max(dim=0)
    per_object = iou.amax(dim=(1, 2, 3), keepdim=True)
    forced = ((iou == per_object) & (per_object > 0)).any(dim=0)
    positive, background = forced | (most >= c.matched_iou), most < c.unmatched_iou
    positive, background, best = (t.permute(1, 2, 0) for t in (positive, background, best))
    return positive, background, best


def _aligned_iou(anchors: Tensor, boxes: Tensor) -> Tensor:
    """``(M, R, H, W)`` IoU of ``(H, W, R, 7)`` anchors of one class with ``(M, 7)`` boxes, aligned and from above.

    The anchors stand in rows and columns, so how far a box overlaps one along x depends on the column alone, and along
    y on the row alone: the overlaps of all are an outer product.
    """
    left, right = (side[..., 0] for side in _aligned_sides(anchors[0]))  # (W, R)
    near, far = (side[..., 1] for side in _aligned_sides(anchors[:, 0]))  # (H, R)
    low, high = _aligned_sides(boxes)  # (M, 2)
    along_x = _overlap(left.T, right.T, low[:, 0], high[:, 0])  # (M, R, W)
    along_y = _overlap(near.T, far.T, low[:, 1], high[:, 1])  # (M, R, H)
    shared = along_y[..., :, None] * along_x[..., None, :]
    anchor_area = (far - near).T[:, :, None] * (right - left).T[:, None, :]  # (R, H, W)
    box_area = (high - low).prod(dim=1)[:, None, None, None]
    return shared / (anchor_area + box_area - shared).clamp(min=1e-6)


def _overlap(first: Tensor, last: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """``(M, ...)`` lengths that intervals ``first..last`` (any shape) share with M intervals ``low..high``."""
    low, high = (t.reshape(-1, *[1] * first.dim()) for t in (low, high))
    return (torch.minimum(last, high) - torch.maximum(first, low)).clamp(min=0)


def _aligned_sides(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """``(..., 2)`` smallest and largest x, y of boxes turned to the nearest axis."""
    turn = limit_period(boxes[..., 6] + math.pi / 2, math.pi) - math.pi / 2
    lengthwise = (turn.abs() < math.pi / 4)[..., None]
    half = torch.where(lengthwise, boxes[..., 3:5], boxes[..., [4, 3]]) / 2
    return boxes[..., :2] - half, boxes[..., :2] + half
