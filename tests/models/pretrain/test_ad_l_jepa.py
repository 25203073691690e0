"""The method's own invariants: gradients, tokens, moving average, small batches."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from adperception.models.pretrain.ad_l_jepa import ADLJEPA, Embeddings, ema_momentum
from adperception.models.pretrain.bev_masking import BevMasks, CellCounts
from adperception.structures import LidarBatch, LidarFrame, PointCloud, Voxels

RANGE, VOXEL = [0.0, -1.6, -2.0, 3.2, 1.6, 2.0], [0.05, 0.05, 0.1]


def build(**options: object) -> ADLJEPA:
    torch.manual_seed(0)
    return ADLJEPA(RANGE, VOXEL, **options)  # type: ignore[arg-type]


def cloud(points: int, seed: int = 0, *, cells: int = 8) -> PointCloud:
    """Random points; with few ``cells`` they lie in the first cells along x only."""
    rng = np.random.default_rng(seed)
    xyz = rng.uniform([0, -1.6, -2], [0.4 * cells, 1.6, 2], (points, 3))
    return PointCloud(np.column_stack([xyz, rng.uniform(size=points)]).astype(np.float32))


def batch_of(model: ADLJEPA, *clouds: PointCloud) -> LidarBatch:
    frames = [LidarFrame(f"{i}", c) for i, c in enumerate(clouds)]
    return model.collate(training=True)(frames)


def step(model: ADLJEPA, batch: LidarBatch) -> dict[str, float]:
    model.zero_grad()
    losses = model(batch, torch.Generator().manual_seed(3))
    losses.total.backward()
    return {k: float(v) for k, v in losses.terms.items()}


@pytest.mark.parametrize(("channels", "encoder"), [(4, 711_872), (5, 712_304)])
def test_parameter_counts(channels: int, encoder: int) -> None:
    """The counts that the published architecture has."""
    model = build(in_channels=channels)
    assert sum(p.numel() for p in model.context_encoder.parameters()) == encoder
    assert sum(p.numel() for p in model.predictor.parameters()) == 1_771_776
    assert sum(p.numel() for p in model.parameters()) == 2 * encoder + 1_771_776 + 512
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == encoder + 1_771_776
    learnable = build(in_channels=channels, token_mode="learnable")
    assert sum(p.numel() for p in learnable.parameters() if p.requires_grad) == encoder + 1_771_776 + 512
    assert len(model.state_dict()) == 167


@pytest.mark.parametrize("token_mode", ["frozen", "learnable"])
def test_gradients_reach_exactly_the_trained_part(token_mode: str) -> None:
    model = build(token_mode=token_mode)
    terms = step(model, batch_of(model, cloud(2000, cells=5), cloud(1500, 1, cells=5)))
    assert all(math.isfinite(v) for v in terms.values())
    for name, parameter in model.named_parameters():
        if name.startswith("target_encoder") or (token_mode == "frozen" and name.endswith("token")):
            assert parameter.grad is None, name
        else:
            assert parameter.grad is not None, name
            assert bool(parameter.grad.any()), name


@pytest.mark.parametrize(
    "clouds",
    [
        (cloud(0), cloud(0)),
        (cloud(0), cloud(800)),
        (cloud(1), cloud(1, 1)),
        (cloud(3, cells=1), cloud(800)),
        (cloud(0),),
        (cloud(1),),
    ],
    ids=["all empty", "one empty", "one point each", "hardly any cell", "single empty", "single point"],
)
@pytest.mark.parametrize("token_mode", ["frozen", "learnable"])
def test_sparse_batches_give_finite_losses_and_all_gradients(clouds: tuple[PointCloud, ...], token_mode: str) -> None:
    model = build(token_mode=token_mode)
    terms = step(model, batch_of(model, *clouds))
    assert all(math.isfinite(v) for v in terms.values()), terms
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert bool(parameter.grad.isfinite().all()), name


def test_embeddings_are_unit_vectors_and_tokens_sit_where_they_should() -> None:
    model = build()
    e = model.embed(batch_of(model, cloud(2000), cloud(500, 1)), torch.Generator().manual_seed(0))
    for bev in (e.context, e.prediction):
        torch.testing.assert_close(bev.norm(dim=1), torch.ones(2, 8, 8))
    unit = torch.nn.functional.normalize
    hidden = e.context.permute(0, 2, 3, 1)[e.masks.hidden]
    torch.testing.assert_close(hidden, unit(model.mask_token, dim=1).view(1, -1).expand_as(hidden))
    empty = torch.cat(
        [e.context.permute(0, 2, 3, 1)[e.masks.context_empty], e.target.permute(0, 2, 3, 1)[e.masks.target_empty]]
    )
    torch.testing.assert_close(empty, unit(model.empty_token, dim=1).view(1, -1).expand_as(empty))
    assert not e.target.requires_grad


def test_encoders_see_disjoint_voxels(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build()
    seen: dict[str, Voxels] = {}
    for name in ("context_encoder", "target_encoder"):
        encoder = getattr(model, name)
        encoder.register_forward_pre_hook(lambda _m, args, name=name: seen.__setitem__(name, args[0]))
    batch = batch_of(model, cloud(1000), cloud(1000, 1))
    masks = model.embed(batch, torch.Generator().manual_seed(0)).masks
    rows = [{tuple(r) for r in seen[name].coordinates.tolist()} for name in ("context_encoder", "target_encoder")]
    assert rows[0].isdisjoint(rows[1])
    assert rows[0] | rows[1] == {tuple(r) for r in batch.voxels.coordinates.tolist()}
    assert all(bool(masks.context_cells[b, y // 8, x // 8]) for b, _, y, x in rows[0])


def test_moving_average_follows_the_global_step() -> None:
    assert ema_momentum(0, 100) == 0.996
    assert ema_momentum(99, 100) == pytest.approx(1 - 0.004 / 100)
    model = build()
    with torch.no_grad():
        for p in model.context_encoder.parameters():
            p.add_(1.0)
    before = [p.clone() for p in model.target_encoder.parameters()]
    statistics = [b.clone() for b in model.target_encoder.buffers()]
    model.after_optimizer_step(50, 100)
    for old, new, online in zip(
        before, model.target_encoder.parameters(), model.context_encoder.parameters(), strict=True
    ):
        torch.testing.assert_close(new, 0.998 * old + 0.002 * online.detach(), rtol=1e-6, atol=1e-7)
    assert all(torch.equal(a, b) for a, b in zip(statistics, model.target_encoder.buffers(), strict=True))


def test_target_encoder_keeps_its_own_batch_norm_statistics() -> None:
    model = build().train()
    model.embed(batch_of(model, cloud(2000)), torch.Generator().manual_seed(0))
    ours = dict(model.context_encoder.named_buffers())["conv_input.1.running_mean"]
    theirs = dict(model.target_encoder.named_buffers())["conv_input.1.running_mean"]
    assert bool(theirs.any())
    assert not torch.equal(ours, theirs)


def test_empty_cells_cannot_fall_below_the_floor_of_a_frozen_token() -> None:
    """Predictions are non-negative and the token's signs are random: the best cosine is ||max(e, 0)|| / ||e||."""
    model = build()
    token = model.empty_token.detach()
    floor = 1 - float(token.clamp(min=0).norm() / token.norm())
    best = torch.nn.functional.normalize(token.clamp(min=0), dim=1).expand(1, 256, 8, 8)
    none, all_cells = torch.zeros(1, 8, 8, dtype=torch.bool), torch.ones(1, 8, 8, dtype=torch.bool)
    masks, counts = BevMasks(none, none, none, all_cells), CellCounts((0,), (0,), 64)
    embeddings = Embeddings(best, torch.zeros(0, 256), best, torch.zeros_like(best), model.empty_token, masks, counts)
    terms = model.losses(embeddings).terms
    assert float(terms["loss_prediction_empty"]) == pytest.approx(floor, abs=1e-6)
    assert 0.1 < floor < 0.5


def test_weights_of_the_terms() -> None:
    model = build(prediction_weight=2.0, variance_weight=10.0)
    terms = step(model, batch_of(model, cloud(2000), cloud(1000, 1)))
    assert terms["loss"] == pytest.approx(2 * terms["loss_prediction"] + 10 * terms["loss_variance"], rel=1e-6)
    mixed = 0.75 * terms["loss_prediction_cells"] + 0.25 * terms["loss_prediction_empty"]
    assert terms["loss_prediction"] == pytest.approx(mixed, rel=1e-6)


def test_draws_come_from_the_generator_alone() -> None:
    model = build()
    batch = batch_of(model, cloud(1000))
    torch.manual_seed(1)
    a = model.embed(batch, torch.Generator().manual_seed(5)).masks
    state = torch.get_rng_state()
    b = model.embed(batch, torch.Generator().manual_seed(5)).masks
    assert torch.equal(a.context_cells, b.context_cells)
    assert torch.equal(state, torch.get_rng_state())


def test_encode_is_one_call_and_leaves_the_model_as_it_was() -> None:
    model = build().train()
    points = cloud(1000)
    state = {k: v.clone() for k, v in model.state_dict().items()}
    bev = model.encode(points.points)
    assert bev.shape == (1, 256, 8, 8)
    assert torch.equal(bev, model.encode(points))
    assert torch.equal(bev, model.encode(torch.from_numpy(points.points)))
    assert model.context_encoder.training
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())


def test_encode_refuses_points_out_of_range_and_other_channels() -> None:
    model = build()
    far = cloud(100).points.copy()
    far[:, 0] += 100
    with pytest.raises(ValueError, match=r"0 of 100 points are inside point_cloud_range"):
        model.encode(far)
    with pytest.raises(ValueError, match="channels"):
        model.encode(np.zeros((10, 5), dtype=np.float32))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(mask_ratio=1.0), "mask_ratio=1.0 must lie between 0 and 1"),
        (dict(mask_per="frame"), r'mask_per="frame" is unknown\. Available: batch, sample'),
        (dict(token_mode="trained"), r'token_mode="trained" is unknown\. Available: frozen, learnable'),
    ],
)
def test_options_are_checked(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**options)
