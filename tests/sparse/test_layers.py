"""Sparse layers against dense convolutions, the readable twin and numerical gradients."""

from __future__ import annotations

import copy
import itertools
import pickle

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adperception.sparse import (
    SparseBatchNorm1d,
    SparseConv3d,
    SparseConvolution,
    SparseSequential,
    SparseTensor,
    SubMConv3d,
)
from adperception.sparse.reference import sparse_convolution_reference

STRIDED = [
    dict(kernel_size=3, stride=2, padding=1),
    dict(kernel_size=3, stride=2, padding=(0, 1, 1)),
    dict(kernel_size=(3, 1, 1), stride=(2, 1, 1), padding=0),
    dict(kernel_size=3, stride=1, padding=1),
    dict(kernel_size=2, stride=2, padding=0),
    dict(kernel_size=(1, 3, 2), stride=(1, 3, 1), padding=(0, 2, 1)),
    dict(kernel_size=1, stride=1, padding=0),
]
SUBMANIFOLD = [3, 1, 5, (3, 1, 1), (1, 3, 5)]


def random_sites(
    shape: tuple[int, int, int], batch_size: int, share: float, *, seed: int = 0, empty_frames: tuple[int, ...] = ()
) -> Tensor:
    """Unique random coordinates in random order."""
    generator = torch.Generator().manual_seed(seed)
    occupied = torch.rand(batch_size, *shape, generator=generator) < share
    occupied[list(empty_frames)] = False
    coordinates = occupied.nonzero().int()
    return coordinates[torch.randperm(len(coordinates), generator=generator)]


def dense_of(features: Tensor, coordinates: Tensor, shape: tuple[int, int, int], batch_size: int) -> Tensor:
    grid = features.new_zeros(batch_size, *shape, features.shape[1])
    grid = grid.index_put(tuple(coordinates.long().unbind(1)), features)
    return grid.permute(0, 4, 1, 2, 3)


def at_sites(dense: Tensor, coordinates: Tensor) -> Tensor:
    return dense.permute(0, 2, 3, 4, 1)[tuple(coordinates.long().unbind(1))]


def compare_with_dense(layer: SparseConvolution, coordinates: Tensor, shape: tuple[int, int, int], batch: int) -> None:
    """Outputs and both gradients equal those of the dense convolution at the active output sites."""
    layer = layer.double()
    features = torch.randn(len(coordinates), layer.in_channels, dtype=torch.float64, requires_grad=True)
    output = layer(SparseTensor(features, coordinates, shape, batch))

    dense_features = features.detach().clone().requires_grad_()
    weight = layer.weight.detach().clone().requires_grad_()
    padding = tuple(k // 2 for k in layer.kernel.size) if layer.submanifold else layer.kernel.padding
    dense = F.conv3d(
        dense_of(dense_features, coordinates, shape, batch),
        weight.permute(0, 4, 1, 2, 3),
        stride=layer.kernel.stride,
        padding=padding,
    )
    assert output.spatial_shape == tuple(dense.shape[2:])
    expected = at_sites(dense, output.coordinates)
    torch.testing.assert_close(output.features, expected, rtol=1e-11, atol=1e-12)
    if not layer.submanifold:  # nothing non-zero outside the active sites
        torch.testing.assert_close(output.dense(), dense, rtol=1e-11, atol=1e-12)

    cotangent = torch.randn_like(expected)
    output.features.backward(cotangent)
    expected.backward(cotangent)
    torch.testing.assert_close(features.grad, dense_features.grad, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(layer.weight.grad, weight.grad, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("options", STRIDED, ids=str)
@pytest.mark.parametrize("share", [0.03, 0.3])
def test_strided_convolution_equals_dense(options: dict, share: float) -> None:
    shape = (5, 8, 7)
    compare_with_dense(SparseConv3d(3, 4, **options), random_sites(shape, 2, share), shape, 2)


@pytest.mark.parametrize("kernel_size", SUBMANIFOLD, ids=str)
@pytest.mark.parametrize("share", [0.03, 0.3, 1.0])
def test_submanifold_convolution_equals_dense(kernel_size: int, share: float) -> None:
    shape = (5, 8, 7)
    compare_with_dense(SubMConv3d(3, 4, kernel_size), random_sites(shape, 2, share), shape, 2)


@pytest.mark.parametrize("layer", [SubMConv3d(2, 3, 3), SparseConv3d(2, 3, 3, 2, 1)], ids=["submanifold", "strided"])
def test_frames_without_a_site_in_the_middle_of_a_batch(layer: SparseConvolution) -> None:
    shape = (4, 6, 6)
    compare_with_dense(copy.deepcopy(layer), random_sites(shape, 3, 0.2, empty_frames=(1,)), shape, 3)


@pytest.mark.parametrize("corner", list(itertools.product((0, 1), repeat=3)), ids=str)
@pytest.mark.parametrize("layer", [SubMConv3d(2, 3, 3), SparseConv3d(2, 3, 3, 2, 1)], ids=["submanifold", "strided"])
def test_single_voxel_in_every_corner(layer: SparseConvolution, corner: tuple[int, int, int]) -> None:
    shape = (4, 5, 6)
    site = [0, *(c * (n - 1) for c, n in zip(corner, shape, strict=True))]
    compare_with_dense(copy.deepcopy(layer), torch.tensor([site], dtype=torch.int32), shape, 1)


def test_neighbours_do_not_wrap_around_rows() -> None:
    """The last cell of a row and the first of the next are adjacent in memory but not in space."""
    shape = (2, 3, 4)
    coordinates = torch.tensor(
        [[0, 0, 0, 3], [0, 0, 1, 0], [0, 0, 2, 3], [0, 1, 0, 0], [1, 0, 0, 0]], dtype=torch.int32
    )
    compare_with_dense(SubMConv3d(2, 2, 3), coordinates, shape, 2)


@pytest.mark.parametrize("submanifold", [True, False])
def test_equals_readable_twin_with_gradients(submanifold: bool) -> None:
    shape = (3, 4, 4)
    coordinates = random_sites(shape, 2, 0.25)
    layer = (SubMConv3d(2, 3, 3) if submanifold else SparseConv3d(2, 3, 3, 2, 1)).double()
    features = torch.randn(len(coordinates), 2, dtype=torch.float64, requires_grad=True)
    output = layer(SparseTensor(features, coordinates, shape, 2))
    twin, twin_coordinates = sparse_convolution_reference(
        features, coordinates, shape, layer.weight, layer.kernel, submanifold=submanifold
    )
    assert torch.equal(output.coordinates, twin_coordinates)
    torch.testing.assert_close(output.features, twin, rtol=1e-12, atol=1e-13)
    cotangent = torch.randn_like(twin)
    ours = torch.autograd.grad(output.features, (features, layer.weight), cotangent)
    theirs = torch.autograd.grad(twin, (features, layer.weight), cotangent)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(
    "make", [lambda: SubMConv3d(2, 3, 3, bias=True), lambda: SparseConv3d(2, 3, 3, 2, 1, bias=True)]
)
def test_gradcheck(make: type) -> None:
    layer = make().double()
    coordinates = random_sites((3, 4, 4), 2, 0.2)
    features = torch.randn(len(coordinates), 2, dtype=torch.float64, requires_grad=True)

    def run(features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        x = SparseTensor(features, coordinates, (3, 4, 4), 2)
        return torch.func.functional_call(layer, {"weight": weight, "bias": bias}, (x,)).features

    assert torch.autograd.gradcheck(run, (features, layer.weight, layer.bias))


def test_dense_gradient_and_layout() -> None:
    shape = (2, 4, 6)
    coordinates = random_sites(shape, 2, 0.3)
    features = torch.randn(len(coordinates), 3, dtype=torch.float64, requires_grad=True)
    x = SparseTensor(features, coordinates, shape, 2)
    torch.testing.assert_close(x.dense(), dense_of(features, coordinates, shape, 2), rtol=0, atol=0)
    bev = x.dense().flatten(1, 2)
    assert bev.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(bev[:, 2 * 1 + 1], x.dense()[:, 1, 1])  # channel = c * depth + z
    assert torch.autograd.gradcheck(lambda f: SparseTensor(f, coordinates, shape, 2).dense(), (features,))


@pytest.mark.parametrize("layer", [SubMConv3d(2, 3, 3), SparseConv3d(2, 3, 3, 2, 1)], ids=["submanifold", "strided"])
def test_permuted_input_gives_the_same_function(layer: SparseConvolution) -> None:
    shape = (4, 6, 6)
    coordinates = random_sites(shape, 2, 0.3)
    features = torch.randn(len(coordinates), 2)
    permutation = torch.randperm(len(coordinates))
    a = layer(SparseTensor(features, coordinates, shape, 2)).dense()
    b = layer(SparseTensor(features[permutation], coordinates[permutation], shape, 2)).dense()
    torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


def test_submanifold_keeps_input_order() -> None:
    coordinates = random_sites((4, 6, 6), 2, 0.3)
    output = SubMConv3d(2, 3, 3)(SparseTensor(torch.randn(len(coordinates), 2), coordinates, (4, 6, 6), 2))
    assert torch.equal(output.coordinates, coordinates)


def test_empty_input_flows_through_and_reaches_every_parameter() -> None:
    net = SparseSequential(
        SubMConv3d(2, 4, 3, key="a"), SparseBatchNorm1d(4), nn.ReLU(), SparseConv3d(4, 5, 3, 2, 1), SparseBatchNorm1d(5)
    )
    output = net(SparseTensor(torch.zeros(0, 2), torch.zeros(0, 4, dtype=torch.int32), (4, 6, 6), 2))
    assert output.dense().shape == (2, 5, 2, 3, 3)
    output.dense().sum().backward()
    assert all(p.grad is not None and not p.grad.any() for p in net.parameters())
    assert torch.equal(net[1].running_mean, torch.zeros(4))


def test_one_site_normalises_with_running_statistics() -> None:
    norm = SparseBatchNorm1d(3)
    with torch.no_grad():
        norm.running_mean.fill_(1.0)
        norm.running_var.fill_(4.0)
    output = norm(torch.full((1, 3), 3.0))
    torch.testing.assert_close(output, torch.full((1, 3), 1.0), rtol=1e-4, atol=1e-4)
    assert torch.equal(norm.running_mean, torch.ones(3))
    two = norm(torch.tensor([[0.0, 0, 0], [2.0, 2, 2]]))
    torch.testing.assert_close(two.mean(0), torch.zeros(3))
    assert norm.num_batches_tracked == 1


def test_layers_with_one_key_share_one_rulebook(monkeypatch: pytest.MonkeyPatch) -> None:
    import adperception.sparse.layers as layers

    built = []
    original = layers.build_submanifold_rulebook
    monkeypatch.setattr(layers, "build_submanifold_rulebook", lambda *a: built.append(1) or original(*a))
    coordinates = random_sites((4, 6, 6), 1, 0.3)
    net = SparseSequential(SubMConv3d(2, 2, 3, key="s"), nn.ReLU(), SubMConv3d(2, 2, 3, key="s"), SubMConv3d(2, 2, 3))
    net(SparseTensor(torch.randn(len(coordinates), 2), coordinates, (4, 6, 6), 1))
    assert len(built) == 2


def test_key_of_other_sites_is_refused() -> None:
    coordinates = random_sites((4, 6, 6), 1, 0.3)
    net = SparseSequential(SubMConv3d(2, 2, 3, key="s"), SparseConv3d(2, 2, 3, 2, 1), SubMConv3d(2, 2, 3, key="s"))
    with pytest.raises(ValueError, match='key "s" belongs to a layer'):
        net(SparseTensor(torch.randn(len(coordinates), 2), coordinates, (4, 6, 6), 1))


def test_bits_are_the_same_in_every_run() -> None:
    shape = (8, 32, 32)
    coordinates = random_sites(shape, 2, 0.2)
    features = torch.randn(len(coordinates), 16)
    layer = SubMConv3d(16, 16, 3)

    def run() -> tuple[Tensor, ...]:
        layer.zero_grad()
        output = layer(SparseTensor(features, coordinates, shape, 2)).features
        output.square().sum().backward()
        return output.detach().clone(), layer.weight.grad.clone()

    first = run()
    for _ in range(3):
        assert all(torch.equal(a, b) for a, b in zip(first, run(), strict=True))


def test_initialisation_is_that_of_conv3d() -> None:
    layer = SubMConv3d(8, 64, 3)
    bound = 1 / (8 * 27) ** 0.5
    assert layer.weight.shape == (64, 3, 3, 3, 8)
    assert layer.weight.abs().max() <= bound
    assert layer.weight.abs().max() > 0.99 * bound


def test_copies_and_pickles_carry_only_the_layer() -> None:
    layer = SubMConv3d(2, 3, 3, key="a")
    assert torch.equal(copy.deepcopy(layer).weight, layer.weight)
    assert torch.equal(pickle.loads(pickle.dumps(layer)).weight, layer.weight)
