from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

from adperception.evaluation.batch_norm_statistics import with_reestimated_batch_norm
from adperception.models.detectors.second import SECOND
from adperception.models.heads.anchor_head import AnchorOutputs
from adperception.models.heads.labelled_boxes import LabelledBoxes
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


def small_second(**options: Any) -> SECOND:
    small = dict(bev_layers=[1, 1], bev_filters=[32, 32], bev_upsample_filters=[32, 32])
    return SECOND(**{"point_cloud_range": RANGE, "voxel_size": SIZE, "classes": CLASSES, **small, **options})


def frame(name: str, boxes: Boxes3D | None, empty: bool = False) -> LidarFrame:
    """Points on a ground plane and on the surfaces of the boxes."""
    rng = np.random.default_rng(0)
    ground = rng.uniform([0, -6.4, -1.8, 0.1], [12.8, 6.4, -1.7, 0.2], size=(600, 4))
    clouds = [ground]
    for x, y, z, length, width, height, yaw in boxes.boxes if boxes is not None else ():
        local = rng.uniform(-0.5, 0.5, size=(200, 3))
        local[np.arange(200), rng.integers(0, 3, 200)] = rng.choice([-0.5, 0.5], 200)
        local *= [length, width, height]
        turned = np.stack(
            [
                local[:, 0] * np.cos(yaw) - local[:, 1] * np.sin(yaw),
                local[:, 0] * np.sin(yaw) + local[:, 1] * np.cos(yaw),
            ]
        )
        front = 0.4 + 0.5 * (local[:, 0] > 0)  # the front is brighter, so that the direction shows
        clouds.append(np.column_stack([turned[0] + x, turned[1] + y, local[:, 2] + z, front]))
    points = np.concatenate(clouds)[: 0 if empty else None]
    return LidarFrame(name, PointCloud(points.astype(np.float32)), boxes)


def batch_of(model: SECOND, *frames: LidarFrame) -> LidarBatch:
    return model.collate(training=True)(frames)


def test_overfits_a_frame_and_finds_its_boxes() -> None:
    model = small_second()
    batch = batch_of(model, frame("0", Boxes3D(BOXES, NAMES)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(50):
        optimizer.zero_grad()
        outcome = model(batch)
        outcome.total.backward()
        optimizer.step()
        losses.append(float(outcome.total.detach()))
    assert losses[-1] < 0.02 * losses[0]
    evaluated = with_reestimated_batch_norm(model, [batch], device="cpu", count=1)
    assert isinstance(evaluated, SECOND)
    (found,) = evaluated.predict(batch)
    found = found.select(np.flatnonzero(found.scores > 0.3))
    assert sorted(found.boxes.names) == sorted(NAMES)
    for box, name in zip(BOXES, NAMES, strict=True):
        nearest = int(np.linalg.norm(found.boxes.boxes[:, :3] - box[:3], axis=1).argmin())
        assert found.boxes.names[nearest] == name
        other = found.boxes.boxes[nearest]
        assert other[:6] == pytest.approx(box[:6], abs=0.15)
        assert np.cos(other[6] - box[6]) > 0.98  # front and back included
    assert (np.diff(found.scores) <= 0).all()


@pytest.mark.parametrize("kind", ["no object", "no known object", "no point", "nothing at all"])
def test_every_parameter_gets_a_gradient(kind: str) -> None:
    model = small_second()
    boxes = Boxes3D(BOXES, NAMES)
    frames = {
        "no object": [frame("0", Boxes3D.empty()), frame("1", Boxes3D.empty())],
        "no known object": [frame("0", Boxes3D(BOXES, ("Van",) * 3))],
        "no point": [frame("0", boxes), frame("1", boxes, empty=True)],
        "nothing at all": [frame("0", Boxes3D.empty(), empty=True)],
    }[kind]
    outcome = model(batch_of(model, *frames))
    outcome.total.backward()
    assert bool(outcome.total.isfinite())
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.isfinite().all()), name
    if kind != "no point":
        assert float(outcome.terms["loss_box"]) == float(outcome.terms["loss_direction"]) == 0
    assert float(outcome.terms["loss_cls"]) > 0


def test_unknown_names_change_nothing() -> None:
    model = small_second()
    known, mixed = Boxes3D(BOXES, NAMES), Boxes3D(np.concatenate([BOXES, BOXES]), (*NAMES, "Van", "Misc", "Tram"))
    twin = copy.deepcopy(model)
    cloud = frame("0", known).cloud
    a, b = (
        float(m(batch_of(m, LidarFrame("0", cloud, boxes))).total.detach())
        for m, boxes in ((model, known), (twin, mixed))
    )
    assert a == b


def test_a_frame_without_a_point_has_no_detection() -> None:
    model = small_second(score_threshold=0.0).eval()
    full, empty = frame("0", None), frame("1", None, empty=True)
    found = model.predict(model.collate(training=False)([empty, full, empty]))
    assert [len(f) > 0 for f in found] == [False, True, False]
    assert len(model.predict(model.collate(training=False)([empty]))[0]) == 0


def test_labels_are_needed_for_training_only() -> None:
    model = small_second()
    batch = batch_of(model, frame("000008", None))
    with pytest.raises(ValueError, match="000008: at least one has no labels"):
        model(batch)
    assert len(model.eval().predict(batch)) == 1


@pytest.mark.parametrize(("name", "count"), [("second_kitti", 5_325_576), ("second_once", 5_360_460)])
def test_parameter_counts(name: str, count: int) -> None:
    model = create_model(name)
    assert sum(p.numel() for p in model.parameters()) == count
    assert not [key for key in model.state_dict() if "anchors" in key]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": [{**CLASSES[0], "bottom_z": 1}]}, r"SECOND: classes\[0\].*bottom_z"),
        ({"score_threshold": 2}, "score_threshold=2 must lie between 0 and 1"),
        ({"bev_filters": [32]}, r"filters=\[32\]"),
        (
            {"point_cloud_range": [0.0, -6.4, -3.0, 12.0, 6.4, 1.0]},
            "SECOND: 120 voxels along x are not a multiple of 16.*Change point_cloud_range along x",
        ),
    ],
)
def test_bad_values_name_the_option(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small_second(**options)


@pytest.mark.parametrize("offset", [-np.pi / 2, 0.0])
def test_losses_and_boxes_use_the_same_direction_bins(offset: float) -> None:
    """Outputs that a loss of nothing asks for decode to the labelled headings."""
    head = small_second(direction_offset=offset).dense_head
    targets = head.targets([LabelledBoxes(torch.from_numpy(BOXES), torch.tensor([0, 0, 1]))])
    wanted = targets.boxes[:, 6]
    bins = ((wanted - offset) % (2 * np.pi) / np.pi).long()
    anchors = targets.labels.shape[1]
    codes, directions = torch.zeros(1, anchors, 7), torch.zeros(1, anchors, 2)
    codes[0, targets.positives] = head.target_codes(targets)
    directions[0, targets.positives, bins] = 50.0
    outputs = AnchorOutputs(torch.zeros(1, anchors, 2), codes, directions)
    assert float(head.losses(outputs, targets)["loss_direction"]) < 1e-6
    yaw = head.decode(outputs)[0, targets.positives, 6]
    assert len(set(bins.tolist())) == 2
    assert torch.allclose((yaw - wanted).cos(), torch.ones_like(yaw))


def test_a_direction_offset_in_degrees_is_refused() -> None:
    with pytest.raises(ValueError, match="direction_offset=-90 must be an angle in radians"):
        small_second(direction_offset=-90)
