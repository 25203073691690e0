"""Road planes (``planes/*.txt``), estimates that others published for KITTI's training frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from adperception.structures import KittiCalibration

__all__ = ["read_road_plane"]


def read_road_plane(path: str | Path, calibration: KittiCalibration) -> NDArray[np.float64]:
    """The road plane a x + b y + c z + d = 0 in the LiDAR frame.

    The file's last line holds four numbers, the plane in the rectified camera frame (three lines of header before it).

    Returns:
        ``(4,)`` a, b, c, d: unit normal pointing up (c > 0), d in metres.

    Raises:
        ValueError: if the last line does not hold four numbers, or the plane stands upright.
    """
    path = Path(path)
    lines = path.read_text(encoding="utf-8").split("\n")
    words = next((line.split() for line in reversed(lines) if line.strip()), [])
    try:
        camera = np.array([float(w) for w in words])
    except ValueError:
        camera = np.zeros(0)
    if camera.shape != (4,) or not np.isfinite(camera).all():
        raise ValueError(f'{path}: the last line is "{" ".join(words)}", expected a plane: four numbers a b c d.')
    plane = calibration.lidar_to_rect.T @ camera  # n . (M p) + d = (M^T [n, d]) . p
    if abs(plane[2]) < 0.5 * np.linalg.norm(plane[:3]):
        raise ValueError(f"{path}: the plane {camera.tolist()} stands upright (less than 30 degrees from vertical).")
    return np.asarray(plane / (np.sign(plane[2]) * np.linalg.norm(plane[:3])))
