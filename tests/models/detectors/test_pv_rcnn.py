from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from adperception.evaluation.batch_norm_statistics import with_reestimated_batch_norm
from adperception.models.detectors.pv_rcnn import PREDICTION, PVRCNN
from adperception.models.point_modules.set_abstraction import FeaturePoints
from adperception.structures import Boxes3D, LidarBatch, LidarFrame, PointCloud
from adperception.zoo import create_model

RANGE, SIZE = [0.0, -6.4, -3.0, 12.8, 6.4, 1.0], [0.1, 0.1, 0.1]
CLASSES: list[dict[str, Any]] = [
    dict(name="Car", size=[3.9, 1.6, 1.56], bottom=-1.78, matched_iou=0.6, unmatched_iou=0.45),
    dict(name="Pedestrian", size=[0.8, 0.6, 1.73], bottom=-0.6, matched_iou=0.5, unmatched_iou=0.35),
]
BOXES = np.array(
    [
        [4.0, -2.0, -1.0, 4.0, 1.7, 1.5, 0.2],
        [9.0, 3.0, -1.0, 3.8, 1.6, 1.5, -1.9],
        [6.5, 2.5, -0.8, 0.8, 0.7, 1.7, 2.6],
    ],
    dtype=np.float32,
)
NAMES = ("Car", "Car", "Pedestrian")
LABELS = Boxes3D(BOXES, NAMES)


def small_model(**options: Any) -> PVRCNN:
    torch.manual_seed(0)
    small: dict[str, Any] = dict(bev_layers=[1, 1], bev_filters=[32, 32], bev_upsample_filters=[32, 32])
    second = dict(keypoints=128, rois_per_frame=32, roi_grid_size=2)
    return PVRCNN(**{"point_cloud_range": RANGE, "voxel_size": SIZE, "classes": CLASSES, **small, **second, **options})


def frame(name: str, boxes: Boxes3D, points: bool = True) -> LidarFrame:
    """Points on the ground and on the surfaces of the boxes."""
    rng = np.random.default_rng(0)
    clouds = [rng.uniform([0, -6.4, -1.8, 0.1], [12.8, 6.4, -1.7, 0.2], size=(500, 4))]
    for x, y, z, length, width, height, yaw in BOXES:
        local = rng.uniform(-0.5, 0.5, size=(150, 3))
        local[np.arange(150), rng.integers(0, 3, 150)] = rng.choice([-0.5, 0.5], 150)
        local *= [length, width, height]
        turned_x = local[:, 0] * np.cos(yaw) - local[:, 1] * np.sin(yaw)
        turned_y = local[:, 0] * np.sin(yaw) + local[:, 1] * np.cos(yaw)
        front = 0.4 + 0.5 * (local[:, 0] > 0)
        clouds.append(np.column_stack([turned_x + x, turned_y + y, local[:, 2] + z, front]))
    cloud = np.concatenate(clouds).astype(np.float32)
    return LidarFrame(name, PointCloud(cloud if points else cloud[:0]), boxes)


def batch_of(model: PVRCNN, *frames: LidarFrame) -> LidarBatch:
    return model.collate(training=True)(frames)


def test_parameters_of_the_kitti_model() -> None:
    """OpenPCDet's shapes; a batch norm has two parameters per channel, layers before one have no bias."""
    model = create_model("pv_rcnn_kitti")
    counts = {name: sum(p.numel() for p in module.parameters()) for name, module in model.named_children()}
    assert counts == {
        "backbone_3d": 711_872,
        "backbone_2d": 4_576_768,
        "dense_head": 36_936,
        "pfe": 123_296,
        "point_head": 230_657,
        "roi_head": 7_436_168,
    }
    assert sum(counts.values()) == 13_115_697


def test_names_and_shapes_are_openpcdets() -> None:
    state = {name: tuple(value.shape) for name, value in create_model("pv_rcnn_kitti").state_dict().items()}
    expected = {
        "pfe.SA_layers.0.mlps.0.0.weight": (16, 19, 1, 1),
        "pfe.SA_layers.3.mlps.1.3.weight": (64, 64, 1, 1),
        "pfe.SA_layers.3.mlps.1.4.running_mean": (64,),
        "pfe.SA_rawpoints.mlps.0.0.weight": (16, 4, 1, 1),
        "pfe.vsa_point_feature_fusion.0.weight": (128, 640),
        "pfe.vsa_point_feature_fusion.1.num_batches_tracked": (),
        "point_head.cls_layers.0.weight": (256, 640),
        "point_head.cls_layers.6.weight": (1, 256),
        "point_head.cls_layers.6.bias": (1,),
        "roi_head.roi_grid_pool_layer.mlps.1.0.weight": (64, 131, 1, 1),
        "roi_head.shared_fc_layer.0.weight": (256, 27648, 1),
        "roi_head.shared_fc_layer.4.weight": (256, 256, 1),
        "roi_head.cls_layers.4.weight": (256, 256, 1),
        "roi_head.cls_layers.7.weight": (1, 256, 1),
        "roi_head.reg_layers.7.bias": (7,),
    }
    assert {name: state.get(name) for name in expected} == expected
    added = [name for name in state if name.split(".")[0] in ("pfe", "point_head", "roi_head")]
    assert len(added) == 6 * (2 * 10 + 1 + 2 + 4 + 6) + 2 * 3  # 6 tensors per normalised layer, 2 per last layer


def test_overfits_a_frame_and_finds_its_boxes() -> None:
    model = small_model()
    batch = batch_of(model, frame("0", LABELS))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(0)
    history = []
    for _ in range(45):
        optimizer.zero_grad()
        outcome = model(batch, generator)
        outcome.total.backward()
        optimizer.step()
        history.append({name: float(value) for name, value in outcome.terms.items()})
    assert history[-1]["loss"] < 0.1 * history[0]["loss"]
    assert history[-1]["loss_point"] < 0.2 * history[0]["loss_point"]
    assert max(step["loss_roi_box"] for step in history) > 0  # the first stage got so far that the second could learn
    evaluated = with_reestimated_batch_norm(model, [batch], device="cpu", count=1)
    assert isinstance(evaluated, PVRCNN)
    (found,) = evaluated.predict(batch)
    assert (np.diff(found.scores) <= 0).all()
    for box, name in zip(BOXES, NAMES, strict=True):
        same = [i for i, other in enumerate(found.boxes.names) if other == name]
        distances = np.linalg.norm(found.boxes.boxes[same, :3] - box[:3], axis=1)
        nearest = found.boxes.boxes[same[int(distances.argmin())]]
        assert nearest[:6] == pytest.approx(box[:6], abs=0.35)


@pytest.mark.parametrize("kind", ["objects", "no object", "a frame without a point", "nothing at all"])
def test_every_parameter_gets_a_gradient(kind: str) -> None:
    model = small_model()
    nobody = Boxes3D.empty()
    frames = {
        "objects": [frame("0", LABELS), frame("1", LABELS)],
        "no object": [frame("0", nobody), frame("1", nobody)],
        "a frame without a point": [frame("0", LABELS), frame("1", LABELS, points=False)],
        "nothing at all": [frame("0", nobody, points=False)],
    }[kind]
    outcome = model(batch_of(model, *frames), torch.Generator().manual_seed(0))
    outcome.total.backward()
    assert all(bool(value.isfinite()) for value in outcome.terms.values())
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.isfinite().all()), name


def test_a_step_repeats_bit_by_bit() -> None:
    model = small_model()
    batch = batch_of(model, frame("0", LABELS))
    a, b, c = (model(batch, torch.Generator().manual_seed(seed)).terms["loss_roi_cls"] for seed in (5, 5, 6))
    assert float(a) == float(b)
    assert float(a) != float(c)


def test_frames_do_not_see_each_other() -> None:
    model = small_model(score_threshold=0.0).eval()
    one, other = frame("0", LABELS), frame("1", LABELS)
    cloud = other.cloud.points.copy()
    cloud[:, 1] *= -1
    other = LidarFrame("1", PointCloud(cloud), LABELS)
    together = model.predict(batch_of(model, one, other))
    for single, found in zip((one, other), together, strict=True):
        (alone,) = model.predict(batch_of(model, single))
        assert len(alone) == len(found) > 0
        np.testing.assert_allclose(found.scores, alone.scores, atol=1e-4)


def test_a_frame_without_a_point_has_no_detection() -> None:
    model = small_model(score_threshold=0.0).eval()
    found = model.predict(batch_of(model, frame("0", LABELS), frame("1", LABELS, points=False)))
    assert len(found[0]) > 0
    assert len(found[1]) == 0
    assert [len(one) for one in model.predict(batch_of(model, frame("0", LABELS, points=False)))] == [0]


def test_every_device_says_the_same_about_given_proposals(placement: torch.device) -> None:
    model = small_model().eval()
    batch = batch_of(model, frame("0", LABELS))
    rois, frames = torch.from_numpy(BOXES) + 0.1, torch.zeros(3, dtype=torch.int64)
    results = []
    for device in (torch.device("cpu"), placement):
        model.to(device)
        stage = model.first_stage(batch.to(device))
        points = FeaturePoints(stage.keypoints.xyz, stage.keypoints.frames, stage.keypoints.features)
        outputs = model.roi_head(rois.to(device), frames.to(device), points)
        results.append([t.detach().cpu() for t in (stage.keypoints.xyz, stage.logits, *outputs)])
    for expected, actual in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_proposals_are_the_best_boxes_of_the_first_stage() -> None:
    model = small_model().eval()
    stage = model.first_stage(batch_of(model, frame("0", LABELS)))
    (found,) = model.proposals(stage.anchors, PREDICTION)
    assert 1 < len(found.boxes) <= 100
    assert torch.equal(found.scores, found.scores.sort(descending=True).values)
    assert float(found.scores[0].detach()) == float(stage.anchors.classes.max().detach())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(rois_per_frame=0), "PVRCNN: rois_per_frame=0 must be at least 1"),
        (dict(keypoints=0), "keypoints=0 must be at least 1"),
        (dict(roi_grid_size=0), "roi_grid_size=0 must be at least 1"),
        (dict(dropout=1.5), "dropout=1.5 must be at least 0"),
        (dict(direction_offset=9.0), "direction_offset=9.0 must be an angle in radians"),
        (dict(classes=[]), "PVRCNN: classes is empty"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small_model(**options)
