from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from adperception.evaluation.batch_norm_statistics import with_reestimated_batch_norm
from adperception.geometry.rotated_iou import rotated_iou_3d
from adperception.models.detectors.centerpoint import CenterPoint
from adperception.structures import Boxes3D, LidarFrame, PointCloud
from adperception.zoo import create_model

RANGE, SIZE = [-6.4, -6.4, -2.0, 6.4, 6.4, 4.0], [0.1, 0.1, 0.15]
CLASSES = ["Vehicle", "Pedestrian"]
BOXES = np.array(
    [[-2.0, -2.0, 0.8, 4.0, 1.7, 1.5, 0.2], [3.0, 3.0, 0.8, 3.8, 1.6, 1.5, -1.9], [2.5, -3.2, 0.9, 0.8, 0.7, 1.7, 2.6]],
    dtype=np.float32,
)
NAMES = ("Vehicle", "Vehicle", "Pedestrian")


def small_centerpoint(**options: Any) -> CenterPoint:
    small = dict(bev_layers=[1, 1], bev_filters=[32, 32], bev_upsample_filters=[32, 32], in_channels=4)
    return CenterPoint(**{"point_cloud_range": RANGE, "voxel_size": SIZE, "classes": CLASSES, **small, **options})


def frame(name: str, boxes: Boxes3D | None, empty: bool = False) -> LidarFrame:
    """Points on a ground plane and inside the boxes."""
    rng = np.random.default_rng(0)
    clouds = [rng.uniform([-6.4, -6.4, -0.1, 0.1], [6.4, 6.4, 0.1, 0.2], size=(200, 4))]
    for x, y, z, length, width, height, yaw in boxes.boxes if boxes is not None else ():
        local = rng.uniform(-0.5, 0.5, size=(200, 3)) * [length, width, height]
        turned_x = local[:, 0] * np.cos(yaw) - local[:, 1] * np.sin(yaw)
        turned_y = local[:, 0] * np.sin(yaw) + local[:, 1] * np.cos(yaw)
        front = 0.4 + 0.5 * (local[:, 0] > 0)  # the front is brighter, so that the direction shows
        clouds.append(np.column_stack([turned_x + x, turned_y + y, local[:, 2] + z, front]))
    points = np.concatenate(clouds)[: 0 if empty else None]
    return LidarFrame(name, PointCloud(points.astype(np.float32)), boxes)


def test_overfits_a_frame_and_finds_its_boxes() -> None:
    model = small_centerpoint(nms_iou=0.1)
    batch = model.collate(training=True)([frame("0", Boxes3D(BOXES, NAMES))])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=5e-3, total_steps=60)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        outcome = model(batch)
        outcome.total.backward()
        optimizer.step()
        schedule.step()
        losses.append(float(outcome.total.detach()))
    assert losses[-1] < 0.05 * losses[0]
    evaluated = with_reestimated_batch_norm(model, [batch], device="cpu", count=1)
    assert isinstance(evaluated, CenterPoint)
    (found,) = evaluated.predict(batch)
    assert found.scores[2] > 0.3
    found = found.select([0, 1, 2])
    assert sorted(found.boxes.names) == sorted(NAMES)
    overlaps = rotated_iou_3d(torch.from_numpy(BOXES), torch.from_numpy(found.boxes.boxes))
    for box, name, overlap in zip(BOXES, NAMES, overlaps, strict=True):
        nearest = int(overlap.argmax())
        assert float(overlap[nearest]) > 0.35
        assert found.boxes.names[nearest] == name
        assert np.cos(found.boxes.boxes[nearest, 6] - box[6]) > 0.95


@pytest.mark.parametrize("kind", ["no object", "no point", "nothing at all"])
def test_every_parameter_gets_a_gradient(kind: str) -> None:
    model = small_centerpoint()
    boxes = Boxes3D(BOXES, NAMES)
    frames = {
        "no object": [frame("0", Boxes3D.empty()), frame("1", Boxes3D(BOXES, ("Sign",) * 3))],
        "no point": [frame("0", boxes), frame("1", boxes, empty=True)],
        "nothing at all": [frame("0", Boxes3D.empty(), empty=True)],
    }[kind]
    outcome = model(model.collate(training=True)(frames))
    outcome.total.backward()
    assert bool(outcome.total.isfinite())
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.isfinite().all()), name
    assert (float(outcome.terms["loss_box"]) > 0) == (kind == "no point")
    assert float(outcome.terms["loss_heatmap"]) > 0


def test_a_frame_without_a_point_has_no_detection() -> None:
    model = small_centerpoint(score_threshold=0.0).eval()
    batch = model.collate(training=False)([frame("0", None, empty=True), frame("1", None)])
    found = model.predict(batch)
    assert len(found[0]) == 0
    # Centres lie in the range, its borders included.
    assert len(found[1]) > 0
    assert (found[1].boxes.boxes[:, :3] >= np.float32(RANGE[:3])).all()
    assert (found[1].boxes.boxes[:, :3] <= np.float32(RANGE[3:])).all()


def test_at_most_top_k_boxes() -> None:
    batch = small_centerpoint().collate(training=False)([frame("0", None)])
    assert 0 < len(small_centerpoint(score_threshold=0.0, top_k=7).eval().predict(batch)[0]) <= 7


def test_parameter_count() -> None:
    assert sum(p.numel() for p in create_model("centerpoint_waymo").parameters()) == 5_775_803


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": []}, r"classes=\[\] must be one or more different names"),
        ({"classes": ["Vehicle", "Vehicle"]}, "must be one or more different names"),
        ({"classes": [dict(name="Vehicle")]}, "must be one or more different names"),
        ({"top_k": 0}, "top_k=0 must be at least 1"),
        ({"nms_iou": 7}, "nms_iou=7 must lie between 0 and 1"),
    ],
)
def test_bad_values_name_the_option(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small_centerpoint(**options)
