"""KITTI calibration files (``calib/*.txt``): reading and writing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from adperception.structures import KittiCalibration

__all__ = ["read_calibration", "write_calibration"]

_SHAPES = {"P2": (3, 4), "R0_rect": (3, 3), "Tr_velo_to_cam": (3, 4)}
_MEANING = {
    "P2": "the projection to camera 2",
    "R0_rect": "the rectifying rotation",
    "Tr_velo_to_cam": "the LiDAR-to-camera transform",
}


def read_calibration(path: str | Path) -> KittiCalibration:
    """The calibration of one frame.

    The file has lines ``name: numbers``; ``P2`` (3x4), ``R0_rect`` (3x3) and ``Tr_velo_to_cam`` (3x4) are needed,
    others are ignored.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if one of the three is missing, has another number of values, or values that are not numbers.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"KITTI calibration: {path} does not exist.")
    rows: dict[str, tuple[int, list[str]]] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        name, colon, values = line.partition(":")
        if colon:
            rows[name.strip()] = (number, values.split())
    p2, r0_rect, velo_to_cam = (_matrix(rows, name, path) for name in _SHAPES)
    return KittiCalibration(p2, r0_rect, velo_to_cam)


def write_calibration(path: str | Path, calibration: KittiCalibration) -> None:
    """Write the seven lines of a KITTI calibration file.

    A ``KittiCalibration`` knows one camera, so ``P0``, ``P1`` and ``P3`` repeat ``P2``, and ``Tr_imu_to_velo`` is the
    identity: readers that count lines find what they expect.
    """
    rows = [(f"P{camera}", calibration.p2) for camera in range(4)]
    rows += [("R0_rect", calibration.r0_rect), ("Tr_velo_to_cam", calibration.velo_to_cam)]
    rows += [("Tr_imu_to_velo", np.eye(3, 4))]
    text = "".join(f"{name}: {' '.join(f'{v:.12e}' for v in matrix.ravel())}\n" for name, matrix in rows)
    Path(path).write_text(text, encoding="utf-8", newline="\n")


def _matrix(rows: dict[str, tuple[int, list[str]]], name: str, path: Path) -> NDArray[np.float64]:
    shape = _SHAPES[name]
    size = shape[0] * shape[1]
    if name not in rows:
        raise ValueError(
            f"{path}: no line {name} ({_MEANING[name]}); the file has {', '.join(rows) or 'no named lines'}. "
            f'Add "{name}:" and {size} numbers, row by row.'
        )
    number, texts = rows[name]
    try:
        values = np.array([float(t) for t in texts])
    except ValueError as error:
        raise ValueError(f"{path}:{number}: {name} holds something that is not a number ({error}).") from error
    if values.size != size or not np.isfinite(values).all():
        raise ValueError(
            f"{path}:{number}: {name} has {values.size} values ({int(np.isfinite(values).sum())} finite), expected "
            f"{size} finite ones: a {shape[0]}x{shape[1]} matrix, row by row."
        )
    return values.reshape(shape)
