"""A spinning 64-beam LiDAR: which rays it sends, and what comes back of them.

The elevations are those of the HDL-64 that recorded KITTI: +2 to -8.33 degrees in steps of 1/3 for the upper 32 beams,
-8.83 to -24.33 in steps of 1/2 for the lower 32. All beams are taken to leave one point.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from adperception.simulation.materials import MATERIAL_TABLE
from adperception.simulation.objects import PlacedParts
from adperception.simulation.ray_casting import RangeImage, RayGrid, cast_parts

__all__ = ["LidarSensor", "Sweep", "incidence_cosine", "spinning_64_elevations"]

Float = NDArray[np.float32]


def spinning_64_elevations() -> NDArray[np.float64]:
    """``(64,)`` elevations of the beams in degrees, highest first."""
    upper = 2.0 - np.arange(32) / 3
    lower = -8.83 - np.arange(32) / 2
    return np.concatenate([upper, lower])


@dataclass(frozen=True)
class Sweep:
    """One turn of the sensor.

    Attributes:
        points: ``(N, 4)`` float32 x, y, z (metres, LiDAR frame) and intensity (0..1), beam by beam from the highest,
            each counter-clockwise from +x: the order of KITTI's files.
        part: ``(N,)`` part of the scene that each point lies on.
        rays_alone: ``(M,)`` rays that would meet each labelled object if it stood alone.
        rays_met: ``(M,)`` rays that meet it first, before dropout.
        returns: ``(M,)`` points on it.
    """

    points: Float
    part: NDArray[np.int32]
    rays_alone: NDArray[np.int64]
    rays_met: NDArray[np.int64]
    returns: NDArray[np.int64]


@dataclass(frozen=True)
class LidarSensor:
    """The sensor and its imperfections.

    Attributes:
        elevations_deg: beams, highest first.
        columns: firings of each beam per turn. KITTI's clouds have a median step of 0.1796 degrees, 2,004 columns.
        height_m: of the beams' origin above the ground below it.
        max_range_m: returns from farther away are not recorded.
        range_noise_m: standard deviation along the ray.
        half_signal: value of ``reflectance * cosine of incidence / range**2`` (1/m2) of which half the pulses are lost.
    """

    elevations_deg: tuple[float, ...] = field(default_factory=lambda: tuple(spinning_64_elevations().tolist()))
    columns: int = 2004
    height_m: float = 1.73
    max_range_m: float = 80.0
    range_noise_m: float = 0.012
    half_signal: float = 1.5e-6

    def grid(self, azimuth_start: float = 0.0) -> RayGrid:
        """The rays of one turn that starts at the given azimuth (radians)."""
        tangent = np.tan(np.radians(self.elevations_deg)).astype(np.float32)
        return RayGrid(tangent, azimuth_start, self.columns)

    def sweep(self, scene: PlacedParts, rng: np.random.Generator) -> Sweep:
        """Cast all rays into the scene and return what the sensor would record."""
        grid = self.grid(float(rng.uniform(0, 2 * np.pi / self.columns)))
        image = RangeImage(grid, self.max_range_m)
        alone = cast_parts(scene.batch, grid, image, rng, object_of_part=scene.object_of_part)
        objects = len(scene.labelled)
        met = _count(scene.object_of_part[image.part[image.part >= 0]], objects)

        cosine = incidence_cosine(image.inverse, grid)
        beam, column = np.nonzero(image.part >= 0)
        part = image.part[beam, column]
        elevation_cosine = grid.elevation_cosine
        range_m = np.reciprocal(image.inverse[beam, column] * elevation_cosine[beam])
        cosine = cosine[beam, column]

        table = MATERIAL_TABLE
        reflectance: Float = (table.reflectance[scene.material] * scene.paint)[part]
        keep = self._survives(reflectance * cosine / (range_m * range_m), table.dropout[scene.material][part], rng)
        beam, column, part, range_m = beam[keep], column[keep], part[keep], range_m[keep]
        cosine, reflectance = cosine[keep], reflectance[keep]

        sigma = np.hypot(table.roughness_m, np.float32(self.range_noise_m))[scene.material][part]
        range_m += sigma * rng.standard_normal(len(part), dtype=np.float32)
        horizontal = range_m * elevation_cosine[beam]
        azimuth = grid.azimuth
        points = np.empty((len(part), 4), dtype=np.float32)
        points[:, 0] = horizontal * np.cos(azimuth).astype(np.float32)[column]
        points[:, 1] = horizontal * np.sin(azimuth).astype(np.float32)[column]
        points[:, 2] = horizontal * grid.elevation_tangent[beam]
        # KITTI stores millimetres and hundredths.
        points[:, :3] = np.rint(points[:, :3] * np.float32(1000)) / np.float32(1000)
        grazing = table.grazing[scene.material][part]
        intensity = reflectance * (grazing + (1 - grazing) * cosine)
        intensity += table.spread[scene.material][part] * rng.standard_normal(len(part), dtype=np.float32)
        points[:, 3] = np.rint(np.clip(intensity, 0, 0.99) * np.float32(100)) / np.float32(100)
        return Sweep(points, part, alone, met, _count(scene.object_of_part[part], objects))

    def _survives(self, signal: Float, dropout: Float, rng: np.random.Generator) -> NDArray[np.bool_]:
        """Which pulses are detected: a soft threshold on the signal, and losses that do not depend on it."""
        weakness = np.float32(self.half_signal) / np.maximum(signal, np.float32(1e-12))
        probability = (1 - dropout) / (1 + weakness * np.sqrt(weakness))
        return np.asarray(rng.random(len(signal), dtype=np.float32) < probability)


def incidence_cosine(inverse: Float, grid: RayGrid) -> Float:
    """Cosine between ray and surface normal, from the range image alone.

    On a plane, inverse horizontal range is ``w = a(azimuth) + tan * b`` (see ``ray_casting``), and the normal is
    proportional to ``(w - tan * b, dw/dazimuth, b)`` in radial, tangential and vertical direction. The derivatives
    are taken as the smaller one of the differences to both sides, so that edges do not count.

    Args:
        inverse: ``(B, C)`` inverse horizontal range, 1/m.
        grid: the rays.

    Returns:
        ``(B, C)`` values in 0..1.
    """
    tan = grid.elevation_tangent[:, None]
    around = (np.roll(inverse, -1, axis=1) - inverse) * np.float32(1 / grid.azimuth_step)
    tangential = _smaller(around, np.roll(around, 1, axis=1))
    if grid.beams > 1:
        steps = np.diff(inverse, axis=0) / np.diff(tan, axis=0)
        vertical = _smaller(np.concatenate([steps[:1], steps]), np.concatenate([steps, steps[-1:]]))
    else:
        vertical = np.zeros_like(inverse)
    radial = inverse - tan * vertical
    norm = np.sqrt(radial * radial + tangential * tangential + vertical * vertical)
    return np.asarray(np.minimum(grid.elevation_cosine[:, None] * inverse / norm, np.float32(1)))


def _smaller(a: Float, b: Float) -> Float:
    return np.where(np.abs(a) < np.abs(b), a, b)


def _count(objects: NDArray[np.int64], number: int) -> NDArray[np.int64]:
    return np.bincount(objects[objects >= 0], minlength=number).astype(np.int64)
