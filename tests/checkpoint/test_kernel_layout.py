from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from adperception.checkpoint.kernel_layout import KERNEL_LAYOUTS, from_krsc, infer_kernel_layout, to_krsc
from adperception.checkpoint.layout import CheckpointError
from adperception.models.backbones.voxel_backbone_8x import VoxelBackBone8x
from adperception.sparse import SparseTensor, SubMConv3d
from adperception.structures import VoxelGrid

GRID = VoxelGrid((0.0, 0.0, 0.0, 1.6, 1.6, 4.0), (0.1, 0.1, 0.1))


def encoder_state(in_channels: int = 4) -> dict[str, Tensor]:
    return {f"backbone_3d.{k}": v for k, v in VoxelBackBone8x(in_channels, GRID).state_dict().items()}


@pytest.mark.parametrize("in_channels", [3, 4, 5])
@pytest.mark.parametrize("layout", KERNEL_LAYOUTS)
def test_every_layout_is_recognised_and_undone(layout: str, in_channels: int) -> None:
    """With three features the first kernel alone would fit KRSC and conv3d."""
    state = encoder_state(in_channels)
    theirs = from_krsc(state, layout)
    assert infer_kernel_layout(theirs) == layout
    assert all(torch.equal(value, state[name]) for name, value in to_krsc(theirs, layout).items())


def test_permutations_mean_what_they_say() -> None:
    """A sparse convolution with converted weights equals torch's dense one, whatever the weights' layout was."""
    dense_weight = torch.randn(8, 8, 3, 3, 3)  # as many inputs as outputs: no shape would betray a mistake
    out, inp, z, y, x = range(5)
    written = {"KRSC": (out, z, y, x, inp), "RSKC": (z, y, x, out, inp), "RSCK": (z, y, x, inp, out)}
    volume = torch.randn(1, 8, 4, 5, 6)
    coordinates = torch.cat([torch.zeros(120, 1), torch.ones(4, 5, 6).nonzero()], dim=1).int()
    features = volume[0].flatten(1).T.contiguous()
    expected = F.conv3d(volume, dense_weight, padding=1)[0].flatten(1).T
    conv = SubMConv3d(8, 8, 3, key="check")
    for layout, axes in {**written, "conv3d": (out, inp, z, y, x)}.items():
        state = {"0.weight": dense_weight.permute(axes).contiguous()}
        with torch.no_grad():
            conv.weight.copy_(to_krsc(state, layout)["0.weight"])
            result = conv(SparseTensor(features, coordinates, (4, 5, 6), 1)).features
        assert torch.allclose(result, expected, atol=1e-5), layout


def test_kernels_in_two_layouts_are_refused_by_name() -> None:
    state = encoder_state()
    name = "backbone_3d.conv3.0.0.weight"
    state[name] = from_krsc({name: state[name]}, "RSCK")[name]
    with pytest.raises(
        CheckpointError, match=r"no layout fits all 12 kernels: backbone_3d\.conv3\.0\.0\.weight .*RSCK"
    ):
        infer_kernel_layout(state)


def test_what_shapes_cannot_tell_is_said() -> None:
    state = {k: v for k, v in from_krsc(encoder_state(), "RSCK").items() if "conv4.1" in k}
    with pytest.raises(CheckpointError, match=r"1 kernels fit RSKC and RSCK. Say which with --kernel-layout"):
        infer_kernel_layout(state)
    with pytest.raises(CheckpointError, match="no sparse convolution"):
        infer_kernel_layout({"a": torch.zeros(3)})
    with pytest.raises(CheckpointError, match=r"has no batch norm"):
        infer_kernel_layout({"a.0.weight": torch.zeros(1, 3, 3, 3, 1)})
    with pytest.raises(ValueError, match=r'"KSRC" is unknown. Available: KRSC'):
        to_krsc(state, "KSRC")
