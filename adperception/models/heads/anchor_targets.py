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
from adperception.models.on_device import on_device
from adperception.sparse import static_nonzero

__all__ = ["BACKGROUND", "IGNORED", "AnchorTargets", "PendingAnchorTargets", "assign_anchors"]

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


@dataclass(frozen=True)
class PendingAnchorTargets:
    """Targets of which the host does not know yet how many anchors are positive.

    Attributes:
        labels: see ``AnchorTargets``.
        nearest: ``(B, N)`` int64 for every anchor the position in ``boxes`` of the object that it overlaps most.
        boxes: ``(M, 7)`` the objects of all frames.
        count: scalar int64 on the device: how many anchors are positive.
    """

    labels: Tensor
    nearest: Tensor
    boxes: Tensor
    count: Tensor

    def known(self, count: int) -> AnchorTargets:
        """The targets, given what ``self.count`` holds; runs without a wait of the host."""
        positives = static_nonzero((self.labels > 0).flatten(), count)
        return AnchorTargets(self.labels, positives, self.boxes[self.nearest.flatten()[positives]])


def assign_anchors(
    anchors: Tensor, classes: Sequence[AnchorClass], frames: Sequence[LabelledBoxes], frames_at_once: int | None = None
) -> PendingAnchorTargets:
    """Compare every anchor with the objects of its class.

    Boxes are seen from above and turned to the nearest axis. An anchor that overlaps an object of its class by
    ``matched_iou`` or more is positive for the one it overlaps most. So is, however little it overlaps, each anchor
    that overlaps some object as much as the best anchor does, so that no object goes without. Of the rest, those below
    ``unmatched_iou`` for all objects are background.

    Frames are compared together, a class at a time, lists of objects padded to the longest.

    Args:
        anchors: ``(H, W, K, R, 7)`` from ``make_anchors``.
        classes: the K classes.
        frames: B frames' objects, on the device of the anchors.
        frames_at_once: how many are compared together. If ``None``, on a CPU one, as its list then needs no padding,
            elsewhere all, as a GPU is faster with few large operations.

    Source: Yan et al., SECOND, Sensors 2018, section 3.2.1, as in OpenPCDet's ``AxisAlignedTargetAssigner``.
    """
    shape = (len(frames), *anchors.shape[:4])
    labels = torch.full(shape, BACKGROUND, dtype=torch.int64, device=anchors.device)
    nearest = torch.zeros(shape, dtype=torch.int64, device=anchors.device)
    boxes = torch.cat([objects.boxes for objects in frames])
    step = frames_at_once or (1 if anchors.device.type == "cpu" else len(frames))
    for number, c in enumerate(classes):
        mine = _positions(frames, number)
        for first in range(0, len(frames), step):
            part = slice(first, first + step)
            longest = max(len(positions) for positions in mine[part])
            if not longest:
                continue
            listed = [p for positions in mine[part] for p in (*positions, *[-1] * (longest - len(positions)))]
            position = on_device(listed, anchors.device).view(-1, longest)
            positive, background, best = _match(anchors[:, :, number], boxes, position, c)
            of_class = torch.where(positive, number + 1, torch.where(background, BACKGROUND, IGNORED))
            labels[part, :, :, number] = of_class
            nearest[part, :, :, number] = best
    labels = labels.flatten(1)
    return PendingAnchorTargets(labels, nearest.flatten(1), boxes, (labels > 0).sum())


def _positions(frames: Sequence[LabelledBoxes], number: int) -> list[list[int]]:
    """Per frame, where its objects of class ``number`` stand among those of all frames."""
    found, first = [], 0
    for objects in frames:
        found.append([first + i for i, label in enumerate(objects.host_labels) if label == number])
        first += len(objects)
    return found


def _match(anchors: Tensor, boxes: Tensor, position: Tensor, c: AnchorClass) -> tuple[Tensor, Tensor, Tensor]:
    """``(B, H, W, R)`` bool positive, bool background, and int64 the object that each anchor overlaps most.

    Args:
        anchors: ``(H, W, R, 7)`` of one class.
        boxes: ``(M, 7)`` all objects.
        position: ``(B, P)`` int64 each frame's objects of the class in ``boxes``, filled up with -1.
        c: the class.
    """
    padded = position < 0
    place = position.clamp(min=0)
    iou = _aligned_iou(anchors, boxes[place].flatten(0, 1))
    iou = iou.view(*position.shape, *iou.shape[1:])  # (B, P, R, H, W)
    iou = iou.masked_fill_(padded[:, :, None, None, None], -1.0)
    most, best = iou.max(dim=1)
    per_object = iou.amax(dim=(2, 3, 4), keepdim=True)
    forced = ((iou == per_object) & (per_object > 0)).any(dim=1)
    positive, background = forced | (most >= c.matched_iou), most < c.unmatched_iou
    best = place.gather(1, best.flatten(1)).view_as(best)
    positive, background, best = (t.permute(0, 2, 3, 1) for t in (positive, background, best))
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
    half = torch.where(lengthwise, boxes[..., 3:5], boxes[..., 3:5].flip(-1)) / 2
    return boxes[..., :2] - half, boxes[..., :2] + half
