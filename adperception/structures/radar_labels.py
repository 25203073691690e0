"""Labels and predictions of radar frames: masks of two views, and objects in the cube."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from adperception.structures.radar_grid import RadarGrid

__all__ = ["RadarMasks", "RadarObjects", "flip_label_row", "flip_range_doppler_labels"]


def flip_label_row(row: ArrayLike, range_bins: int) -> NDArray[np.float64]:
    """Row of a label in the other range orientation: ``range_bins - row``, clipped to ``0 .. range_bins - 1``.

    CARRADA pairs rows of range-Doppler labels (row 0 near) with rows of range-angle labels and of the cube (row 0 far)
    with the sum 256, not 255: its range-angle labels sit one row nearer than the flipped data. The same rule both ways.
    """
    return np.clip(range_bins - np.asarray(row, dtype=np.float64), 0, range_bins - 1)


def flip_range_doppler_labels(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Range-Doppler labels ``(..., range, Doppler)`` in the other range orientation, row r to ``range_bins - r``.

    Row 0 would go to ``range_bins`` and is clipped to the last row, where it gives way to what row 1 brings; the new
    row 0 is background. So rows 1 to ``range_bins - 1`` come back unchanged from flipping twice.
    """
    flipped = np.zeros_like(mask)
    flipped[..., 1:, :] = mask[..., :0:-1, :]
    last = flipped[..., -1, :]
    flipped[..., -1, :] = np.where(last > 0, last, mask[..., 0, :])
    return flipped


@dataclass(frozen=True)
class RadarMasks:
    """A class for every pixel of two views: 0 background, then the classes in the model's or dataset's order.

    Attributes:
        range_doppler: ``(range, Doppler)`` uint8, **row 0 near**, as CARRADA stores it.
        range_angle: ``(range, azimuth)`` uint8, row 0 far.
    """

    range_doppler: NDArray[np.uint8]
    range_angle: NDArray[np.uint8]


@dataclass(frozen=True)
class RadarObjects:
    """N objects of a frame in cube coordinates.

    Attributes:
        cells: ``(N, 3)`` float32 centres (range row, azimuth column, Doppler column); row 0 far, not rounded.
        sizes: ``(N, 3)`` float32 extents in cells along the same axes; 0 where unknown.
        class_ids: ``(N,)`` int64, 1 and up (0 is background).
        scores: ``(N,)`` float32 confidences, 1 for labels.
    """

    cells: NDArray[np.float32]
    sizes: NDArray[np.float32]
    class_ids: NDArray[np.int64]
    scores: NDArray[np.float32]

    def __post_init__(self) -> None:
        n = len(self.cells)
        shapes = (self.cells.shape, self.sizes.shape, self.class_ids.shape, self.scores.shape)
        if shapes != ((n, 3), (n, 3), (n,), (n,)):
            raise ValueError(
                f"RadarObjects: shapes {shapes} of cells, sizes, class_ids, scores do not belong together."
            )

    def __len__(self) -> int:
        return len(self.cells)

    @classmethod
    def empty(cls) -> RadarObjects:
        """No object."""
        none = np.zeros((0, 3), dtype=np.float32)
        return cls(none, none.copy(), np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32))

    def select(self, indices: NDArray[np.int64] | NDArray[np.bool_]) -> RadarObjects:
        """Some of the objects, by index or by mask."""
        return RadarObjects(self.cells[indices], self.sizes[indices], self.class_ids[indices], self.scores[indices])

    def range_m(self, grid: RadarGrid) -> NDArray[np.float64]:
        """Ranges in metres."""
        return grid.range_m(self.cells[:, 0])

    def azimuth_deg(self, grid: RadarGrid) -> NDArray[np.float64]:
        """Azimuths in degrees, growing with the azimuth column."""
        return grid.azimuth_deg(self.cells[:, 1])

    def velocity_mps(self, grid: RadarGrid) -> NDArray[np.float64]:
        """Radial velocities in metres per second, approaching positive."""
        return grid.velocity_mps(self.cells[:, 2])
