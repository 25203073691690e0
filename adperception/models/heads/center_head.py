"""CenterHead: CenterPoint's detection head. Module names are OpenPCDet's (one group of classes).

Shape legend: B frames, K classes, H x W cells, M objects of the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from adperception.losses.center_focal import center_focal
from adperception.losses.full_precision import full_precision, in_full_precision
from adperception.models.backbones.voxel_backbone_8x import BEV_STRIDE
from adperception.models.heads.center_targets import CenterTargets, PendingCenterTargets, center_targets
from adperception.models.heads.labelled_boxes import LabelledBoxes
from adperception.models.heads.scored_boxes import ScoredBoxes
from adperception.models.on_device import on_device
from adperception.structures import VoxelGrid

__all__ = ["CenterHead", "CenterOutputs"]

BOX_WEIGHT = 2.0
HEATMAP_BIAS = -2.19
"""Score 0.1 at every cell at the start."""


class CenterOutputs(NamedTuple):
    """What the head says about every cell.

    Attributes:
        center: ``(B, 2, H, W)`` offset of the centre from the cell's corner in x, y (cells).
        center_z: ``(B, 1, H, W)`` metres.
        dim: ``(B, 3, H, W)`` logarithms of length, width, height.
        rot: ``(B, 2, H, W)`` cosine and sine of the yaw.
        hm: ``(B, K, H, W)`` logits of a centre of each class.
    """

    center: Tensor
    center_z: Tensor
    dim: Tensor
    rot: Tensor
    hm: Tensor


def _conv_norm_relu(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=1), nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True)
    )


def _branch(channels: int, outputs: int) -> nn.Sequential:
    branch = nn.Sequential(_conv_norm_relu(channels, channels), nn.Conv2d(channels, outputs, 3, padding=1))
    for module in branch.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
            nn.init.zeros_(module.bias)  # type: ignore[arg-type]
    return branch


def _heatmap_branch(channels: int, classes: int) -> nn.Sequential:
    last = nn.Conv2d(channels, classes, 3, padding=1)
    nn.init.constant_(last.bias, HEATMAP_BIAS)  # type: ignore[arg-type]
    return nn.Sequential(_conv_norm_relu(channels, channels), last)


class CenterHead(nn.Module):
    """A shared convolution, then a branch of two convolutions for each output.

    Args:
        in_channels: channels of the map.
        class_count: K.
        grid: the range that the map covers.
        bev_shape: ``(H, W)`` of the map.
        shared_channels: channels of the shared convolution and of the branches.
        top_k: cells with the highest scores, over all classes, that are made into boxes.
    """

    def __init__(
        self,
        in_channels: int,
        class_count: int,
        grid: VoxelGrid,
        bev_shape: tuple[int, int],
        shared_channels: int = 64,
        top_k: int = 500,
    ) -> None:
        super().__init__()
        self.class_count, self.grid, self.bev_shape, self.top_k = class_count, grid, bev_shape, top_k
        self.shared_conv = _conv_norm_relu(in_channels, shared_channels)
        branches: dict[str, nn.Module] = {
            name: _branch(shared_channels, outputs)
            for name, outputs in (("center", 2), ("center_z", 1), ("dim", 3), ("rot", 2))
        }
        branches["hm"] = _heatmap_branch(shared_channels, class_count)
        self.heads_list = nn.ModuleList([nn.ModuleDict(branches)])

    def forward(self, bev: Tensor) -> CenterOutputs:
        """The outputs for a map ``(B, in_channels, H, W)``."""
        shared = self.shared_conv(bev)
        (branches,) = self.heads_list
        return CenterOutputs(**{name: branch(shared) for name, branch in branches.items()})  # type: ignore[operator]

    @torch.no_grad()
    def pending_targets(self, frames: Sequence[LabelledBoxes]) -> PendingCenterTargets:
        """What the outputs should be, given B frames' objects, before the size of the largest peak is read."""
        return center_targets(frames, self.class_count, self.grid, self.bev_shape)

    def targets(self, frames: Sequence[LabelledBoxes]) -> CenterTargets:
        """What the outputs should be, given B frames' objects; the host waits for the device once."""
        pending = self.pending_targets(frames)
        return pending.known(int(pending.reach))

    def losses(self, outputs: CenterOutputs, targets: CenterTargets) -> dict[str, Tensor]:
        """The weighted loss terms ``loss_heatmap`` and ``loss_box``; their sum is to be minimised.

        ``loss_box`` is the mean absolute error at the objects' cells, summed over the eight codes. Both are float32.
        """
        with full_precision(targets.codes):
            codes = torch.cat([outputs.center, outputs.center_z, outputs.dim, outputs.rot], dim=1)
            predicted = in_full_precision(codes.permute(0, 2, 3, 1).flatten(0, 2)[targets.cells])
            error = (predicted - targets.codes).abs().sum() / max(1, len(targets.cells))
            heatmap = center_focal(in_full_precision(outputs.hm), targets.heatmaps)
        return {"loss_heatmap": heatmap, "loss_box": error * BOX_WEIGHT}

    def decode(self, outputs: CenterOutputs) -> list[ScoredBoxes]:
        """Per frame the boxes at the ``top_k`` cells, best first, as far as their centres lie in the range.

        There is no suppression of neighbouring cells; that is left to what comes after. Boxes and scores are float32.
        """
        with full_precision(outputs.hm):
            return self._decode(CenterOutputs(*(in_full_precision(maps) for maps in outputs)))

    def _decode(self, outputs: CenterOutputs) -> list[ScoredBoxes]:
        batch_size, _, height, width = outputs.hm.shape
        flat = outputs.hm.sigmoid().flatten(1)
        scores, index = flat.topk(min(self.top_k, flat.shape[1]), dim=1)
        labels, cell = index // (height * width), index % (height * width)

        def at_cells(maps: Tensor) -> Tensor:
            return maps.flatten(2).gather(2, cell[:, None].expand(-1, maps.shape[1], -1)).transpose(1, 2)

        minimum, size = (on_device(v[:2], flat.device) for v in (self.grid.point_cloud_range, self.grid.voxel_size))
        corner = torch.stack([cell % width, cell // width], dim=-1)
        place = (corner + at_cells(outputs.center)) * BEV_STRIDE * size + minimum
        rotation = at_cells(outputs.rot)
        yaw = torch.atan2(rotation[..., 1:], rotation[..., :1])
        boxes = torch.cat([place, at_cells(outputs.center_z), at_cells(outputs.dim).exp(), yaw], dim=-1)

        limits = on_device(self.grid.point_cloud_range, boxes.device)
        inside = ((boxes[..., :3] >= limits[:3]) & (boxes[..., :3] <= limits[3:])).all(dim=-1)
        return [ScoredBoxes(boxes[b], scores[b], labels[b]).select(inside[b]) for b in range(batch_size)]
