"""Occupancy-MAE: masks, decoder, gradients, sparse batches."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from adperception.models.pretrain.group_ranks import rank_in_group
from adperception.models.pretrain.occupancy_mae import OccupancyDecoder, OccupancyMAE
from adperception.models.pretrain.range_masking import draw_range_mask, draw_upstream_range_mask
from adperception.structures import LidarBatch, LidarFrame, PointCloud, VoxelGrid, Voxels

RANGE, VOXEL = [0.0, -1.6, -2.0, 3.2, 1.6, 2.0], [0.05, 0.05, 0.1]
WIDE = VoxelGrid.create([0.0, -32.0, -3.0, 64.0, 32.0, 1.0], [0.1, 0.1, 0.1])


def build(**options: object) -> OccupancyMAE:
    torch.manual_seed(0)
    return OccupancyMAE(RANGE, VOXEL, **options)  # type: ignore[arg-type]


def batch_of(model: OccupancyMAE, *counts: int) -> LidarBatch:
    frames = []
    for seed, count in enumerate(counts):
        rng = np.random.default_rng(seed)
        xyz = rng.uniform([0, -1.6, -2], [2.0, 1.6, 2], (count, 3))
        points = np.column_stack([xyz, rng.uniform(size=count)]).astype(np.float32)
        frames.append(LidarFrame(str(seed), PointCloud(points)))
    return model.collate(training=True)(frames)


def scattered(count: int, frames: int = 2) -> torch.Tensor:
    """Coordinates all over ``WIDE``, in random order."""
    rng = np.random.default_rng(0)
    rows = np.unique(rng.integers([0, 0, 0, 0], [frames, 40, 640, 640], (count, 4)), axis=0)
    return torch.from_numpy(rng.permutation(rows).astype(np.int32))


def ring_by_hand(row: list[int]) -> int:
    _, _, y, x = row
    distance = math.hypot((x + 0.5) * 0.1, -32.0 + (y + 0.5) * 0.1)
    return 0 if distance <= 30 else 1 if distance <= 50 else 2


def test_parameter_counts() -> None:
    model = build()
    assert sum(p.numel() for p in model.decoder.parameters()) == 117_800
    assert sum(p.numel() for p in model.encoder.parameters()) == 711_872
    assert {name.split(".")[0] for name in model.state_dict()} == {"encoder", "decoder"}


def test_ranks_are_a_permutation_within_each_group() -> None:
    groups = torch.tensor([2, 0, 2, 2, 0, 5])
    noise = torch.tensor([0.9, 0.2, 0.1, 0.5, 0.1, 0.7])
    assert rank_in_group(groups, noise).tolist() == [2, 1, 0, 1, 0, 0]
    assert rank_in_group(groups).tolist() == [0, 0, 1, 2, 1, 0]
    assert rank_in_group(groups[:0]).tolist() == []


def test_every_ring_of_every_frame_keeps_its_share() -> None:
    coordinates = scattered(6000)
    shares = (0.5, 0.7, 0.6)
    keep = draw_range_mask(coordinates, 2, WIDE, (30, 50), shares, torch.Generator().manual_seed(0))
    members: dict[tuple[int, int], list[bool]] = {}
    for row, kept in zip(coordinates.tolist(), keep.tolist(), strict=True):
        members.setdefault((row[0], ring_by_hand(row)), []).append(kept)
    assert len(members) == 6
    for (_, ring), kept in members.items():
        assert sum(kept) == int(len(kept) * shares[ring])
    again = draw_range_mask(coordinates, 2, WIDE, (30, 50), shares, torch.Generator().manual_seed(0))
    other = draw_range_mask(coordinates, 2, WIDE, (30, 50), shares, torch.Generator().manual_seed(1))
    assert torch.equal(keep, again)
    assert not torch.equal(keep, other)


def test_every_voxel_of_a_ring_is_equally_likely() -> None:
    coordinates = torch.tensor([[0, 0, 320, i] for i in range(10)])
    generator = torch.Generator().manual_seed(0)
    kept = sum(draw_range_mask(coordinates, 2, WIDE, (30, 50), (0.5, 0.7, 0.7), generator).float() for _ in range(2000))
    assert float((kept / 2000 - 0.5).abs().max()) < 0.05


def test_upstream_masks_keep_about_half_as_many() -> None:
    """All voxels are far in voxel units; repeated places leave half of 0.7 n different ones, mostly early ones."""
    coordinates = scattered(4000)
    far = torch.hypot(coordinates[:, 2].float(), coordinates[:, 3].float()) > 50
    coordinates = coordinates[far]
    keep = draw_upstream_range_mask(coordinates, (30, 50), (0.5, 0.7, 0.7), torch.Generator().manual_seed(0))
    assert float(keep.float().mean()) == pytest.approx(0.35, abs=0.02)
    n = len(keep)
    assert not bool(keep[int(0.7 * n) :].any())
    # Place k of the first m survives with probability 1 - k / m.
    tenth = int(0.7 * n) // 10
    assert float(keep[:tenth].float().mean()) == pytest.approx(0.95, abs=0.05)
    assert float(keep[9 * tenth : 10 * tenth].float().mean()) == pytest.approx(0.05, abs=0.05)


def test_upstream_shuffle_is_what_random_shuffle_does_to_a_tensor() -> None:
    """The twin: run Python's shuffle on tensors, over many seeds, and compare how often each element survives."""
    import random

    size, rounds = 7, 3000
    rng = random.Random(0)
    theirs = torch.zeros(size)
    for _ in range(rounds):
        ids = torch.arange(size)
        rng.shuffle(ids)
        theirs[torch.unique(ids[: int(0.7 * size)])] += 1
    coordinates = torch.tensor([[0, 0, 600, i] for i in range(size)])
    generator = torch.Generator().manual_seed(0)
    ours = sum(
        draw_upstream_range_mask(coordinates, (30, 50), (0.5, 0.7, 0.7), generator).float() for _ in range(rounds)
    )
    assert float(((ours - theirs) / rounds).abs().max()) < 0.04


@pytest.mark.parametrize("depth", [40, 41, 48, 55])
def test_the_decoder_ends_at_the_encoders_grid(depth: int) -> None:
    grid = VoxelGrid.create([0, 0, 0, 3.2, 1.6, depth * 0.1], [0.1, 0.1, 0.1])
    torch.manual_seed(0)
    decoder = OccupancyDecoder(grid)
    bev = torch.randn(2, 256, 2, 4, requires_grad=True)
    logits = decoder(bev)
    assert logits.shape == (2, *grid.sparse_shape)
    assert bool((logits.detach().abs().amax(dim=(0, 2, 3)) > 0).all())  # no layer that no weight reaches
    # Layer 0 of the map is the lower one: the channel order of the encoder is c * 2 + z.
    (gradient,) = torch.autograd.grad(logits[:, :4].sum(), bev)
    assert bool(gradient[:, 0::2].any())


def test_the_target_is_the_whole_scan() -> None:
    model = build().eval()
    seen: list[Voxels] = []
    model.encoder.register_forward_pre_hook(lambda _m, args: seen.append(args[0]))
    batch = batch_of(model, 2000, 1500)
    with torch.no_grad():
        losses = model(batch, torch.Generator().manual_seed(0))
    assert 0.45 < len(seen[0]) / len(batch.voxels) <= 0.5
    with torch.no_grad():
        logits = model.decoder(model.encoder(seen[0]))
    target = torch.zeros_like(logits)
    for b, z, y, x in batch.voxels.coordinates.tolist():
        target[b, z, y, x] = 1
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, target)
    assert float(losses.total) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("counts", [(2000, 1500), (0, 0), (0, 800), (1, 1), (0,), (1,)])
@pytest.mark.parametrize("upstream", [False, True])
def test_every_parameter_gets_a_finite_gradient(counts: tuple[int, ...], upstream: bool) -> None:
    model = build(upstream=upstream)
    losses = model(batch_of(model, *counts), torch.Generator().manual_seed(0))
    losses.total.backward()
    assert all(math.isfinite(float(v)) for v in losses.terms.values()), losses.terms
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.isfinite().all()), name
        if counts == (2000, 1500):
            assert bool(parameter.grad.any()), name


def test_loss_falls() -> None:
    model = build()
    batch = batch_of(model, 2000, 1500)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    values = []
    for _ in range(12):
        optimizer.zero_grad()
        losses = model(batch, torch.Generator().manual_seed(0))
        losses.total.backward()
        optimizer.step()
        values.append(float(losses.total.detach()))
    assert values[-1] < 0.9 * values[0]


def test_encode_gives_the_map_of_the_whole_cloud() -> None:
    model = build()
    batch = batch_of(model, 500)
    bev = model.encode(batch.points[0])
    assert bev.shape == (1, 256, 8, 8)
    assert model.encoder.training
    with torch.no_grad():
        torch.testing.assert_close(bev, model.eval().encoder(batch.voxels))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep_shares": [0.5, 0.7]}, r"ring_limits=\[30.0, 50.0\] must grow and have one entry fewer"),
        ({"ring_limits": [50.0, 30.0]}, "must grow"),
        ({"keep_shares": [0.5, 0.7, 1.0]}, "must lie between 0 and 1"),
    ],
)
def test_bad_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**options)
