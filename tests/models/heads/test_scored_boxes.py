from __future__ import annotations

import pytest
import torch

from adperception.models.heads.scored_boxes import ScoredBoxes, Suppression


def found() -> ScoredBoxes:
    """Two overlapping boxes of different classes, one apart, one with a low score."""
    boxes = torch.tensor([0.0, 0.5, 20.0, 40.0])[:, None] * torch.eye(7)[0] + torch.tensor([0, 0, 0, 4, 2, 1.5, 0])
    return ScoredBoxes(boxes, torch.tensor([0.3, 0.8, 0.5, 0.05]), torch.tensor([0, 1, 0, 1]))


def test_the_better_of_overlapping_boxes_whatever_its_class() -> None:
    kept = Suppression(score_threshold=0.1, nms_iou=0.5, nms_pre_max=100, nms_post_max=10)(found())
    assert kept.scores.tolist() == pytest.approx([0.8, 0.5])
    assert kept.labels.tolist() == [1, 0]
    assert kept.boxes[:, 0].tolist() == [0.5, 20.0]


def test_limits() -> None:
    assert len(Suppression(0.0, 1.0, 100, 100)(found()).scores) == 4
    assert Suppression(0.0, 1.0, 3, 100)(found()).scores.tolist() == pytest.approx([0.8, 0.5, 0.3])
    assert Suppression(0.0, 1.0, 100, 1)(found()).scores.tolist() == pytest.approx([0.8])
    assert len(Suppression(0.9, 0.5, 100, 100)(found()).scores) == 0


def test_detections_have_names() -> None:
    detections = found().to_detections(["Car", "Cyclist"])
    assert detections.boxes.names == ("Car", "Cyclist", "Car", "Cyclist")
    assert detections.scores.tolist() == pytest.approx([0.3, 0.8, 0.5, 0.05])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((1.1, 0.5, 10, 10), "score_threshold=1.1"),
        ((0.1, -0.5, 10, 10), "nms_iou=-0.5"),
        ((0.1, 0.5, 0, 10), "nms_pre_max=0"),
        ((0.1, 0.5, 10, 0), "nms_post_max=0"),
    ],
)
def test_impossible_values(values: tuple[float, float, int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Suppression(*values)
