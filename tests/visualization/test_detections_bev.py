from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest

from adperception.structures import Boxes3D, Detections
from adperception.visualization import detections_bev
from adperception.visualization.detections_bev import detections_picture

RANGE = (0, -40, -3, 70, 40, 1)


@pytest.fixture
def axes(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The axes of every picture that is drawn."""
    drawn: list[Any] = []
    original = detections_bev.draw_bev

    def spy(axes: Any, *arguments: Any) -> Any:
        drawn.append(axes)
        return original(axes, *arguments)

    monkeypatch.setattr(detections_bev, "draw_bev", spy)
    return drawn


def test_boxes_scores_and_labels(tmp_path: Path, axes: list[Any]) -> None:
    found = Detections(
        Boxes3D(np.float32([[20, 2, 0, 4, 2, 1, 0], [25, -3, 0, 1, 1, 2, 0]]), ("Car", "Pedestrian")),
        np.float32([0.914, 0.3]),
    )
    truth = Boxes3D(np.float32([[20, 2, 0, 4, 2, 1, 0]]), ("Car",))
    xyz = np.random.default_rng(0).uniform((10, -10, -2), (30, 10, 0), size=(500, 3))
    path = detections_picture(tmp_path / "new/a.png", xyz, RANGE, found, truth, "frame")
    assert matplotlib.image.imread(path).std() > 0.05
    (ax,) = axes
    texts = {text.get_text(): text.get_position() for text in ax.texts}
    assert texts == {"0.91": pytest.approx((20, 3.1)), "0.30": pytest.approx((25, -2.4))}  # above their boxes
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["labelled (1)", "Car (1)", "Pedestrian (1)"]
    # Shown is what there is to see, not 80 m of nothing.
    assert ax.get_xlim() == pytest.approx((9, 31), abs=0.2)
    assert ax.get_ylim() == pytest.approx((-11, 11), abs=0.2)
    left, bottom = (min(p[:, i].min() for c in ax.collections[1:] for p in c.get_segments()) for i in (0, 1))
    assert (left, bottom) == pytest.approx((18, -3.5))


def test_frames_without_points_detections_or_labels(tmp_path: Path, axes: list[Any]) -> None:
    detections_picture(tmp_path / "a.png", np.zeros((0, 3)), RANGE, Detections.empty())
    assert axes[0].get_legend() is None
    assert axes[0].get_xlim() == (0, 70)
