from __future__ import annotations

import numpy as np

from adperception.simulation.lidar_sensor import LidarSensor, incidence_cosine, spinning_64_elevations
from adperception.simulation.materials import Material
from adperception.simulation.objects import Model, PlacedParts, Placement, box, place
from adperception.simulation.ray_casting import RangeImage, cast_parts

BARE = LidarSensor(columns=360, range_noise_m=0.0, half_signal=1e-12, own_vehicle=())


def slab(material: Material = Material.METAL, height_m: float = 1.73) -> PlacedParts:
    return place([Placement(Model((box((-90, -90, -3), (90, 90, 0), material),)), (0, 0, -height_m))])


def test_elevations_are_those_of_the_sensor() -> None:
    elevations = spinning_64_elevations()
    assert elevations.shape == (64,)
    assert elevations[0] == 2.0
    np.testing.assert_allclose(elevations[31], -8.33, atol=0.01)
    np.testing.assert_allclose(np.diff(elevations[:32]), -1 / 3)
    assert elevations[32] == -8.83
    np.testing.assert_allclose(elevations[63], -24.33)
    np.testing.assert_allclose(np.diff(elevations[32:]), -0.5)


def test_points_come_beam_by_beam_counter_clockwise() -> None:
    points = BARE.sweep(slab(), np.random.default_rng(0)).points
    azimuth = np.arctan2(points[:, 1], points[:, 0]) % (2 * np.pi)
    turns = np.concatenate([[0], np.cumsum(np.diff(azimuth) < -np.pi)])
    elevation = np.degrees(np.arctan2(points[:, 2], np.hypot(points[:, 0], points[:, 1])))
    assert turns[-1] + 1 == len(np.unique(np.round(elevation, 1)))
    means = [elevation[turns == t].mean() for t in range(turns[-1] + 1)]
    assert np.all(np.diff(means) < 0)


def test_incidence_from_the_range_image_equals_the_analytic_one_on_a_plane() -> None:
    grid = LidarSensor(columns=2000).grid()
    image = RangeImage(grid, 80.0)
    cast_parts(slab().batch, grid, image, np.random.default_rng(0))
    cosine = incidence_cosine(image.inverse, grid)
    expected = -grid.elevation_tangent * grid.elevation_cosine
    down = grid.elevation_tangent < -0.05
    np.testing.assert_allclose(cosine[down], np.repeat(expected[down][:, None], 2000, axis=1), rtol=2e-3)


def test_range_noise_has_the_stated_spread() -> None:
    quiet = BARE.sweep(slab(), np.random.default_rng(0)).points
    assert np.abs(quiet[:, 2] + 1.73).max() < 0.02  # METAL is rough by 5 mm along the ray
    noisy = LidarSensor(columns=360, range_noise_m=0.05, half_signal=1e-12, own_vehicle=())
    points = noisy.sweep(slab(), np.random.default_rng(0)).points
    along = np.linalg.norm(points[:, :3], axis=1)
    expected = along * 1.73 / -points[:, 2]
    assert 0.045 < np.std(along - expected) < 0.056


def test_returns_are_lost_with_range_and_grazing_incidence() -> None:
    sensor = LidarSensor(columns=360, own_vehicle=())
    ground = sensor.sweep(slab(Material.ASPHALT), np.random.default_rng(0))
    distance = np.hypot(ground.points[:, 0], ground.points[:, 1])
    grid = sensor.grid()
    rings = 1.73 / -grid.elevation_tangent[grid.elevation_tangent < -1.73 / 79]

    def share(low: float, high: float) -> float:
        possible = 360 * np.count_nonzero((rings > low) & (rings < high))
        return float(np.count_nonzero((distance > low) & (distance < high)) / possible)

    assert share(3, 20) > 0.93
    assert share(55, 79) < share(25, 45) < share(3, 20)

    def wall_share(x: float) -> float:
        wall = place([Placement(Model((box((0, -9, -9), (1, 9, 9), Material.CAR_PAINT),)), (x, 0, 0))])
        return len(sensor.sweep(wall, np.random.default_rng(0)).points) * x  # solid angle falls about with x

    assert wall_share(60.0) < 0.8 * wall_share(20.0)


def test_intensity_depends_on_material_and_incidence() -> None:
    def mean(material: Material, columns: slice = slice(None)) -> float:
        wall = place([Placement(Model((box((0, -30, -3), (1, 30, 3), material),)), (6, 0, 0))])
        points = BARE.sweep(wall, np.random.default_rng(0)).points
        angle = np.abs(np.degrees(np.arctan2(points[:, 1], points[:, 0])))
        return float(points[(angle > 55) if columns == slice(1) else (angle < 15), 3].mean())

    assert mean(Material.RUBBER) < mean(Material.CAR_PAINT) < mean(Material.PLATE)
    assert mean(Material.CAR_PAINT, slice(1)) < 0.85 * mean(Material.CAR_PAINT)


def test_own_vehicle_hides_the_ground_behind() -> None:
    points = LidarSensor(columns=720).sweep(slab(), np.random.default_rng(0)).points
    azimuth = np.degrees(np.arctan2(points[:, 1], points[:, 0])) % 360
    elevation = np.degrees(np.arctan2(points[:, 2], np.hypot(points[:, 0], points[:, 1])))
    assert not ((azimuth > 160) & (azimuth < 203) & (elevation < -19.2)).any()
    assert ((azimuth > 60) & (azimuth < 110) & (elevation < -19.2)).any()


def test_values_are_stored_in_millimetres_and_hundredths_and_stay_in_range() -> None:
    points = LidarSensor(columns=360).sweep(slab(), np.random.default_rng(0)).points
    np.testing.assert_allclose(points[:, :3] * 1000, np.rint(points[:, :3] * 1000), atol=5e-3)
    assert points.dtype == np.float32
    assert points[:, 3].min() >= 0
    assert points[:, 3].max() < 1
    assert np.linalg.norm(points[:, :3], axis=1).max() <= 80.2
