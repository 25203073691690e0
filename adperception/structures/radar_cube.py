"""A raw radar cube and the views that are projected from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adperception.structures.radar_grid import RadarGrid

__all__ = ["RadarCube", "RadarViews"]

_FLOOR = 1e-12


@dataclass(frozen=True)
class RadarCube:
    """One frame of a radar after the three Fourier transforms.

    Attributes:
        values: ``(range, azimuth, Doppler)``, complex64 amplitudes or float32 magnitudes; row 0 far, see ``RadarGrid``.
        grid: what the cells mean.
    """

    values: NDArray[Any]
    grid: RadarGrid

    def __post_init__(self) -> None:
        if self.values.shape != self.grid.shape:
            raise ValueError(
                f"radar cube: shape {self.values.shape} is not (range, azimuth, Doppler) = {self.grid.shape}. Check "
                "the order of the axes and the sensor description."
            )

    @property
    def is_complex(self) -> bool:
        """Whether the phase is there."""
        return bool(np.iscomplexobj(self.values))

    def magnitude(self) -> NDArray[np.float32]:
        """``|X|``."""
        magnitude: NDArray[np.float32] = np.abs(self.values).astype(np.float32, copy=False)
        return magnitude


@dataclass(frozen=True)
class RadarViews:
    """Two-dimensional views of a cube, or of T cubes with a leading time axis (oldest first).

    The released CARRADA views (see docs/radar_datasets.md): with magnitudes X[i, j, k], "raw" sums X and "processed"
    is ``10 log10`` of the sum of X^2, in decibels.

    Attributes:
        range_doppler: ``(..., range, Doppler)``, **row 0 near**.
        range_angle: ``(..., range, azimuth)``, row 0 far.
        angle_doppler: ``(..., azimuth, Doppler)``.
    """

    range_doppler: NDArray[np.float32]
    range_angle: NDArray[np.float32]
    angle_doppler: NDArray[np.float32]

    @classmethod
    def processed(cls, magnitude: NDArray[np.float32]) -> RadarViews:
        """Processed views of magnitudes ``(..., range, azimuth, Doppler)``."""
        power = np.square(magnitude, dtype=np.float32)

        def decibels(total: NDArray[np.float32]) -> NDArray[np.float32]:
            return (10 * np.log10(np.maximum(total, _FLOOR))).astype(np.float32)

        return cls(decibels(power.sum(-2)[..., ::-1, :]), decibels(power.sum(-1)), decibels(power.sum(-3)))

    @classmethod
    def raw(cls, magnitude: NDArray[np.float32]) -> RadarViews:
        """Raw views of magnitudes ``(..., range, azimuth, Doppler)``."""
        return cls(magnitude.sum(-2)[..., ::-1, :], magnitude.sum(-1), magnitude.sum(-3))

    @classmethod
    def stack(cls, views: list[RadarViews]) -> RadarViews:
        """Views of T frames as one, with a leading time axis."""
        return cls(
            np.stack([v.range_doppler for v in views]),
            np.stack([v.range_angle for v in views]),
            np.stack([v.angle_doppler for v in views]),
        )
