"""Small radar frames with processed views for the tests of models on views."""

from __future__ import annotations

import numpy as np

from adperception.structures import RadarFrame, RadarGrid, RadarMasks, RadarViews

GRID = RadarGrid(16, 16, 4)


def view_frames(count: int = 4, moments: int = 5, grid: RadarGrid = GRID, masks: bool = True) -> list[RadarFrame]:
    """Frames of noise with one bright object each, classes 1, 2, 3 in turn."""
    made = []
    rows, azimuths, dopplers = grid.shape
    for index in range(count):
        rng = np.random.default_rng(index)
        shapes = ((moments, rows, dopplers), (moments, rows, azimuths), (moments, azimuths, dopplers))
        doppler, angle, azimuth = (rng.normal(58, 3, shape).astype(np.float32) for shape in shapes)
        doppler_mask = np.zeros((rows, dopplers), dtype=np.uint8)
        angle_mask = np.zeros((rows, azimuths), dtype=np.uint8)
        row, column, speed = (int(rng.integers(2, size - 2)) for size in (rows, azimuths, dopplers + 1))
        class_id = index % 3 + 1
        angle[:, row - 1 : row + 2, column - 1 : column + 2] += 10 + 5 * class_id
        doppler[:, rows - row - 1 : rows - row + 2, speed] += 10 + 5 * class_id
        azimuth[:, column, speed] += 10
        angle_mask[row - 1 : row + 2, column - 1 : column + 2] = class_id
        doppler_mask[rows - row - 1 : rows - row + 2, speed] = class_id
        labels = RadarMasks(doppler_mask, angle_mask) if masks else None
        made.append(RadarFrame(f"s/{index:06d}", grid, None, RadarViews(doppler, angle, azimuth), labels))
    return made
