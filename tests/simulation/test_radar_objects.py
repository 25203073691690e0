"""Moving bodies: geometry against finite differences, micro-Doppler, aspect, mirror images."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from adperception.simulation.radar_objects import CAR, CYCLIST, PEDESTRIAN, RoadUser, Track, draw_body

PERIOD = 0.1


def user(class_id: int, track: Track, seed: int = 0) -> RoadUser:
    body = draw_body(class_id, track.speed_mps, np.random.default_rng(seed))
    return RoadUser(1, class_id, body, track, 0, 100, 0.0)


def test_a_track_is_an_arc_with_the_speed_it_names() -> None:
    track = Track((10.0, 1.0), 0.3, 5.0, turn_rad_per_m=0.05, sway=0.2, sway_rad_per_s=1.3)
    for seconds in (-2.0, 0.0, 1.5):
        step = 1e-4
        (before, turned_before), (after, turned_after) = track.at(seconds - step), track.at(seconds + step)
        velocity = (after - before) / (2 * step)
        speed, heading = track.speed_at(seconds), track.at(seconds)[1]
        np.testing.assert_allclose(velocity, speed * np.array([np.cos(heading), np.sin(heading)]), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose((turned_after - turned_before) / (2 * step), 0.05 * speed, rtol=1e-5)
    np.testing.assert_allclose(track.at(0.0)[0], (10, 1))


@pytest.mark.parametrize("class_id", [PEDESTRIAN, CYCLIST, CAR])
def test_radial_speed_is_how_fast_the_range_shrinks(class_id: int) -> None:
    someone = user(class_id, Track((9.0, -4.0), 2.0, 3.0, turn_rad_per_m=0.03, sway=0.1))
    step = 1e-3
    now = someone.points(7.0, PERIOD).seen()
    before, after = (someone.points(7.0 + sign * step, PERIOD).seen().range_m for sign in (-1, 1))
    np.testing.assert_allclose(now.velocity_mps, (before - after) / (2 * step * PERIOD), atol=2e-3)


def test_limbs_and_wheels_spread_the_doppler() -> None:
    speed = 1.2
    toward = Track((15.0, 0.0), np.pi, speed)
    spread = {}
    for class_id in (PEDESTRIAN, CYCLIST, CAR):
        someone = user(class_id, dataclasses.replace(toward, speed_mps=speed if class_id == PEDESTRIAN else 4.0))
        speeds = np.stack([someone.points(frame, PERIOD).seen().velocity_mps for frame in np.arange(0, 20, 0.5)])
        spread[class_id] = (speeds.min(), speeds.max())
    feet = spread[PEDESTRIAN]
    assert -0.5 * speed < feet[0] < 0.1 * speed
    assert 2 * speed < feet[1] < 3 * speed
    for class_id in (CYCLIST, CAR):
        low, high = spread[class_id]
        assert -0.1 < low < 0.5
        assert 7.5 < high < 8.1


def test_the_side_that_faces_the_radar_is_seen() -> None:
    away, across = (user(CAR, Track((20.0, 0.0), heading, 5.0)).points(0, PERIOD) for heading in (0.0, np.pi / 2))
    for points, length in ((away, 4.4), (across, 1.8)):
        seen = points.seen()
        near = seen.range_m < 20
        assert seen.amplitude[near].max() > 10 * np.median(seen.amplitude[~near])
        assert np.ptp(seen.range_m) > 0.8 * length


def test_the_way_by_a_wall_is_longer_and_comes_from_elsewhere() -> None:
    wall = (0.0, 1.0, 5.0)  # along the view, 5 m to the side
    points = user(PEDESTRIAN, Track((10.0, 0.0), 0.0, 1.0)).points(0, PERIOD)
    direct = points.seen()
    ghost = points.by_way_of(wall, direct)
    expected = (direct.range_m + np.hypot(points.position[:, 0], 10 - points.position[:, 1])) / 2
    np.testing.assert_allclose(ghost.range_m, expected)
    np.testing.assert_allclose(ghost.sin_azimuth, np.sin(np.pi / 4), atol=0.05)
    # Going away from the radar, less so along the mirrored way.
    assert (np.abs(ghost.velocity_mps) <= np.abs(direct.velocity_mps) + 1e-9).mean() > 0.8
