from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from adperception.engine.multiply_adds import multiply_adds_of
from adperception.models.radar.erase_net import ERASENet
from adperception.structures import RadarBatch, RadarFrame, RadarGrid
from tests.models.radar.cube_frames import GRID, cube_frame

FRAMES = [
    cube_frame([(10, 8, 4, 1), (22, 20, 14, 3)], 0),
    cube_frame([(6, 25, 10, 2)], 1),
    cube_frame([], 2),
]
BATCH = RadarBatch.from_frames(FRAMES)


def small_net(**options: object) -> ERASENet:
    torch.manual_seed(0)
    settings: dict[str, object] = {"cube_shape": GRID.shape, "moments": 2, "phases": [0.0, 0.5, 0.5]} | options
    model = ERASENet(**settings)  # type: ignore[arg-type]
    model.before_training(FRAMES)
    return model


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("size", "content", "giga"),
    [
        ("small", "light", (1.30, 1.60, 1.91)),
        ("small", "channels", (1.30, 1.90, 2.51)),
        ("medium", "light", (2.90, 3.55, 4.20)),
    ],
)
def test_multiply_adds(size: str, content: str, giga: tuple[float, ...]) -> None:
    """The fact sheet's counts for 0, 1 and 2 objects, all within a twentieth of TMVA-Net's 95.62 G."""
    model = ERASENet(size=size, input=content, constant_channels=False, class_head=False)  # type: ignore[arg-type]
    counts = multiply_adds_of(model)
    assert [round(c.total / 1e9, 2) for c in counts.values()] == pytest.approx(giga, abs=0.011)
    assert counts["2 objects"].total <= 95.62e9 / 20
    default = multiply_adds_of(ERASENet(size=size, input=content))  # type: ignore[arg-type]
    assert default["2 objects"].total <= 4.78e9


def test_parameters() -> None:
    """Detector 350,661, two patch networks of 82,628 or 104,228; the defaults have six constant channels and a head."""

    def count(**options: object) -> int:
        return sum(p.numel() for p in ERASENet(**options).parameters())  # type: ignore[arg-type]

    bare = {"constant_channels": False, "class_head": False}
    assert count(**bare) == 350_661 + 2 * 82_628
    assert count(**bare, input="channels") == 350_661 + 2 * 104_228
    assert count() == 350_661 + 2 * (82_628 + 6 * 16 * 9) + 97 * 4
    assert count(lift=True) == count() + 2 * 16 * 9
    assert count(phases=[1, 0, 0]) == 350_661


@pytest.mark.parametrize("phase", [0, 1, 2])
@pytest.mark.parametrize("frames", [FRAMES, [FRAMES[2]]])
def test_every_parameter_gets_a_gradient_in_every_phase(phase: int, frames: list[RadarFrame]) -> None:
    model = small_net(phases=[0.2, 0.4, 0.4], clutter_share=0.0, score_threshold=0.99)
    model.progress.fill_([0.0, 0.3, 0.7][phase])
    assert model.phase == phase
    losses = model(RadarBatch.from_frames(frames), seeded())
    losses.total.backward()
    assert bool(torch.isfinite(losses.total))
    assert all(p.grad is not None for p in model.parameters())
    moved = any(bool(p.grad.any()) for p in model.segmenter.parameters())  # type: ignore[union-attr]
    assert moved == (phase > 0 and len(frames) > 1)


def test_gradient_stops_at_the_gather() -> None:
    model = small_net(offset_weight=0.0)
    terms = model(BATCH, seeded()).terms
    total = sum(v for k, v in terms.items() if k in ("loss_rd", "loss_ra", "loss_coherence", "loss_object"))
    assert float(total) > 0
    model = small_net(pause_detector=True)
    model(BATCH, seeded()).total.backward()
    assert not any(bool(p.grad.any()) for p in model.detector.parameters() if p.grad is not None)


def test_detector_stands_still_only_if_paused() -> None:
    model = small_net()
    model(BATCH, seeded()).total.backward()
    assert any(bool(p.grad.any()) for p in model.detector.parameters() if p.grad is not None)


def test_progress_decides_about_the_phase_and_travels_with_the_weights() -> None:
    model = small_net(phases=[0.3, 0.4, 0.3])
    phases = []
    for step in range(10):
        phases.append(model.phase)
        model.after_optimizer_step(step, 10)
    assert phases == [0, 0, 0, 1, 1, 1, 1, 2, 2, 2]
    other = small_net(phases=[0.3, 0.4, 0.3])
    model.after_optimizer_step(4, 10)
    other.load_state_dict(model.state_dict())
    assert other.phase == 1


def test_all_chance_comes_from_the_generator() -> None:
    model = small_net(clutter_share=0.5)
    first, again, other = (float(model(BATCH, seeded(s)).total.detach()) for s in (1, 1, 2))
    assert first == again
    assert first != other


@pytest.mark.parametrize(("content", "lift"), [("light", False), ("channels", True), ("projection", False)])
def test_learns_a_few_frames(content: str, lift: bool) -> None:
    """All stages together: trained on three frames it finds their objects, classes and masks."""
    extras = {"foreground_only": lift, "balance_objects": lift, "label_smoothing": 0.1 * lift}
    model = small_net(input=content, lift=lift, class_weights="equal", phases=[0.2, 0.5, 0.3], **extras)
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    steps = 60
    for step in range(steps):
        optimizer.zero_grad()
        model(BATCH, seeded(step)).total.backward()
        optimizer.step()
        model.after_optimizer_step(step, steps)
    model.eval()
    for frame, found in zip(FRAMES, model.predict(BATCH), strict=True):
        assert frame.masks is not None
        assert frame.objects is not None
        assert found.masks is not None
        assert found.objects is not None
        assert sorted(found.objects.class_ids.tolist()) == sorted(frame.objects.class_ids.tolist())
        for view in ("range_doppler", "range_angle"):
            truth, mask = getattr(frame.masks, view), getattr(found.masks, view)
            both, either = ((truth == mask) & (truth > 0)).sum(), ((truth > 0) | (mask > 0)).sum()
            assert either == 0 or both / either > 0.5, (frame.frame_id, view)
        order = np.argsort(frame.objects.class_ids)
        mine = np.argsort(found.objects.class_ids)
        error = np.abs(frame.objects.cells[order] - found.objects.cells[mine])
        assert (error[:, [0, 2]] <= 1).all()
        assert (error[:, 1] <= 4).all()


def test_fixed_candidates_say_what_predict_says() -> None:
    model = small_net(score_threshold=0.1).eval()
    assert BATCH.cubes is not None
    with torch.no_grad():
        fixed = model.fixed_candidates(BATCH.cubes)
    assert fixed.cells.shape == (3, 4, 3)
    for index, found in enumerate(model.predict(BATCH)):
        assert found.masks is not None
        assert found.objects is not None
        np.testing.assert_array_equal(fixed.range_doppler[index].numpy(), found.masks.range_doppler)
        np.testing.assert_array_equal(fixed.range_angle[index].numpy(), found.masks.range_angle)
        best, classes = (t.numpy() for t in fixed.scores[index].max(dim=1))
        valid = np.flatnonzero(best > 0)
        valid = valid[np.argsort(-best[valid], kind="stable")]
        np.testing.assert_allclose(found.objects.scores, best[valid], rtol=1e-5)
        np.testing.assert_array_equal(found.objects.class_ids, classes[valid] + 1)
        np.testing.assert_allclose(found.objects.cells, fixed.cells[index].numpy()[valid], rtol=1e-5)


def test_no_peak_no_mask() -> None:
    model = small_net(score_threshold=0.999).eval()
    for found in model.predict(BATCH):
        assert found.masks is not None
        assert found.objects is not None
        assert not found.masks.range_doppler.any()
        assert not found.masks.range_angle.any()
        assert not len(found.objects)


def test_true_centres_are_an_upper_bound_for_studies() -> None:
    model = small_net(true_centers=True, class_head=False, score_threshold=0.999).eval()
    for frame, found in zip(FRAMES, model.predict(BATCH), strict=True):
        assert frame.objects is not None
        assert found.objects is not None
        true = frame.objects.cells[:, [0, 2]]
        np.testing.assert_array_equal(np.sort(found.objects.cells[:, [0, 2]], axis=0), np.sort(true, axis=0))


def test_detect_gives_places_in_metres_degrees_and_metres_per_second() -> None:
    model = small_net(score_threshold=0.05).eval()
    (found,) = model.detect(RadarBatch.from_frames(FRAMES[:1]))
    assert len(found) > 0
    assert (np.diff(found.scores) <= 0).all()
    assert ((found.range_m(GRID) >= 0) & (found.range_m(GRID) <= GRID.max_range_m)).all()
    assert (np.abs(found.azimuth_deg(GRID)) <= 90).all()
    assert (np.abs(found.velocity_mps(GRID)) <= GRID.doppler_bin_mps * 8).all()


def test_a_detector_needs_no_masks_and_knows_other_classes() -> None:
    frames = [dataclasses.replace(f, masks=None) for f in FRAMES]
    model = small_net(phases=[1, 0, 0], classes=["person", "bicycle", "car", "motorcycle", "bus", "truck"])
    batch = RadarBatch.from_frames(frames)
    losses = model(batch, seeded())
    losses.total.backward()
    assert set(losses.terms) == {"loss", "loss_heatmap", "loss_offset"}
    found = model.eval().predict(batch)
    assert all(f.masks is None and f.objects is not None for f in found)
    with pytest.raises(ValueError, match="phases"):
        model.fixed_candidates(BATCH.cubes)  # type: ignore[arg-type]


def test_newest_moments_are_used() -> None:
    frames = [cube_frame([(10, 8, 4, 1)], moments=3)]
    newest = [dataclasses.replace(f, cubes=f.cubes[1:]) for f in frames if f.cubes is not None]
    model = small_net().eval()
    assert BATCH.cubes is not None
    results = [model.detect_maps(model._cubes(RadarBatch.from_frames(f))).heatmap for f in (frames, newest)]
    torch.testing.assert_close(*results)


def test_bad_input() -> None:
    model = small_net().eval()
    with pytest.raises(ValueError, match="has no cube, which ERASENet needs"):
        model.predict(RadarBatch(("a/1",), GRID))
    with pytest.raises(ValueError, match="1 moments, ERASENet looks at 2"):
        model.predict(RadarBatch.from_frames([cube_frame([], moments=1)]))
    with pytest.raises(ValueError, match=r"made for \(32, 32, 16\)"):
        model.predict(RadarBatch.from_frames([cube_frame([], grid=RadarGrid(64, 32, 16))]))
    broken = cube_frame([], 7)
    assert broken.cubes is not None
    broken.cubes[0, 3, 4, 5] = np.nan
    with pytest.raises(ValueError, match="s/000007: its cubes hold values that are not finite"):
        model.predict(RadarBatch.from_frames([FRAMES[0], broken]))
    unlabelled = RadarBatch.from_frames([dataclasses.replace(FRAMES[0], objects=None)])
    with pytest.raises(ValueError, match="no labelled objects"):
        model(unlabelled)
    unmasked = RadarBatch.from_frames([dataclasses.replace(FRAMES[0], masks=None)])
    with pytest.raises(ValueError, match="has no masks"):
        model(unmasked)
    with pytest.raises(ValueError, match=r"class ids \[1, 4\]"):
        model(RadarBatch.from_frames([cube_frame([(5, 5, 5, 1), (9, 9, 9, 4)])]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": "huge"}, 'size="huge" is unknown. Available: small, medium, large'),
        ({"input": "raw"}, 'input="raw" is unknown'),
        ({"class_decision": "vote"}, 'class_decision="vote" is unknown'),
        ({"phases": [0.5, 0.6, 0.1]}, "three shares that add up to 1"),
        ({"classes": ["car", "car"]}, "different names"),
        ({"candidates": 0}, "at least 1"),
        ({"foreground_only": True, "class_decision": "product"}, "it takes class_head=True"),
        ({"foreground_only": True, "class_head": False}, "it takes class_head=True"),
        ({"label_smoothing": 1.0}, "must lie in"),
        ({"cube_shape": [64, 64]}, "three numbers of cells"),
        ({"window": {"row": 3}}, "window has no"),
        ({"window": {"rows": 300}}, "must lie between 4 and 256"),
    ],
)
def test_bad_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ERASENet(**options)  # type: ignore[arg-type]


def test_without_statistics_it_does_not_run() -> None:
    model = ERASENet(cube_shape=GRID.shape, moments=2).eval()
    with pytest.raises(ValueError, match="normalisation statistics"):
        model.predict(BATCH)
