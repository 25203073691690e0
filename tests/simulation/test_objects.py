from __future__ import annotations

import numpy as np
import pytest

from adperception.simulation.lidar_sensor import LidarSensor
from adperception.simulation.materials import MATERIAL_TABLE, Material
from adperception.simulation.models import CARS, CYCLISTS, PEDESTRIANS, TRUCKS, VANS
from adperception.simulation.objects import Model, Placement, place, prism

LABELLED = [*CARS, *VANS, *TRUCKS, *PEDESTRIANS, *CYCLISTS]


@pytest.mark.parametrize("number", range(len(LABELLED)))
def test_road_users_are_of_several_parts_and_fill_their_label_box(number: int) -> None:
    model = LABELLED[number]
    assert len(model.parts) >= 6
    bounds = model.bounds
    np.testing.assert_allclose(bounds[:, :3].min(axis=0), [-0.5, -0.5, 0.0], atol=0.012)
    np.testing.assert_allclose(bounds[:, 3:].max(axis=0), [0.5, 0.5, 1.0], atol=0.012)


@pytest.mark.parametrize("number", range(len(LABELLED)))
def test_returns_of_road_users_lie_inside_their_label_box(number: int) -> None:
    size = (4.0, 1.7, 1.6)
    scene = place([Placement(LABELLED[number], (7.0, 2.0, -1.73), 0.7, size)])
    sweep = LidarSensor(columns=700).sweep(scene, np.random.default_rng(0))
    assert len(sweep.points) > 50
    x, y = sweep.points[:, 0] - 7.0, sweep.points[:, 1] - 2.0
    along, across = x * np.cos(0.7) + y * np.sin(0.7), y * np.cos(0.7) - x * np.sin(0.7)
    assert np.abs(along).max() < 2.0 + 0.1
    assert np.abs(across).max() < 0.85 + 0.1
    assert sweep.points[:, 2].min() > -1.73 - 0.05
    assert sweep.points[:, 2].max() < -1.73 + 1.6 + 0.05


def test_place_scales_turns_and_shifts_planes() -> None:
    model = Model((prism([(-0.5, 0), (0.5, 0), (0.5, 1), (-0.5, 1)], -0.5, 0.5, Material.METAL),))
    parts = place([Placement(model, (3.0, -2.0, 1.0), np.pi / 2, (4.0, 2.0, 6.0))]).batch
    # Length 4 lies along y now, width 2 along x.
    corner = np.array([[3 + dx, -2 + dy, 1 + dz] for dx in (-1, 1) for dy in (-2, 2) for dz in (0, 6)])
    value = corner @ parts.planes[:, :3].T - parts.planes[:, 3]
    np.testing.assert_allclose(value.max(axis=1), 0, atol=1e-9)
    np.testing.assert_allclose(value.max(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(parts.centre[0], [3, -2, 4], atol=1e-12)


def test_outline_that_is_not_convex_is_refused() -> None:
    with pytest.raises(ValueError, match="not convex"):
        prism([(0, 0), (2, 0), (1, 0.2), (0, 2)], 0, 1, Material.METAL)


def test_every_material_has_a_row() -> None:
    assert len(MATERIAL_TABLE.reflectance) == len(Material)
    assert (MATERIAL_TABLE.undulation_m > 0).sum() == 3
