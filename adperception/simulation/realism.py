"""Statistics that say how much simulated sweeps are like recorded ones: the same code measures both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from adperception.datasets.formats.kitti_boxes import from_kitti_camera
from adperception.datasets.formats.kitti_calib import read_calibration
from adperception.datasets.formats.kitti_label import DONT_CARE, read_labels
from adperception.datasets.formats.point_files import read_points

__all__ = ["BIN_M", "SweepStatistics", "ground_mask", "median_points_per_car", "points_in_box", "statistics_of_tree"]

BIN_M = 10.0
"""Width of the range bins of cars, metres."""

_CELL_M = 1.5
_GROUND_BAND_M = 0.2


@dataclass(frozen=True)
class SweepStatistics:
    """Of one tree in KITTI's layout, over F frames and K labelled cars.

    Attributes:
        returns: ``(F,)`` points per frame.
        ground_share: ``(F,)`` share of points on the ground (``ground_mask``).
        car_range_m: ``(K,)`` horizontal range of the cars' centres.
        car_points: ``(K,)`` points inside the cars' boxes.
        range_m: sample of the points' ranges.
        intensity: sample of the points' intensities.
        elevation_deg: sample of the points' elevations.
    """

    returns: NDArray[np.int64]
    ground_share: NDArray[np.float64]
    car_range_m: NDArray[np.float64]
    car_points: NDArray[np.int64]
    range_m: NDArray[np.float32]
    intensity: NDArray[np.float32]
    elevation_deg: NDArray[np.float32]


def ground_mask(xyz: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which points lie on the ground.

    A point does if it is at most 0.2 m above the lowest point of its 3 x 3 neighbourhood of 1.5 m cells, and that
    lowest point is where ground can be (the level under a sensor 1.73 m high, 0.6 m and 8 % of the distance up or
    down). Points lower than that are mirror images and count for nothing.

    Args:
        xyz: ``(N, 3)`` positions in metres, LiDAR frame of KITTI.
    """
    distance = np.hypot(xyz[:, 0], xyz[:, 1])
    slack = 0.6 + 0.08 * distance
    plausible = np.abs(xyz[:, 2] + 1.73) < slack
    size = int(2 * 82 / _CELL_M) + 4
    cell = np.clip(((xyz[:, :2] + 82) / _CELL_M).astype(np.int64) + 1, 1, size - 2)
    lowest = np.full((size, size), np.inf)
    np.minimum.at(lowest, (cell[plausible, 0], cell[plausible, 1]), xyz[plausible, 2])
    around = lowest.copy()
    for dx in (-1, 0, 1):
        for dy in (-1, 0, 1):
            around[1:-1, 1:-1] = np.minimum(around[1:-1, 1:-1], lowest[1 + dx : size - 1 + dx, 1 + dy : size - 1 + dy])
    return np.asarray(plausible & (xyz[:, 2] < around[cell[:, 0], cell[:, 1]] + _GROUND_BAND_M))


def points_in_box(xyz: NDArray[np.float32], box: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which points lie inside one box ``(x, y, z, length, width, height, yaw)`` of the same frame."""
    shifted = xyz - box[:3]
    cos, sin = np.cos(box[6]), np.sin(box[6])
    along = shifted[:, 0] * cos + shifted[:, 1] * sin
    across = shifted[:, 1] * cos - shifted[:, 0] * sin
    half = box[3:6] / 2
    return np.asarray((np.abs(along) < half[0]) & (np.abs(across) < half[1]) & (np.abs(shifted[:, 2]) < half[2]))


def statistics_of_tree(
    root: Path, frame_ids: Sequence[str], *, car_frames_reduced: Sequence[str] = ()
) -> SweepStatistics:
    """Read frames of a tree and measure them.

    Args:
        root: of the tree, with ``training/velodyne``, ``calib`` and ``label_2``.
        frame_ids: frames whose whole sweep is there.
        car_frames_reduced: further frames of which only ``velodyne_reduced`` is there; they count for the cars only.
    """
    returns: list[int] = []
    ground: list[float] = []
    cars: list[tuple[float, int]] = []
    samples: list[NDArray[np.float32]] = []
    training = root / "training"
    for frame_id in [*frame_ids, *car_frames_reduced]:
        whole = frame_id in frame_ids
        points = read_points(training / ("velodyne" if whole else "velodyne_reduced") / f"{frame_id}.bin").points
        if whole:
            returns.append(len(points))
            ground.append(float(ground_mask(points[:, :3]).mean()))
            samples.append(points[::10])
        calibration = read_calibration(training / "calib" / f"{frame_id}.txt")
        objects = [o for o in read_labels(training / "label_2" / f"{frame_id}.txt") if o.name != DONT_CARE]
        boxes = from_kitti_camera(objects, calibration)
        for name, box in zip(boxes.names, boxes.boxes, strict=True):
            if name == "Car":
                inside = int(np.count_nonzero(points_in_box(points[:, :3], box)))
                cars.append((float(np.hypot(box[0], box[1])), inside))
    sample = np.concatenate(samples)
    horizontal = np.hypot(sample[:, 0], sample[:, 1])
    table = np.array(cars, dtype=np.float64).reshape(-1, 2)
    return SweepStatistics(
        returns=np.array(returns),
        ground_share=np.array(ground),
        car_range_m=table[:, 0],
        car_points=table[:, 1].astype(np.int64),
        range_m=np.asarray(np.hypot(horizontal, sample[:, 2])),
        intensity=sample[:, 3],
        elevation_deg=np.asarray(np.degrees(np.arctan2(sample[:, 2], horizontal))),
    )


def median_points_per_car(statistics: SweepStatistics) -> dict[int, tuple[float, int]]:
    """Per 10 m bin (key: its lower end in metres) the median number of points per car and the number of cars."""
    bins = (statistics.car_range_m // BIN_M).astype(np.int64)
    return {
        int(b * BIN_M): (float(np.median(statistics.car_points[bins == b])), int(np.count_nonzero(bins == b)))
        for b in np.unique(bins)
    }
