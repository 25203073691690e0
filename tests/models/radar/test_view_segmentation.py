"""What TMVA-Net and MV-Net share: statistics, training, predictions, refusals."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from adperception.losses.weighted_cross_entropy import CARRADA_CLASS_WEIGHTS
from adperception.models.radar.mv_net import MVNet
from adperception.models.radar.tmva_net import TMVANet
from adperception.models.radar.view_segmentation import ViewSegmentation
from adperception.structures import RadarBatch, RadarFrame, RadarGrid, RadarMasks
from tests.models.radar.view_frames import view_frames

MODELS = [TMVANet, MVNet]


def trained(model: ViewSegmentation, frames: list[RadarFrame], steps: int, losses: list[float]) -> None:
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    batch = model.collate(training=True)(frames)
    for _ in range(steps):
        optimizer.zero_grad()
        outcome = model(batch)
        outcome.total.backward()
        optimizer.step()
        losses.append(float(outcome.total.detach()))


@pytest.mark.parametrize("kind", MODELS)
def test_loss_falls_and_objects_are_found(kind: Any) -> None:
    model, frames, losses = kind(), view_frames(), list[float]()
    model.before_training(iter(frames))
    trained(model, frames, 25, losses)
    assert losses[-1] < 0.4 * losses[0]
    batch = model.collate(training=False)(frames)
    found = [prediction.masks for prediction in model.predict(batch)]  # batch statistics: so few steps
    for masks, frame in zip(found, frames, strict=True):
        assert frame.masks is not None
        assert masks.range_doppler.dtype == np.uint8
        assert masks.range_doppler.shape == frame.masks.range_doppler.shape
        assert masks.range_angle.shape == frame.masks.range_angle.shape
        assert (masks.range_angle == frame.masks.range_angle)[frame.masks.range_angle > 0].mean() > 0.8


@pytest.mark.parametrize("kind", MODELS)
def test_nothing_lives_outside_the_state_dict(kind: Any) -> None:
    """A model that was saved and loaded in the middle goes on as if it had not been."""
    frames = view_frames(2)
    model = kind()
    model.before_training(iter(frames))
    trained(model, frames, 1, [])
    resumed = kind()
    resumed.load_state_dict(copy.deepcopy(model.state_dict()))
    ends: list[list[float]] = [[], []]
    for one, losses in zip((model, resumed), ends, strict=True):
        trained(one, frames, 2, losses)
    assert ends[0] == ends[1]


def test_statistics_come_from_the_training_frames_in_one_pass() -> None:
    model, frames = MVNet(), view_frames(5)
    nothing = RadarMasks(np.zeros((16, 4), dtype=np.uint8), np.zeros((16, 16), dtype=np.uint8))
    empty = dataclasses.replace(frames[4], masks=nothing)
    model.before_training(frame for frame in [*frames[:4], empty])
    pixels = np.bincount(np.concatenate([f.masks.range_angle.ravel() for f in frames[:4]]))  # type: ignore[union-attr]
    expected = (1 / pixels) / (1 / pixels).sum()  # the empty frame does not count
    np.testing.assert_allclose(model.class_weights[1], expected)
    low = min(float(f.views.range_doppler.min()) for f in frames)  # type: ignore[union-attr]
    assert float(model.normalization.limits[0, 0]) == low  # but belongs to the normalisation


def test_published_statistics_are_left_alone() -> None:
    model = MVNet(normalization="carrada_tvt", class_weights="carrada")
    before = copy.deepcopy(model.state_dict())
    model.before_training(iter(view_frames()))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.class_weights[0].tolist() == list(CARRADA_CLASS_WEIGHTS["range_doppler"])
    mixed = MVNet(normalization="carrada_tvt")
    mixed.before_training(iter(view_frames()))
    assert bool(mixed.class_weights.isfinite().all())


def test_total_is_half_of_each_pair_and_the_coherence() -> None:
    frames = view_frames(2)
    model = TMVANet(coherence_weight=2.0, dice_weight=4.0)
    model.before_training(iter(frames))
    terms = model(RadarBatch.from_frames(frames)).terms
    assert float(terms["loss"]) == pytest.approx(sum(float(v) for n, v in terms.items() if n != "loss"), rel=1e-6)
    assert set(terms) >= {"loss_range_doppler_dice", "loss_range_angle_cross_entropy", "loss_coherence"}
    assert (
        "loss_coherence"
        not in MVNet(class_weights="carrada", normalization="carrada_tvt")(RadarBatch.from_frames(frames)).terms
    )


def test_newest_moments_are_used() -> None:
    frames = view_frames(2, moments=5)
    model = MVNet(normalization="carrada_tvt", class_weights="carrada").eval()
    three = [dataclasses.replace(f, views=type(f.views)(*(getattr(f.views, n)[2:] for n in VIEWS))) for f in frames]
    for a, b in zip(*(model.predict(RadarBatch.from_frames(f)) for f in (frames, three)), strict=True):
        assert a.masks is not None
        assert b.masks is not None
        assert np.array_equal(a.masks.range_doppler, b.masks.range_doppler)


VIEWS = ("range_doppler", "range_angle", "angle_doppler")


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("grid", [RadarGrid(16, 16, 4), RadarGrid(8, 16, 12), RadarGrid(24, 8, 5)])
def test_any_geometry(kind: Any, grid: RadarGrid) -> None:
    frames = view_frames(2, grid=grid)
    model = kind(normalization="carrada_tvt", class_weights="carrada")
    model(RadarBatch.from_frames(frames)).total.backward()
    masks = model.eval().predict(RadarBatch.from_frames(frames))[0].masks
    assert masks.range_doppler.shape == (grid.range_bins, grid.doppler_bins)
    assert masks.range_angle.shape == (grid.range_bins, grid.azimuth_bins)


def test_unusable_geometry_is_refused() -> None:
    batch = RadarBatch.from_frames(view_frames(2, grid=RadarGrid(18, 16, 4)))
    with pytest.raises(ValueError, match=r"18 range bins and 16 azimuth columns.*multiples of 4"):
        MVNet(normalization="carrada_tvt", class_weights="carrada")(batch)


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (view_frames(2, moments=2), r"comes with 2 moments, MVNet looks at 3.*moments=3"),
        (view_frames(2, masks=False), "s/000000 has no masks"),
        ([dataclasses.replace(f, views=None) for f in view_frames(2)], r'Add "views" to the dataset'),
    ],
)
def test_unusable_batches_are_refused(frames: list[RadarFrame], message: str) -> None:
    model = MVNet(normalization="carrada_tvt", class_weights="carrada")
    with pytest.raises(ValueError, match=message):
        model(RadarBatch.from_frames(frames))


def test_label_of_an_unknown_class_is_refused() -> None:
    model = MVNet(classes=["pedestrian"], normalization="carrada_tvt", class_weights=[[0.1, 0.9]] * 2)
    with pytest.raises(ValueError, match=r"class 3.*knows 1: pedestrian"):
        model(RadarBatch.from_frames(view_frames(3)))


def test_weights_must_be_known() -> None:
    with pytest.raises(ValueError, match="no class weights yet"):
        MVNet(normalization="carrada_tvt")(RadarBatch.from_frames(view_frames(2)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"class_weights": "carada"}, 'class_weights="carada"'),
        ({"class_weights": [[1, 2, 3, 4]]}, "two lists"),
        ({"class_weights": [[1, 2, 3]] * 2}, "4 non-negative weights: background, pedestrian, cyclist, car"),
        ({"class_weights": "carrada", "classes": ["car"]}, "2 non-negative weights"),
        ({"dice_weight": -1.0}, "must not be negative"),
        ({"moments": 0}, "moments=0"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MVNet(**options)
