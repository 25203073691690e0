"""Names, shapes, and equality with a dense network, gradients included."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from adperception.models.backbones.voxel_res_backbone_8x import SparseBasicBlock, VoxelResBackBone8x
from adperception.models.detectors.centerpoint import CenterPoint
from adperception.sparse import SparseConvolution
from adperception.structures import VoxelGrid, Voxels

GRID = VoxelGrid.create([0, 0, 0, 1.6, 2.4, 4.0], [0.1] * 3)


def dense_conv(x: Tensor, active: Tensor, conv: SparseConvolution) -> tuple[Tensor, Tensor]:
    """Convolve dense grids and mask to the sites that a sparse convolution would have."""
    weight = conv.weight.permute(0, 4, 1, 2, 3)
    if conv.submanifold:
        return F.conv3d(x, weight, conv.bias, padding=1) * active, active
    stride, padding = conv.kernel.stride, conv.kernel.padding
    ones = torch.ones(1, 1, *conv.kernel.size, dtype=x.dtype)
    active = (F.conv3d(active, ones, stride=stride, padding=padding) > 0).to(x.dtype)
    return F.conv3d(x, weight, conv.bias, stride=stride, padding=padding) * active, active


def dense_norm(x: Tensor, active: Tensor, norm: torch.nn.BatchNorm1d) -> Tensor:
    """Normalise with the statistics of the active sites."""
    count = active.sum()
    mean = x.sum((0, 2, 3, 4), keepdim=True) / count
    centred = (x - mean) * active
    variance = centred.square().sum((0, 2, 3, 4), keepdim=True) / count
    normal = centred / (variance + norm.eps).sqrt()
    return (normal * norm.weight.view(1, -1, 1, 1, 1) + norm.bias.view(1, -1, 1, 1, 1)) * active


def dense_forward(net: VoxelResBackBone8x, voxels: Voxels) -> Tensor:
    shape = net.grid.sparse_shape
    index = tuple(voxels.coordinates.long().unbind(1))
    x = voxels.features.new_zeros(voxels.batch_size, *shape, net.in_channels)
    x = x.index_put(index, voxels.features).permute(0, 4, 1, 2, 3)
    active = voxels.features.new_zeros(voxels.batch_size, 1, *shape)
    active[:, 0][index] = 1
    for stage in (net.conv_input, net.conv1, net.conv2, net.conv3, net.conv4, net.conv_out):
        for block in [stage] if isinstance(stage[0], SparseConvolution) else list(stage):
            if isinstance(block, SparseBasicBlock):
                before = x
                x, active = dense_conv(x, active, block.conv1)
                x, active = dense_conv(torch.relu(dense_norm(x, active, block.bn1)), active, block.conv2)
                x = torch.relu(dense_norm(x, active, block.bn2) + before)
            else:
                conv, norm, _ = block
                x, active = dense_conv(x, active, conv)
                x = torch.relu(dense_norm(x, active, norm))
    return x.flatten(1, 2)


def test_equals_a_dense_network_and_so_do_gradients() -> None:
    torch.manual_seed(0)
    net = VoxelResBackBone8x(4, GRID).double()
    coordinates = (torch.rand(2, 40, 24, 16) < 0.01).nonzero().int()
    features = torch.randn(len(coordinates), 4, dtype=torch.float64, requires_grad=True)
    voxels = Voxels(features, coordinates, 2)
    results = []
    for forward in (net, lambda v: dense_forward(net, v)):
        output = forward(voxels)
        weights = torch.randn(output.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        gradients = torch.autograd.grad((output * weights).sum(), [features, *net.parameters()])
        results.append((output, *gradients))
    assert results[0][0].shape == (2, 256, 3, 2)
    for ours, expected in zip(*results, strict=True):
        # The gradient of a bias in front of batch norm is 0 but for rounding.
        torch.testing.assert_close(ours, expected, rtol=1e-8, atol=1e-9)


def test_names_and_sizes_are_openpcdets() -> None:
    net = VoxelResBackBone8x(5, GRID)
    names = set(dict(net.named_parameters()))
    for stage, channels in (("conv1", 16), ("conv2", 32), ("conv3", 64), ("conv4", 128)):
        for block in (0, 1) if stage == "conv1" else (1, 2):
            for part in ("conv1", "bn1", "conv2", "bn2"):
                assert {f"{stage}.{block}.{part}.weight", f"{stage}.{block}.{part}.bias"} <= names
            assert net.get_parameter(f"{stage}.{block}.conv1.weight").shape == (channels, 3, 3, 3, channels)
    assert net.conv4[0][0].weight.shape == (128, 3, 3, 3, 64)
    assert net.conv_out[0].weight.shape == (128, 3, 1, 1, 128)
    assert net.stage_channels == (16, 32, 64, 128)
    # Of each site set one rulebook: the input's, three strided ones, three levels, the output's.
    assert len({m.key for m in net.modules() if isinstance(m, SparseConvolution)}) == 8
    assert sum(isinstance(m, SparseConvolution) for m in net.modules()) == 21


def test_stages_give_the_same_map() -> None:
    torch.manual_seed(0)
    net = VoxelResBackBone8x(4, GRID).eval()
    coordinates = (torch.rand(1, 40, 24, 16) < 0.02).nonzero().int()
    voxels = Voxels(torch.randn(len(coordinates), 4), coordinates, 1)
    with torch.no_grad():
        stages = net.stages(voxels)
        assert torch.equal(stages.bev, net(voxels))
    assert tuple(s.features.shape[1] for s in stages.sites) == net.stage_channels


def test_a_frame_without_a_voxel() -> None:
    net = VoxelResBackBone8x(4, GRID)
    bev = net(Voxels(torch.zeros(0, 4), torch.zeros(0, 4, dtype=torch.int32), 1))
    bev.sum().backward()
    assert not bool(bev.any())
    assert all(p.grad is not None for p in net.parameters())


def test_errors_name_the_network_and_the_layer() -> None:
    with pytest.raises(ValueError, match=r"^VoxelResBackBone8x: 17 voxels along x"):
        VoxelResBackBone8x(4, VoxelGrid.create([0, 0, 0, 1.7, 2.4, 4.0], [0.1] * 3))
    names = {m.layer_name for m in VoxelResBackBone8x(4, GRID).modules() if isinstance(m, SparseConvolution)}
    assert "voxel_res_backbone_8x.conv4.2.conv1" in names


def test_detectors_choose_it_by_name() -> None:
    geometry = ((0.0, -6.4, -2.0, 12.8, 6.4, 4.0), (0.1, 0.1, 0.15), ["Vehicle"])
    assert isinstance(CenterPoint(*geometry, backbone="VoxelResBackBone8x").backbone_3d, VoxelResBackBone8x)
    assert not isinstance(CenterPoint(*geometry).backbone_3d, VoxelResBackBone8x)
    with pytest.raises(ValueError, match=r'CenterPoint: backbone="ResNet" is unknown. Available: VoxelBackBone8x, Vox'):
        CenterPoint(*geometry, backbone="ResNet")
