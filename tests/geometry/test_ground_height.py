from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from adperception.datasets.formats.point_files import read_points
from adperception.geometry.ground_height import estimate_ground_height


def street(ground: float, rng: np.random.Generator) -> np.ndarray:
    """A road with the noise of a sensor, two flat roofs above it, walls, and a few points below the road."""
    xy = rng.uniform(-30, 30, size=(20_000, 2))
    road = np.column_stack([xy, ground + 0.01 * xy[:, 0] + rng.normal(0, 0.02, len(xy))])
    roof_xy = rng.uniform(5, 12, size=(6000, 2))
    roof = np.column_stack([roof_xy, np.full(6000, ground + 3.0)])
    wall = np.column_stack([np.full(4000, 8.0), rng.uniform(-20, 20, 4000), rng.uniform(ground, ground + 6, 4000)])
    reflections = np.column_stack([rng.uniform(4, 20, size=(100, 2)), rng.uniform(ground - 8, ground - 3, 100)])
    return np.concatenate([road, roof, wall, reflections])


@pytest.mark.parametrize("ground", [-4.9, -1.73, 0.0, 2.5])
def test_road_and_not_roofs_or_reflections(ground: float) -> None:
    assert estimate_ground_height(street(ground, np.random.default_rng(0))) == pytest.approx(ground, abs=0.15)


def test_nothing_flat() -> None:
    rng = np.random.default_rng(0)
    assert estimate_ground_height(np.zeros((0, 3))) is None
    assert estimate_ground_height(rng.uniform(-30, 30, size=(5000, 3))) is None


@pytest.mark.real_data
def test_recorded_scans(real_data: Path) -> None:
    """KITTI's sensor stands 1.73 m above the road."""
    files = sorted((real_data / "lidar/kitti/training").glob("velodyne*/*.bin"))
    assert len(files) > 20
    heights = [estimate_ground_height(read_points(file).xyz) for file in files]
    assert max(abs(height + 1.73) for height in heights if height is not None) < 0.3
    assert None not in heights
