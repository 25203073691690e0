"""Sites of all levels at once against the layers' own, one by one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from adperception.models.backbones.voxel_backbone_8x import VoxelBackBone8x
from adperception.sparse import SparseTensor, plan_levels
from adperception.sparse.rulebook import Kernel, build_strided_rulebook
from adperception.structures import VoxelGrid, Voxels

BACKBONE = (
    ("spconv2", Kernel((3, 3, 3), (2, 2, 2), (1, 1, 1))),
    ("spconv3", Kernel((3, 3, 3), (2, 2, 2), (1, 1, 1))),
    ("spconv4", Kernel((3, 3, 3), (2, 2, 2), (0, 1, 1))),
    ("spconv_down2", Kernel((3, 1, 1), (2, 1, 1), (0, 0, 0))),
)
CHAINS = {
    "backbone": BACKBONE,
    # Borders that no cell looks at, even kernels, strides that skip cells, strides of 1, wide paddings.
    "no padding": (("a", Kernel((3, 3, 3), (2, 2, 2))), ("b", Kernel((3, 3, 3), (2, 2, 2)))),
    "even": (("a", Kernel((2, 2, 2), (2, 2, 2))), ("b", Kernel((2, 4, 3), (2, 3, 1), (0, 1, 1)))),
    "skipping": (("a", Kernel((1, 1, 2), (2, 3, 3))), ("b", Kernel((3, 3, 3), (2, 2, 2), (1, 1, 1)))),
    "flat": (("a", Kernel((3, 1, 1), (2, 1, 1))), ("b", Kernel((1, 3, 3), (1, 2, 2), (0, 1, 1)))),
    "dense": (("a", Kernel((3, 3, 3), (1, 1, 1), (2, 2, 2))), ("b", Kernel((5, 5, 5), (3, 3, 3), (2, 2, 2)))),
}
SHAPES = [(41, 16, 24), (37, 17, 15), (33, 9, 31)]


def random_sites(shape: tuple[int, int, int], batch_size: int, count: int, seed: int) -> Tensor:
    """Unique sites in random order, none in the last frame."""
    generator = torch.Generator().manual_seed(seed)
    depth, height, width = shape
    cells = torch.randperm((batch_size - 1) * depth * height * width, generator=generator)[:count]
    return torch.stack(
        [cells // (depth * height * width), cells // (height * width) % depth, cells // width % height, cells % width],
        dim=1,
    ).int()


def level_by_level(coordinates: Tensor, shape: tuple[int, int, int], kernels: tuple) -> list[tuple[str, Tensor, tuple]]:
    levels = []
    for name, kernel in kernels:
        book = build_strided_rulebook(coordinates, shape, kernel, name)
        coordinates, shape = book.coordinates, book.spatial_shape
        levels.append((name, coordinates, shape))
    return levels


def check(
    coordinates: Tensor, shape: tuple[int, int, int], batch_size: int, kernels: tuple, group: Tensor, n: int
) -> None:
    pending = plan_levels(coordinates, shape, batch_size, kernels, group, n)
    counts = pending.counts.tolist()
    planned = pending.sites(counts)
    assert len(planned) == n
    for number, levels in enumerate(planned):
        expected = level_by_level(coordinates[group == number], shape, kernels)
        assert list(levels) == [name for name, _, _ in expected]
        for (name, sites, spatial_shape), count in zip(expected, counts[number], strict=True):
            assert count == len(sites), name
            assert levels[name].spatial_shape == spatial_shape
            assert levels[name].coordinates.dtype == torch.int32
            assert torch.equal(levels[name].coordinates, sites), name


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("shape", SHAPES)
def test_sites_and_their_order_equal_the_layers_own(chain: str, shape: tuple[int, int, int]) -> None:
    for seed, count in enumerate((1, 3, 40, 700)):
        coordinates = random_sites(shape, 4, count, seed)
        group = torch.randint(0, 3, (count,), generator=torch.Generator().manual_seed(seed))
        group[group == 1] = 2  # group 1 is empty
        check(coordinates, shape, 4, CHAINS[chain], group, 3)
        check(coordinates, shape, 4, CHAINS[chain], group, 1)  # the others are left out


@pytest.mark.parametrize("chain", CHAINS)
def test_every_single_cell_of_a_grid(chain: str) -> None:
    """Each voxel alone: borders, corners and what a stride skips."""
    shape = (33, 9, 9)
    cells = torch.cartesian_prod(torch.arange(1), *(torch.arange(n) for n in shape)).int()
    for cell in cells[torch.randperm(len(cells), generator=torch.Generator().manual_seed(0))[:150]]:
        check(cell[None], shape, 1, CHAINS[chain], torch.zeros(1, dtype=torch.int64), 1)


def test_no_voxel_at_all() -> None:
    pending = plan_levels(torch.zeros(0, 4, dtype=torch.int32), (41, 16, 16), 2, BACKBONE, groups=2)
    assert pending.counts.tolist() == [[0] * 4] * 2
    assert [len(p["spconv4"].coordinates) for p in pending.sites([[0] * 4] * 2)] == [0, 0]


def test_large_grids_have_int64_numbers() -> None:
    shape = (41, 3000, 3000)
    coordinates = torch.tensor([[0, 0, 0, 0], [40, 40, 2999, 2999], [40, 40, 2999, 2998]], dtype=torch.int32)
    assert plan_levels(coordinates, shape, 1, BACKBONE).keys.dtype == torch.int32
    pending = plan_levels(coordinates, shape, 41, BACKBONE)
    assert pending.keys.dtype == torch.int64
    (levels,) = pending.sites(pending.counts.tolist())
    for name, sites, _ in level_by_level(coordinates, shape, BACKBONE):
        assert torch.equal(levels[name].coordinates, sites)


def test_wrong_counts_and_empty_chains_are_refused() -> None:
    coordinates = random_sites((41, 16, 16), 2, 10, 0)
    pending = plan_levels(coordinates, (41, 16, 16), 2, BACKBONE)
    with pytest.raises(ValueError, match=r"counts of \[3\] levels do not fit 1 groups of 4 levels"):
        pending.sites([[1, 2, 3]])
    with pytest.raises(ValueError, match="0 levels of 1 groups"):
        plan_levels(coordinates, (41, 16, 16), 2, ())
    with pytest.raises(ValueError, match='"spconv4": z would shrink'):
        plan_levels(coordinates, (5, 16, 16), 2, BACKBONE)


def test_backbone_gives_its_levels_and_its_layers_find_the_same_sites() -> None:
    encoder = VoxelBackBone8x(4, VoxelGrid.create([0.0, -1.6, -2.0, 3.2, 1.6, 2.0], [0.05, 0.05, 0.1]))
    assert encoder.level_kernels == BACKBONE
    shape = encoder.grid.sparse_shape
    coordinates = random_sites(shape, 3, 500, 0)
    coordinates = coordinates[coordinates[:, 1] < 40]
    pending = plan_levels(coordinates, shape, 3, encoder.level_kernels)
    (planned,) = pending.sites(pending.counts.tolist())
    features = torch.randn(len(coordinates), 4)
    tensor = SparseTensor(features, coordinates, shape, 3, planned=planned)
    assert tensor.replace_features(features).cache.planned == planned
    voxels = Voxels(features, coordinates, 3)
    with torch.no_grad():
        stages = encoder.stages(voxels, planned)
        assert torch.equal(encoder.eval()(voxels, planned), encoder.eval()(voxels))
    for sites, name in zip(stages.sites[1:], ("spconv2", "spconv3", "spconv4"), strict=True):
        assert torch.equal(sites.coordinates, planned[name].coordinates)
        assert sites.cache.planned is stages.sites[0].cache.planned
