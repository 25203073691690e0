"""Distance of box corners: one loss for place, size and heading together."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["box_corners", "corner_distance"]

_SIGNS = [[x, y, z] for z in (-0.5, 0.5) for x, y in ((0.5, 0.5), (-0.5, 0.5), (-0.5, -0.5), (0.5, -0.5))]


def box_corners(boxes: Tensor) -> Tensor:
    """``(N, 8, 3)`` corners of ``(N, 7)`` boxes: the four of the bottom counter-clockwise, then those above them."""
    local = boxes.new_tensor(_SIGNS) * boxes[:, None, 3:6]
    cos, sin = torch.cos(boxes[:, 6:]), torch.sin(boxes[:, 6:])
    x, y, z = local.unbind(2)
    return torch.stack([x * cos - y * sin, x * sin + y * cos, z], dim=2) + boxes[:, None, :3]


def corner_distance(prediction: Tensor, target: Tensor) -> Tensor:
    """How far corners are from where they should be, heading counted up to half a turn.

    Smooth L1 (linear from 1 m on) of the distance of each corner to its partner, or to the partner in the target
    turned by half a turn if that is nearer; the mean over the eight corners.

    Args:
        prediction: ``(N, 7)`` boxes x, y, z, length, width, height, yaw (metres, radians).
        target: ``(N, 7)``.

    Returns:
        ``(N,)``.

    Source: Qi et al., "Frustum PointNets", CVPR 2018, section 4.4.
    """
    turned = torch.cat([target[:, :6], target[:, 6:] + math.pi], dim=1)
    corners = box_corners(prediction)
    distances = [torch.linalg.vector_norm(corners - box_corners(boxes), dim=2) for boxes in (target, turned)]
    nearer = torch.minimum(*distances)
    return F.smooth_l1_loss(nearer, torch.zeros_like(nearer), reduction="none", beta=1.0).mean(dim=1)
