"""Shapes, depth rules and equality with a dense network."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from adperception.models.backbones.voxel_backbone_8x import VoxelBackBone8x, bev_layers
from adperception.sparse import SparseConvolution
from adperception.structures import VoxelGrid, Voxels


def grid(n_x: int = 16, n_y: int = 24, n_z: int = 40, voxel: float = 0.1) -> VoxelGrid:
    return VoxelGrid.create([0, 0, 0, n_x * voxel, n_y * voxel, n_z * voxel], [voxel] * 3)


def dense_forward(net: VoxelBackBone8x, voxels: Voxels) -> torch.Tensor:
    """The same network on dense grids: convolve, mask to active sites, normalise active sites, ReLU."""
    shape = net.grid.sparse_shape
    index = tuple(voxels.coordinates.long().unbind(1))
    x = torch.zeros(voxels.batch_size, *shape, net.in_channels, dtype=voxels.features.dtype)
    x = x.index_put(index, voxels.features).permute(0, 4, 1, 2, 3)
    active = torch.zeros(voxels.batch_size, 1, *shape)
    active[:, 0][index] = 1
    for block in [
        m for m in net.modules() if isinstance(m, torch.nn.Sequential) and isinstance(m[0], SparseConvolution)
    ]:
        conv, norm, _ = block
        weight = conv.weight.permute(0, 4, 1, 2, 3)
        if conv.submanifold:
            x = F.conv3d(x, weight, padding=1)
        else:
            x = F.conv3d(x, weight, stride=conv.kernel.stride, padding=conv.kernel.padding)
            ones = torch.ones(1, 1, *conv.kernel.size)
            active = (F.conv3d(active, ones, stride=conv.kernel.stride, padding=conv.kernel.padding) > 0).float()
        x = torch.relu(F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps))
        x = x * active
    return x.flatten(1, 2)


def test_equals_a_dense_network() -> None:
    torch.manual_seed(0)
    net = VoxelBackBone8x(4, grid()).double().eval()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    coordinates = (torch.rand(2, 40, 24, 16) < 0.01).nonzero().int()
    voxels = Voxels(torch.randn(len(coordinates), 4, dtype=torch.float64), coordinates, 2)
    with torch.no_grad():
        output = net(voxels)
        expected = dense_forward(net, voxels)
    assert output.shape == (2, 256, 3, 2)
    assert bool(output.any())
    torch.testing.assert_close(output, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("n_z", range(1, 80))
def test_depth_rule_equals_the_shapes_of_the_layers(n_z: int) -> None:
    """40 to 55 voxels along z give two layers, 256 channels."""
    assert (bev_layers(n_z) == 2) == (40 <= n_z <= 55)
    if not 40 <= n_z <= 55:
        with pytest.raises(ValueError, match=f"n_z = {n_z} voxels") as refusal:
            VoxelBackBone8x(4, grid(n_z=n_z))
        assert "expected 256. That needs 40 to 55 voxels along z" in str(refusal.value)
        assert f"({40 if n_z < 40 else 55} voxels)" in str(refusal.value)


def test_other_depths_by_name() -> None:
    assert VoxelBackBone8x(4, grid(n_z=24), bev_channels=128).bev_channels == 128


@pytest.mark.parametrize(("n_x", "n_y", "axis"), [(17, 24, "x"), (16, 30, "y")])
def test_x_and_y_divide_by_8(n_x: int, n_y: int, axis: str) -> None:
    with pytest.raises(ValueError, match=f"along {axis} are not a multiple of 8"):
        VoxelBackBone8x(4, grid(n_x=n_x, n_y=n_y))


def test_errors_name_the_layer() -> None:
    names = {m.layer_name for m in VoxelBackBone8x(4, grid()).modules() if isinstance(m, SparseConvolution)}
    assert "voxel_backbone_8x.conv4.0.0" in names
    assert len(names) == 12
