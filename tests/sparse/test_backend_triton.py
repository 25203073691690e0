"""The Triton backend against dense float64 convolutions: in Triton's interpreter, or on a GPU where there is one."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

pytest.importorskip("triton")

from adperception.sparse import (
    SparseBatchNorm1d,
    SparseConv3d,
    SparseConvolution,
    SparseSequential,
    SparseTensor,
    SubMConv3d,
    backend_triton,
    plan_levels,
    set_float32_precision,
    use_backend,
)
from adperception.sparse.rulebook import Kernel, build_strided_rulebook, build_submanifold_rulebook
from adperception.sparse.triton_table import SortedSites, TapTable
from adperception.sparse.tuning import ConvolveBlocks, WeightGradientBlocks

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
LIMITS = {torch.float32: 1e-5, torch.float16: 2e-3}
if DEVICE.type == "cuda":
    LIMITS[torch.bfloat16] = 1e-2  # the interpreter's product of bfloat16 tiles is wrong
SHAPE = (5, 8, 7)
LAYERS = {
    "submanifold 3, 5 to 20": lambda: SubMConv3d(5, 20, 3),
    "submanifold 3, 40 to 33": lambda: SubMConv3d(40, 33, 3),
    "submanifold 3 1 1": lambda: SubMConv3d(16, 16, (3, 1, 1)),
    "submanifold 1": lambda: SubMConv3d(4, 3, 1),
    "strided 3": lambda: SparseConv3d(16, 32, 3, 2, 1),
    "strided 3, no padding in z": lambda: SparseConv3d(7, 9, 3, 2, (0, 1, 1)),
    "strided 3 1 1": lambda: SparseConv3d(16, 40, (3, 1, 1), (2, 1, 1)),
    "strided 3, stride 1": lambda: SparseConv3d(3, 4, 3, 1, 1),
    "strided 2": lambda: SparseConv3d(3, 4, 2, 2),
    "strided 1 3 2": lambda: SparseConv3d(3, 4, (1, 3, 2), (1, 3, 1), (0, 2, 1)),
}


@pytest.fixture(autouse=True)
def _backend() -> Iterator[None]:
    with use_backend("triton"):
        yield


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So small that every loop and every border of the kernels is met by a few dozen sites."""
    convolve, gradient = ConvolveBlocks(64, 32, 32), WeightGradientBlocks(32, 32, 32, segments=5)
    monkeypatch.setattr(backend_triton, "convolve_blocks", lambda *_: convolve)
    monkeypatch.setattr(backend_triton, "weight_gradient_blocks", lambda *_: gradient)


def random_sites(share: float, *, batch_size: int = 2, shape: tuple[int, int, int] = SHAPE) -> Tensor:
    coordinates = (torch.rand(batch_size, *shape) < share).nonzero().int()
    return coordinates[torch.randperm(len(coordinates))].to(DEVICE)


def relative(ours: Tensor, exact: Tensor) -> float:
    assert ours.shape == exact.shape
    if not exact.numel():
        return 0.0
    return float((ours.detach().double() - exact).abs().max() / exact.abs().max())


def dense_results(
    layer: SparseConvolution, x: Tensor, coordinates: Tensor, at: Tensor, gradient: Tensor
) -> list[Tensor]:
    """Output and gradients of the dense float64 convolution, for weight and features as the layer rounds them."""
    weight = layer.weight.detach().to(x.dtype).double().requires_grad_()
    features = x.detach().double().requires_grad_()
    grid = torch.zeros(2, *SHAPE, layer.in_channels, dtype=torch.float64, device=DEVICE)
    grid = grid.index_put(tuple(coordinates.long().unbind(1)), features).permute(0, 4, 1, 2, 3)
    padding = tuple(k // 2 for k in layer.kernel.size) if layer.submanifold else layer.kernel.padding
    dense = F.conv3d(grid, weight.permute(0, 4, 1, 2, 3), stride=layer.kernel.stride, padding=padding)
    output = dense.permute(0, 2, 3, 4, 1)[tuple(at.long().unbind(1))]
    return [output.detach(), *torch.autograd.grad(output, (features, weight), gradient.double())]


@pytest.mark.parametrize("precision", LIMITS, ids=str)
@pytest.mark.parametrize("name", LAYERS)
def test_equals_dense_convolution_with_gradients(name: str, precision: torch.dtype) -> None:
    layer = LAYERS[name]().to(DEVICE)
    coordinates = random_sites(0.2)
    x = torch.randn(len(coordinates), layer.in_channels, device=DEVICE).to(precision).requires_grad_()
    y = layer(SparseTensor(x, coordinates, SHAPE, 2))
    gradient = torch.randn_like(y.features)
    ours = [y.features, *torch.autograd.grad(y.features, (x, layer.weight), gradient)]
    assert [t.dtype for t in ours] == [precision, precision, torch.float32]
    exact = dense_results(layer, x, coordinates, y.coordinates, gradient)
    assert [relative(a, b) < LIMITS[precision] for a, b in zip(ours, exact, strict=True)] == [True] * 3


@pytest.mark.parametrize(
    ("kernel", "submanifold"),
    [
        (Kernel((3, 3, 3)), True),
        (Kernel((1, 3, 5)), True),
        (Kernel((3, 3, 3), (2, 2, 2), (0, 1, 1)), False),
        (Kernel((2, 3, 1), (1, 2, 3), (1, 0, 0)), False),
    ],
)
@pytest.mark.parametrize("batch_size", [2, 2**24], ids=["int32 keys", "int64 keys"])
def test_table_holds_the_pairs_of_the_rulebook(kernel: Kernel, submanifold: bool, batch_size: int) -> None:
    coordinates = random_sites(0.2)
    build = build_submanifold_rulebook if submanifold else build_strided_rulebook
    rulebook = build(coordinates, SHAPE, kernel)
    sites = SortedSites.of(coordinates, SHAPE, batch_size)
    assert sites.keys.dtype == (torch.int32 if batch_size == 2 else torch.int64)
    table = TapTable.build(
        sites, coordinates, rulebook.coordinates, rulebook.spatial_shape, kernel, submanifold=submanifold
    )
    for sources, order, pairs in (
        (table.sources, table.order, rulebook.pairs),
        (*table.read_backwards(), _backwards(rulebook.pairs, submanifold)),
    ):
        for tap, (inputs, outputs) in enumerate(pairs):
            there = (sources[tap] >= 0).nonzero()[:, 0]
            found = set(zip(sources[tap, there].tolist(), order[there].tolist(), strict=True))
            if tap == rulebook.identity_tap:
                assert found == {(n, n) for n in range(len(coordinates))}
            else:
                assert found == set(zip(inputs.tolist(), outputs.tolist(), strict=True))


def _backwards(pairs: tuple[tuple[Tensor, Tensor], ...], submanifold: bool) -> list[tuple[Tensor, Tensor]]:
    """What reads what in the input gradient; a submanifold table stands for itself, its taps mirrored at their use."""
    return list(pairs) if submanifold else [(outputs, inputs) for inputs, outputs in pairs]


def test_rows_of_a_block_use_few_taps() -> None:
    """That is what sorting them is for: a block may skip the taps that none of its rows has."""
    coordinates = random_sites(0.1)
    sites = SortedSites.of(coordinates, SHAPE, 2)
    table = TapTable.build(sites, coordinates, coordinates, SHAPE, Kernel((3, 3, 3)), submanifold=True)
    taps, counts = table.blocks(16)
    for block, count in enumerate(counts.tolist()):
        used = (table.sources[:, 16 * block : 16 * block + 16] >= 0).any(dim=1).nonzero()[:, 0]
        assert taps[block, :count].tolist() == used.tolist()
    unsorted = table.sources[:, torch.argsort(table.order)]
    without = sum(int((unsorted[:, n : n + 16] >= 0).any(dim=1).sum()) for n in range(0, len(coordinates), 16))
    assert int(counts.sum()) < 0.8 * without


@pytest.mark.parametrize("layer", [SubMConv3d(2, 3, 3), SparseConv3d(2, 3, 3, 2, 1)], ids=["submanifold", "strided"])
@pytest.mark.parametrize("sites", [0, 1])
def test_empty_and_single_site(layer: SparseConvolution, sites: int) -> None:
    layer = layer.to(DEVICE)
    layer.zero_grad()
    coordinates = torch.tensor([[1, 4, 7, 6]], dtype=torch.int32, device=DEVICE)[:sites]
    x = torch.randn(sites, 2, device=DEVICE, requires_grad=True)
    y = layer(SparseTensor(x, coordinates, SHAPE, 2))
    y.features.sum().backward()
    with use_backend("torch"):
        expected = layer(SparseTensor(x.detach(), coordinates, SHAPE, 2))
    assert torch.equal(y.coordinates, expected.coordinates)
    torch.testing.assert_close(y.features, expected.features)
    assert x.grad is not None
    assert layer.weight.grad is not None
    assert bool(layer.weight.grad.any()) == bool(sites)


def test_chain_with_shared_keys_equals_the_torch_backend() -> None:
    net = SparseSequential(
        SubMConv3d(4, 16, 3, key="a"),
        SparseBatchNorm1d(16),
        nn.ReLU(),
        SubMConv3d(16, 16, 3, key="a"),
        SparseConv3d(16, 24, 3, 2, 1, key="down"),
        SubMConv3d(24, 24, 3, key="b", bias=True),
    ).to(DEVICE)
    coordinates = random_sites(0.15)
    x = torch.randn(len(coordinates), 4, device=DEVICE)
    kernels = [("down", net[4].kernel)]
    pending = plan_levels(coordinates, SHAPE, 2, kernels)
    (planned,) = pending.sites(pending.counts.tolist())
    results = []
    for backend, sites in (("torch", None), ("triton", None), ("triton", planned)):
        net.zero_grad()
        with use_backend(backend):
            y = net(SparseTensor(x, coordinates, SHAPE, 2, planned=sites))
        (y.features * torch.linspace(-1, 1, y.features.numel(), device=DEVICE).view_as(y.features)).sum().backward()
        results.append((y.coordinates, y.features.detach(), *(p.grad.clone() for p in net.parameters())))
    for other in results[1:]:
        assert torch.equal(other[0], results[0][0])
        for ours, reference in zip(other[1:], results[0][1:], strict=True):
            assert relative(ours.detach(), reference.double()) < 1e-5
    assert all(torch.equal(a, b) for a, b in zip(results[1], results[2], strict=True))


def test_key_of_other_sites_is_refused() -> None:
    net = SparseSequential(SubMConv3d(2, 2, 3, key="s"), SparseConv3d(2, 2, 3, 2, 1), SubMConv3d(2, 2, 3, key="s"))
    coordinates = random_sites(0.3)
    with pytest.raises(ValueError, match='key "s" belongs to a layer'):
        net.to(DEVICE)(SparseTensor(torch.randn(len(coordinates), 2, device=DEVICE), coordinates, SHAPE, 2))


def test_bits_are_the_same_in_every_run() -> None:
    layer = SubMConv3d(16, 16, 3).to(DEVICE)
    coordinates = random_sites(0.3)
    x = torch.randn(len(coordinates), 16, device=DEVICE)

    def run() -> tuple[Tensor, Tensor]:
        layer.zero_grad()
        y = layer(SparseTensor(x, coordinates, SHAPE, 2)).features
        y.square().sum().backward()
        return y.detach().clone(), layer.weight.grad.clone()

    first, second = run(), run()
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize(
    ("convolve", "gradient"),
    [
        (ConvolveBlocks(16, 16, 64, 8, 1), WeightGradientBlocks(64, 16, 64, segments=1)),
        (ConvolveBlocks(128, 64, 32, 4, 2), WeightGradientBlocks(32, 64, 16, segments=64)),
    ],
)
def test_block_sizes_do_not_matter(
    convolve: ConvolveBlocks, gradient: WeightGradientBlocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = SubMConv3d(40, 24, 3).to(DEVICE)
    coordinates = random_sites(0.25)
    x = torch.randn(len(coordinates), 40, device=DEVICE)

    def run() -> tuple[Tensor, Tensor]:
        layer.zero_grad()
        y = layer(SparseTensor(x, coordinates, SHAPE, 2)).features
        y.square().sum().backward()
        return y.detach().double(), layer.weight.grad.double()

    before = run()
    monkeypatch.setattr(backend_triton, "convolve_blocks", lambda *_: convolve)
    monkeypatch.setattr(backend_triton, "weight_gradient_blocks", lambda *_: gradient)
    assert [relative(a, b) < 1e-5 for a, b in zip(run(), before, strict=True)] == [True, True]


def test_autocast_rounds_once_and_keeps_float32_gradients() -> None:
    layer = SubMConv3d(8, 8, 3, bias=True).to(DEVICE)
    coordinates = random_sites(0.3)
    x = torch.randn(len(coordinates), 8, device=DEVICE)
    results = []
    for backend in ("triton", "torch"):
        layer.zero_grad()
        with torch.autocast(DEVICE.type, torch.float16), use_backend(backend):
            y = layer(SparseTensor(x, coordinates, SHAPE, 2)).features
        assert y.dtype == torch.float16
        y.float().square().sum().backward()
        assert layer.weight.grad.dtype == torch.float32
        results.append((y.detach().float(), layer.weight.grad.clone()))
    for ours, reference in zip(*results, strict=True):
        assert relative(ours, reference.double()) < 2e-3


def test_weight_gradients_beyond_the_range_of_float16_stay_finite() -> None:
    layer = SubMConv3d(1, 1, 1).to(DEVICE)
    coordinates = random_sites(1.0)
    x = torch.full((len(coordinates), 1), 100.0, device=DEVICE, dtype=torch.float16)
    y = layer(SparseTensor(x, coordinates, SHAPE, 2)).features
    y.backward(torch.full_like(y, 100.0))
    assert float(layer.weight.grad) == pytest.approx(1e4 * len(coordinates), rel=1e-3)
    assert float(layer.weight.grad) > torch.finfo(torch.float16).max


@pytest.mark.parametrize("name", ["tf32x3", "tf32"])
def test_float32_on_tensor_cores(name: str) -> None:
    """The interpreter computes both in float32; on a GPU three products are nearly exact, one has 10 bits."""
    layer = SubMConv3d(16, 16, 3).to(DEVICE)
    coordinates = random_sites(0.2)
    x = torch.randn(len(coordinates), 16, device=DEVICE, requires_grad=True)
    gradient = torch.randn(len(coordinates), 16, device=DEVICE)
    set_float32_precision(name)
    try:
        y = layer(SparseTensor(x, coordinates, SHAPE, 2)).features
        ours = [y, *torch.autograd.grad(y, (x, layer.weight), gradient)]
    finally:
        set_float32_precision("ieee")
    exact = dense_results(layer, x, coordinates, coordinates, gradient)
    limit = 1e-5 if name == "tf32x3" else 2e-3
    assert [relative(a, b) < limit for a, b in zip(ours, exact, strict=True)] == [True] * 3
    with pytest.raises(ValueError, match="Available: ieee, tf32x3, tf32"):
        set_float32_precision("bf16x9")


def test_what_it_cannot_compute_runs_on_torch() -> None:
    coordinates = random_sites(0.3)
    x = torch.randn(len(coordinates), 2, device=DEVICE)
    large = SubMConv3d(2, 2, (3, 3, 5)).to(DEVICE)
    assert SubMConv3d(2, 2, (3, 3, 3)).kernel.volume == 27 < large.kernel.volume
    sparse = SparseTensor(x, coordinates, SHAPE, 2)
    large(sparse)
    assert not sparse.cache.tables
    double = SparseTensor(x.double(), coordinates, SHAPE, 2)
    assert SubMConv3d(2, 2, 3).to(DEVICE).double()(double).features.dtype == torch.float64
    assert not double.cache.tables
    sites = SortedSites.of(coordinates, SHAPE, 2)
    table = TapTable.build(sites, coordinates, coordinates, SHAPE, Kernel((3, 3, 3)), submanifold=True)
    with pytest.raises(TypeError, match=r"features are torch\.float64.*Use the \"torch\" backend"):
        backend_triton.sparse_convolution(x.double(), torch.zeros(2, 3, 3, 3, 2, device=DEVICE), table)


def test_no_graph_break_and_the_same_results_when_compiled() -> None:
    net = SparseSequential(
        SubMConv3d(4, 8, 3, key="a"), nn.ReLU(), SparseConv3d(8, 8, 3, 2, 1, key="down"), SubMConv3d(8, 8, 3, key="b")
    ).to(DEVICE)
    coordinates = random_sites(0.2)
    pending = plan_levels(coordinates, SHAPE, 2, [("down", net[2].kernel)])
    (planned,) = pending.sites(pending.counts.tolist())
    x = torch.randn(len(coordinates), 4, device=DEVICE)

    def run(features: Tensor) -> Tensor:
        return net(SparseTensor(features, coordinates, SHAPE, 2, planned=planned)).dense().flatten(1, 2)

    expected = run(x)
    expected.square().sum().backward()
    gradient = net[0].weight.grad.clone()
    net.zero_grad()
    compiled = torch.compile(run, backend="aot_eager", fullgraph=True)(x)
    compiled.square().sum().backward()
    assert torch.equal(compiled, expected)
    assert torch.equal(net[0].weight.grad, gradient)


def test_operators_are_what_they_say() -> None:
    """Shapes without computing, autograd, functionality: torch's own check of a custom operator."""
    coordinates = random_sites(0.2)
    sites = SortedSites.of(coordinates, SHAPE, 2)
    kernel = Kernel((3, 3, 3), (2, 2, 2), (1, 1, 1))
    rulebook = build_strided_rulebook(coordinates, SHAPE, kernel)
    table = TapTable.build(sites, coordinates, rulebook.coordinates, rulebook.spatial_shape, kernel, submanifold=False)
    x = torch.randn(len(coordinates), 3, device=DEVICE, requires_grad=True)
    weight = torch.randn(5, 3, 3, 3, 3, device=DEVICE, requires_grad=True)
    convolve, gradient = backend_triton.convolve_blocks(), backend_triton.weight_gradient_blocks()
    options = [list(dataclasses.astuple(b)) for b in (convolve, convolve, gradient)]
    ops = torch.ops.adperception
    back, back_order = table.read_backwards()
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    for operator, arguments in {
        ops.sort_sites.default: (coordinates, list(SHAPE), 2),
        ops.tap_table.default: (
            sites.keys,
            sites.positions,
            rulebook.coordinates,
            list(SHAPE),
            [3] * 3,
            [2] * 3,
            [1] * 3,
        ),
        ops.invert_table.default: (table.sources, table.order, len(coordinates)),
        ops.block_taps.default: (table.sources, 32),
        ops.sparse_convolution.default: (
            *(x, weight, table.sources, table.order, *table.blocks(32)),
            *(back, back_order, *table.blocks(32, backwards=True), *table.pairs(5, 32)),
            *(False, "ieee", *options),
        ),
    }.items():
        torch.library.opcheck(operator, arguments, test_utils=checks)
