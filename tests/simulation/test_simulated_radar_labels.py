"""Labels from detections by CARRADA's rules."""

from __future__ import annotations

import numpy as np

from adperception.simulation.radar_labels import grow, label_instance, masks_of, objects_of
from adperception.structures.radar_grid import CARRADA_GRID


def bins(*detections: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    table = np.array(detections)
    return table[:, 0], table[:, 1], table[:, 2]


def test_a_lone_detection_becomes_a_block_of_25_pixels_and_a_box_of_two() -> None:
    label = label_instance(1, 2, bins((100, 140, 40)), CARRADA_GRID)
    assert len(label.range_doppler.dense) == len(label.range_angle.dense) == 25
    assert label.range_doppler.box.tolist() == [100, 40, 101, 41]
    assert label.range_angle.box.tolist() == [156, 140, 157, 141]
    assert label.range_doppler.sparse.tolist() == [[100, 40]]


def test_rows_of_the_two_views_add_up_to_the_number_of_rows() -> None:
    label = label_instance(1, 1, bins((100, 140, 40), (103, 150, 41)), CARRADA_GRID)
    assert label.range_doppler.box.tolist() == [100, 40, 103, 41]
    assert label.range_angle.box.tolist() == [256 - 103, 140, 256 - 100, 150]
    nearest = label_instance(1, 1, bins((0, 140, 40)), CARRADA_GRID)
    assert nearest.range_angle.sparse.tolist() == [[255, 140]]
    assert nearest.range_angle.box.tolist() == [254, 140, 255, 141]


def test_growing_is_closer_than_three_pixels_and_stays_inside() -> None:
    points = np.array([[0, 0], [5, 5]])
    grown = grow(points, (8, 8), 3.0)
    rows, columns = np.mgrid[:8, :8]
    distance = np.min([np.hypot(rows - r, columns - c) for r, c in points], axis=0)
    np.testing.assert_array_equal(grown, np.argwhere(distance < 3))
    np.testing.assert_array_equal(grow(points, (8, 8), 1.0), points)


def test_the_angle_axis_puts_pixels_where_carrada_does() -> None:
    """8 columns off at 10 degrees, 16 at 20, 22 at 30, 26 at 45."""
    for degrees, shift in ((10, 8), (20, 16), (30, 22), (45, 26), (0, 0)):
        column = int(np.round(CARRADA_GRID.azimuth_column(degrees)))
        found = bins((100, column, 40))
        sine, angle = (
            label_instance(1, 1, found, CARRADA_GRID, axis).range_angle.sparse[0, 1] for axis in ("sin", "angle")
        )
        assert sine == column
        assert abs((sine - angle) - shift) <= 1


def test_masks_and_objects_agree() -> None:
    labels = [
        label_instance(1, 3, bins((50, 100, 20), (51, 101, 22)), CARRADA_GRID),
        label_instance(2, 1, bins((200, 30, 63), (200, 30, 1)), CARRADA_GRID),
    ]
    masks = masks_of(labels, CARRADA_GRID)
    assert np.unique(masks.range_doppler).tolist() == [0, 1, 3]
    assert (masks.range_angle == 3).sum() == len(labels[0].range_angle.dense)
    assert (masks_of(labels, CARRADA_GRID, dense=False).range_doppler > 0).sum() == 4
    objects = objects_of(labels, CARRADA_GRID)
    np.testing.assert_allclose(objects.cells[0], (256 - 50.5, 100.5, 21), atol=0.2)
    # Doppler wraps around: columns 63 and 1 lie about column 0. Masks do not, as in CARRADA.
    assert min(objects.cells[1, 2], 64 - objects.cells[1, 2]) < 0.6
    np.testing.assert_allclose(objects.sizes, [(2, 2, 3), (2, 2, 63)])
    assert objects.class_ids.tolist() == [3, 1]
    assert len(objects_of([], CARRADA_GRID)) == 0
