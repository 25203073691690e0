from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from adperception.structures import Boxes3D
from adperception.visualization.viewer import show_frame

BOXES = Boxes3D(np.float32([[5, 1, 0, 4, 2, 1.5, 0]]), ("Car",))


def test_says_how_to_install_open3d(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "open3d", None)
    with pytest.raises(ImportError, match=r'need open3d, which is not installed: pip install "adperception\[viz\]"'):
        show_frame(np.zeros((1, 3)), (-3, 1))


def test_what_is_handed_to_open3d(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for the few parts of open3d that are used."""
    shown: list[Any] = []

    class LineSet(SimpleNamespace):
        def paint_uniform_color(self, colour: tuple[float, float, float]) -> None:
            self.colour = colour

    open3d = SimpleNamespace(
        geometry=SimpleNamespace(
            PointCloud=lambda points: SimpleNamespace(points=points, colors=None),
            LineSet=LineSet,
            TriangleMesh=SimpleNamespace(create_coordinate_frame=lambda size: "frame"),
        ),
        utility=SimpleNamespace(Vector3dVector=np.asarray, Vector2iVector=np.asarray),
        visualization=SimpleNamespace(draw_geometries=lambda shapes, window_name: shown.extend([window_name, *shapes])),
    )
    monkeypatch.setitem(sys.modules, "open3d", open3d)
    show_frame(np.float32([[1, 2, -3], [1, 2, 1]]), (-3, 1), BOXES, BOXES, "frame 8")
    title, cloud, _, truth, found = shown
    assert title == "frame 8"
    assert cloud.points.dtype == np.float64
    assert cloud.colors.shape == (2, 3)
    assert (cloud.colors[0] != cloud.colors[1]).any()
    assert truth.colour == (0, 0, 0)
    assert found.colour != (0, 0, 0)
    np.testing.assert_allclose(found.points.min(axis=0), [3, 0, -0.75])
    # The crossed face is the one at larger x: the front of a box with yaw 0.
    assert {int(i) for edge in found.lines[-2:] for i in edge} == {0, 3, 4, 7}
    assert (found.points[[0, 3, 4, 7], 0] == 7).all()
