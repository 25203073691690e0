from __future__ import annotations

import itertools
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

from adperception.evaluation import waymo_precision
from adperception.evaluation.overlapping_pairs import BoxTable
from adperception.evaluation.waymo_precision import area_under_curve, waymo_average_precision


def table(rows: list[tuple[int, str, float, float]]) -> BoxTable:
    """Boxes of 4 x 2 x 1.5 m at (x, 0, 0) with a yaw: frame, name, x, yaw."""
    boxes = np.array([(x, 0, 0, 4, 2, 1.5, yaw) for _, _, x, yaw in rows]).reshape(-1, 7)
    return BoxTable(
        np.array([r[0] for r in rows], dtype=np.int64), np.array([r[1] for r in rows], dtype=np.str_), boxes
    )


def stored(golden: Path, repeat: int = 1) -> tuple[BoxTable, np.ndarray, BoxTable, np.ndarray]:
    frames = json.loads((golden / "waymo_eval/frames.json").read_text())["frames"] * repeat

    def side(name: str) -> BoxTable:
        return BoxTable(
            np.repeat(np.arange(len(frames)), [len(f[name]["name"]) for f in frames]),
            np.array([n for f in frames for n in f[name]["name"]]),
            np.concatenate([np.array(f[name]["boxes_3d"]).reshape(-1, 7) for f in frames]),
        )

    difficulty = np.concatenate([np.array(f["gt"]["difficulty"], dtype=np.int64) for f in frames])
    return side("gt"), difficulty, side("pred"), np.concatenate([np.array(f["pred"]["score"]) for f in frames])


@pytest.mark.golden
def test_every_number_of_the_official_metric(golden: Path) -> None:
    metrics = waymo_average_precision(*stored(golden))
    ranges = {None: "", "[0, 30)": "0-30m_", "[30, 50)": "30-50m_", "[50, +inf)": "50m-inf_"}
    pattern = re.compile(r"(?:OBJECT_TYPE|RANGE)_TYPE_([A-Z]+)(?:_(\[.*\)))?_LEVEL_(\d)/(APH?)")
    compared = 0
    for key, value in json.loads((golden / "waymo_eval/expected_ap.json").read_text()).items():
        match = pattern.fullmatch(key)
        if match and match[1] != "SIGN":
            ours = metrics[f"{match[1].title()}_{ranges[match[2]]}L{match[3]}_{match[4]}"]
            assert ours / 100 == pytest.approx(value, abs=1e-6), key
            compared += 1
    assert compared == 3 * 4 * 2 * 2


@pytest.mark.golden
def test_blocks_change_nothing(golden: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = waymo_average_precision(*stored(golden))
    monkeypatch.setattr(waymo_precision, "_BLOCK", 5)
    assert waymo_average_precision(*stored(golden)) == pytest.approx(whole, rel=1e-12, nan_ok=True)


def test_matching_is_the_one_of_largest_total_iou() -> None:
    """Two labels, two predictions. Greedy takes the best pair and leaves the rest; Hungarian matches both."""
    labels = table([(0, "Vehicle", 0.0, 0.0), (0, "Vehicle", 0.5, 0.0)])
    predictions = table([(0, "Vehicle", 0.45, 0.0), (0, "Vehicle", 1.0, 0.0)])
    # IoU of (0, 0.45) 0.80, (0, 1.0) 0.6, (0.5, 0.45) 0.975, (0.5, 1.0) 0.78
    metrics = waymo_average_precision(labels, np.array([1, 1]), predictions, np.array([0.9, 0.9]), {"Vehicle": 0.7})
    assert metrics["Vehicle_L1_AP"] == pytest.approx(100)


@pytest.mark.parametrize("seed", range(8))
def test_matching_equals_exhaustive_search(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = table([(f, "Vehicle", rng.uniform(0, 4), 0.0) for f in range(6) for _ in range(3)])
    predictions = table([(f, "Vehicle", rng.uniform(0, 4), 0.0) for f in range(6) for _ in range(4)])
    scores = rng.uniform(size=24).round(2).astype(np.float32)
    overlap = np.maximum(4 - np.abs(labels.boxes[:, None, 0] - predictions.boxes[None, :, 0]), 0)
    iou = overlap / (8 - overlap) * (labels.frames[:, None] == predictions.frames)
    i, j = np.nonzero(iou >= 0.5)
    group = waymo_precision._groups(i, j, 18, 24)
    order = np.lexsort((-iou[i, j], group))
    i, j, group = i[order], j[order], group[order]
    taken = waymo_precision._largest_matching(group, i, j, iou[i, j], scores[j])
    for cut in (0, 20, 50, 90):
        chosen = taken[:, cut]
        assert len(set(i[chosen])) == len(set(j[chosen])) == chosen.sum()
        total = sum(best_total(iou, f, scores >= np.float32(cut * 0.01)) for f in range(6))
        assert iou[i[chosen], j[chosen]].sum() == pytest.approx(total)


def best_total(iou: np.ndarray, frame: int, usable: np.ndarray) -> float:
    allowed = np.where((iou >= 0.5) & usable, iou, 0)[3 * frame : 3 * frame + 3, 4 * frame : 4 * frame + 4]
    return max(sum(allowed[k, c] for k, c in enumerate(columns)) for columns in itertools.permutations(range(4), 3))


def test_perfect_predictions_and_headings() -> None:
    rows = [(0, "Vehicle", 10.0 * k, 0.2) for k in range(8)]
    levels, scores = np.array([1, 2] * 4), np.full(8, 0.5)
    metrics = waymo_average_precision(table(rows), levels, table(rows), scores)
    for shell in ("", "0-30m_", "30-50m_", "50m-inf_"):
        assert metrics[f"Vehicle_{shell}L1_AP"] == metrics[f"Vehicle_{shell}L2_APH"] == pytest.approx(100)
    assert math.isnan(metrics["Pedestrian_L2_AP"])
    assert metrics["mean_L2_AP"] == pytest.approx(100)
    backwards = table([(f, n, x, yaw - math.pi) for f, n, x, yaw in rows])
    metrics = waymo_average_precision(table(rows), levels, backwards, scores)
    assert metrics["Vehicle_L2_AP"] == pytest.approx(100)
    assert metrics["Vehicle_L2_APH"] == pytest.approx(0, abs=1e-9)
    quarter = table([(f, n, x, yaw + math.pi / 2 + 2 * math.pi) for f, n, x, yaw in rows])
    square = BoxTable(quarter.frames, quarter.names, quarter.boxes * (1, 1, 1, 1, 2, 1, 1))
    truth = BoxTable(square.frames, square.names, table(rows).boxes * (1, 1, 1, 1, 2, 1, 1))
    assert waymo_average_precision(truth, levels, square, scores)["Vehicle_L1_APH"] == pytest.approx(50)


def test_a_missed_hard_object_costs_recall_at_level_2_only() -> None:
    labels = table([(0, "Vehicle", 0.0, 0.0), (0, "Vehicle", 20.0, 0.0)])
    predictions = table([(0, "Vehicle", 0.0, 0.0)])
    metrics = waymo_average_precision(labels, np.array([1, 2]), predictions, np.array([1.0]))
    assert metrics["Vehicle_L1_AP"] == pytest.approx(100)
    assert metrics["Vehicle_L2_AP"] == pytest.approx(50)
    only_hard = waymo_average_precision(labels, np.array([2, 2]), predictions, np.array([1.0]))
    assert math.isnan(only_hard["Vehicle_L1_AP"])


def test_sides_of_a_range_limit_do_not_match() -> None:
    labels, predictions = table([(0, "Vehicle", 29.9, 0.0)]), table([(0, "Vehicle", 30.1, 0.0)])
    metrics = waymo_average_precision(labels, np.array([1]), predictions, np.array([0.8]))
    assert metrics["Vehicle_L1_AP"] == pytest.approx(100)
    assert metrics["Vehicle_0-30m_L1_AP"] == 0
    assert math.isnan(metrics["Vehicle_30-50m_L1_AP"])


def test_no_predictions_no_labels_and_a_wrong_level() -> None:
    one, none = table([(0, "Vehicle", 0.0, 0.0)]), table([])
    assert waymo_average_precision(one, np.array([1]), none, np.zeros(0))["Vehicle_L1_AP"] == 0
    assert math.isnan(waymo_average_precision(none, np.zeros(0, int), one, np.ones(1))["Vehicle_L1_AP"])
    with pytest.raises(ValueError, match=r"levels are 1 and 2, found \[0\]"):
        waymo_average_precision(one, np.array([0]), none, np.zeros(0))


def test_area_by_hand() -> None:
    def area(precision: list[float], recall: list[float]) -> float:
        return area_under_curve(np.array(recall), np.array(precision))

    assert area([], []) == 0
    assert area([0.1], [0.2]) == pytest.approx(0.02)
    # Steps of 0.05 carry 0.05 down to 0.25, then a line up to 0.1 at 0.2.
    assert area([0.1, 0.05], [0.2, 1.0]) == pytest.approx(0.1 * 0.2 + 0.05 * 0.8 + 0.05 * 0.05 / 2)
    # Exactly one step apart: no point between, a line all the way.
    assert area([0.4, 0.2], [0.7, 0.75]) == pytest.approx(0.7 * 0.4 + 0.05 * 0.3)
