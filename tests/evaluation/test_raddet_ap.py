"""RADDet's rule, against small cases worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from adperception.evaluation.raddet_ap import RADDetAP, box_overlaps, suppress_overlapping
from adperception.models.base import Losses
from adperception.models.radar.base import RadarModel, RadarPrediction
from adperception.structures import CARRADA_GRID, RadarBatch, RadarFrame, RadarObjects

NAMES = ("person", "car")


def objects(*rows: Sequence[float]) -> RadarObjects:
    """Rows of class id, score, three centre cells, three sizes."""
    table = np.array(rows, dtype=np.float32).reshape(-1, 8)
    return RadarObjects(table[:, 2:5], table[:, 5:], table[:, 0].astype(np.int64), table[:, 1])


def dataset(**more: Any) -> Any:
    return SimpleNamespace(frame_ids=["f"], class_names=NAMES, grid=CARRADA_GRID, label_axis="sin", **more)


def metrics(*frames: tuple[RadarObjects, RadarObjects], **options: Any) -> dict[str, float]:
    """Of pairs of found and true objects."""
    evaluation = RADDetAP(**options)
    evaluation.bind(dataset())
    score = evaluation.score()
    for number, (found, truth) in enumerate(frames):
        score.add(f"f{number}", RadarPrediction(objects=found), None, truth)
    return score.metrics()


def test_overlap_of_boxes() -> None:
    one = np.array([[10, 10, 10, 4, 4, 4.0]])
    others = np.array([[10, 10, 10, 4, 4, 4], [12, 10, 10, 4, 4, 4], [14, 10, 10, 4, 4, 4], [11, 12, 10, 4, 4, 2.0]])
    np.testing.assert_allclose(box_overlaps(one, others), [[1, 32 / 96, 0, 12 / (64 + 32 - 12)]])
    wrapped = np.array([[10, 10, 0, 4, 4, 4], [10, 10, 63, 4, 4, 4.0]])
    assert box_overlaps(wrapped[:1], wrapped[1:]) == 0  # as published


def test_suppression_goes_by_score_and_spares_what_overlaps_only_what_is_gone() -> None:
    boxes = np.array([[r, 0, 0, 4, 4, 4.0] for r in (0, 2, 4)])
    assert suppress_overlapping(boxes, np.array([0.7, 0.8, 0.9]), 0.1).tolist() == [2, 0]
    assert suppress_overlapping(boxes, np.array([0.7, 0.8, 0.9]), 0.4).tolist() == [2, 1, 0]


def test_mean_over_the_frames_and_over_the_classes_of_each() -> None:
    person, car = (1, 1, 50, 50, 20, 4, 4, 4), (2, 1, 90, 80, 40, 10, 10, 10)
    found_person, found_car = (1, 0.9, 50, 50, 20, 4, 4, 4), (2, 0.8, 90, 80, 40, 10, 10, 10)
    nowhere = (2, 0.95, 10, 10, 10, 10, 10, 10)
    out = metrics(
        (objects(found_person), objects(person, car)),  # person found, car missed: 50 %
        (objects(nowhere, found_car), objects(car)),  # false alarm first: precision 1/2
        (objects(nowhere), objects(person)),  # a false car in a frame without cars counts for nothing: 0 % for person
        (objects(nowhere), objects()),  # no truth: left out
    )
    for threshold in ("0.1", "0.3", "0.5", "0.7"):
        assert out[f"AP_iou_{threshold}"] == pytest.approx((50 + 50 + 0) / 3)
        assert out[f"person_AP_iou_{threshold}"] == pytest.approx(50)
        assert out[f"car_AP_iou_{threshold}"] == pytest.approx(25)
    assert out["frames_with_boxes"] == 3
    assert out["car_found_boxes"] == 4


def test_thresholds_and_confidence() -> None:
    truth = objects((1, 1, 50, 50, 20, 4, 4, 4))
    shifted = objects((1, 0.9, 52, 50, 20, 4, 4, 4))  # IoU 1/3
    out = metrics((shifted, truth))
    assert [out[f"AP_iou_{t}"] for t in (0.1, 0.3, 0.5, 0.7)] == [100, 100, 0, 0]
    unsure = objects((1, 0.49, 50, 50, 20, 4, 4, 4))
    assert metrics((unsure, truth))["AP_iou_0.1"] == 0
    assert metrics((unsure, truth), confidence=0.4)["AP_iou_0.1"] == 100


def test_a_second_detection_of_the_same_truth_is_false_even_if_another_truth_is_near() -> None:
    truth = objects((1, 1, 50, 50, 20, 4, 4, 4), (1, 1, 50, 53, 20, 4, 4, 4))
    # Both detections overlap the first truth most.
    found = objects((1, 0.9, 50, 50, 20, 4, 4, 4), (1, 0.8, 51, 51, 20, 4, 4, 4))
    out = metrics((found, truth), nms_iou=1.0)
    assert out["AP_iou_0.1"] == 50
    assert metrics((found, truth))["person_found_boxes"] == 1  # suppressed


def test_without_truth_of_a_class_there_is_no_figure() -> None:
    out = metrics((objects(), objects((1, 1, 5, 5, 5, 1, 1, 1))))
    assert np.isnan(out["car_AP_iou_0.5"])
    assert out["person_AP_iou_0.5"] == 0
    assert np.isnan(metrics((objects(), objects()))["AP_iou_0.5"])


def test_detections_without_a_size_get_that_of_their_class() -> None:
    found, truth = objects((2, 0.9, 50, 50, 20, 0, 0, 0)), objects((2, 1, 50, 50, 20, 4, 4, 4))
    out = metrics((found, truth), class_sizes={"car": (4, 4, 4)})
    assert out["AP_iou_0.7"] == 100
    assert out["boxes_of_usual_size"] == 1
    with pytest.raises(ValueError, match=r'f0: a detected car has no size.*class_sizes=\{"car"'):
        metrics((found, truth), class_sizes={"person": (1, 1, 1)})
    evaluation = RADDetAP()
    evaluation.bind(dataset(training_sizes=lambda: {"car": (4.0, 4.0, 8.0)}))
    score = evaluation.score()
    score.add("f", RadarPrediction(objects=found), None, truth)
    assert score.metrics()["AP_iou_0.5"] == 100
    assert score.metrics()["AP_iou_0.7"] == 0
    assert "1 detections had no size" in evaluation.report(score.metrics())


class Perfect(RadarModel):
    class_names = NAMES
    moments = 1

    def forward(self, batch: Any, generator: torch.Generator | None = None) -> Losses:
        raise NotImplementedError

    def predict(self, batch: RadarBatch) -> list[RadarPrediction]:
        assert batch.objects is not None
        return [RadarPrediction(objects=o) for o in batch.objects]


def test_as_an_evaluation_of_a_run() -> None:
    frames = [
        RadarFrame(f"p/{i}", CARRADA_GRID, objects=objects((1, 1, 50 + i, 50, 20, 4, 4, 4), (2, 1, 9, 9, 9, 2, 2, 2)))
        for i in range(3)
    ]
    evaluation = RADDetAP()
    evaluation.bind(dataset())
    assert evaluation.headline == ("AP_iou_0.1", "AP_iou_0.3", "AP_iou_0.5", "AP_iou_0.7")
    batches = [RadarBatch.from_frames(frames[:2]), RadarBatch.from_frames(frames[2:])]
    out = evaluation(Perfect(), batches, device=torch.device("cpu"), step=1)
    assert all(out[name] == 100 for name in evaluation.headline)
    assert "all, mean of frames  100.00  100.00  100.00  100.00" in evaluation.report(out)
    evaluation.rehearse(Perfect(), batches, device=torch.device("cpu"))


def test_senseless_use_is_refused() -> None:
    with pytest.raises(ValueError, match="must lie in"):
        RADDetAP(iou=(0.5, 1.5))
    with pytest.raises(ValueError, match="three positive numbers"):
        RADDetAP(class_sizes={"car": (1, 2)})
    evaluation = RADDetAP()
    evaluation.bind(dataset())
    with pytest.raises(ValueError, match="no labelled objects"):
        evaluation.score().add("f", RadarPrediction(objects=objects()), None, None)
    with pytest.raises(ValueError, match="only segments"):
        evaluation.score().add("f", RadarPrediction(), None, objects())
