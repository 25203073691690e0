from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from adperception.evaluation.once_precision import (
    ROTATIONS,
    ClassGroup,
    once_average_precision,
    once_thresholds,
    range_names,
)
from adperception.evaluation.overlapping_pairs import BoxTable


def table(names: list[str], boxes: list[tuple[float, ...]], frames: list[int] | None = None) -> BoxTable:
    numbers = np.zeros(len(names), dtype=np.int64) if frames is None else np.array(frames)
    return BoxTable(numbers, np.array(names, dtype=np.str_), np.array(boxes, dtype=np.float64).reshape(-1, 7))


def car(x: float, y: float = 0.0, yaw: float = 0.0) -> tuple[float, ...]:
    return (x, y, 0.0, 4.0, 2.0, 1.5, yaw)


@pytest.mark.golden
@pytest.mark.parametrize("rotation", ROTATIONS)
def test_both_rotations_equal_the_reference(golden: Path, rotation: str) -> None:
    frames = json.loads((golden / "once_eval/frames.json").read_text())["frames"]

    def side(name: str) -> BoxTable:
        return table(
            [n for f in frames for n in f[name]["name"]],
            [b for f in frames for b in f[name]["boxes_3d"]],
            [k for k, f in enumerate(frames) for _ in f[name]["name"]],
        )

    scores = np.concatenate([np.array(f["pred"]["score"]) for f in frames])
    metrics = once_average_precision(side("gt"), side("pred"), scores, rotation=rotation)
    expected = json.loads((golden / "once_eval/expected_ap.json").read_text())[rotation]
    assert len(expected) == 16
    for key, value in expected.items():
        group, shell = key.removeprefix("AP_").split("/")
        assert metrics[f"{group}_{shell}_AP"] == pytest.approx(value, abs=1e-6), key


def test_perfect_predictions_score_100_even_with_few_labels() -> None:
    truth = table(["Car", "Bus", "Pedestrian"], [car(5), car(35), car(60)])
    metrics = once_average_precision(truth, truth, np.array([0.9, 0.8, 0.7]))
    assert metrics["Vehicle_overall_AP"] == metrics["Vehicle_0-30m_AP"] == metrics["Vehicle_30-50m_AP"] == 100
    assert metrics["Pedestrian_50m-inf_AP"] == 100
    assert math.isnan(metrics["Vehicle_50m-inf_AP"])
    assert math.isnan(metrics["Cyclist_overall_AP"])
    assert metrics["mean_overall_AP"] == 100
    nothing = once_average_precision(truth, table([], []), np.zeros(0))
    assert nothing["Vehicle_overall_AP"] == 0
    assert math.isnan(once_average_precision(table([], []), truth, np.ones(3))["Vehicle_overall_AP"])


@pytest.mark.parametrize(("error", "expected"), [(1.5, 100), (1.6, 0), (math.pi, 0), (2 * math.pi + 1.5, 100)])
def test_headings_more_than_90_degrees_apart_do_not_match(error: float, expected: float) -> None:
    square = (10.0, 0.0, 0.0, 2.0, 2.0, 1.5)
    metrics = once_average_precision(
        table(["Car"], [(*square, 0.0)]), table(["Car"], [(*square, error)]), np.array([0.9])
    )
    assert metrics["Vehicle_overall_AP"] == expected
    assert metrics["Vehicle_best_3d_iou"] > 0.7


def test_the_rotation_decides_which_neighbour_overlaps() -> None:
    """A box moved along its heading overlaps more than one moved across; clockwise boxes see it the other way round."""
    yaw = math.pi / 4
    along = car(10 + 0.5 * math.cos(yaw), 0.5 * math.sin(yaw), yaw)
    truth, found = table(["Car"], [car(10, 0, yaw)]), table(["Car"], [along])
    iou = {r: once_average_precision(truth, found, np.ones(1), rotation=r)["Vehicle_best_3d_iou"] for r in ROTATIONS}
    assert iou["counter_clockwise_yaw"] == pytest.approx(3.5 / 4.5)
    assert iou["released_evaluator"] == pytest.approx(1.5 / 2.5)
    with pytest.raises(ValueError, match='rotation="cw" is unknown'):
        once_average_precision(truth, found, np.ones(1), rotation="cw")


def test_ranges_ignore_what_lies_outside() -> None:
    truth = table(["Car", "Car"], [car(29.9), car(100)])
    found = table(["Car", "Car"], [car(30.1), car(100)])
    metrics = once_average_precision(truth, found, np.array([0.9, 0.8]))
    # The prediction just beyond the limit matches, but counts neither way; its label is missed only if nobody took it.
    assert metrics["Vehicle_0-30m_AP"] == 0
    assert math.isnan(metrics["Vehicle_30-50m_AP"])
    assert metrics["Vehicle_50m-inf_AP"] == 100


def test_own_groups_and_ranges() -> None:
    groups = [ClassGroup("REGULAR_VEHICLE", 0.5), ClassGroup("any", 0.5, ("REGULAR_VEHICLE", "BUS"))]
    truth = table(["REGULAR_VEHICLE", "BUS"], [car(5), car(120)])
    found = table(["REGULAR_VEHICLE", "REGULAR_VEHICLE"], [car(5), car(120)])
    metrics = once_average_precision(truth, found, np.array([0.9, 0.8]), groups, [50.0, 100.0])
    assert metrics["any_overall_AP"] == 100
    assert metrics["any_100m-inf_AP"] == 100
    assert metrics["REGULAR_VEHICLE_overall_AP"] == 100  # the false one has the lower score
    assert range_names([50.0, 100.0]) == ["overall", "0-50m", "50-100m", "100m-inf"]


def test_thresholds_stand_for_several_steps_where_matches_are_few() -> None:
    thresholds = once_thresholds(np.array([0.3, 0.9]), 2)
    assert len(thresholds) == 51
    # Recall 1/2 is nearer than recall 1 up to 3/4: steps 0 to 37.
    assert (thresholds == 0.9).sum() == 38
    assert len(once_thresholds(np.zeros(0), 3)) == 0
    many = once_thresholds(np.arange(1, 501) / 500, 500)
    assert len(many) == 51
    np.testing.assert_allclose(np.diff(many[:-1]), -10 / 500, atol=1.01 / 500)
