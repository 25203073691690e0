"""AnchorHead: SECOND's detection head. Module names are OpenPCDet's (``AnchorHeadSingle``).

Shape legend: B frames, H x W cells, K classes, R = 2 headings, N = H * W * K * R anchors, P positive anchors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adperception.losses.full_precision import full_precision, in_full_precision
from adperception.losses.sigmoid_focal import sigmoid_focal
from adperception.losses.sine_smooth_l1 import sine_smooth_l1
from adperception.models.heads.anchor_targets import (
    IGNORED,
    AnchorTargets,
    PendingAnchorTargets,
    assign_anchors,
)
from adperception.models.heads.anchors import ROTATIONS, AnchorClass, make_anchors
from adperception.models.heads.box_coder import (
    DIRECTION_BINS,
    DIRECTION_OFFSET,
    decode_boxes,
    direction_bins,
    encode_boxes,
    turn_to_bins,
)
from adperception.models.heads.labelled_boxes import LabelledBoxes
from adperception.structures import VoxelGrid

__all__ = ["AnchorHead", "AnchorOutputs"]

CLASS_WEIGHT, BOX_WEIGHT, DIRECTION_WEIGHT = 1.0, 2.0, 0.2
PRIOR = 0.01
"""Score of every anchor at the start: nearly all are background."""


class AnchorOutputs(NamedTuple):
    """What the head says about every anchor.

    Attributes:
        classes: ``(B, N, K)`` logits.
        boxes: ``(B, N, 7)`` codes relative to the anchors (``box_coder``).
        directions: ``(B, N, 2)`` logits of the heading's bin.
    """

    classes: Tensor
    boxes: Tensor
    directions: Tensor


class AnchorHead(nn.Module):
    """One 1 x 1 convolution each for classes, boxes and directions of the anchors at every cell.

    Args:
        in_channels: channels of the map.
        classes: the classes and their anchors.
        grid: the range that the map covers.
        bev_shape: ``(H, W)`` of the map.
        direction_offset: where the first of the two direction bins begins, radians.

    Raises:
        ValueError: if ``direction_offset`` cannot be radians.
    """

    anchors: Tensor

    def __init__(
        self,
        in_channels: int,
        classes: Sequence[AnchorClass],
        grid: VoxelGrid,
        bev_shape: tuple[int, int],
        direction_offset: float = DIRECTION_OFFSET,
    ) -> None:
        super().__init__()
        if not abs(direction_offset) <= 2 * math.pi:
            raise ValueError(f"direction_offset={direction_offset} must be an angle in radians, at most one turn.")
        self.direction_offset = direction_offset
        self.classes = tuple(classes)
        anchors_per_cell = len(self.classes) * len(ROTATIONS)
        self.conv_cls = nn.Conv2d(in_channels, anchors_per_cell * len(self.classes), 1)
        self.conv_box = nn.Conv2d(in_channels, anchors_per_cell * 7, 1)
        self.conv_dir_cls = nn.Conv2d(in_channels, anchors_per_cell * DIRECTION_BINS, 1)
        nn.init.constant_(self.conv_cls.bias, -math.log((1 - PRIOR) / PRIOR))  # type: ignore[arg-type]
        nn.init.normal_(self.conv_box.weight, std=0.001)
        # Not in the state dict, which has OpenPCDet's names; they follow from the options.
        self.register_buffer("anchors", make_anchors(self.classes, grid, bev_shape), persistent=False)

    def forward(self, bev: Tensor) -> AnchorOutputs:
        """The outputs for a map ``(B, in_channels, H, W)``."""
        return AnchorOutputs(
            _per_anchor(self.conv_cls(bev), len(self.classes)),
            _per_anchor(self.conv_box(bev), 7),
            _per_anchor(self.conv_dir_cls(bev), DIRECTION_BINS),
        )

    @torch.no_grad()
    def pending_targets(self, frames: Sequence[LabelledBoxes]) -> PendingAnchorTargets:
        """What the outputs should be, given B frames' objects, before the number of positive anchors is read."""
        with full_precision(self.anchors):
            return assign_anchors(self.anchors, self.classes, frames)

    def targets(self, frames: Sequence[LabelledBoxes]) -> AnchorTargets:
        """What the outputs should be, given B frames' objects; the host waits for the device once."""
        pending = self.pending_targets(frames)
        return pending.known(int(pending.count))

    def target_codes(self, targets: AnchorTargets) -> Tensor:
        """``(P, 7)`` codes that the positive anchors should give."""
        anchors = self.anchors.view(-1, 7)
        return encode_boxes(targets.boxes, anchors[targets.positives % len(anchors)])

    def losses(self, outputs: AnchorOutputs, targets: AnchorTargets) -> dict[str, Tensor]:
        """The weighted loss terms ``loss_cls``, ``loss_box`` and ``loss_direction``; their sum is to be minimised.

        Each frame's terms are divided by its number of positive anchors, and averaged over frames; in float32.
        """
        batch_size, anchor_count = targets.labels.shape
        device = targets.labels.device
        with full_precision(targets.labels):
            per_frame = (targets.labels > 0).sum(dim=1).clamp(min=1)
            counted = (targets.labels != IGNORED) / per_frame[:, None]
            classes = in_full_precision(outputs.classes)
            wanted = targets.labels[..., None] == torch.arange(1, len(self.classes) + 1, device=device)
            class_loss = (sigmoid_focal(classes, wanted.to(classes.dtype)) * counted[..., None]).sum()

            share = 1.0 / per_frame[targets.positives // anchor_count]
            predicted = in_full_precision(outputs.boxes.flatten(0, 1)[targets.positives])
            box_loss = (sine_smooth_l1(predicted, self.target_codes(targets)).sum(dim=1) * share).sum()

            logits = in_full_precision(outputs.directions.flatten(0, 1)[targets.positives])
            bins = direction_bins(targets.boxes[:, 6], self.direction_offset)
            direction_loss = (F.cross_entropy(logits, bins, reduction="none") * share).sum()
        return {
            "loss_cls": class_loss * (CLASS_WEIGHT / batch_size),
            "loss_box": box_loss * (BOX_WEIGHT / batch_size),
            "loss_direction": direction_loss * (DIRECTION_WEIGHT / batch_size),
        }

    def decode(self, outputs: AnchorOutputs) -> Tensor:
        """``(B, N, 7)`` float32: the box that every anchor stands for, headings turned to the likelier direction."""
        with full_precision(outputs.boxes):
            boxes = decode_boxes(in_full_precision(outputs.boxes), self.anchors.view(-1, 7))
            yaw = turn_to_bins(boxes[..., 6], outputs.directions.argmax(dim=-1), self.direction_offset)
            return torch.cat([boxes[..., :6], yaw[..., None]], dim=-1)


def _per_anchor(maps: Tensor, values: int) -> Tensor:
    """``(B, H * W * A, values)`` of ``(B, A * values, H, W)`` maps."""
    return maps.permute(0, 2, 3, 1).reshape(len(maps), -1, values)
