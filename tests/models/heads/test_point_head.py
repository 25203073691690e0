from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from adperception.geometry import points_in_boxes
from adperception.models.heads.labelled_boxes import LabelledBoxes
from adperception.models.heads.point_head import PointHead, inside_boxes

CAR = torch.tensor([[10.0, 0.0, 0.0, 4.0, 2.0, 1.5, math.pi / 2]])  # length along y
NOBODY = LabelledBoxes(torch.zeros(0, 7), torch.zeros(0, dtype=torch.int64))


def test_inside_is_what_numpy_says() -> None:
    boxes = torch.cat([torch.randn(9, 3) * 2, torch.rand(9, 3) * 4 + 0.5, torch.randn(9, 1) * 3], dim=1)
    xyz = torch.randn(500, 3) * 3
    expected = points_in_boxes(xyz.numpy(), boxes.numpy())
    assert 100 < expected.sum() < 3000
    np.testing.assert_array_equal(inside_boxes(xyz, boxes).numpy().T, expected)


def test_inside_outside_and_in_between() -> None:
    xyz = torch.tensor([[10.0, 1.9, 0], [10, 2.05, 0], [10, 2.15, 0], [11.05, 0, 0], [10, 0, 0.8], [10, 1.9, 0]])
    frames = torch.tensor([0, 0, 0, 0, 0, 1])
    foreground, unclear = PointHead(8).targets(xyz, frames, [LabelledBoxes(CAR, torch.tensor([0])), NOBODY])
    assert foreground.tolist() == [True, False, False, False, False, False]
    assert unclear.tolist() == [False, True, False, True, True, False]


def test_loss_leaves_unclear_points_alone_and_divides_by_the_positives() -> None:
    head, objects = PointHead(8), [LabelledBoxes(CAR, torch.tensor([0]))]
    xyz = torch.tensor([[10.0, 0, 0], [10, 1, 0], [0, 0, 0], [10, 2.05, 0]])
    logits = torch.tensor([0.0, 0.0, 0.0, 5.0])
    loss = float(head.loss(logits, xyz, torch.zeros(4, dtype=torch.int64), objects))
    entropy = 0.25 * math.log(2)  # (1 - p) ** 2 * -log(p) at p = 1/2
    assert loss == pytest.approx((2 * 0.25 * entropy + 0.75 * entropy) / 2)
    assert float(head.loss(logits[:0], xyz[:0], torch.zeros(0, dtype=torch.int64), objects)) == 0
