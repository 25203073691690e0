"""Small radar frames with cubes for the tests of ERASE-Net: bright blobs in noise, labels where they are."""

from __future__ import annotations

import numpy as np

from adperception.structures import (
    RadarFrame,
    RadarGrid,
    RadarMasks,
    RadarObjects,
    flip_range_doppler_labels,
)

GRID = RadarGrid(32, 32, 16)


def cube_frame(
    objects: list[tuple[int, int, int, int]], index: int = 0, moments: int = 2, grid: RadarGrid = GRID
) -> RadarFrame:
    """A frame with objects ``(range row, azimuth column, Doppler column, class)``, row 0 far.

    The labels of an object are its row and the two beside it, with the same columns around it.
    """
    rng = np.random.default_rng([5, index])
    rows, azimuths, dopplers = grid.shape
    cubes = rng.rayleigh(30, (moments, *grid.shape)).astype(np.float32)
    doppler_mask = np.zeros((rows, dopplers), dtype=np.uint8)  # row 0 far until the end
    angle_mask = np.zeros((rows, azimuths), dtype=np.uint8)
    for row, azimuth, doppler, class_id in objects:
        r, a, d = np.ix_(
            range(max(0, row - 1), min(rows, row + 2)),
            np.arange(azimuth - 2, azimuth + 3) % azimuths,
            np.arange(doppler - 1, doppler + 2) % dopplers,
        )
        cubes[:, r, a, d] += 1000 * class_id
        doppler_mask[r[:, :, 0], d[:, 0, :]] = class_id
        angle_mask[r[:, :, 0], a[:, :, 0]] = class_id
    n = len(objects)
    cells = np.array([o[:3] for o in objects], dtype=np.float32).reshape(n, 3)
    return RadarFrame(
        f"s/{index:06d}",
        grid,
        cubes,
        masks=RadarMasks(flip_range_doppler_labels(doppler_mask), angle_mask),
        objects=RadarObjects(
            cells,
            np.full((n, 3), [2, 4, 2], dtype=np.float32),
            np.array([o[3] for o in objects], dtype=np.int64),
            np.ones(n, dtype=np.float32),
        ),
    )
