"""A labelled moment of a radar recording, with the frames before it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adperception.structures.radar_cube import RadarViews
from adperception.structures.radar_grid import RadarGrid
from adperception.structures.radar_labels import RadarMasks, RadarObjects

__all__ = ["RadarFrame"]


@dataclass(frozen=True)
class RadarFrame:
    """T consecutive frames, oldest first, and the labels of the last one.

    Attributes:
        frame_id: name of the last frame, ``"<sequence>/<frame>"``.
        grid: what the cells mean.
        cubes: ``(T, range, azimuth, Doppler)`` float32 magnitudes, row 0 far; ``None`` if they were not asked for.
        views: processed views in decibels with a leading time axis of T; ``None`` if they were not asked for.
        masks: pixel labels; ``None`` if there are none.
        objects: the objects; ``None`` if the frame is not labelled.
    """

    frame_id: str
    grid: RadarGrid
    cubes: NDArray[np.float32] | None = None
    views: RadarViews | None = None
    masks: RadarMasks | None = None
    objects: RadarObjects | None = None
