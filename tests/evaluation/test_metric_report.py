from __future__ import annotations

import math

from adperception.evaluation.metric_report import mean_of_defined, metric_table, remarks


def test_table_aligns_and_shows_na() -> None:
    lines = metric_table("AP", ["near", "far"], [("Car", [12.345, math.nan]), ("Pedestrian", [100.0, 0.0])])
    assert lines[0] == "AP            near   far"
    assert [line.split() for line in lines[2:]] == [["Car", "12.35", "n/a"], ["Pedestrian", "100.00", "0.00"]]
    assert len({len(line) for line in lines}) == 1


def test_mean_skips_what_is_undefined() -> None:
    assert mean_of_defined([1.0, math.nan, 2.0]) == 1.5
    assert math.isnan(mean_of_defined([math.nan]))
    assert math.isnan(mean_of_defined([]))


def test_remarks() -> None:
    def said(labels: float, predictions: float, best: float, *values: float) -> str:
        metrics = {"Car_labels": labels, "Car_predictions": predictions, "Car_best_3d_iou": best}
        metrics |= {f"Car_{k}": value for k, value in enumerate(values)}
        return "".join(remarks(metrics, ["Car"], [str(k) for k in range(len(values))]))

    assert "no ground truth" in said(0, 5, math.nan, math.nan)
    assert "no prediction of this class" in said(5, 0, math.nan, 0.0)
    assert "coordinate problem" in said(5, 5, 0.05, 0.0, 0.0)
    assert "AP is 0 although" in said(5, 5, 0.4, 0.0, math.nan)
    assert said(5, 5, 0.9, 0.0, 1.0) == ""
