from __future__ import annotations

import numpy as np
import pytest

from adperception.simulation.materials import Material
from adperception.simulation.objects import Model, Part, Placement, box, cylinder, ellipsoid, frustum, place, prism
from adperception.simulation.ray_casting import (
    CYLINDER,
    ELLIPSOID,
    POLYHEDRON,
    PartBatch,
    RangeImage,
    RayGrid,
    cast_parts,
    windows_of,
)

GRID = RayGrid(np.tan(np.radians(np.linspace(8, -28, 25))).astype(np.float32), 0.01, 180)
METAL = Material.METAL


def slow_distance(parts: PartBatch, part: int, direction: np.ndarray) -> float:
    """Distance along one unit ray to a part, in float64 and without windows; infinity for a miss."""
    if parts.kind[part] == POLYHEDRON:
        enter, leave = 0.0, np.inf
        for normal_x, normal_y, normal_z, offset in parts.planes[parts.plane_start[part] : parts.plane_start[part + 1]]:
            rate = float(np.dot((normal_x, normal_y, normal_z), direction))
            if abs(rate) < 1e-12:
                if offset < 0:
                    return np.inf
            elif rate < 0:
                enter = max(enter, offset / rate)
            else:
                leave = min(leave, offset / rate)
        return enter if 0 < enter < leave else np.inf
    cos, sin = np.cos(parts.yaw[part]), np.sin(parts.yaw[part])
    turn = np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])
    d, start = turn @ direction / parts.half[part], turn @ -parts.centre[part] / parts.half[part]
    axes = slice(0, 3) if parts.kind[part] == ELLIPSOID else slice(0, 2)
    a, b, c = d[axes] @ d[axes], d[axes] @ start[axes], start[axes] @ start[axes] - 1
    if b * b <= a * c or c < 0:
        return np.inf
    enter, leave = (-b - np.sqrt(b * b - a * c)) / a, (-b + np.sqrt(b * b - a * c)) / a
    if parts.kind[part] == CYLINDER:
        caps = sorted(((-1 - start[2]) / d[2], (1 - start[2]) / d[2]))
        enter, leave = max(enter, caps[0]), min(leave, caps[1])
    return enter if 0 < enter < leave else np.inf


def slow_image(parts: PartBatch, grid: RayGrid) -> np.ndarray:
    """``(P, B, C)`` distances along the rays."""
    cosine = grid.elevation_cosine
    result = np.full((len(parts), grid.beams, grid.columns), np.inf)
    for b in range(grid.beams):
        for c, azimuth in enumerate(grid.azimuth):
            flat = np.array([np.cos(azimuth), np.sin(azimuth), grid.elevation_tangent[b]])
            for part in range(len(parts)):
                result[part, b, c] = slow_distance(parts, part, flat * cosine[b])
    return result


def cast(parts: PartBatch, grid: RayGrid = GRID, objects: np.ndarray | None = None) -> tuple[RangeImage, np.ndarray]:
    image = RangeImage(grid, 1000.0)
    alone = cast_parts(parts, grid, image, np.random.default_rng(0), object_of_part=objects)
    return image, alone


def distances(image: RangeImage, grid: RayGrid = GRID) -> np.ndarray:
    return np.where(image.part >= 0, 1 / (image.inverse * grid.elevation_cosine[:, None]), np.inf)


BODIES: dict[str, Part] = {
    "box": box((-2, -1, 0), (2, 1, 1.5), METAL),
    "prism": prism([(-1, 0), (1.5, 0.2), (1, 1.2), (-0.8, 1.0)], -0.7, 0.9, METAL),
    "frustum": frustum((-1, 1, 1.2), (-0.3, 0.6, 0.5), 0.1, 2.0, METAL),
    "ellipsoid": ellipsoid((0.2, 0.1, 1), (1.5, 0.7, 1.0), METAL),
    "cylinder": cylinder(0.1, -0.2, 0.6, -0.5, 2.0, METAL),
}


@pytest.mark.parametrize("name", BODIES)
def test_each_kind_of_part_equals_the_slow_twin(name: str) -> None:
    # Ahead, behind (across the wrap of azimuth), below the horizon, high, and far away.
    poses = [((6.0, 1.0, -1.7), 0.4), ((-5.0, 0.1, -1.0), 2.0), ((2.5, -3.0, -2.4), -1.0), ((0.5, 20.0, -1.7), 0.9)]
    for position, yaw in poses:
        parts = place([Placement(Model((BODIES[name],)), position, yaw, (1.3, 1.3, 0.8))]).batch
        expected = slow_image(parts, GRID)[0]
        image, _ = cast(parts)
        got = distances(image)
        assert np.isfinite(expected).sum() > 3, "the pose must be seen"
        # Float32 may decide differently on rays that just touch.
        differs = np.isfinite(expected) != np.isfinite(got)
        assert differs.sum() <= 2
        both = np.isfinite(expected) & np.isfinite(got)
        np.testing.assert_allclose(got[both], expected[both], rtol=2e-4)


def test_a_crowd_equals_the_slow_twin_with_the_nearest_part_in_front() -> None:
    rng = np.random.default_rng(3)
    bodies = list(BODIES.values())
    crowd = []
    for i in range(20):
        angle, distance = rng.uniform(0, 2 * np.pi), rng.uniform(4, 15)
        position = (distance * np.cos(angle), distance * np.sin(angle), rng.uniform(-2.5, -1))
        crowd.append(Placement(Model((bodies[i % 5],)), position, rng.uniform(0, 6)))
    parts = place(crowd).batch
    every = slow_image(parts, GRID)
    image, _ = cast(parts)
    nearest = every.min(axis=0)
    both = np.isfinite(nearest) & (image.part >= 0)
    assert np.mean(np.isfinite(nearest) != (image.part >= 0)) < 2e-3
    close = np.isclose(distances(image)[both], nearest[both], rtol=1e-3)
    assert close.mean() > 0.998
    same = image.part[both] == every.argmin(axis=0)[both]
    assert same[close].mean() > 0.998


def test_windows_contain_every_ray_that_meets_the_part() -> None:
    rng = np.random.default_rng(5)
    for _ in range(30):
        angle = rng.uniform(0, 2 * np.pi)
        position = (4 * np.cos(angle), 4 * np.sin(angle), float(rng.uniform(-2, 0)))
        body = list(BODIES.values())[int(rng.integers(5))]
        parts = place([Placement(Model((body,)), position, rng.uniform(0, 6))]).batch
        grid = RayGrid(GRID.elevation_tangent, float(rng.uniform(-3, 3)), 60)
        inside = np.zeros((grid.beams, grid.columns), dtype=bool)
        for b0, b1, c0, c1 in windows_of(parts, grid).blocks(0, grid.columns):
            inside[b0:b1, c0:c1] = True
        hit = np.isfinite(slow_image(parts, grid)[0])
        assert not (hit & ~inside).any()
        assert inside.sum() < 0.9 * inside.size


def test_a_plane_below_the_sensor_is_met_where_trigonometry_says() -> None:
    ground = place([Placement(Model((box((-90, -90, -5), (90, 90, 0), METAL),)), (0, 0, -1.73))]).batch
    image, _ = cast(ground)
    down = GRID.elevation_tangent < -0.03
    expected = -1.73 / GRID.elevation_tangent[down]
    np.testing.assert_allclose(1 / image.inverse[down], np.repeat(expected[:, None], 180, axis=1), rtol=1e-5)
    assert (image.part[GRID.elevation_tangent > 0] == -1).all()


def test_occlusion_counts_rays_of_the_object_alone_and_in_company() -> None:
    wall = Placement(Model((box((-0.1, -5, 0), (0.1, 0.0, 3), METAL),)), (5, 0, -1.73))
    car = Placement(
        Model((box((-2, -1, 0), (2, 1, 1), METAL), box((-1, -0.8, 1), (1, 0.8, 1.5), METAL)), "Car"), (10, 0, -1.73)
    )
    together, apart = place([wall, car]), place([car])
    image, alone = cast(together.batch, objects=together.object_of_part)
    free, alone_apart = cast(apart.batch, objects=apart.object_of_part)
    assert alone[0] == alone_apart[0] == np.count_nonzero(free.part >= 0)
    met = np.count_nonzero(image.part >= 1)
    # The wall hides exactly the half of the car at negative y.
    hidden = np.sin(GRID.azimuth) < 0
    assert met == np.count_nonzero((free.part >= 0) & ~hidden[None])
    assert 0.4 < met / alone[0] < 0.6


def test_porous_parts_return_inside_and_let_rays_pass() -> None:
    crown = place([Placement(Model((ellipsoid((0, 0, 0), (2, 2, 2), Material.FOLIAGE, 2.0),)), (8, 0, -1))]).batch
    image, _ = cast(crown)
    solid, _ = cast(place([Placement(Model((ellipsoid((0, 0, 0), (2, 2, 2), METAL),)), (8, 0, -1))]).batch)
    assert 0.5 < np.mean(image.part[solid.part >= 0] >= 0) < 0.95
    hit = image.part >= 0
    assert not (hit & (solid.part < 0)).any()
    deeper = distances(image)[hit] - distances(solid)[hit]
    assert deeper.min() >= -1e-3
    assert 0.3 < deeper.mean() < 2.0


def test_grid_refuses_beams_out_of_order() -> None:
    with pytest.raises(ValueError, match="highest beam to the lowest"):
        RayGrid(np.array([-0.1, 0.1], dtype=np.float32), 0.0, 10)
