"""Radar pictures: where things are drawn, outlines, and that files come out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.collections import LineCollection, PathCollection
from PIL import Image

from adperception.models.radar.base import RadarPrediction
from adperception.structures import RadarGrid, RadarMasks, RadarObjects, RadarViews, flip_label_row
from adperception.visualization.radar_sequence import radar_sequence
from adperception.visualization.radar_views import (
    RadarScene,
    draw_radar_scene,
    mask_outline,
    radar_colour,
    radar_picture,
)
from adperception.visualization.style import new_figure

GRID = RadarGrid(16, 24, 8, range_bin_m=2.0, doppler_bin_mps=1.5)


def scene(row: int = 4, found: bool = True) -> RadarScene:
    """A car whose echo, labels and centre lie in range row ``row``."""
    cube = np.ones(GRID.shape, dtype=np.float32)
    cube[row, 18, 6] = 100
    range_doppler, range_angle = np.zeros((16, 8), dtype=np.uint8), np.zeros((16, 24), dtype=np.uint8)
    range_doppler[int(flip_label_row(row, 16)), 6] = range_angle[row, 18] = 3
    masks = RadarMasks(range_doppler, range_angle)
    one = np.ones(1, dtype=np.float32)
    cars = RadarObjects(np.float32([[row, 18, 6]]), np.ones((1, 3), dtype=np.float32), np.array([3]), one)
    prediction = RadarPrediction(masks, cars) if found else None
    return RadarScene("a/1", GRID, RadarViews.processed(cube), found=prediction, masks=masks, objects=cars)


def test_echo_labels_and_centres_lie_at_their_range_and_velocity() -> None:
    figure = new_figure(6, 4)
    draw_radar_scene(figure, scene())
    left, right = figure.axes
    # Row 4 of 16 is 11 cells away; labels of the range-Doppler view lie one cell farther than the echo.
    for axes, echo, label in ((left, (3.0, 22.0), (3.0, 24.0)), (right, (18.0, 22.0), (18.0, 22.0))):
        picture, fill = axes.images
        x0, x1, y0, y1 = picture.get_extent()
        values = np.asarray(picture.get_array())
        row, column = np.unravel_index(values.argmax(), values.shape)
        place = (x0 + (column + 0.5) * (x1 - x0) / values.shape[1], y0 + (row + 0.5) * (y1 - y0) / values.shape[0])
        assert place == pytest.approx(echo)
        row, column = np.argwhere(np.asarray(fill.get_array())[..., 3] > 0)[0]
        place = (x0 + (column + 0.5) * (x1 - x0) / values.shape[1], y0 + (row + 0.5) * (y1 - y0) / values.shape[0])
        assert place == pytest.approx(label)
        edges = np.concatenate(
            [
                path.vertices
                for lines in axes.collections
                if isinstance(lines, LineCollection)
                for path in lines.get_paths()
            ]
        )
        assert edges.mean(axis=0) == pytest.approx(label)
        markers = [c.get_offsets() for c in axes.collections if isinstance(c, PathCollection)]
        assert all(np.asarray(m)[0] == pytest.approx(label) for m in markers)
        assert len(markers) == 3  # the circle with its halo, the cross
    ticks = dict(zip([t.get_text() for t in right.get_xticklabels()], right.get_xticks(), strict=True))
    assert ticks["0"] == 12
    assert ticks["20"] == pytest.approx(float(GRID.azimuth_column(20)))


def test_outline_is_the_border_of_the_cells() -> None:
    mask = np.zeros((4, 4), dtype=bool)
    mask[1:3, 1] = True
    edges = {tuple(map(tuple, edge)) for edge in mask_outline(mask)}
    assert len(edges) == 6
    assert ((1.0, 1.0), (1.0, 2.0)) in edges
    assert ((1.0, 3.0), (2.0, 3.0)) in edges
    assert ((1.0, 2.0), (2.0, 2.0)) not in edges
    assert mask_outline(np.zeros((2, 2), dtype=bool)).shape == (0, 2, 2)


def test_picture_of_an_empty_unlabelled_frame(tmp_path: Path) -> None:
    empty = RadarScene("a", GRID, RadarViews.processed(np.ones(GRID.shape, dtype=np.float32)))
    assert radar_picture(tmp_path / "a.png", empty).stat().st_size > 5000
    nothing = RadarScene("a", GRID, empty.views, found=RadarPrediction(None, RadarObjects.empty()))
    assert radar_picture(tmp_path / "b.png", nothing).is_file()


def test_classes_have_different_colours() -> None:
    names = ("person", "bicycle", "car", "motorcycle", "bus", "truck")
    assert len({radar_colour(name) for name in names}) == 6
    assert radar_colour("pedestrian") == radar_colour("Person")
    assert radar_colour("tram") not in {radar_colour(name) for name in names}


@pytest.mark.parametrize("name", ["a.gif", "a.png"])
def test_sequence(tmp_path: Path, name: str) -> None:
    path = radar_sequence(tmp_path / name, [scene(row) for row in (4, 6, 8)], dots_per_inch=40)
    with Image.open(path) as image:
        assert image.n_frames == 3
        assert image.info["duration"] == 100
        first = np.asarray(image.convert("RGB"))
        image.seek(2)
        assert (np.asarray(image.convert("RGB")) != first).any()


def test_sequence_refusals(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a .gif, .png or .apng file"):
        radar_sequence(tmp_path / "a.mp4", [scene()])
    with pytest.raises(ValueError, match="no frame to draw"):
        radar_sequence(tmp_path / "a.gif", [])
