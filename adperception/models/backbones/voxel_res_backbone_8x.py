"""VoxelResBackBone8x: the sparse 3D encoder with residual blocks that OpenPCDet gives CenterPoint and BEV-MAE.

The stages, grids and the map are those of ``VoxelBackBone8x``; in place of single convolutions stand pairs with a way
around them (He et al., CVPR 2016), and the last stage has 128 channels. Module names are OpenPCDet's.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import ClassVar

import torch
from torch import nn

from adperception.models.backbones.voxel_backbone_8x import VoxelBackBone8x, down
from adperception.sparse import SparseBatchNorm1d, SparseSequential, SparseTensor, SubMConv3d

__all__ = ["SparseBasicBlock", "VoxelResBackBone8x"]


class SparseBasicBlock(SparseSequential):
    """Two submanifold convolutions whose outcome is added to the input, N sites and C channels all through.

    Its convolutions have biases although norms follow them, as OpenPCDet's have.

    Args:
        channels: C.
        key: blocks with equal keys share one rulebook.
    """

    def __init__(self, channels: int, key: str) -> None:
        def conv() -> SubMConv3d:
            return SubMConv3d(channels, channels, 3, bias=True, key=key)

        def norm() -> SparseBatchNorm1d:
            return SparseBatchNorm1d(channels, eps=1e-3, momentum=0.01)

        modules: dict[str, nn.Module] = {
            "conv1": conv(),
            "bn1": norm(),
            "relu": nn.ReLU(inplace=True),
            "conv2": conv(),
            "bn2": norm(),
        }
        super().__init__(OrderedDict(modules))

    def forward(self, x: SparseTensor) -> SparseTensor:
        """Run the block."""
        changed = super().forward(x)
        return changed.replace_features(torch.relu(changed.features + x.features))


class VoxelResBackBone8x(VoxelBackBone8x):
    """Voxels to a bird's-eye-view map, with residual blocks.

    Args:
        in_channels: features per voxel (4: x, y, z, intensity; 5: and elongation).
        grid: the voxel grid. x and y must be multiples of 8 voxels.
        bev_channels: channels that the map is expected to have, 256 for published checkpoints; they follow from the
            depth of the grid as ``128 * layers``.

    Raises:
        ValueError: if the grid does not fit.
    """

    stage_channels: ClassVar[tuple[int, int, int, int]] = (16, 32, 64, 128)

    def _make_stages(self) -> tuple[SparseSequential, SparseSequential, SparseSequential, SparseSequential]:
        """``conv1`` to ``conv4``."""
        # conv1 works on the sites of conv_input, so it takes that rulebook (OpenPCDet builds it twice).
        return (
            SparseSequential(SparseBasicBlock(16, "subm1"), SparseBasicBlock(16, "subm1")),
            SparseSequential(down(16, 32, "spconv2"), SparseBasicBlock(32, "res2"), SparseBasicBlock(32, "res2")),
            SparseSequential(down(32, 64, "spconv3"), SparseBasicBlock(64, "res3"), SparseBasicBlock(64, "res3")),
            SparseSequential(
                down(64, 128, "spconv4", (0, 1, 1)), SparseBasicBlock(128, "res4"), SparseBasicBlock(128, "res4")
            ),
        )
