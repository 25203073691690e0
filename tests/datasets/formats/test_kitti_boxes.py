from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from adperception.datasets.formats import (
    from_kitti_camera,
    project_boxes,
    read_calibration,
    read_labels,
    to_kitti_camera,
)
from adperception.structures import Boxes3D, KittiCalibration

# A camera at the LiDAR's place that looks along x: focal length 700 px, principal point (600, 180).
CALIBRATION = KittiCalibration(
    p2=np.array([[700.0, 0, 600, 0], [0, 700, 180, 0], [0, 0, 1, 0]]),
    r0_rect=np.eye(3),
    velo_to_cam=np.array([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0]]),
)


def box(*values: float) -> Boxes3D:
    return Boxes3D(np.array([values], dtype=np.float32), ("Car",))


def test_a_known_box() -> None:
    (car,) = to_kitti_camera(box(20, 3, -0.8, 4, 1.8, 1.6, 0), CALIBRATION)
    np.testing.assert_allclose(car.location, (-3, 1.6, 20), atol=1e-6)  # 3 m left, bottom 1.6 m below, 20 m ahead
    np.testing.assert_allclose(car.dimensions, (1.6, 1.8, 4), atol=1e-6)
    assert car.rotation_y == pytest.approx(-np.pi / 2)  # heading along +x, away from the camera
    assert car.alpha == pytest.approx(-np.pi / 2 + np.arctan2(3, 20))


def test_round_trip_of_random_boxes() -> None:
    rng = np.random.default_rng(1)
    values = np.column_stack([rng.uniform(-60, 60, (200, 3)), rng.uniform(0.5, 5, (200, 3)), rng.uniform(-3, 3, 200)])
    boxes = Boxes3D(values.astype(np.float32), tuple(f"c{i}" for i in range(200)))
    back = from_kitti_camera(to_kitti_camera(boxes, CALIBRATION), CALIBRATION)
    np.testing.assert_allclose(back.boxes, boxes.boxes, atol=1e-5)
    assert back.names == boxes.names


def test_dont_care_areas_give_no_box() -> None:
    (car,) = to_kitti_camera(box(20, 3, -0.8, 4, 1.8, 1.6, 0), CALIBRATION)
    assert len(from_kitti_camera([replace(car, name="DontCare")], CALIBRATION)) == 0
    assert len(to_kitti_camera(Boxes3D.empty(), CALIBRATION)) == 0


def test_projection_ahead_behind_and_across() -> None:
    ahead = project_boxes(box(21, 0, 0, 2, 4, 1, 0), CALIBRATION)
    np.testing.assert_allclose(ahead, [[600 - 70, 180 - 17.5, 600 + 70, 180 + 17.5]], atol=1e-3)  # front face at 20 m
    np.testing.assert_array_equal(project_boxes(box(-20, 0, 0, 2, 4, 1, 0), CALIBRATION), np.zeros((1, 4)))
    across = project_boxes(box(0, 5, -1, 40, 2, 1, 0), CALIBRATION, (375, 1242))
    assert across[0, 0] == 0  # reaches past the left border
    assert across[0, 2] == pytest.approx(600 - 700 * 4 / 20, abs=1e-3)  # its far right edge: 4 m left at 20 m
    assert across[0, 3] == 374


@pytest.mark.real_data
def test_real_2d_boxes_surround_the_projected_3d_boxes(real_data: Path) -> None:
    root = real_data / "lidar/kitti/training"
    errors: list[float] = []
    for path in sorted((root / "label_2").glob("*.txt")):
        calibration = read_calibration(root / "calib" / path.name)
        objects = [o for o in read_labels(path) if o.name != "DontCare"]
        again = to_kitti_camera(from_kitti_camera(objects, calibration), calibration, (375, 1242))
        for a, b in zip(objects, again, strict=True):
            np.testing.assert_allclose(b.location, a.location, atol=0.03, err_msg=path.name)
            assert abs(np.angle(np.exp(1j * (a.rotation_y - b.rotation_y)))) < 1e-3
            if a.truncation == 0:
                # KITTI takes alpha at camera 2, 6 cm aside, and wrote both angles with two decimals.
                assert abs(np.angle(np.exp(1j * (a.alpha - b.alpha)))) < 0.03
                errors.append(float(np.abs(np.subtract(a.box_2d, b.box_2d)).max()))
    assert np.median(errors) < 8  # pixels; people drew these rectangles by hand
