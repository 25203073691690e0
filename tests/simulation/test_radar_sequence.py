"""Simulated recordings: reproducible, labelled where the echoes are, with CARRADA's statistics."""

from __future__ import annotations

import numpy as np
import pytest

from adperception.simulation.fmcw import FMCWRadar, range_azimuth_doppler
from adperception.simulation.radar_scene import draw_scene
from adperception.simulation.radar_sequence import RadarSequence
from adperception.structures.radar_cube import RadarViews
from adperception.structures.radar_grid import CARRADA_GRID


@pytest.fixture(scope="module")
def small() -> RadarSequence:
    return RadarSequence(5, 200, "carrada_small")


def test_frames_do_not_depend_on_the_order(small: RadarSequence) -> None:
    again = RadarSequence(5, 200, FMCWRadar.preset("carrada_small"))
    for index in (150, 3):
        np.testing.assert_array_equal(small[index].cube.values, again[index].cube.values)
        np.testing.assert_array_equal(small[index].masks.range_angle, again[index].masks.range_angle)
    assert not np.array_equal(small[3].cube.values, small[4].cube.values)
    assert not np.array_equal(small[3].cube.values, RadarSequence(6, 200, "carrada_small")[3].cube.values)
    with pytest.raises(IndexError):
        small[200]


def test_cube_comes_from_the_samples_and_time_goes_on(small: RadarSequence) -> None:
    frame = small[7]
    np.testing.assert_array_equal(range_azimuth_doppler(frame.adc, small.radar).values, frame.cube.values)
    assert small[8].time_ns - frame.time_ns == 100_000_000
    assert len(small) == 200


def test_labels_lie_on_the_echo() -> None:
    """Labelled pixels stand out of the map, in both views, and the centre is near where the object is."""
    over, away = [], []
    for seed in range(4):
        sequence = RadarSequence(seed, 120, "carrada")
        for index in range(0, 120, 15):
            frame = sequence[index]
            views = RadarViews.processed(frame.cube.magnitude())
            for label in frame.instances:
                user = sequence.scene.road_users[label.instance_id - 1]
                assert user.class_id == label.class_id
                near = views.range_doppler[tuple(label.range_doppler.sparse.T)]
                far = views.range_angle[tuple(label.range_angle.sparse.T)]
                over.append((np.median(near), np.median(far)))
            for cell, label in zip(frame.objects.cells, frame.instances, strict=True):
                position = sequence.scene.road_users[label.instance_id - 1].position(index, 0.1)
                distance = np.linalg.norm(position)
                away.append((CARRADA_GRID.range_m(cell[0]) - distance, cell[1] - 128 - 128 * position[1] / distance))
    assert len(over) > 10
    assert (np.median(over, axis=0) > (63, 58)).all()
    range_error, column_error = np.abs(np.median(np.abs(away), axis=0))
    assert range_error < 2.0
    assert column_error < 8


def test_ra_label_axis_moves_range_angle_labels_only() -> None:
    sine, angle = (RadarSequence(2, 60, "carrada_small", axis) for axis in ("sin", "angle"))
    moved = 0
    for index in range(0, 60, 6):
        a, b = sine[index], angle[index]
        np.testing.assert_array_equal(a.cube.values, b.cube.values)
        np.testing.assert_array_equal(a.masks.range_doppler, b.masks.range_doppler)
        moved += not np.array_equal(a.masks.range_angle, b.masks.range_angle)
    assert moved
    with pytest.raises(ValueError, match="ra_label_axis='sine'"):
        RadarSequence(2, 60, "carrada_small", "sine")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="frames=0"):
        RadarSequence(2, 0)


def test_a_third_of_the_frames_is_empty_and_none_has_three_objects() -> None:
    present = np.zeros(4)
    for seed in range(80):
        scene = draw_scene(np.random.default_rng(seed), 300, 0.1, CARRADA_GRID)
        count = np.zeros(300, dtype=int)
        for user in scene.road_users:
            count[max(user.first_frame, 0) : user.end_frame] += 1
        present += np.bincount(count, minlength=4)
    share = present / present.sum()
    # Some objects are too faint for a label, so a few more frames are without one.
    np.testing.assert_allclose(share[:3], (0.30, 0.59, 0.11), atol=0.05)
    assert share[3] == 0


def test_maps_have_carradas_statistics() -> None:
    """Means over all cells, radar data sheet section 1.7; the benchmark compares more."""
    values = []
    for seed in range(12):
        magnitude = RadarSequence(seed, 50, "carrada")[seed].cube.magnitude()
        views = RadarViews.processed(magnitude)
        logarithm = np.log10(np.square(magnitude) + 1)
        values.append((views.range_doppler.mean(), views.range_angle.mean(), logarithm.mean(), logarithm.std()))
    mean = np.mean(values, axis=0)
    assert (np.abs(mean - (58.47, 56.0, 3.2145, 0.644)) < (0.7, 1.2, 0.06, 0.05)).all(), mean
