"""What the cells of a radar cube mean: metres, degrees, metres per second."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["CARRADA_GRID", "RadarGrid"]


@dataclass(frozen=True)
class RadarGrid:
    """Axes of a cube ``(range, azimuth, Doppler)``.

    Row 0 is the farthest range: row i is ``(range_bins - 1 - i) * range_bin_m`` away. Azimuth columns are uniform in
    the sine of the angle, ``azimuth_bins / 2`` is straight ahead, angles grow with the column. Doppler column
    ``doppler_bins / 2`` is standstill, approaching is positive; Doppler and azimuth wrap around.

    Attributes:
        range_bins: number of rows.
        azimuth_bins: number of azimuth columns.
        doppler_bins: number of Doppler columns.
        range_bin_m: metres per row.
        doppler_bin_mps: metres per second per Doppler column.
        element_spacing: distance of neighbouring virtual antennas in half wavelengths (CARRADA and RADDet: antennas
            made for 76.8 GHz, used at 77 GHz).
    """

    range_bins: int = 256
    azimuth_bins: int = 256
    doppler_bins: int = 64
    range_bin_m: float = 0.1953125
    doppler_bin_mps: float = 0.41968030701528203
    element_spacing: float = 77.0 / 76.8

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not value > 0:
                raise ValueError(f"RadarGrid: {name}={value} must be positive.")

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(range_bins, azimuth_bins, doppler_bins)``."""
        return self.range_bins, self.azimuth_bins, self.doppler_bins

    @property
    def max_range_m(self) -> float:
        """The first range that is aliased, metres."""
        return self.range_bins * self.range_bin_m

    def range_m(self, row: ArrayLike) -> NDArray[np.float64]:
        """Range of cube rows, metres."""
        return (self.range_bins - 1 - np.asarray(row, dtype=np.float64)) * self.range_bin_m

    def row(self, range_m: ArrayLike) -> NDArray[np.float64]:
        """Cube row of a range, not rounded."""
        return self.range_bins - 1 - np.asarray(range_m, dtype=np.float64) / self.range_bin_m

    def sin_azimuth(self, column: ArrayLike) -> NDArray[np.float64]:
        """Sine of the azimuth of azimuth columns; beyond +-1 no angle belongs to it."""
        return (2 * np.asarray(column, dtype=np.float64) / self.azimuth_bins - 1) / self.element_spacing

    def azimuth_deg(self, column: ArrayLike) -> NDArray[np.float64]:
        """Azimuth of azimuth columns, degrees."""
        return np.rad2deg(np.arcsin(np.clip(self.sin_azimuth(column), -1, 1)))

    def azimuth_column(self, azimuth_deg: ArrayLike) -> NDArray[np.float64]:
        """Azimuth column of an angle, not rounded."""
        sine = np.sin(np.deg2rad(np.asarray(azimuth_deg, dtype=np.float64)))
        return (sine * self.element_spacing + 1) * self.azimuth_bins / 2

    def velocity_mps(self, column: ArrayLike) -> NDArray[np.float64]:
        """Radial velocity of Doppler columns, metres per second, approaching positive."""
        return (np.asarray(column, dtype=np.float64) - self.doppler_bins / 2) * self.doppler_bin_mps

    def doppler_column(self, velocity_mps: ArrayLike) -> NDArray[np.float64]:
        """Doppler column of a radial velocity, not rounded, wrapped into ``[0, doppler_bins)``."""
        column = np.asarray(velocity_mps, dtype=np.float64) / self.doppler_bin_mps + self.doppler_bins / 2
        return np.mod(column, self.doppler_bins)

    def to_dict(self) -> dict[str, Any]:
        """For JSON files; ``RadarGrid(**values)`` reads it back."""
        return asdict(self)


CARRADA_GRID = RadarGrid()
"""CARRADA and RADDet: 256 x 256 x 64 cells, 50 m, +-13.4 m/s."""
