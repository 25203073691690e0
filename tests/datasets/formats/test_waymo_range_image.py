from __future__ import annotations

import numpy as np
import pytest

from adperception.datasets.formats.waymo_range_image import (
    LaserCalibration,
    pose_angles,
    range_image_to_points,
    rotate_by_angles,
)


def image_with(pixels: dict[tuple[int, int], float], shape: tuple[int, int]) -> np.ndarray:
    image = np.full((*shape, 4), -1, dtype=np.float32)
    for number, (at, distance) in enumerate(pixels.items()):
        image[at] = distance, number, 0.1 * number, -1
    return image


Three = tuple[float, float, float]


def pose(angles: Three = (0, 0, 0), position: Three = (0, 0, 0)) -> np.ndarray:
    out = np.eye(4)
    out[:3, :3] = rotate_by_angles(np.eye(3), np.tile(np.array(angles, dtype=float), (3, 1))).T
    out[:3, 3] = position
    return out


def test_rows_of_evenly_spaced_beams_are_the_middles_of_bands_highest_first() -> None:
    calibration = LaserCalibration(np.eye(4), -0.4, 0.4)
    np.testing.assert_allclose(calibration.rows(4), [0.3, 0.1, -0.1, -0.3])


def test_rows_of_uneven_beams_are_the_table_from_its_end() -> None:
    calibration = LaserCalibration(np.eye(4), -0.4, 0.4, np.array([-0.4, -0.1, 0.4]))
    np.testing.assert_allclose(calibration.rows(3), [0.4, -0.1, -0.4])
    with pytest.raises(ValueError, match="3 beam inclinations for a range image of 4 rows"):
        calibration.rows(4)


@pytest.mark.parametrize("heading", [0.0, 2.58, -1.0])
def test_columns_run_clockwise_from_the_back_of_the_car_however_the_lidar_is_turned(heading: float) -> None:
    calibration = LaserCalibration(pose((0, 0, heading), (1, 0, 2)), -0.1, 0.1)
    # One row at the horizon; of eight columns, number 1 looks to the back left, number 3 ahead to the left ...
    points = range_image_to_points(image_with({(0, c): 10.0 for c in range(8)}, (1, 8)), calibration)
    azimuth = np.degrees(np.arctan2(points[:, 1], points[:, 0] - 1))
    np.testing.assert_allclose(azimuth, 180 - 22.5 - 45 * np.arange(8), atol=1e-4)
    np.testing.assert_allclose(points[:, 2], 2, atol=1e-6)
    np.testing.assert_array_equal(points[:, 3], np.arange(8))


def test_a_tilted_lidar_and_an_inclined_beam() -> None:
    # The LiDAR leans forward by 0.2: its level beam ahead points down by 0.2, that to the back up.
    calibration = LaserCalibration(pose((0, 0.2, 0)), -0.1, 0.1)
    ahead, back = range_image_to_points(image_with({(0, 2): 10.0, (0, 0): 10.0}, (1, 5)), calibration)[::-1]
    np.testing.assert_allclose(ahead[:3], [10 * np.cos(0.2), 0, -10 * np.sin(0.2)], atol=1e-5)
    assert back[2] > 0
    up = range_image_to_points(image_with({(0, 2): 10.0}, (2, 5)), LaserCalibration(np.eye(4), -0.6, 0.6))
    np.testing.assert_allclose(up[0, :3], [10 * np.cos(0.3), 0, 10 * np.sin(0.3)], atol=1e-5)


def test_pixels_without_a_return_give_no_point() -> None:
    image = image_with({(1, 3): 5.0}, (4, 8))
    image[0, 0, 0] = 0
    assert range_image_to_points(image, LaserCalibration(np.eye(4), -0.1, 0.1)).shape == (1, 6)
    assert len(range_image_to_points(image_with({}, (4, 8)), LaserCalibration(np.eye(4), -0.1, 0.1))) == 0


def test_pixel_poses_carry_points_through_the_world_into_the_frame() -> None:
    rng = np.random.default_rng(0)
    calibration = LaserCalibration(pose((0.01, -0.02, 2.0), (1.4, 0.1, 2.1)), -0.3, 0.1)
    image = image_with({(r, c): rng.uniform(3, 70) for r in range(4) for c in range(16)}, (4, 16))
    frame_pose = pose((0.02, -0.01, 1.1), (4000.0, -9000.0, 30.0))
    poses = np.zeros((4, 16, 6), dtype=np.float32)
    for column in range(16):
        poses[:, column] = pose_angles(pose((0.02, -0.01, 1.1 + 0.001 * column), (4000 + 0.1 * column, -9000, 30)))
    still = range_image_to_points(image, calibration)
    moved = range_image_to_points(image, calibration, poses, frame_pose)
    for number, (point, other) in enumerate(zip(still, moved, strict=True)):
        angles = poses[0, number % 16].astype(float)
        world = pose(tuple(angles[:3]), tuple(angles[3:])) @ [*point[:3], 1]
        np.testing.assert_allclose((np.linalg.inv(frame_pose) @ world)[:3], other[:3], atol=2e-5)
    np.testing.assert_array_equal(still[:, 3:], moved[:, 3:])
    with pytest.raises(ValueError, match="need the pose of the frame"):
        range_image_to_points(image, calibration, poses)
    with pytest.raises(ValueError, match=r"pixel poses have shape \(4, 15, 6\), expected \(4, 16, 6\)"):
        range_image_to_points(image, calibration, poses[:, :15], frame_pose)


def test_angles_are_yaw_then_pitch_then_roll() -> None:
    quarter = np.pi / 2
    # A vehicle that turned left by 90 degrees and then lifts its nose (negative pitch) points +x to world (0, c, s).
    nose = rotate_by_angles(np.array([[1.0, 0, 0]]), np.array([[0, -0.3, quarter]]))
    np.testing.assert_allclose(nose, [[0, np.cos(0.3), np.sin(0.3)]], atol=1e-12)
    # Rolled by 90 degrees (left side up) before: +y points up, whatever pitch does later to +x.
    side = rotate_by_angles(np.array([[0, 1.0, 0]]), np.array([[quarter, -0.3, quarter]]))
    np.testing.assert_allclose(side, [[0, -np.sin(0.3), np.cos(0.3)]], atol=1e-12)
    angles = np.random.default_rng(1).uniform(-1, 1, (20, 3))
    back = [pose_angles(pose(tuple(a)))[:3] for a in angles]
    np.testing.assert_allclose(back, angles, atol=1e-12)


def test_images_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(4, 8, 3\), expected \(H, W, 4\)"):
        range_image_to_points(np.zeros((4, 8, 3), dtype=np.float32), LaserCalibration(np.eye(4), -0.1, 0.1))
