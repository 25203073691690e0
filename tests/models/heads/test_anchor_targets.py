from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from adperception.models.heads.anchor_targets import BACKGROUND, IGNORED, AnchorTargets, assign_anchors
from adperception.models.heads.anchors import AnchorClass, make_anchors
from adperception.models.heads.labelled_boxes import LabelledBoxes
from adperception.structures import VoxelGrid

GRID = VoxelGrid.create([0, -4, -3, 8, 4, 1], [0.1, 0.1, 0.1])
CAR = AnchorClass("Car", (3.9, 1.6, 1.56), -1.78, 0.6, 0.45)
PEDESTRIAN = AnchorClass("Pedestrian", (0.8, 0.6, 1.73), -0.6, 0.5, 0.35)


def assign(
    anchors: Tensor, classes: Sequence[AnchorClass], frames: Sequence[LabelledBoxes], at_once: int | None = None
) -> AnchorTargets:
    pending = assign_anchors(anchors, classes, frames, at_once)
    return pending.known(int(pending.count))


def assign_by_loop(
    anchors: Tensor, classes: tuple[AnchorClass, ...], objects: LabelledBoxes
) -> tuple[list[int], dict[int, list[float]]]:
    """The readable twin: one anchor and one object after the other. Labels, and the object of each positive anchor."""
    flat = anchors.flatten(0, 1)  # (H * W, K, R, 7)
    labels: list[int] = []
    found: dict[int, list[float]] = {}
    for place in flat:
        for number, c in enumerate(classes):
            mine = [b for b, label in zip(objects.boxes, objects.labels, strict=True) if label == number]
            rivals = [flat[:, number].reshape(-1, 7)] * len(mine)
            best_of_object = [max(aligned_iou(a, b) for a in r) for r, b in zip(rivals, mine, strict=True)]
            for anchor in place[number]:
                overlaps = [aligned_iou(anchor, b) for b in mine]
                most = max(overlaps, default=0.0)
                forced = any(o == best > 0 for o, best in zip(overlaps, best_of_object, strict=True))
                if mine and (most >= c.matched_iou or forced):
                    found[len(labels)] = mine[overlaps.index(most)].tolist()
                    labels.append(number + 1)
                else:
                    labels.append(BACKGROUND if most < c.unmatched_iou else IGNORED)
    return labels, found


def aligned_iou(a: Tensor, b: Tensor) -> float:
    """In float32, as the vectorised version, so that ties are the same ties."""
    sides = []
    for box in (a, b):
        x, y, _, length, width, _, yaw = (np.float32(v) for v in box.tolist())
        off_axis = abs((float(yaw) + math.pi / 2) % math.pi - math.pi / 2)
        if off_axis >= math.pi / 4:
            length, width = width, length
        sides.append((x - length / 2, x + length / 2, y - width / 2, y + width / 2))
    (ax1, ax2, ay1, ay2), (bx1, bx2, by1, by2) = sides
    shared = max(min(ax2, bx2) - max(ax1, bx1), np.float32(0)) * max(min(ay2, by2) - max(ay1, by1), np.float32(0))
    union = (ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - shared
    return float(shared / max(union, np.float32(1e-6)))


def random_objects(seed: int, count: int) -> LabelledBoxes:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    boxes = np.zeros((count, 7), dtype=np.float32)
    boxes[:, :2] = rng.uniform([-1, -5], [9, 5], size=(count, 2))  # some stick out of the range, or lie outside
    sizes = np.array([CAR.size, PEDESTRIAN.size])[labels]
    boxes[:, 3:6] = sizes * rng.uniform(0.8, 1.2, size=(count, 3))
    boxes[:, 6] = rng.uniform(-7, 7, count)
    return LabelledBoxes(torch.from_numpy(boxes), torch.from_numpy(labels))


@pytest.mark.parametrize(("seed", "at_once"), [(0, 1), (1, 3), (2, 2)])
def test_equals_the_loop(seed: int, at_once: int) -> None:
    classes = (CAR, PEDESTRIAN)
    anchors = make_anchors(classes, GRID, (7, 9))
    frames = [random_objects(seed, count) for count in (9, 0, 4)]
    targets = assign(anchors, classes, frames, at_once)
    expected_positives = []
    for number, objects in enumerate(frames):
        labels, found = assign_by_loop(anchors, classes, objects)
        assert targets.labels[number].tolist() == labels
        expected_positives += [(number * len(labels) + k, box) for k, box in found.items()]
    assert targets.positives.tolist() == [k for k, _ in expected_positives]
    assert targets.boxes.tolist() == [box for _, box in expected_positives]
    assert len(expected_positives) > 10
    assert {-1, 0, 1, 2} == set(targets.labels.unique().tolist())


def test_every_anchor_that_ties_the_best_is_positive() -> None:
    """A small car exactly between two anchors overlaps both alike, and too little to be matched otherwise."""
    anchors = make_anchors((CAR,), GRID, (9, 9))  # 1 m apart
    box = torch.tensor([[4.5, 0.0, 0.0, 2.0, 1.0, 1.5, 0.0]])
    targets = assign(anchors, (CAR,), [LabelledBoxes(box, torch.tensor([0]))])
    places = anchors.view(-1, 7)[targets.positives]
    assert places[:, [0, 1, 6]].tolist() == [[4.0, 0.0, 0.0], [5.0, 0.0, 0.0]]
    assert targets.boxes.tolist() == box.tolist() * 2


def test_an_object_out_of_reach_forces_nothing() -> None:
    anchors = make_anchors((CAR,), GRID, (9, 9))
    box = torch.tensor([[50.0, 0.0, 0.0, 4.0, 1.6, 1.5, 0.0]])
    targets = assign(anchors, (CAR,), [LabelledBoxes(box, torch.tensor([0]))])
    assert not len(targets.positives)
    assert set(targets.labels.unique().tolist()) == {BACKGROUND}


def test_height_plays_no_part() -> None:
    anchors = make_anchors((CAR,), GRID, (9, 9))
    low = torch.tensor([[4.0, 0.0, -1.0, 3.9, 1.6, 1.5, 0.0]])
    high = low + torch.tensor([0, 0, 30.0, 0, 0, 0, 0])
    a, b = (assign(anchors, (CAR,), [LabelledBoxes(box, torch.tensor([0]))]) for box in (low, high))
    assert torch.equal(a.labels, b.labels)
