from __future__ import annotations

import numpy as np
import pytest

from adperception.structures import CARRADA_GRID, RadarObjects, flip_label_row, flip_range_doppler_labels


def test_label_rows_of_the_two_views_sum_to_256() -> None:
    np.testing.assert_array_equal(flip_label_row(np.array([1, 100, 255]), 256), [255, 156, 1])
    assert flip_label_row(0, 256) == 255  # 256 is clipped


def test_flipped_labels_follow_the_rule_and_come_back() -> None:
    mask = np.random.default_rng(0).integers(0, 4, (2, 8, 3)).astype(np.uint8)
    flipped = flip_range_doppler_labels(mask)
    for row in range(1, 8):
        np.testing.assert_array_equal(
            flipped[:, 8 - row], np.where((row == 1) & (mask[:, 1] == 0), mask[:, 0], mask[:, row])
        )
    assert not flipped[:, 0].any()
    mask[:, 0] = 0
    np.testing.assert_array_equal(flip_range_doppler_labels(flip_range_doppler_labels(mask)), mask)


def test_nearest_row_is_clipped_and_gives_way() -> None:
    mask = np.zeros((4, 2), np.uint8)
    mask[0] = [3, 3]
    mask[1] = [0, 1]
    np.testing.assert_array_equal(flip_range_doppler_labels(mask)[3], [3, 1])


def test_objects_in_metres_degrees_and_metres_per_second() -> None:
    objects = RadarObjects(
        np.array([[155, 128, 48], [55, 192, 32]], np.float32),
        np.zeros((2, 3), np.float32),
        np.array([1, 3]),
        np.ones(2, np.float32),
    )
    np.testing.assert_allclose(objects.range_m(CARRADA_GRID), [100 * 0.1953125, 200 * 0.1953125])
    np.testing.assert_allclose(objects.azimuth_deg(CARRADA_GRID), [0, np.rad2deg(np.arcsin(0.5 * 76.8 / 77))])
    np.testing.assert_allclose(objects.velocity_mps(CARRADA_GRID), [16 * 0.41968030701528203, 0])
    assert objects.select(np.array([False, True])).class_ids.tolist() == [3]
    assert len(RadarObjects.empty()) == 0


def test_parts_of_objects_must_belong_together() -> None:
    with pytest.raises(ValueError, match="do not belong together"):
        RadarObjects(
            np.zeros((2, 3), np.float32), np.zeros((2, 3), np.float32), np.zeros(1, np.int64), np.zeros(2, np.float32)
        )
