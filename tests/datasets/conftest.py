"""A small KITTI tree made by hand: one car and one pedestrian ahead, a wall behind the sensor."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from adperception.datasets.formats import to_kitti_camera, write_bin, write_calibration, write_labels
from adperception.structures import Boxes3D, KittiCalibration, PointCloud

CALIBRATION = KittiCalibration(
    p2=np.array([[700.0, 0, 600, 0], [0, 700, 180, 0], [0, 0, 1, 0]]),
    r0_rect=np.eye(3),
    velo_to_cam=np.array([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0]]),
)
BOXES = Boxes3D(
    np.array([[15, 2, -0.9, 4, 1.8, 1.6, 0.3], [10, -3, -0.8, 0.8, 0.6, 1.8, -2]], dtype=np.float32),
    ("Car", "Pedestrian"),
)
SIZE = (375, 1242)


def make_points(boxes: Boxes3D, seed: int) -> np.ndarray:
    """120 points in each box, 600 on the road ahead, 200 behind."""
    rng = np.random.default_rng(seed)
    parts = []
    for x, y, z, length, width, height, yaw in boxes.boxes:
        local = rng.uniform(-0.49, 0.49, (120, 3)) * (length, width, height)
        cos, sin = np.cos(yaw), np.sin(yaw)
        parts.append(local @ np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]]) + (x, y, z))
    parts.append(rng.uniform((6, -4, -1.75), (40, 4, -1.72), (600, 3)))
    parts.append(rng.uniform((-20, -10, -1), (-18, 10, 2), (200, 3)))
    xyz = np.concatenate(parts)
    return np.column_stack([xyz, rng.uniform(0, 1, len(xyz))]).astype(np.float32)


@pytest.fixture
def make_tree(tmp_path: Path) -> Callable[..., Path]:
    """Write a tree; keyword arguments leave parts of it out."""

    def make(frames: int = 4, labels: bool = True, calibration: bool = True, shapes: bool = True) -> Path:
        root, folder = tmp_path / "kitti", tmp_path / "kitti/training"
        for name in ("velodyne", "calib", "label_2"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        (root / "ImageSets").mkdir(exist_ok=True)
        names = [f"{i:06d}" for i in range(frames)]
        (root / "ImageSets/train.txt").write_text("".join(n + "\n" for n in names))
        for seed, name in enumerate(names):
            boxes = Boxes3D(BOXES.boxes + np.float32([seed, 0, 0, 0, 0, 0, 0]), BOXES.names)
            write_bin(folder / f"velodyne/{name}.bin", PointCloud(make_points(boxes, seed)))
            write_calibration(folder / f"calib/{name}.txt", CALIBRATION)
            write_labels(folder / f"label_2/{name}.txt", to_kitti_camera(boxes, CALIBRATION, SIZE))
        if shapes:
            rows = "".join(f"{n},{SIZE[0]},{SIZE[1]}\n" for n in names)
            (root / "image_shapes.csv").write_text("frame,height,width\n" + rows)
        for keep, name in ((labels, "label_2"), (calibration, "calib")):
            if not keep:
                for path in (folder / name).iterdir():
                    path.unlink()
                (folder / name).rmdir()
        return root

    return make
