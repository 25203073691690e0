"""What surfaces do to a laser beam."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

__all__ = ["MATERIAL_TABLE", "Material", "MaterialTable"]


class Material(IntEnum):
    """Surface materials; the value indexes ``MATERIAL_TABLE``."""

    ASPHALT = 0
    PAVEMENT = 1
    GRASS = 2
    FACADE = 3
    GLASS = 4
    METAL = 5
    SIGN = 6
    CAR_PAINT = 7
    RUBBER = 8
    FOLIAGE = 9
    BARK = 10
    CLOTH = 11
    SKIN = 12
    PLATE = 13
    WALL = 14
    PANE = 15


@dataclass(frozen=True)
class MaterialTable:
    """Properties per material, each ``(number of materials,)`` float32.

    Attributes:
        reflectance: mean intensity of a surface that faces the sensor, 0..1.
        lobe: exponent of the cosine of incidence in the returned signal: 1 for smooth surfaces, near 0 for rough ones
            that send light back wherever it comes from (asphalt, grass).
        grazing: share of the intensity that is left at grazing incidence, 0..1.
        spread: standard deviation of the intensity from point to point.
        roughness_m: standard deviation of the surface along the ray, metres (grass blades, leaves, plaster).
        dropout: probability that a beam at normal incidence returns nothing whatever the range (mirror-like surfaces
            send the light elsewhere, glass lets it through). ``GLASS`` is that of cars, ``PANE`` that of buildings.
        undulation_m: amplitude of the slow ups and downs of ground made of it, metres; 0 for what is not ground.
        growth_m: mean height at which blades above the ground return the beam, metres.
    """

    reflectance: NDArray[np.float32]
    lobe: NDArray[np.float32]
    grazing: NDArray[np.float32]
    spread: NDArray[np.float32]
    roughness_m: NDArray[np.float32]
    dropout: NDArray[np.float32]
    undulation_m: NDArray[np.float32]
    growth_m: NDArray[np.float32]


_ROWS: dict[Material, tuple[float, ...]] = {
    Material.ASPHALT: (0.33, 0.20, 0.55, 0.05, 0.005, 0.02, 0.03, 0.000),
    Material.PAVEMENT: (0.38, 0.20, 0.60, 0.05, 0.008, 0.02, 0.03, 0.005),
    Material.GRASS: (0.42, 0.15, 0.70, 0.07, 0.040, 0.02, 0.10, 0.070),
    Material.FACADE: (0.38, 0.70, 0.45, 0.07, 0.015, 0.02, 0.00, 0.000),
    Material.GLASS: (0.10, 0.90, 0.10, 0.05, 0.010, 0.70, 0.00, 0.000),
    Material.PANE: (0.15, 0.80, 0.20, 0.05, 0.010, 0.35, 0.00, 0.000),
    Material.METAL: (0.30, 0.80, 0.30, 0.10, 0.005, 0.05, 0.00, 0.000),
    Material.SIGN: (0.75, 0.50, 0.60, 0.15, 0.005, 0.02, 0.00, 0.000),
    Material.CAR_PAINT: (0.30, 1.00, 0.25, 0.10, 0.005, 0.02, 0.00, 0.000),
    Material.RUBBER: (0.10, 0.70, 0.60, 0.04, 0.010, 0.10, 0.00, 0.000),
    Material.FOLIAGE: (0.36, 0.40, 0.70, 0.10, 0.030, 0.03, 0.00, 0.000),
    Material.BARK: (0.30, 0.60, 0.60, 0.06, 0.015, 0.02, 0.00, 0.000),
    Material.CLOTH: (0.33, 0.60, 0.60, 0.08, 0.010, 0.03, 0.00, 0.000),
    Material.SKIN: (0.45, 0.60, 0.60, 0.05, 0.005, 0.02, 0.00, 0.000),
    Material.WALL: (0.36, 0.70, 0.45, 0.07, 0.015, 0.02, 0.00, 0.000),
    Material.PLATE: (0.95, 0.20, 0.80, 0.04, 0.003, 0.00, 0.00, 0.000),
}

_columns = np.array([_ROWS[m] for m in Material], dtype=np.float32).T
MATERIAL_TABLE = MaterialTable(*_columns)
"""Values by eye from the intensities of KITTI's clouds (median 0.28, 95 % below 0.5, plates and signs near 1)."""
