"""PointHead: which keypoints lie on objects. Module names are OpenPCDet's (``PointHeadSimple``).

Shape legend: K keypoints of all frames together, M objects of a frame.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from adperception.losses.full_precision import full_precision, in_full_precision
from adperception.losses.sigmoid_focal import sigmoid_focal
from adperception.models.heads.labelled_boxes import LabelledBoxes
from adperception.models.on_device import on_device
from adperception.models.point_modules.pointwise import PointwiseNetwork

__all__ = ["PointHead", "inside_boxes"]

CHANNELS = (256, 256)
MARGIN = 0.2
"""A keypoint outside all objects, but inside one made longer, wider and higher by so many metres, is left alone."""


class PointHead(nn.Module):
    """Foreground or background.

    Args:
        in_channels: features per keypoint.
    """

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.cls_layers = PointwiseNetwork([in_channels, *CHANNELS], outputs=1)

    def forward(self, features: Tensor) -> Tensor:
        """``(K,)`` logits of being on an object, for features ``(K, in_channels)``."""
        return self.cls_layers(features).squeeze(1)  # type: ignore[no-any-return]

    def loss(self, logits: Tensor, xyz: Tensor, frames: Tensor, objects: Sequence[LabelledBoxes]) -> Tensor:
        """Focal loss over all keypoints that are not left alone, divided by the number on objects; float32.

        Args:
            logits: ``(K,)`` what ``forward`` gave.
            xyz: ``(K, 3)`` positions of the keypoints in metres.
            frames: ``(K,)`` int64 frame of each keypoint.
            objects: each frame's objects.
        """
        with full_precision(logits):
            foreground, unclear = self.targets(xyz, frames, objects)
            logits = in_full_precision(logits)
            loss = sigmoid_focal(logits, foreground.to(logits.dtype)).masked_fill(unclear, 0.0)
            return loss.sum() / foreground.sum().clamp(min=1)

    @torch.no_grad()
    def targets(self, xyz: Tensor, frames: Tensor, objects: Sequence[LabelledBoxes]) -> tuple[Tensor, Tensor]:
        """``(K,)`` bool: inside an object; ``(K,)`` bool: left alone."""
        foreground, near = (torch.zeros(len(xyz), dtype=torch.bool, device=xyz.device) for _ in range(2))
        wider = on_device([0, 0, 0, MARGIN, MARGIN, MARGIN, 0], xyz.device, xyz.dtype)
        for number, frame in enumerate(objects):
            own = frames == number
            foreground |= own & inside_boxes(xyz, frame.boxes).any(dim=1)
            near |= own & inside_boxes(xyz, frame.boxes + wider).any(dim=1)
        return foreground, near & ~foreground


def inside_boxes(xyz: Tensor, boxes: Tensor) -> Tensor:
    """``(K, M)`` bool: which of ``(K, 3)`` positions lie in which of ``(M, 7)`` boxes."""
    dx, dy, dz = (xyz[:, None] - boxes[:, :3]).unbind(2)
    cos, sin = torch.cos(boxes[:, 6]), torch.sin(boxes[:, 6])
    along, across = dx * cos + dy * sin, dy * cos - dx * sin
    half_length, half_width, half_height = (boxes[:, 3:6] / 2).unbind(1)
    return (along.abs() < half_length) & (across.abs() < half_width) & (dz.abs() <= half_height)
