from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from adperception.datasets.formats import from_kitti_camera, read_calibration, read_labels, read_points
from adperception.geometry import bev_collisions, count_points_in_boxes, points_in_boxes
from adperception.structures import Boxes3D


def boxes(*rows: tuple[float, ...]) -> NDArray[np.float32]:
    return np.array(rows, dtype=np.float32)


def test_points_in_a_turned_box() -> None:
    box = boxes((10, 5, 1, 4, 2, 1, np.pi / 2))  # length along y
    xyz = np.array([[10, 6.9, 1], [10.9, 5, 1], [11.1, 5, 1], [10, 7.1, 1], [10, 5, 1.4], [10, 5, 1.6]])
    assert points_in_boxes(xyz, box).tolist() == [[True, True, False, False, True, False]]


def test_points_in_random_boxes_against_half_spaces() -> None:
    rng = np.random.default_rng(0)
    all_boxes = np.column_stack([rng.uniform(-5, 5, (20, 3)), rng.uniform(0.5, 6, (20, 3)), rng.uniform(-4, 4, 20)])
    xyz = rng.uniform(-8, 8, (4000, 3))
    corners = Boxes3D(all_boxes.astype(np.float32), ("Car",) * 20).corners().astype(np.float64)
    expected = np.ones((20, 4000), dtype=bool)
    for row, c in zip(expected, corners, strict=True):
        for far in (1, 3, 4):  # from corner 0 along the three edges: 0 <= projection <= edge length
            edge = c[far] - c[0]
            share = (xyz - c[0]) @ edge / (edge @ edge)
            row &= (share >= 0) & (share <= 1)
    actual = points_in_boxes(xyz, all_boxes)
    assert expected.sum() > 700
    assert (actual != expected).sum() <= 1  # corners are float32
    np.testing.assert_array_equal(count_points_in_boxes(xyz, all_boxes), actual.sum(axis=1))


def test_no_boxes_no_points() -> None:
    assert points_in_boxes(np.zeros((3, 3)), np.zeros((0, 7))).shape == (0, 3)
    assert points_in_boxes(np.zeros((0, 3)), boxes((0, 0, 0, 1, 1, 1, 0))).shape == (1, 0)
    assert bev_collisions(np.zeros((0, 7)), boxes((0, 0, 0, 1, 1, 1, 0))).shape == (0, 1)


def test_collisions_by_hand() -> None:
    a = boxes((0, 0, 0, 4, 2, 1, 0))
    others = boxes(
        (4, 0, 0, 4, 2, 1, 0),  # touches end to end
        (3.9, 0, 9, 4, 2, 1, 0),  # overlaps, seen from above
        (0, 0, 0, 1, 0.5, 1, 0.3),  # inside
        (2.9, 1.9, 0, 2, 2, 1, np.pi / 4),  # bounding rectangles overlap, the boxes do not
        (2.5, 1.5, 0, 2, 2, 1, np.pi / 4),  # its corner cuts ours
        (0, 2.1, 0, 6, 2, 1, np.pi / 2),  # crosses like a T
    )
    assert bev_collisions(a, others).tolist() == [[False, True, True, False, True, True]]
    np.testing.assert_array_equal(bev_collisions(others, a), bev_collisions(a, others).T)


def test_random_collisions_against_sampled_points() -> None:
    rng = np.random.default_rng(3)
    all_boxes = np.column_stack([rng.uniform(-6, 6, (40, 2)), np.zeros(40), rng.uniform(0.5, 5, (40, 3))])
    all_boxes = np.column_stack([all_boxes, rng.uniform(-4, 4, 40)])
    grid = np.stack(np.meshgrid(np.arange(-10, 10, 0.05), np.arange(-10, 10, 0.05)), axis=-1).reshape(-1, 2)
    inside = points_in_boxes(np.column_stack([grid, np.zeros(len(grid))]), all_boxes).astype(np.float32)
    shared = inside @ inside.T
    collides = bev_collisions(all_boxes, all_boxes)
    assert collides[shared > 0].all()  # a common point proves an overlap
    assert (shared[collides] == 0).mean() < 0.02  # overlaps smaller than the sampling are rare


@pytest.mark.real_data
def test_real_boxes_hold_the_points_that_the_table_of_the_recordings_says(real_data: Path) -> None:
    root = real_data / "lidar/kitti/training"
    table = {}
    for line in (real_data / "lidar/SOURCES.md").read_text().splitlines():
        cells = [c.strip() for c in line.split("|")]
        if len(cells) == 10 and cells[1].isdigit():
            table[cells[1]] = {"velodyne_reduced": cells[7], "velodyne": cells[8]}
    assert table
    checked = {"velodyne_reduced": 0, "velodyne": 0}
    for name, columns in table.items():
        solid = from_kitti_camera(
            read_labels(root / f"label_2/{name}.txt"), read_calibration(root / f"calib/{name}.txt")
        )
        for folder, expected in columns.items():
            if expected == "-":
                continue
            cloud = read_points(root / folder / f"{name}.bin")
            assert count_points_in_boxes(cloud.xyz, solid.boxes).tolist() == [int(n) for n in expected.split()], name
            checked[folder] += len(solid)
    assert min(checked.values()) > 0
