from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from adperception.structures import Boxes3D
from adperception.visualization.bev import draw_bev

RANGE = (0, -10, -3, 20, 10, 1)


def render(**options: object) -> NDArray[np.float64]:
    """RGB picture of the axes area alone, 400 x 400 pixels: 20 pixels a metre, row 0 at y = 10 m."""
    figure = Figure(figsize=(4, 4), dpi=100)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    draw_bev(axes, options.pop("xyz", np.zeros((0, 3))), RANGE, **options)  # type: ignore[arg-type]
    axes.axis("off")
    if axes.get_legend() is not None:
        axes.get_legend().remove()
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].astype(np.float64)


def test_points_boxes_and_cells_land_where_they_are() -> None:
    empty = render()
    points = np.repeat([[15.0, 5.0, 0.0]], 50, axis=0)
    rows, columns = np.nonzero(np.abs(render(xyz=points) - empty).sum(axis=2))
    np.testing.assert_allclose([columns.mean(), rows.mean()], [300, 100], atol=1.5)

    boxes = Boxes3D(np.array([[10, -5, 0, 6, 2, 2, 0]], dtype=np.float32), ("Car",))
    rows, columns = np.nonzero(np.abs(render(boxes=boxes) - empty).sum(axis=2))
    np.testing.assert_allclose([columns.min(), columns.max(), rows.min(), rows.max()], [140, 260, 280, 320], atol=2)
    inside = columns[np.abs(rows - 300) <= 1]
    assert ((inside > 205) & (inside < 255)).any()  # the line to the front, which is at larger x
    assert not ((inside > 145) & (inside < 195)).any()

    hidden = np.zeros((10, 10), dtype=bool)
    hidden[0, 9] = True  # lowest y, largest x
    rows, columns = np.nonzero(np.abs(render(hidden=hidden) - empty).sum(axis=2))
    np.testing.assert_allclose([columns.min(), columns.max(), rows.min(), rows.max()], [360, 399, 360, 399], atol=1)


def test_the_legend_counts_classes(tmp_path: Path) -> None:
    axes = Figure().subplots()
    boxes = Boxes3D(np.zeros((3, 7), dtype=np.float32), ("Car", "Tram", "Car"))
    draw_bev(axes, np.zeros((1, 3)), RANGE, boxes)
    assert [t.get_text() for t in axes.get_legend().get_texts()] == ["Car (2)", "Tram (1)"]
    draw_bev(Figure().subplots(), np.zeros((1, 3)), RANGE, Boxes3D.empty())
