"""Radar segmentation: published check values on real masks, absent classes, refusals."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from adperception.evaluation.pixel_confusion import confusion_matrix, pixel_measures
from adperception.evaluation.radar_segmentation import RadarSegmentation, segmentation_metrics
from adperception.models.radar.base import CARRADA_CLASSES, RadarPrediction
from adperception.structures import CARRADA_GRID, RadarMasks

RD = [[34245784, 39007, 10283, 30693], [8016, 63146, 3791, 146], [1400, 5245, 9111, 41], [20338, 927, 3245, 63531]]
RA = [[137637072, 66606, 16346, 77419], [34659, 40935, 6402, 469], [5943, 7893, 3600, 170], [58734, 55, 1219, 61294]]


def bound(mvrss: bool = False) -> RadarSegmentation:
    evaluation = RadarSegmentation(mvrss=mvrss)
    dataset = SimpleNamespace(frame_ids=["a"], class_names=CARRADA_CLASSES, grid=CARRADA_GRID, label_axis="angle")
    evaluation.bind(dataset)
    return evaluation


def masks(range_doppler: list[int], range_angle: list[int]) -> RadarMasks:
    return RadarMasks(np.array([range_doppler], dtype=np.uint8), np.array([range_angle], dtype=np.uint8))


@pytest.mark.real_data
def test_tmva_net_on_the_carrada_test_split(real_data: Path) -> None:
    """Stored true masks and predictions of the published TMVA-Net, all 2,106 frames."""
    evaluation = bound()
    score = evaluation.score()
    with np.load(real_data / "radar/carrada/test_masks_and_tmvanet_predictions.npz", allow_pickle=False) as stored:
        for name in stored.files:
            if not (name.startswith("range_doppler__") and name.endswith("__gt")):
                continue
            sequence = name.removeprefix("range_doppler__").removesuffix("__gt")
            arrays = [
                stored[f"{view}__{sequence}__{what}"]
                for what in ("gt", "tmvanet_pred")
                for view in ("range_doppler", "range_angle")
            ]
            for frame, (true_rd, true_ra, found_rd, found_ra) in enumerate(zip(*arrays, strict=True)):
                found = RadarPrediction(RadarMasks(found_rd, found_ra))
                score.add(f"{sequence}/{frame:06d}", found, RadarMasks(true_rd, true_ra), None)
    assert score.matrices["rd"].tolist() == RD
    assert score.matrices["ra"].tolist() == RA
    metrics = score.metrics()
    assert metrics["frames"] == 2106
    assert metrics["frames_without_object"] == 715
    check_values(metrics)
    report = evaluation.report(metrics)
    assert "ra_label_axis): angle" in report
    assert "44.48" in report


def check_values(metrics: dict[str, float]) -> None:
    expected = {
        "rd_mean_iou": 58.279,
        "rd_mean_dice": 70.372,
        "ra_mean_iou": 41.322,
        "ra_mean_dice": 51.058,
        "rd_mean_iou_no_background": 44.478,
        "rd_mean_dice_no_background": 60.549,
        "ra_mean_iou_no_background": 21.825,
        "ra_mean_dice_no_background": 34.776,
        "rd_mean_precision": 64.9926,
        "rd_mean_recall": 78.4217,
        "ra_mean_precision": 48.1042,
        "ra_mean_recall": 55.1251,
        "rd_cyclist_iou": 27.5124,
        "ra_cyclist_dice": 15.9387,
        "mean_dice": (70.3716 + 51.0584) / 2,
        "mvrss_precision": (64.9926 + 48.1042) / 2,
    }
    assert {name: metrics[name] for name in expected} == pytest.approx(expected, abs=6e-4)


def test_check_values_follow_from_the_stored_matrices() -> None:
    """The same without the recordings: the published confusion matrices are enough for every measure."""
    check_values(segmentation_metrics({"rd": np.array(RD), "ra": np.array(RA)}, CARRADA_CLASSES))


def test_counts_are_pooled_over_frames_and_rows_are_true() -> None:
    score = bound().score()
    score.add("a", RadarPrediction(masks([1, 1, 0, 0], [0, 0])), masks([1, 0, 0, 0], [0, 0]), None)
    score.add("b", RadarPrediction(masks([0, 0, 0, 0], [0, 0])), masks([1, 1, 1, 0], [0, 0]), None)
    metrics = score.metrics()
    assert metrics["rd_pedestrian_iou"] == pytest.approx(20.0)  # 1 of 5; the mean over frames would be 25
    assert metrics["rd_pedestrian_precision"] == pytest.approx(50.0)
    assert metrics["rd_pedestrian_recall"] == pytest.approx(25.0)
    assert metrics["rd_pedestrian_as_background_pixels"] == 3
    assert metrics["rd_background_as_pedestrian_pixels"] == 1
    assert metrics["frames_without_object"] == 0


def test_absent_class_leaves_the_mean_and_stays_as_zero_with_mvrss() -> None:
    """A cyclist is predicted although there is none: n/a here, 0 by the published rule."""
    truth, found = masks([1, 1, 0, 0], [0, 3]), RadarPrediction(masks([1, 1, 2, 0], [0, 0]))
    ours, published = bound(), bound(mvrss=True)
    results = []
    for evaluation in (ours, published):
        score = evaluation.score()
        score.add("a", found, truth, None)
        results.append(score.metrics())
        assert evaluation.report(results[-1])
    assert math.isnan(results[0]["rd_cyclist_iou"])
    assert results[0]["rd_mean_iou"] == pytest.approx((50 + 100) / 2)
    assert results[0]["rd_mean_iou_no_background"] == pytest.approx(100)
    assert results[1]["rd_cyclist_iou"] == 0
    assert results[1]["rd_mean_iou"] == pytest.approx((50 + 100) / 4)
    assert results[0]["mvrss_precision"] == results[1]["mvrss_precision"] == pytest.approx((50 + 12.5) / 2)
    # A class that is there and never predicted has precision 0, not n/a: silence must not raise the mean.
    assert results[0]["ra_car_precision"] == 0
    assert "n/a and not in the means" in ours.report(results[0])
    assert "n/a" in ours.report(results[0]).splitlines()[4]


def test_no_object_anywhere() -> None:
    score = bound().score()
    score.add("a", RadarPrediction(masks([0, 0], [0, 0])), masks([0, 0], [0, 0]), None)
    metrics = score.metrics()
    assert metrics["rd_mean_iou"] == 100
    assert math.isnan(metrics["rd_mean_iou_no_background"])
    assert metrics["frames_without_object"] == 1


def test_refusals() -> None:
    score = bound().score()
    fine = masks([0, 0], [0, 0])
    with pytest.raises(ValueError, match=r"frame a/7, range_doppler: .*\(1, 3\).*\(1, 2\)"):
        score.add("a/7", RadarPrediction(masks([0, 0, 0], [0, 0])), fine, None)
    with pytest.raises(ValueError, match="range_angle: the predicted mask holds class ids 0 to 4"):
        score.add("a", RadarPrediction(masks([0, 0], [0, 4])), fine, None)
    with pytest.raises(ValueError, match="only detects"):
        score.add("a", RadarPrediction(None), fine, None)
    with pytest.raises(ValueError, match="frame a has no masks"):
        score.add("a", RadarPrediction(fine), None, None)
    with pytest.raises(ValueError, match=r"call bind\(dataset\) first"):
        RadarSegmentation().score()
    with pytest.raises(ValueError, match="needs a radar dataset; object"):
        RadarSegmentation().bind(object())


def test_confusion_matrix_of_many_classes() -> None:
    """Ids whose product does not fit a byte."""
    truth, predicted = np.array([19, 19, 0], dtype=np.uint8), np.array([19, 3, 0], dtype=np.uint8)
    matrix = confusion_matrix(truth, predicted, 20)
    assert matrix[19, 19] == matrix[19, 3] == matrix[0, 0] == 1
    assert matrix.sum() == 3
    assert pixel_measures(matrix).of["iou"][19] == pytest.approx(50)
