"""SetAbstraction: a feature for a place in space from the points around it (PointNet++), in balls of several radii.

Qi et al., "PointNet++: Deep Hierarchical Feature Learning on Point Sets in a Metric Space", NeurIPS 2017. Module names
are those of OpenPCDet's ``StackSAModuleMSG``.

Shape legend: N points, M places, n neighbours per place, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adperception.geometry.point_sampling import ball_query
from adperception.models.point_modules.pointwise import PointwiseLinear, PointwiseNetwork

__all__ = ["Ball", "FeaturePoints", "SetAbstraction"]


class FeaturePoints(NamedTuple):
    """Points of several frames, one after the other, that carry features.

    Attributes:
        xyz: ``(N, 3)`` positions in metres.
        frames: ``(N,)`` int64 frame of each point.
        features: ``(N, C)``.
    """

    xyz: Tensor
    frames: Tensor
    features: Tensor


class Ball(NamedTuple):
    """One radius of a set abstraction.

    Attributes:
        radius: metres.
        neighbours: points taken per place, the first ones.
        channels: of the layers that each neighbour goes through.
    """

    radius: float
    neighbours: int
    channels: tuple[int, ...]


class SetAbstraction(nn.Module):
    """Neighbours' features and relative positions through shared layers, then the maximum over neighbours.

    Args:
        in_channels: features per point.
        balls: the radii.

    Attributes:
        out_channels: sum over radii of the last layer's channels.
    """

    def __init__(self, in_channels: int, balls: Sequence[Ball]) -> None:
        super().__init__()
        self.balls = tuple(balls)
        self.out_channels = sum(ball.channels[-1] for ball in self.balls)
        self.mlps = nn.ModuleList(
            PointwiseNetwork([3 + in_channels, *ball.channels], kernel_axes=2) for ball in self.balls
        )
        for module in self.modules():
            if isinstance(module, PointwiseLinear):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, points: FeaturePoints, places: Tensor, place_frames: Tensor) -> Tensor:
        """``(M, out_channels)`` features of places ``(M, 3)`` (metres) in frames ``(M,)``.

        A place without a neighbour gets what the layers make of zeros.
        """
        return torch.cat(
            [
                self._ball(ball, mlp, points, places, place_frames)
                for ball, mlp in zip(self.balls, self.mlps, strict=True)
            ],
            dim=1,
        )

    def _ball(self, ball: Ball, mlp: nn.Module, points: FeaturePoints, places: Tensor, place_frames: Tensor) -> Tensor:
        neighbours, empty = ball_query(
            places, points.xyz, ball.radius, ball.neighbours, centre_frames=place_frames, xyz_frames=points.frames
        )
        xyz, features = points.xyz, points.features
        if not len(xyz):  # every place is empty, but the index 0 has to exist
            xyz, features = F.pad(xyz, (0, 0, 0, 1)), F.pad(features, (0, 0, 0, 1))
        assert isinstance(mlp, PointwiseNetwork)
        first, *others = mlp
        assert isinstance(first, PointwiseLinear)
        # The first layer is linear, so features go through it once per point and not once per neighbour.
        rows = (features @ first.matrix[:, 3:].T).index_select(0, neighbours.flatten())
        offsets = xyz.index_select(0, neighbours.flatten()).view(*neighbours.shape, 3) - places[:, None]
        rows = rows + offsets.flatten(0, 1) @ first.matrix[:, :3].T
        rows = rows.masked_fill(empty.repeat_interleave(ball.neighbours)[:, None], 0.0)
        for layer in others:
            rows = layer(rows)
        return rows.view(*neighbours.shape, ball.channels[-1]).max(dim=1).values
