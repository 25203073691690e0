from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from adperception.geometry import check_range_coverage, in_range
from adperception.structures import VoxelGrid

GRID = VoxelGrid.create((0, -40, -3, 70.4, 40, 1), (0.05, 0.05, 0.1))


def test_no_point_at_all_says_what_to_check() -> None:
    low = np.zeros((118_000, 4), dtype=np.float32) + np.array([-52.1, 1, -11, 0], dtype=np.float32)
    high = np.zeros((204, 4), dtype=np.float32) + np.array([48.9, 2, -6.2, 0], dtype=np.float32)
    with pytest.raises(ValueError, match="voxelize") as error:
        check_range_coverage([low, high], GRID)
    assert str(error.value) == (
        "voxelize: 0 of 118,204 points are inside point_cloud_range=[0, -40, -3, 70.4, 40, 1] (points span "
        "x -52.1…48.9, y 1.0…2.0, z -11.0…-6.2). Check units (metres) and sensor height."
    )


def test_one_point_inside_is_enough_and_stops_reading() -> None:
    read = []

    def clouds() -> Iterator[NDArray[np.float64]]:
        for number, x in enumerate((-5.0, 5.0, -5.0)):
            read.append(number)
            yield np.array([[x, 0, 0]])

    check_range_coverage(clouds(), GRID)
    assert read == [0, 1]


@pytest.mark.parametrize("clouds", [[], [np.zeros((0, 4))]])
def test_empty_clouds(clouds: list[NDArray[np.float64]]) -> None:
    with pytest.raises(ValueError, match="not a single point"):
        check_range_coverage(clouds, GRID)


def test_in_range_is_half_open() -> None:
    points = np.array([[0, -40, -3], [70.4, 0, 0], [1, 40, 0], [1, 0, 1], [1, 0, 0.99], [1, np.nan, 0]])
    assert in_range(points, GRID.point_cloud_range).tolist() == [True, False, False, False, True, False]
