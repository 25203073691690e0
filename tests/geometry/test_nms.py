"""Suppression against a loop over shapely polygons."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
import shapely.affinity
import torch
from torch import Tensor

from adperception.geometry.nms import rotated_nms


def crowd(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """``n`` boxes around few objects, with many equal scores."""
    rng = np.random.default_rng(seed)
    objects = rng.uniform(-15, 15, (max(n // 10, 1), 2))[rng.integers(0, max(n // 10, 1), n)]
    boxes = np.zeros((n, 7))
    boxes[:, :2] = objects + rng.normal(0, 0.6, (n, 2))
    boxes[:, 3:6] = rng.uniform([3, 1.4, 1.4], [5, 2, 2], (n, 3))
    boxes[:, 6] = rng.uniform(-4, 4, n)
    return torch.from_numpy(boxes), torch.from_numpy(np.round(rng.uniform(0, 1, n), 1))


def nms_by_loop(boxes: Tensor, scores: Tensor, threshold: float, pre_max: int, post_max: int) -> list[int]:
    """The definition: best first, equal scores in their order; what overlaps a kept box too much goes."""
    shapes = []
    for x, y, _, length, width, _, yaw in boxes.tolist():
        upright = shapely.box(x - length / 2, y - width / 2, x + length / 2, y + width / 2)
        shapes.append(shapely.affinity.rotate(upright, yaw, use_radians=True))
    ranked = sorted(range(len(boxes)), key=lambda i: -float(scores[i]))[:pre_max]
    kept: list[int] = []
    for i in ranked:
        shared = [shapes[i].intersection(shapes[j]).area for j in kept]
        ious = [s / (shapes[i].area + shapes[j].area - s) for j, s in zip(kept, shared, strict=True)]
        if all(iou <= threshold for iou in ious):
            kept.append(i)
    return kept[:post_max]


@pytest.mark.parametrize("threshold", [0.01, 0.1, 0.7])
@pytest.mark.parametrize("limits", [(10_000, 10_000), (350, 40)])
def test_equals_a_loop_over_polygons(placement: torch.device, threshold: float, limits: tuple[int, int]) -> None:
    boxes, scores = crowd(600, seed=3)
    expected = nms_by_loop(boxes, scores, threshold, *limits)
    assert 20 < len(expected) < 600
    kept = rotated_nms(boxes.to(placement), scores.to(placement), threshold, pre_max=limits[0], post_max=limits[1])
    assert kept.device.type == placement.type
    assert kept.tolist() == expected


def test_an_iou_equal_to_the_threshold_stays() -> None:
    boxes = torch.tensor([[0.0, 0, 0, 2, 2, 1, 0], [1.0, 0, 0, 2, 2, 1, 0]])  # IoU 1/3
    scores = torch.tensor([0.1, 0.9])
    iou = float(torch.tensor(1 / 3))
    assert rotated_nms(boxes, scores, iou).tolist() == [1, 0]
    assert rotated_nms(boxes, scores, iou - 1e-6).tolist() == [1]


def test_equal_scores_keep_their_order() -> None:
    boxes = torch.zeros(3000, 7)
    boxes[:, 0] = torch.arange(3000) * 10.0
    boxes[:, 3:6] = 1.0
    assert rotated_nms(boxes, torch.ones(3000), 0.1, post_max=2500).tolist() == list(range(2500))


def test_chains_do_not_suppress_through_suppressed_boxes() -> None:
    boxes = torch.tensor([[x, 0, 0, 2, 2, 1, 0] for x in (0.0, 1.0, 2.0)])
    assert rotated_nms(boxes, torch.tensor([3.0, 2.0, 1.0]), 0.1).tolist() == [0, 2]


@pytest.mark.parametrize("n", [0, 1])
def test_hardly_any_boxes(n: int) -> None:
    assert rotated_nms(torch.ones(n, 7), torch.ones(n), 0.5).tolist() == list(range(n))
    assert rotated_nms(torch.ones(n, 7), torch.ones(n), 0.5, post_max=0).tolist() == []


def test_wrong_input_is_refused() -> None:
    with pytest.raises(ValueError, match=r"3 boxes but scores of shape \(2,\)"):
        rotated_nms(torch.ones(3, 7), torch.ones(2), 0.5)
    with pytest.raises(ValueError, match="pre_max=-1 is negative"):
        rotated_nms(torch.ones(3, 7), torch.ones(3), 0.5, pre_max=-1)
