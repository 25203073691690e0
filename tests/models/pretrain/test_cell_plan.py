"""Dividing a batch: what is counted, what either encoder gets, and that the host waits once."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from adperception.engine.host_reads import HostReads
from adperception.models.backbones.voxel_backbone_8x import VoxelBackBone8x
from adperception.models.pretrain import cell_plan
from adperception.models.pretrain.bev_masking import draw_bev_masks, non_empty_cells
from adperception.sparse import plan_levels
from adperception.structures import VoxelGrid, Voxels

GRID = VoxelGrid.create([0.0, -1.6, -2.0, 3.2, 1.6, 2.0], [0.05, 0.05, 0.1])


def voxels_of(counts: list[int]) -> Voxels:
    frames = []
    for b, count in enumerate(counts):
        cells = torch.randperm(40 * 64 * 64, generator=torch.Generator().manual_seed(b))[:count]
        zyx = torch.stack([cells // 4096, cells // 64 % 64, cells % 64], dim=1)
        frames.append(torch.cat([torch.full((count, 1), b), zyx], dim=1))
    coordinates = torch.cat(frames).int()
    return Voxels(torch.randn(len(coordinates), 4), coordinates, len(counts))


def rows(coordinates: Tensor) -> set[tuple[int, ...]]:
    return {tuple(row) for row in coordinates.tolist()}


@pytest.mark.parametrize("counts", [[300, 0, 40], [0, 0], [1]])
@pytest.mark.parametrize("planned", [False, True])
def test_division_counts_and_one_wait(counts: list[int], planned: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cell_plan, "uses_planned_sites", lambda features: planned)
    encoder = VoxelBackBone8x(4, GRID)
    voxels = voxels_of(counts)
    with HostReads(cuda=False) as reads:
        occupied = non_empty_cells(voxels.coordinates, voxels.batch_size, encoder.bev_shape, 8)
        masks = draw_bev_masks(occupied, 0.5, "sample", torch.Generator().manual_seed(1))
        plan = cell_plan.plan_cells(voxels, masks, encoder)
    assert reads.count == 1, reads.places
    for b in range(len(counts)):
        assert plan.counts.context_cells[b] == int(masks.context_cells[b].sum())
        assert plan.counts.target_cells[b] == int(masks.target_cells[b].sum())
    assert plan.counts.target_empty == int(masks.target_empty.sum())
    context, target = plan.context.voxels, plan.target.voxels
    assert len(context) + len(target) == len(voxels)
    assert rows(context.coordinates) | rows(target.coordinates) == rows(voxels.coordinates)
    assert all(bool(masks.context_cells[b, y // 8, x // 8]) for b, _, y, x in context.coordinates.tolist())
    for part in (plan.context, plan.target):
        if planned:
            levels = plan_levels(part.voxels.coordinates, GRID.sparse_shape, len(counts), encoder.level_kernels)
            (expected,) = levels.sites(levels.counts.tolist())
            assert part.planned is not None
            assert part.planned.keys() == expected.keys()
            for name, sites in expected.items():
                assert torch.equal(part.planned[name].coordinates, sites.coordinates)
        else:
            assert part.planned is None
