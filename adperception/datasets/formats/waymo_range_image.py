"""Waymo's range images and their geometry, in both directions.

A range image holds one return of one LiDAR: a row per beam, the highest first, a column per firing, clockwise from the
back of the car. Its four channels are range (metres, not positive where nothing came back), raw intensity, elongation
and 1 for points in a no-label zone (else -1). The top LiDAR turns while the car moves: a second image holds the pose of
the *car* in the world for each of its pixels. Facts: Waymo Open Dataset v2, ``v2/perception/{lidar,context}.py`` and
``utils/range_image_utils.py`` of its repository.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "LASER_NAMES",
    "TOP",
    "LaserCalibration",
    "pose_angles",
    "range_image_to_points",
    "rotate_by_angles",
]

Array = NDArray[np.float64]

TOP = 1
"""Number of the LiDAR on the roof, the only one with a pose per pixel."""

LASER_NAMES = {"TOP": TOP, "FRONT": 2, "SIDE_LEFT": 3, "SIDE_RIGHT": 4, "REAR": 5}


@dataclass(frozen=True)
class LaserCalibration:
    """Where a LiDAR sits and where its beams point.

    Attributes:
        extrinsic: ``(4, 4)`` from the LiDAR's frame to the vehicle's (x forward, y left, z up, metres).
        inclination_min, inclination_max: limits of the vertical field of view, radians.
        inclinations: beam inclinations in radians, lowest first; ``None`` if they are spread evenly between the limits
            (the short-range LiDARs).
    """

    extrinsic: Array
    inclination_min: float
    inclination_max: float
    inclinations: Array | None = None

    def rows(self, height: int) -> Array:
        """``(height,)`` inclination of each row of an image in radians, highest first.

        Raises:
            ValueError: if the table of inclinations has another length.
        """
        if self.inclinations is None:
            # Beams lie in the middles of ``height`` equal bands.
            step = (self.inclination_max - self.inclination_min) / height
            return np.asarray(self.inclination_max - (np.arange(height) + 0.5) * step)
        if len(self.inclinations) != height:
            raise ValueError(
                f"{len(self.inclinations)} beam inclinations for a range image of {height} rows. Calibration and range "
                "images are of different recordings: copy both again."
            )
        return np.asarray(self.inclinations[::-1])

    def columns(self, width: int) -> Array:
        """``(width,)`` azimuth of each column in the LiDAR's frame, radians counter-clockwise from its +x.

        Columns are counted in the vehicle's axes; the LiDAR's own heading is taken off.
        """
        heading = np.arctan2(self.extrinsic[1, 0], self.extrinsic[0, 0])
        return np.asarray(np.pi - (np.arange(width) + 0.5) * (2 * np.pi / width) - heading)


def range_image_to_points(
    image: NDArray[np.float32],
    calibration: LaserCalibration,
    pixel_poses: NDArray[np.float32] | None = None,
    frame_pose: Array | None = None,
) -> NDArray[np.float32]:
    """The points of one range image in the vehicle's frame.

    Args:
        image: ``(H, W, 4)`` range, intensity, elongation, no-label zone.
        calibration: of the LiDAR.
        pixel_poses: ``(H, W, 6)`` roll, pitch, yaw (radians), x, y, z (metres) of the vehicle in the world when each
            pixel was measured; without them the vehicle is taken to stand still.
        frame_pose: ``(4, 4)`` of the vehicle in the world at the frame's time; needed with ``pixel_poses``.

    Returns:
        ``(N, 6)`` float32 x, y, z, intensity (raw), elongation, no-label zone, row by row.

    Raises:
        ValueError: for images of other shapes, or pixel poses without a frame pose.
    """
    if image.ndim != 3 or image.shape[2] != 4:
        raise ValueError(f"range image has shape {image.shape}, expected (H, W, 4).")
    row, column = np.nonzero(image[..., 0] > 0)
    found = image[row, column]
    inclination, azimuth = calibration.rows(image.shape[0]), calibration.columns(image.shape[1])
    distance = found[:, 0].astype(np.float64)
    horizontal = distance * np.cos(inclination)[row]
    sensor = np.stack(
        [
            horizontal * np.cos(azimuth)[column],
            horizontal * np.sin(azimuth)[column],
            distance * np.sin(inclination)[row],
        ],
        axis=1,
    )
    xyz = sensor @ calibration.extrinsic[:3, :3].T + calibration.extrinsic[:3, 3]
    if pixel_poses is not None:
        if frame_pose is None:
            raise ValueError("pixel poses need the pose of the frame.")
        if pixel_poses.shape != (*image.shape[:2], 6):
            raise ValueError(f"pixel poses have shape {pixel_poses.shape}, expected {(*image.shape[:2], 6)}.")
        xyz = _to_frame(xyz, pixel_poses[row, column].astype(np.float64), frame_pose)
    points = np.empty((len(found), 6), dtype=np.float32)
    points[:, :3], points[:, 3:] = xyz, found[:, 1:]
    return points


def _to_frame(xyz: Array, poses: Array, frame_pose: Array) -> Array:
    """Points from the vehicle's frame at each pixel's time, through the world, to that of the frame."""
    world = rotate_by_angles(xyz, poses[:, :3])
    # Differences of world coordinates first: they are small, the coordinates are not.
    world += poses[:, 3:] - frame_pose[:3, 3]
    return np.asarray(world @ frame_pose[:3, :3])


def rotate_by_angles(xyz: Array, angles: Array) -> Array:
    """``(N, 3)`` positions turned by ``(N, 3)`` roll, pitch, yaw (radians): about x, then about y, then about z."""
    (x, y, z), (roll, pitch, yaw) = xyz.T, angles.T
    cos, sin = np.cos(roll), np.sin(roll)
    y, z = cos * y - sin * z, sin * y + cos * z
    cos, sin = np.cos(pitch), np.sin(pitch)
    x, z = cos * x + sin * z, cos * z - sin * x
    cos, sin = np.cos(yaw), np.sin(yaw)
    return np.stack([cos * x - sin * y, sin * x + cos * y, z], axis=1)


def pose_angles(pose: Array) -> Array:
    """``(6,)`` roll, pitch, yaw, x, y, z of a ``(4, 4)`` pose: see ``rotate_by_angles``."""
    roll = np.arctan2(pose[2, 1], pose[2, 2])
    pitch = -np.arcsin(np.clip(pose[2, 0], -1, 1))
    yaw = np.arctan2(pose[1, 0], pose[0, 0])
    return np.array([roll, pitch, yaw, *pose[:3, 3]])
