from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from adperception.datasets.formats.kitti_label import KittiObject, read_labels
from adperception.evaluation.kitti_precision import DIFFICULTIES, kitti_average_precision, kitti_thresholds
from adperception.evaluation.kitti_results import read_kitti_results


def car(x: float = 0.0, *, score: float | None = None, height_2d: float = 60.0, **changes) -> KittiObject:
    """A car 20 m ahead, x metres to the right."""
    left = 500 + 35 * x
    box = (left, 150.0, left + 100, 150 + height_2d)
    made = KittiObject("Car", 0.0, 0, 0.1, box, (1.5, 1.6, 4.0), (x, 1.6, 20.0), 0.1, score)
    return replace(made, **changes)


def row(count: int, score: float | None = None) -> list[KittiObject]:
    """Cars side by side, scores falling from left to right."""
    return [car(6.0 * k, score=None if score is None else score - 0.001 * k) for k in range(count)]


def evaluate(labels, detections, classes=("Car",)):
    return kitti_average_precision([labels], [detections], classes)


@pytest.mark.golden
def test_strict_overlaps_equal_the_reference(golden: Path) -> None:
    metrics, expected = golden_metrics(golden), json.loads((golden / "kitti_eval/expected_ap.json").read_text())
    assert len(expected) == 72
    for key, value in expected.items():
        name, metric, difficulty, r40 = re.fullmatch(r"(\w+)_(\w+)/([a-z]+)(_R40)?", key).groups()
        ours = metrics[f"{name}_{metric.replace('image', 'bbox')}_{'R40' if r40 else 'R11'}_{difficulty}"]
        assert ours == pytest.approx(value, abs=1e-6), key


@pytest.mark.golden
def test_loose_overlaps_equal_the_printed_digits(golden: Path) -> None:
    metrics = golden_metrics(golden)
    name = curve = ""
    compared = 0
    for line in (golden / "kitti_eval/expected_report.txt").read_text().splitlines():
        heading = re.fullmatch(r"(\w+) AP(_R40)?@([\d., ]+):", line)
        if heading:
            name, curve = heading[1], "R40" if heading[2] else "R11"
            loose = heading[3].split(", ")[0] != heading[3].split(", ")[1] or heading[3].endswith("0.25")
            continue
        metric, values = re.fullmatch(r"(\w+)\s+AP:(.*)", line).groups()
        for difficulty, text in zip(DIFFICULTIES, values.split(", "), strict=True):
            suffix = "_loose" if loose and metric in ("bev", "3d") else ""
            ours = metrics[f"{name}_{metric}{suffix}_{curve}_{difficulty}"]
            assert f"{ours:.{len(text.split('.')[1])}f}" == text
            compared += 1
    assert compared == 3 * 2 * 2 * 4 * 3


def golden_metrics(golden: Path) -> dict[str, float]:
    folder = golden / "kitti_eval"
    stems = sorted(path.stem for path in (folder / "label_2").glob("*.txt"))
    labels = [read_labels(folder / f"label_2/{stem}.txt") for stem in stems]
    return kitti_average_precision(labels, list(read_kitti_results(folder / "results", stems).values()))


def test_perfect_detections_reach_every_point_of_the_curve() -> None:
    metrics = evaluate(row(60), row(60, 0.9))
    for metric in ("bbox", "bev", "3d", "aos", "bev_loose", "3d_loose"):
        for curve in ("R11", "R40"):
            for difficulty in DIFFICULTIES:
                assert metrics[f"Car_{metric}_{curve}_{difficulty}"] == pytest.approx(100)
                assert metrics[f"mean_{metric}_{curve}_{difficulty}"] == pytest.approx(100)
    assert metrics["Car_best_3d_iou"] == pytest.approx(1)
    assert (metrics["Car_labels"], metrics["Car_predictions"]) == (60, 60)


def test_a_class_without_ground_truth_is_undefined_and_does_not_pull_the_mean() -> None:
    metrics = evaluate(row(60), row(60, 0.9), ("Car", "Cyclist"))
    assert math.isnan(metrics["Cyclist_3d_R40_moderate"])
    assert math.isnan(metrics["Cyclist_aos_R11_easy"])
    assert math.isnan(metrics["Cyclist_best_3d_iou"])
    assert metrics["mean_3d_R40_moderate"] == pytest.approx(100)


def test_only_the_missing_difficulty_is_undefined() -> None:
    metrics = evaluate([car(occlusion=1)], [car(score=0.9)])
    assert math.isnan(metrics["Car_3d_R11_easy"])
    assert metrics["Car_3d_R11_moderate"] > 0


def test_no_detections_is_zero() -> None:
    metrics = evaluate(row(3), [])
    assert metrics["Car_3d_R40_moderate"] == metrics["Car_aos_R11_easy"] == 0
    assert math.isnan(metrics["Car_best_3d_iou"])


def test_nothing_at_all() -> None:
    assert math.isnan(kitti_average_precision([], [])["mean_3d_R40_moderate"])
    assert math.isnan(evaluate([], [car(score=0.5)])["Car_3d_R40_moderate"])


def test_a_false_positive_above_all_true_ones_halves_precision_at_the_first_point() -> None:
    metrics = evaluate([car()], [car(score=0.5), car(30.0, score=0.9)])
    # One threshold, the true positive's score: precision 1/2 at recall point 0, the other points are not reached.
    assert metrics["Car_3d_R11_easy"] == pytest.approx(100 * 0.5 / 11)
    assert metrics["Car_3d_R40_easy"] == 0
    below = evaluate([car()], [car(score=0.9), car(30.0, score=0.5)])
    assert below["Car_3d_R11_easy"] == pytest.approx(100 / 11)


@pytest.mark.parametrize(
    ("labels", "detection"),
    [
        ([car(30.0, name="Van")], car(30.0, score=0.9)),  # a neighbouring class may be found
        ([car(30.0, occlusion=3)], car(30.0, score=0.9)),  # so may a car that is too hard
        ([car(30.0, truncation=0.6)], car(30.0, score=0.9)),
        ([car(30.0, height_2d=25.0)], car(30.0, score=0.9, height_2d=25.0)),  # 25 px: a label is too low,
        ([], car(30.0, score=0.9, height_2d=24.9)),  # and a detection below that
        ([], car(30.0, score=0.9, name="Pedestrian")),  # other classes are not looked at
    ],
)
def test_what_is_ignored_counts_neither_way(labels: list[KittiObject], detection: KittiObject) -> None:
    alone = evaluate([car()], [car(score=0.5)])
    metrics = evaluate([car(), *labels], [detection, car(score=0.5)])
    for difficulty in ("moderate", "hard"):
        for metric in ("bbox", "3d", "aos"):
            assert metrics[f"Car_{metric}_R11_{difficulty}"] == alone[f"Car_{metric}_R11_{difficulty}"]


def test_a_truck_is_no_neighbour_of_a_car() -> None:
    metrics = evaluate([car(), car(30.0, name="Truck")], [car(score=0.5), car(30.0, score=0.9)])
    assert metrics["Car_3d_R11_easy"] == pytest.approx(100 * 0.5 / 11)


def test_dont_care_areas_excuse_in_2d_only() -> None:
    detection = car(30.0, score=0.9)
    left, top, right, bottom = detection.box_2d
    area = car(name="DontCare", box_2d=(left + 20, top, right + 300, bottom + 300), occlusion=-1, truncation=-1.0)
    metrics = evaluate([car(), area], [car(score=0.5), detection])
    assert metrics["Car_bbox_R11_easy"] == pytest.approx(100 / 11)  # covers 0.8 of the detection
    assert metrics["Car_3d_R11_easy"] == pytest.approx(100 * 0.5 / 11)
    small = replace(area, box_2d=(left + 40, top, right + 300, bottom + 300))  # covers 0.6
    assert evaluate([car(), small], [car(score=0.5), detection])["Car_bbox_R11_easy"] == pytest.approx(100 * 0.5 / 11)


def test_duplicates_are_false() -> None:
    metrics = evaluate([car()], [car(score=0.5), car(score=0.9)])
    # The first pass takes the higher score, so the threshold is 0.9 and the duplicate below it is not looked at.
    assert metrics["Car_3d_R11_easy"] == pytest.approx(100 / 11)
    two = evaluate([car(), car(30.0)], [car(score=0.9), car(score=0.8), car(30.0, score=0.7)])
    assert two["Car_3d_R40_easy"] == pytest.approx(100 * (2 / 3) / 40)


def test_orientation_weighs_true_positives() -> None:
    turned = car(score=0.9, alpha=0.1 + math.pi / 3)
    metrics = evaluate([car()], [turned])
    assert metrics["Car_aos_R11_easy"] == pytest.approx(100 * (1 + 0.5) / 2 / 11)
    assert metrics["Car_bbox_R11_easy"] == pytest.approx(100 / 11)
    unknown = evaluate([car()], [car(score=0.9, alpha=-10.0)])
    assert math.isnan(unknown["Car_aos_R11_easy"])
    assert unknown["Car_3d_R11_easy"] == pytest.approx(100 / 11)


def test_overlaps_follow_kittis_camera_frame() -> None:
    """The location is the middle of the bottom face; a turn about y goes from z (ahead) to x (right)."""
    found = evaluate([car()], [car(score=0.9, location=(0.0, 1.6 - 0.75, 20.0), dimensions=(0.75, 1.6, 4.0))])
    assert found["Car_best_3d_iou"] == pytest.approx(0.5)
    assert found["Car_bev_R11_easy"] == pytest.approx(100 / 11)
    # Along its heading (cos ry, -sin ry in x, z) half a length: IoU 1/3. The mirrored direction would give less.
    ry = 0.6
    along = (2 * math.cos(ry), 1.6, 20 - 2 * math.sin(ry))
    metrics = evaluate([car(rotation_y=ry)], [car(score=0.9, rotation_y=ry, location=along)])
    assert metrics["Car_best_3d_iou"] == pytest.approx(1 / 3)


def test_thresholds_lie_at_steps_of_recall() -> None:
    scores = np.arange(1, 401) / 400
    thresholds = kitti_thresholds(scores, 400)
    assert len(thresholds) == 41
    np.testing.assert_allclose(np.diff(thresholds), -10 / 400, atol=1.01 / 400)
    assert (thresholds[0], thresholds[-1]) == (1.0, 1 / 400)
    np.testing.assert_array_equal(kitti_thresholds(np.array([0.2, 0.9]), 10), [0.9, 0.2])
    assert len(kitti_thresholds(np.zeros(0), 10)) == 0


def test_errors_name_the_fault() -> None:
    with pytest.raises(ValueError, match=r"Bus.*it knows Car"):
        evaluate([], [], ("Bus",))
    with pytest.raises(ValueError, match="labels of 1 frames, but detections of 2"):
        kitti_average_precision([[]], [[], []])
    with pytest.raises(ValueError, match=r"frame number 0 has a detection without a score"):
        evaluate([car()], [car()])
