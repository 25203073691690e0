"""RoIHead: PV-RCNN's second stage, which looks at the keypoints inside and around every proposal.

Shi et al., "PV-RCNN: Point-Voxel Feature Set Abstraction for 3D Object Detection", CVPR 2020, section 3.3. Module names
are OpenPCDet's (``PVRCNNHead``).

Shape legend: R regions of interest of all frames together, G grid points along each axis of a region.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adperception.losses.corner_distance import corner_distance
from adperception.losses.full_precision import full_precision, in_full_precision
from adperception.models.heads.box_coder import decode_boxes, encode_boxes, limit_period
from adperception.models.heads.roi_targets import RoITargets
from adperception.models.point_modules.pointwise import PointwiseLinear, PointwiseNetwork
from adperception.models.point_modules.set_abstraction import Ball, FeaturePoints, SetAbstraction

__all__ = ["RoIHead", "RoIOutputs", "decode_rois", "encode_rois", "roi_grid_points"]

BALLS = (Ball(0.8, 16, (64, 64)), Ball(1.6, 16, (64, 64)))
CHANNELS = (256, 256)


class RoIOutputs(NamedTuple):
    """What the head says about every region.

    Attributes:
        scores: ``(R,)`` logits of how well the region fits an object.
        boxes: ``(R, 7)`` codes of the object's box relative to the region (``encode_rois``).
    """

    scores: Tensor
    boxes: Tensor


class RoIHead(nn.Module):
    """Keypoint features gathered at a grid of places in every region, then fully connected layers.

    Args:
        in_channels: features per keypoint.
        grid_size: places along each axis of a region (G).
        dropout: rate of the dropout layers.
    """

    def __init__(self, in_channels: int, grid_size: int = 6, dropout: float = 0.3) -> None:
        super().__init__()
        if grid_size < 1:
            raise ValueError(f"roi_grid_size={grid_size} must be at least 1.")
        self.grid_size = grid_size
        self.roi_grid_pool_layer = SetAbstraction(in_channels, BALLS)
        pooled = self.roi_grid_pool_layer.out_channels * grid_size**3
        self.shared_fc_layer = PointwiseNetwork([pooled, *CHANNELS], 1, dropout=dropout)
        self.cls_layers = PointwiseNetwork([CHANNELS[-1], *CHANNELS], 1, outputs=1, dropout=dropout)
        self.reg_layers = PointwiseNetwork([CHANNELS[-1], *CHANNELS], 1, outputs=7, dropout=dropout)
        for module in self.modules():
            if isinstance(module, PointwiseLinear):
                nn.init.xavier_normal_(module.weight)
        last = self.reg_layers[-1]
        assert isinstance(last, PointwiseLinear)
        nn.init.normal_(last.weight, std=0.001)

    def forward(
        self, rois: Tensor, frames: Tensor, keypoints: FeaturePoints, generator: torch.Generator | None = None
    ) -> RoIOutputs:
        """The outputs for regions ``(R, 7)`` in frames ``(R,)``; ``generator`` draws the dropout."""
        with full_precision(rois):
            places = roi_grid_points(rois, self.grid_size)
        place_frames = frames.repeat_interleave(self.grid_size**3)
        pooled = self.roi_grid_pool_layer(keypoints, places.flatten(0, 1), place_frames)
        rows = pooled.view(len(rois), self.grid_size**3, pooled.shape[1]).transpose(1, 2).flatten(1)
        shared = self.shared_fc_layer(rows, generator)
        return RoIOutputs(self.cls_layers(shared, generator).squeeze(1), self.reg_layers(shared, generator))

    def losses(self, outputs: RoIOutputs, targets: RoITargets) -> dict[str, Tensor]:
        """``loss_roi_cls``, ``loss_roi_box`` and ``loss_roi_corner``; their sum is to be minimised.

        Scores are averaged over all regions, boxes and corners over those that learn a box; in float32.
        """
        rois, codes = targets.rois[targets.foreground], in_full_precision(outputs.boxes[targets.foreground])
        count = max(len(rois), 1)
        with full_precision(rois):
            scores = in_full_precision(outputs.scores)
            score_loss = F.binary_cross_entropy_with_logits(scores, targets.scores, reduction="sum")
            box_loss = F.smooth_l1_loss(codes, encode_rois(targets.boxes, rois), reduction="sum", beta=1 / 9)
            corner_loss = corner_distance(decode_rois(codes, rois), targets.boxes).sum()
        return {
            "loss_roi_cls": score_loss / max(len(targets.scores), 1),
            "loss_roi_box": box_loss / count,
            "loss_roi_corner": corner_loss / count,
        }


def roi_grid_points(rois: Tensor, size: int) -> Tensor:
    """``(R, size ** 3, 3)`` places in regions ``(R, 7)``, evenly spread, z running fastest (metres, LiDAR frame)."""
    steps = (torch.arange(size, device=rois.device, dtype=rois.dtype) + 0.5) / size - 0.5
    local = torch.cartesian_prod(steps, steps, steps).view(-1, 3) * rois[:, None, 3:6]
    return _rotate(local, rois[:, 6:]) + rois[:, None, :3]


def encode_rois(boxes: Tensor, rois: Tensor) -> Tensor:
    """``(R, 7)`` codes of boxes in the frames of their regions: ``encode_boxes`` with the region at the origin.

    A heading opposite to the region's is taken for its reverse, so that codes of headings lie within a quarter turn.
    """
    centres = _rotate((boxes[:, :3] - rois[:, :3])[:, None], -rois[:, 6:])[:, 0]
    turn = limit_period(boxes[:, 6:] - rois[:, 6:] + math.pi / 2, math.pi) - math.pi / 2
    return encode_boxes(torch.cat([centres, boxes[:, 3:6], turn], dim=1), _at_origin(rois))


def decode_rois(codes: Tensor, rois: Tensor) -> Tensor:
    """``(R, 7)`` boxes: the inverse of ``encode_rois``, up to half a turn."""
    boxes = decode_boxes(codes, _at_origin(rois))
    centres = _rotate(boxes[:, None, :3], rois[:, 6:])[:, 0] + rois[:, :3]
    return torch.cat([centres, boxes[:, 3:6], boxes[:, 6:] + rois[:, 6:]], dim=1)


def _at_origin(rois: Tensor) -> Tensor:
    return torch.cat([torch.zeros_like(rois[:, :3]), rois[:, 3:6], torch.zeros_like(rois[:, 6:])], dim=1)


def _rotate(xyz: Tensor, yaw: Tensor) -> Tensor:
    """``(R, P, 3)`` positions turned around z by ``(R, 1)`` angles, counter-clockwise."""
    x, y, z = xyz.unbind(2)
    cos, sin = torch.cos(yaw), torch.sin(yaw)
    return torch.stack([x * cos - y * sin, x * sin + y * cos, z], dim=2)
