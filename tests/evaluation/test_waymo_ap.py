from __future__ import annotations

import numpy as np
import pytest

from adperception.evaluation.waymo_ap import WaymoAP
from adperception.registry import EVALUATIONS, build
from adperception.structures import Boxes3D, Detections

BOXES = Boxes3D(np.float32([[10, 0, 0, 4, 2, 1.5, 0], [40, 5, 0, 4, 2, 1.5, 1]]), ("Vehicle", "Vehicle"))


class TwoFrames:
    """The same two vehicles in frame a, nothing in frame b."""

    frame_ids = ("a", "b")

    def read_ground_truth(self, index: int):
        return (BOXES, np.array([1, 2])) if index == 0 else (Boxes3D.empty(), np.zeros(0, dtype=np.int64))


def bound() -> WaymoAP:
    evaluation = build(EVALUATIONS, dict(type="WaymoAP"))
    evaluation.bind(TwoFrames())
    return evaluation


def test_score_and_report() -> None:
    evaluation = bound()
    metrics = evaluation.score({"b": Detections.empty(), "a": Detections(BOXES, np.float32([0.9, 0.8]))})
    assert metrics["Vehicle_L2_APH"] == pytest.approx(100)
    assert set(evaluation.headline) <= set(metrics)
    rows = [line.split() for line in evaluation.report(metrics).splitlines()]
    assert ["Vehicle", "30-50m", "n/a", "n/a", "100.00", "100.00"] in rows
    assert ["Cyclist", "overall", *["n/a"] * 4] in rows
    assert ["mean", "overall", *["100.00"] * 4] in rows


def test_a_zero_is_explained() -> None:
    evaluation = bound()
    swapped = Boxes3D(BOXES.boxes[:, [1, 0, 2, 3, 4, 5, 6]], BOXES.names)
    text = evaluation.report(evaluation.score({"a": Detections(swapped, np.float32([0.9, 0.8]))}))
    assert "Vehicle: no prediction above IoU 0.1 overlaps any ground truth" in text


def test_errors() -> None:
    with pytest.raises(ValueError, match="frame z, which the dataset does not have"):
        bound().score({"z": Detections.empty()})
    with pytest.raises(ValueError, match="levels of difficulty, which object does not have"):
        WaymoAP().bind(object())
    with pytest.raises(ValueError, match="between 0 and 1"):
        WaymoAP(classes={"Vehicle": 70})
