from __future__ import annotations

from pathlib import Path

import cv2

from adperception.visualization.optimizer_study_plot import Curves, write_optimizer_study_plot


def curves(slope: float, sent: float) -> Curves:
    steps = [16.0, 32.0, 48.0]
    return Curves(steps, [90 + slope * s for s in steps], [sent * s for s in steps], [0.1 * s for s in steps])


def test_a_row_per_division_of_the_data_and_a_method_that_sends_nothing(tmp_path: Path) -> None:
    methods = {f"method {k}": curves(0.01 * k, 1e6 * k) for k in range(9)}
    one = cv2.imread(str(write_optimizer_study_plot({"fixed": methods}, "accuracy", tmp_path / "one.png")))
    two = cv2.imread(str(write_optimizer_study_plot({"a": methods, "b": methods}, "accuracy", tmp_path / "two.png")))
    assert one is not None
    assert two is not None
    assert one.std() > 20
    assert two.shape[0] > 1.8 * one.shape[0]
    flat = {"only": Curves([1.0], [97.0], [0.0], [0.1])}
    assert write_optimizer_study_plot({"fixed": flat}, "accuracy", tmp_path / "flat.png").is_file()
