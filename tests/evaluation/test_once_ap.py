from __future__ import annotations

import numpy as np
import pytest

from adperception.evaluation.once_ap import OnceAP
from adperception.registry import EVALUATIONS, build
from adperception.structures import Boxes3D, Detections

BOXES = Boxes3D(np.float32([[10, 0, 0, 4, 2, 1.5, 0], [40, 5, 0, 4, 2, 1.5, 1]]), ("Car", "Truck"))


class TwoFrames:
    frame_ids = ("a", "b")

    def __init__(self, labelled: bool = True) -> None:
        self.labelled = labelled

    def read_boxes(self, index: int) -> Boxes3D | None:
        return (BOXES, Boxes3D.empty())[index] if self.labelled else None


def bound(**options) -> OnceAP:
    evaluation = build(EVALUATIONS, dict(type="OnceAP", **options))
    evaluation.bind(TwoFrames())
    return evaluation


def test_score_and_report_say_the_rotation() -> None:
    predictions = {"b": Detections.empty(), "a": Detections(BOXES, np.float32([0.9, 0.8]))}
    evaluation = bound()
    metrics = evaluation.score(predictions)
    assert metrics["Vehicle_overall_AP"] == 100
    assert set(evaluation.headline) <= set(metrics)
    text = evaluation.report(metrics)
    assert ["Vehicle", "100.00", "100.00", "100.00", "n/a"] in [line.split() for line in text.splitlines()]
    assert 'rotation="released_evaluator"' in text
    assert "Cyclist: n/a" in text
    other = bound(rotation="counter_clockwise_yaw")
    assert 'rotation="counter_clockwise_yaw": overlaps with the true' in other.report(other.score(predictions))


def test_groups_from_a_config() -> None:
    evaluation = bound(
        classes=[dict(name="Truck", minimum_iou=0.5), dict(name="Any", minimum_iou=0.5, members=["Car"])]
    )
    metrics = evaluation.score({"a": Detections(BOXES, np.float32([0.9, 0.8]))})
    assert metrics["Truck_labels"] == metrics["Any_labels"] == 1


def test_errors() -> None:
    with pytest.raises(ValueError, match="frame a of TwoFrames has no labels"):
        OnceAP().bind(TwoFrames(labelled=False))
    with pytest.raises(ValueError, match="frame z, which the dataset does not have"):
        bound().score({"z": Detections.empty()})
    with pytest.raises(ValueError, match="needs a dataset"):
        OnceAP().bind(object())
    with pytest.raises(ValueError, match=r"ranges=\[50, 30\] must be ascending"):
        OnceAP(ranges=[50, 30])
    with pytest.raises(ValueError, match='rotation="left" is unknown'):
        OnceAP(rotation="left")
    with pytest.raises(ValueError, match="unknown key iou"):
        OnceAP(classes=[dict(name="Car", minimum_iou=0.5, iou=0.7)])
    with pytest.raises(ValueError, match="write dict"):
        OnceAP(classes=[dict(name="Car")])
    with pytest.raises(ValueError, match="between 0 and 1"):
        OnceAP(classes=[dict(name="Car", minimum_iou=70)])
