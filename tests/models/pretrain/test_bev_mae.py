"""BEV-MAE: what is hidden, what is to be predicted, gradients, sparse batches."""

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np
import pytest
import torch

from adperception.models.backbones.voxel_backbone_8x import BEV_STRIDE
from adperception.models.pretrain.bev_mae import BEVMAE, CellTargets, cell_targets
from adperception.models.pretrain.bev_masking import non_empty_cells
from adperception.structures import LidarBatch, LidarFrame, PointCloud, Voxels

RANGE, VOXEL = [0.0, -1.6, -2.0, 3.2, 1.6, 2.0], [0.05, 0.05, 0.1]


def build(**options: object) -> BEVMAE:
    torch.manual_seed(0)
    return BEVMAE(RANGE, VOXEL, **options)  # type: ignore[arg-type]


def batch_of(model: BEVMAE, *counts: int, extent: float = 2.0) -> LidarBatch:
    frames = []
    for seed, count in enumerate(counts):
        rng = np.random.default_rng(seed)
        xyz = rng.uniform([0, -1.6, -2], [extent, 1.6, 2], (count, 3))
        xyz[: count // 2] = np.array([0.33, 0.21, 0.5]) + rng.uniform(0, 0.04, (count // 2, 3))  # a dense spot
        points = np.column_stack([xyz, rng.uniform(size=count)]).astype(np.float32)
        frames.append(LidarFrame(str(seed), PointCloud(points)))
    return model.collate(training=True)(frames)


def occupied_cells(model: BEVMAE, batch: LidarBatch) -> torch.Tensor:
    return non_empty_cells(batch.voxels.coordinates, len(batch), model.encoder.bev_shape, BEV_STRIDE)


def test_parameter_counts() -> None:
    model = build()
    decoder = 256 * 256 * 9 + 256 + 512 + 256 * 60 + 60 + 256 + 1
    assert sum(p.numel() for p in model.parameters()) == 711_872 + decoder + 4
    assert sum(p.numel() for p in build(in_channels=5).parameters()) == 712_304 + decoder + 5
    assert sum(p.numel() for p in build(upstream=True).parameters() if p.requires_grad) == 711_872 + decoder


def twin(batch: LidarBatch, hidden: torch.Tensor, limit: int | None) -> tuple[list[list[list[float]]], list[float]]:
    """All target points per hidden cell, and densities, point after point."""
    points: dict[tuple[int, int, int], list[list[float]]] = defaultdict(list)
    per_voxel: dict[tuple[int, ...], int] = defaultdict(int)
    voxels = {tuple(row) for row in batch.voxels.coordinates.tolist()}
    for b, cloud in enumerate(batch.points):
        for x, y, z, *_ in cloud.tolist():
            f = [np.float32(v) for v in (x, y, z)]
            low, size = np.array(RANGE[:3], np.float32), np.array(VOXEL, np.float32)
            ix, iy, iz = (int(np.floor((f[i] - low[i]) / size[i])) for i in range(3))
            cell = (b, iy // 8, ix // 8)
            if (b, iz, iy, ix) not in voxels or not hidden[cell]:
                continue
            per_voxel[b, iz, iy, ix] += 1
            points[cell].append([x / 0.4 - (cell[2] + 0.5), (y + 1.6) / 0.4 - (cell[1] + 0.5), z / 4.0])
    cells = [tuple(row) for row in hidden.nonzero().tolist()]
    density = []
    for b, y, x in cells:
        counts = [n for (c, _, iy, ix), n in per_voxel.items() if (c, iy // 8, ix // 8) == (b, y, x)]
        density.append(sum(n if limit is None else min(n, limit) for n in counts) / 64)
    return [points[cell] for cell in cells], density


@pytest.mark.parametrize("limit", [5, None])
@pytest.mark.parametrize("max_voxels", [16_000, 150])
def test_targets_equal_the_slow_twin(limit: int | None, max_voxels: int) -> None:
    model = build(max_voxels_train=max_voxels)
    batch = batch_of(model, 300, 0, 200)
    hidden = occupied_cells(model, batch)
    hidden[0, 0] = False
    targets = cell_targets(batch, hidden, model.grid, limit, torch.Generator().manual_seed(0))
    points, density = twin(batch, hidden, limit)
    torch.testing.assert_close(targets.density, torch.tensor(density))
    assert max(len(p) for p in points) > 30
    for row, valid, expected in zip(targets.points, targets.valid, points, strict=True):
        kept = row[valid]
        assert len(kept) == min(len(expected), 30)
        distance = (kept[:, None] - torch.tensor(expected)[None]).norm(dim=2)
        nearest = distance.min(dim=1)
        assert float(nearest.values.max()) < 1e-5
        assert len(set(nearest.indices.tolist())) == len(kept)  # different points
        assert float(kept[:, :2].abs().max()) <= 0.5 + 1e-5
        assert not bool(row[~valid].any())


def test_hidden_voxels_keep_their_place_and_lose_their_features() -> None:
    model = build()
    with torch.no_grad():
        model.point_token.copy_(torch.tensor([[9.0, 8.0, 7.0, 6.0]]))
    seen: list[Voxels] = []
    model.encoder.register_forward_pre_hook(lambda _m, args: seen.append(args[0]))
    batch = batch_of(model, 400, 300)
    model(batch, torch.Generator().manual_seed(0))
    assert torch.equal(seen[0].coordinates, batch.voxels.coordinates)
    replaced = (seen[0].features == model.point_token).all(dim=1)
    assert torch.equal(seen[0].features[~replaced], batch.voxels.features[~replaced])
    cells = [(b, y // 8, x // 8) for b, _, y, x in batch.voxels.coordinates.tolist()]
    by_cell: dict[tuple[int, int, int], set[bool]] = defaultdict(set)
    for cell, is_hidden in zip(cells, replaced.tolist(), strict=True):
        by_cell[cell].add(is_hidden)
    assert all(len(kinds) == 1 for kinds in by_cell.values())  # whole cells
    shown = sum(not next(iter(kinds)) for kinds in by_cell.values())
    assert shown == int(len(by_cell) * (1 - 0.7))


def test_prediction_layout_and_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """With heads that only have a bias, the loss can be computed from the targets and the biases alone."""
    model = build().eval()
    bias = torch.randn(60)
    with torch.no_grad():
        model.points_head.weight.zero_()
        model.density_head.weight.zero_()
        model.points_head.bias.copy_(bias)  # type: ignore[union-attr]
        model.density_head.bias.fill_(0.25)  # type: ignore[union-attr]
    caught: list[CellTargets] = []

    def spy(*arguments: object) -> CellTargets:
        caught.append(cell_targets(*arguments))  # type: ignore[arg-type]
        return caught[-1]

    monkeypatch.setattr("adperception.models.pretrain.bev_mae.cell_targets", spy)
    with torch.no_grad():
        losses = model(batch_of(model, 400, 300), torch.Generator().manual_seed(0))
    (targets,) = caught
    predicted = bias.view(3, 20).T  # x of all points first, then y, then z
    forth, back = [], []
    for points, valid in zip(targets.points, targets.valid, strict=True):
        distance = (predicted[:, None] - points[valid][None]).square().sum(dim=2)
        forth += distance.min(dim=1).values.tolist()
        back += distance.min(dim=0).values.tolist()
    assert float(losses.terms["loss_points"]) == pytest.approx(np.mean(forth) + np.mean(back), rel=1e-4)
    difference = (0.25 - targets.density).abs()
    smooth = torch.where(difference < 1, 0.5 * difference**2, difference - 0.5).mean()
    assert float(losses.terms["loss_density"]) == pytest.approx(float(smooth), rel=1e-5)
    assert float(losses.total) == pytest.approx(float(losses.terms["loss_points"] + losses.terms["loss_density"]))


@pytest.mark.parametrize("counts", [(2000, 1500), (0, 0), (0, 800), (1, 1), (0,), (1,)])
@pytest.mark.parametrize("upstream", [False, True])
def test_every_trained_parameter_gets_a_finite_gradient(counts: tuple[int, ...], upstream: bool) -> None:
    model = build(upstream=upstream)
    losses = model(batch_of(model, *counts), torch.Generator().manual_seed(0))
    losses.total.backward()
    assert all(math.isfinite(float(v)) for v in losses.terms.values()), losses.terms
    for name, parameter in model.named_parameters():
        if name == "point_token" and upstream:
            assert parameter.grad is None
            continue
        assert parameter.grad is not None, name
        assert bool(parameter.grad.isfinite().all()), name
        if counts == (2000, 1500):
            assert bool(parameter.grad.any()), name


def test_draws_come_from_the_generator() -> None:
    model = build().eval()
    batch = batch_of(model, 400, 300)
    with torch.no_grad():
        a, b, c = (float(model(batch, torch.Generator().manual_seed(s)).total) for s in (0, 0, 1))
    assert a == b
    assert a != c


def test_loss_falls() -> None:
    model = build()
    batch = batch_of(model, 2000, 1500)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    values = []
    for _ in range(12):
        optimizer.zero_grad()
        losses = model(batch, torch.Generator().manual_seed(0))
        losses.total.backward()
        optimizer.step()
        values.append(float(losses.total.detach()))
    assert values[-1] < 0.5 * values[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"mask_ratio": 1.0}, "must lie between 0 and 1"), ({"mask_per": "frame"}, "Available: batch, sample")],
)
def test_bad_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**options)
