"""Radar centres: matching by hand, average precision by hand, errors in units, refusals."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest

from adperception.evaluation.center_matching import all_point_average_precision, circular_difference, match_centers
from adperception.evaluation.radar_detection import RadarDetection
from adperception.models.radar.base import CARRADA_CLASSES, RadarPrediction
from adperception.structures import CARRADA_GRID, RadarObjects


def objects(*rows: tuple[float, float, float, int, float]) -> RadarObjects:
    """(row, azimuth column, Doppler column, class id, score) each."""
    table = np.array(rows, dtype=np.float32).reshape(-1, 5)
    sizes = np.zeros((len(table), 3), dtype=np.float32)
    return RadarObjects(table[:, :3], sizes, table[:, 3].astype(np.int64), table[:, 4])


def bound(**options: float) -> RadarDetection:
    evaluation = RadarDetection(**options)
    evaluation.bind(SimpleNamespace(frame_ids=[], class_names=CARRADA_CLASSES, grid=CARRADA_GRID, label_axis="sin"))
    return evaluation


def test_tolerances_are_inclusive_and_doppler_wraps() -> None:
    truth = objects((100, 0, 0, 3, 1))
    for found, expected in [
        ((104, 200, 0, 3, 1), 0),  # the azimuth does not matter
        ((104.1, 0, 0, 3, 1), -1),
        ((96, 0, 2, 3, 1), 0),
        ((100, 0, 62, 3, 1), 0),  # two columns below 0
        ((100, 0, 61, 3, 1), -1),
        ((100, 0, 0, 1, 1), -1),
    ]:
        assert match_centers(objects(found), truth, 4, 2, 64).tolist() == [expected], found
    wide = circular_difference(np.array([1.0, 63.0, 32.0]), np.array([63.0, 1.0, 0.0]), 64)
    assert wide.tolist() == [2, -2, -32]


def test_the_best_score_chooses_first_and_each_truth_is_taken_once() -> None:
    truth = objects((100, 0, 30, 3, 1), (106, 0, 30, 3, 1))
    found = objects((103, 0, 30, 3, 0.5), (102, 0, 30, 3, 0.9), (101, 0, 30, 3, 0.7))
    # 0.9 takes the nearer one (100); 0.7 could only have that one; 0.5 gets the other.
    assert match_centers(found, truth, 4, 2, 64).tolist() == [1, 0, -1]
    assert match_centers(found, RadarObjects.empty(), 4, 2, 64).tolist() == [-1, -1, -1]
    assert match_centers(RadarObjects.empty(), truth, 4, 2, 64).tolist() == []


def test_average_precision_by_hand() -> None:
    scores, hits = np.array([0.9, 0.8, 0.7, 0.6]), np.array([True, False, True, False])
    # Precision 1 up to recall 1/3, then 2/3 up to recall 2/3, nothing beyond.
    assert all_point_average_precision(scores, hits, 3) == pytest.approx(1 / 3 + 2 / 9)
    assert all_point_average_precision(scores, np.array([False, True, True, True]), 3) == pytest.approx(0.75)
    equal = np.full(4, 0.5)
    assert all_point_average_precision(equal, hits, 2) == all_point_average_precision(equal, hits[::-1], 2) == 0.5
    assert all_point_average_precision(np.zeros(0), np.zeros(0, dtype=bool), 3) == 0
    assert math.isnan(all_point_average_precision(scores, hits, 0))


def test_metrics_in_metres_degrees_and_metres_per_second() -> None:
    score = bound(min_score=0.4).score()
    truth = objects((100, 128, 63, 3, 1), (50, 128, 20, 1, 1))
    found = objects((102, 192, 0, 3, 0.9), (51, 128, 21, 1, 0.3), (10, 0, 0, 3, 0.8))
    score.add("a", RadarPrediction(objects=found), None, truth)
    score.add("b", RadarPrediction(objects=objects((10, 0, 0, 2, 0.5))), None, RadarObjects.empty())
    score.add("c", RadarPrediction(objects=RadarObjects.empty()), None, RadarObjects.empty())
    metrics = score.metrics()
    assert metrics["car_center_AP"] == pytest.approx(100)
    assert metrics["pedestrian_center_AP"] == pytest.approx(100)  # below min_score, still in the AP
    assert math.isnan(metrics["cyclist_center_AP"])
    assert metrics["mean_center_AP"] == pytest.approx(100)
    assert metrics["pedestrian_center_recall"] == 0
    assert metrics["car_center_precision"] == pytest.approx(50)
    assert metrics["all_center_recall"] == pytest.approx(50)
    assert metrics["all_center_precision"] == pytest.approx(100 / 3)
    assert metrics["car_mean_range_error_m"] == pytest.approx(2 * 0.1953125)
    sine = 0.5 * 76.8 / 77
    assert metrics["car_median_azimuth_error_deg"] == pytest.approx(math.degrees(math.asin(sine)))
    assert metrics["car_median_velocity_error_mps"] == pytest.approx(0.4196803)
    assert metrics["all_mean_range_error_m"] == metrics["car_mean_range_error_m"]
    assert metrics["false_alarms_per_empty_frame"] == pytest.approx(0.5)
    assert metrics["empty_frames"] == 2
    report = bound(min_score=0.4).report(metrics)
    assert "within 4 range cells (0.78 m) and 2 Doppler cells (0.84 m/s)" in report
    assert "ra_label_axis): sin" in report
    assert "n/a" in report


def test_no_frame_with_objects() -> None:
    score = bound().score()
    score.add("a", RadarPrediction(objects=RadarObjects.empty()), None, RadarObjects.empty())
    metrics = score.metrics()
    assert math.isnan(metrics["mean_center_AP"])
    assert metrics["false_alarms_per_empty_frame"] == 0
    assert bound().report(metrics)


def test_refusals() -> None:
    score = bound().score()
    none = RadarObjects.empty()
    with pytest.raises(ValueError, match="frame a has no objects"):
        score.add("a", RadarPrediction(objects=none), None, None)
    with pytest.raises(ValueError, match="only segments"):
        score.add("a", RadarPrediction(None), None, none)
    with pytest.raises(ValueError, match="frame a: a found centre or score is not finite"):
        score.add("a", RadarPrediction(objects=objects((math.nan, 0, 0, 1, 1))), None, none)
    with pytest.raises(ValueError, match="found class ids 4 to 4; there are 1 to 3"):
        score.add("a", RadarPrediction(objects=objects((1, 0, 0, 4, 1))), None, none)
    with pytest.raises(ValueError, match="doppler_cells=0 must be positive"):
        RadarDetection(doppler_cells=0)
