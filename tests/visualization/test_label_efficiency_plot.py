from __future__ import annotations

import math
from pathlib import Path
from unittest.mock import patch

import pytest

from adperception.visualization import label_efficiency_plot
from adperception.visualization.label_efficiency_plot import write_label_efficiency_plot


def test_draws_means_bars_and_single_runs(tmp_path: Path) -> None:
    series = {"scratch": {0.05: [1.0, 3.0], 1.0: [5.0]}, "jepa": {0.05: [2.0, math.nan], 1.0: [6.0, 8.0]}}
    figures = []

    def keep(figure: object, path: Path) -> Path:
        figures.append(figure)
        return path

    with patch.object(label_efficiency_plot, "save", keep):
        write_label_efficiency_plot(series, "mean_3d", tmp_path / "plot.png")
    axes = figures[0].axes[0]  # type: ignore[attr-defined]
    means = {container.get_label(): container[0].get_ydata().tolist() for container in axes.containers}
    assert means == {"scratch": [2.0, 5.0], "jepa": [2.0, 7.0]}
    dots = sorted(y for line in axes.lines if line.get_marker() == "." for y in line.get_ydata())
    assert dots == [1.0, 2.0, 3.0, 5.0, 6.0, 8.0]
    x = {container.get_label(): container[0].get_xdata().tolist() for container in axes.containers}
    assert x["scratch"] != x["jepa"]
    assert x["scratch"][1] == pytest.approx(100, rel=0.05)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["5 %", "100 %"]


def test_same_numbers_same_bytes(tmp_path: Path) -> None:
    one, two = (write_label_efficiency_plot({"a": {1.0: [1.0]}}, "m", tmp_path / name) for name in ("1.png", "2.png"))
    assert one.read_bytes() == two.read_bytes()
