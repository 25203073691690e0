"""How high the ground lies in a scan: whether a sensor stands where the model expects it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["estimate_ground_height"]

_RADIUS_M = (3.0, 20.0)
_CELL_M = 1.0
_CELLS = 2 * round(_RADIUS_M[1] / _CELL_M)  # along x and y
_FLAT_M = 0.25
_MIN_POINTS = 5
_MIN_CELLS = 10
_BIN_M = 0.2


def estimate_ground_height(xyz: NDArray[np.floating]) -> float | None:
    """The z of the ground around the sensor.

    Columns of 1 m x 1 m between 3 and 20 m from the sensor whose points lie within 0.25 m of height are flat: ground,
    roofs, bonnets. Ground is the lowest height at which many of them lie.

    Args:
        xyz: ``(N, >= 3)`` positions in metres, any sensor-centred frame with z up.

    Returns:
        Metres, or ``None`` where there are fewer than ten flat columns.
    """
    distance = np.hypot(xyz[:, 0], xyz[:, 1])
    near = xyz[(distance > _RADIUS_M[0]) & (distance < _RADIUS_M[1]), :3].astype(np.float64)
    if not len(near):
        return None
    columns, rows = (np.floor(near[:, :2] / _CELL_M).astype(np.int64) + _CELLS // 2).T
    cell, counts = np.unique(columns * _CELLS + rows, return_inverse=True, return_counts=True)[1:]
    low, high = np.full(len(counts), np.inf), np.full(len(counts), -np.inf)
    np.minimum.at(low, cell, near[:, 2])
    np.maximum.at(high, cell, near[:, 2])
    means = np.bincount(cell, weights=near[:, 2]) / counts
    flat = np.sort(means[(counts >= _MIN_POINTS) & (high - low < _FLAT_M)])
    if len(flat) < _MIN_CELLS:
        return None
    # The lowest bin that holds at least half as many columns as the fullest one, and its neighbours.
    bins = np.floor((flat - flat[0]) / _BIN_M).astype(np.int64)
    filled = np.bincount(bins)
    chosen = int(np.flatnonzero(filled >= 0.5 * filled.max())[0])
    return float(np.median(flat[np.abs(bins - chosen) <= 1]))
