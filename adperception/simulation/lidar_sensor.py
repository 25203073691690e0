"""A spinning 64-beam LiDAR: which rays it sends, and what comes back of them.

The elevations are those of the HDL-64 that recorded KITTI: +2 to -8.33 degrees in steps of 1/3 for the upper 32 beams,
-8.83 to -24.33 in steps of 1/2 for the lower 32. All beams are taken to leave one point.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from adperception.simulation.materials import MATERIAL_TABLE, Material
from adperception.simulation.objects import PlacedParts
from adperception.simulation.ray_casting import PartBatch, RangeImage, RayGrid, cast_parts

__all__ = ["OWN_VEHICLE", "LidarSensor", "Returns", "Sweep", "incidence_cosine", "spinning_64_elevations"]

Float = NDArray[np.float32]

OWN_VEHICLE: tuple[tuple[float, float, float, float], ...] = (
    (158.0, 205.0, -90.0, -19.0),  # roof and rack behind the sensor
    (348.0, 372.0, -90.0, -21.0),  # roof in front of it
    (283.0, 305.0, -22.0, -17.0),  # a mast to the right
    (14.0, 34.0, -90.0, -23.2),
    (120.0, 142.0, -90.0, -22.7),
    (316.0, 328.0, -90.0, -23.2),
    (210.0, 228.0, -90.0, -23.7),
)
"""By eye from the directions in which KITTI's clouds have no point in any frame."""

_STOREY_M, _BAY_M = 3.0, 2.7
_WINDOW_RECESS_M = 0.12
_PATCH_COLUMNS = 4


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
class Returns:
    """What comes back of the rays of a turn, or of a part of one, beam by beam from the highest.

    Attributes:
        beam, column: ``(N,)`` the ray of each return.
        range_m: ``(N,)`` float32 distance along the ray, metres.
        intensity: ``(N,)`` float32, 0..0.99.
        part: ``(N,)`` part of the scene that it comes from.
        rays_alone: ``(M,)`` rays that would meet each labelled object if it stood alone.
        rays_met: ``(M,)`` rays that meet it first, before dropout.
    """

    beam: NDArray[np.int64]
    column: NDArray[np.int64]
    range_m: Float
    intensity: Float
    part: NDArray[np.int32]
    rays_alone: NDArray[np.int64]
    rays_met: NDArray[np.int64]

    def positions(self, grid: RayGrid) -> Float:
        """``(N, 3)`` x, y, z in metres, in the frame of the rays ``grid``."""
        direction = np.stack([np.cos(grid.azimuth), np.sin(grid.azimuth)]).astype(np.float32)
        horizontal = self.range_m * grid.elevation_cosine[self.beam]
        x, y = horizontal * direction[0, self.column], horizontal * direction[1, self.column]
        return np.stack([x, y, horizontal * grid.elevation_tangent[self.beam]], axis=1)


@dataclass(frozen=True)
class LidarSensor:
    """The sensor and its imperfections.

    Attributes:
        elevations_deg: beams, highest first.
        columns: firings of each beam per turn. The full beams of KITTI's clouds have up to 2,152
            returns, at a median step of 0.18 degrees; 2,083 is 360 degrees at the step of 0.1728
            degrees that the sensor has at 10 turns a second.
        height_m: of the beams' origin above the ground below it.
        max_range_m: returns from farther away are not recorded.
        range_noise_m: standard deviation along the ray.
        half_signal: value of ``reflectance * cosine**lobe / range**2`` (1/m2) of which half the pulses are lost.
        own_vehicle: what of the sensor's own car is in its way: azimuth from and to (degrees counter-clockwise), and
            the elevations from and to (degrees, lower first) of the beams that end there.
    """

    elevations_deg: tuple[float, ...] = field(default_factory=lambda: tuple(spinning_64_elevations().tolist()))
    columns: int = 2083
    height_m: float = 1.73
    max_range_m: float = 80.0
    range_noise_m: float = 0.012
    half_signal: float = 7.4e-5
    own_vehicle: tuple[tuple[float, float, float, float], ...] = OWN_VEHICLE

    def grid(self, azimuth_start: float = 0.0) -> RayGrid:
        """The rays of one turn that starts at the given azimuth (radians)."""
        tangent = np.tan(np.radians(self.elevations_deg)).astype(np.float32)
        return RayGrid(tangent, azimuth_start, self.columns)

    def sweep(self, scene: PlacedParts, rng: np.random.Generator) -> Sweep:
        """Cast all rays of a turn into the scene and return what KITTI's files would hold."""
        grid = self.grid(float(rng.uniform(0, 2 * np.pi / self.columns)))
        returns = self.returns(scene, grid, rng)
        points = np.empty((len(returns.part), 4), dtype=np.float32)
        # KITTI stores millimetres and hundredths.
        points[:, :3] = np.rint(returns.positions(grid) * np.float32(1000)) / np.float32(1000)
        points[:, 3] = np.rint(returns.intensity * np.float32(100)) / np.float32(100)
        on_object = _count(scene.object_of_part[returns.part], len(scene.labelled))
        return Sweep(points, returns.part, returns.rays_alone, returns.rays_met, on_object)

    def returns(
        self, scene: PlacedParts, grid: RayGrid, rng: np.random.Generator, columns: tuple[int, int] | None = None
    ) -> Returns:
        """Cast rays into the scene.

        Args:
            scene: in the frame of the beams' origin.
            grid: the rays, usually ``self.grid(...)``.
            rng: draws noise, dropout and depths in foliage.
            columns: first and end column of the part of the turn that is cast; all by default. A sensor that moves
                while it turns is cast in parts, each into the scene as it lies then.
        """
        image = RangeImage(grid, self.max_range_m)
        alone = cast_parts(scene.batch, grid, image, rng, object_of_part=scene.object_of_part, columns=columns)
        objects = len(scene.labelled)
        met = _count(scene.object_of_part[image.part[image.part >= 0]], objects)

        cosine = incidence_cosine(image.inverse, grid)
        beam, column = np.nonzero((image.part >= 0) & ~self._hidden_by_own_vehicle(grid))
        part = image.part[beam, column]
        elevation_cosine = grid.elevation_cosine
        range_m = np.reciprocal(image.inverse[beam, column] * elevation_cosine[beam])
        cosine = cosine[beam, column]

        material = scene.material[part]
        direction = np.stack([np.cos(grid.azimuth), np.sin(grid.azimuth)]).astype(np.float32)
        wall = np.flatnonzero(material == Material.FACADE)
        reach = (range_m * elevation_cosine[beam])[wall]
        position = np.stack([*(reach * direction[:, column[wall]]), reach * grid.elevation_tangent[beam[wall]]], axis=1)
        pane = wall[_in_window(position, scene.batch, part[wall])]
        material[pane] = Material.PANE
        range_m[pane] += np.float32(_WINDOW_RECESS_M) / np.maximum(cosine[pane], np.float32(0.2))

        table = MATERIAL_TABLE
        ground = np.flatnonzero(table.undulation_m[material] > 0)
        range_m[ground] = self._on_rough_ground(
            range_m[ground], beam[ground], direction[:, column[ground]], material[ground], grid, rng
        )
        reflectance = table.reflectance[material] * scene.paint[part]
        signal = reflectance * cosine ** table.lobe[material] / (range_m * range_m)
        # What lets light through or mirrors it away does so for neighbouring rays alike: holes come in patches.
        patches = rng.random((grid.beams, -(-grid.columns // _PATCH_COLUMNS)), dtype=np.float32)
        keep = patches[beam, column // _PATCH_COLUMNS] >= table.dropout[material]
        keep &= self._detected(signal, rng)
        beam, column, part, range_m = beam[keep], column[keep], part[keep], range_m[keep]
        cosine, reflectance, material = cosine[keep], reflectance[keep], material[keep]

        sigma = np.hypot(table.roughness_m, np.float32(self.range_noise_m))[material]
        range_m += sigma * rng.standard_normal(len(part), dtype=np.float32)
        grazing = table.grazing[material]
        intensity = reflectance * (grazing + (1 - grazing) * cosine)
        intensity += table.spread[material] * rng.standard_normal(len(part), dtype=np.float32)
        # Recorded far returns often carry no intensity at all: 10 % of them at 20 m, 40 % at 40 m, 80 % beyond 60 m.
        faint = np.float32(0.08) + np.float32(0.72) / (1 + (np.float32(45) / range_m) ** 4)
        intensity[rng.random(len(part), dtype=np.float32) < faint] = 0
        return Returns(beam, column, range_m, np.clip(intensity, 0, np.float32(0.99)), part, alone, met)

    def _hidden_by_own_vehicle(self, grid: RayGrid) -> NDArray[np.bool_]:
        azimuth = np.degrees(grid.azimuth) % 360
        elevation = np.array(self.elevations_deg)
        hidden = np.zeros((grid.beams, grid.columns), dtype=np.bool_)
        for start, end, lower, upper in self.own_vehicle:
            beams = (elevation >= lower) & (elevation <= upper)
            hidden |= beams[:, None] & ((azimuth - start) % 360 <= end - start)[None]
        return hidden

    def _on_rough_ground(
        self,
        range_m: Float,
        beam: NDArray[np.int64],
        direction: Float,
        material: NDArray[np.int64],
        grid: RayGrid,
        rng: np.random.Generator,
    ) -> Float:
        """Ranges to ground that is not flat: slow waves, and blades of grass that meet the beam above the soil.

        A surface higher by ``d`` is met at the same share of the way at which the beam has come down to it; the waves
        are taken at the meeting with the flat ground.
        """
        position = range_m * grid.elevation_cosine[beam] * direction
        lift = np.zeros_like(range_m)
        for wavelength_m in (4.0, 9.0, 23.0):
            angle, phase = rng.uniform(0, 2 * np.pi, 2)
            wave = (2 * np.pi / wavelength_m * np.array([np.cos(angle), np.sin(angle)])).astype(np.float32)
            lift += np.sin(wave[0] * position[0] + wave[1] * position[1] + np.float32(phase))
        lift *= MATERIAL_TABLE.undulation_m[material] / np.float32(3)
        lift += MATERIAL_TABLE.growth_m[material] * rng.standard_exponential(len(lift), dtype=np.float32)
        drop = np.maximum(-grid.elevation_tangent[beam] * grid.elevation_cosine[beam] * range_m, np.float32(0.3))
        return np.asarray(range_m * (1 - np.clip(lift / drop, np.float32(-0.3), np.float32(0.3))))

    def _detected(self, signal: Float, rng: np.random.Generator) -> NDArray[np.bool_]:
        """Which pulses come back strong enough: a soft threshold on the signal."""
        weakness = np.float32(self.half_signal) / np.maximum(signal, np.float32(1e-12))
        probability = 1 / (1 + weakness**4)
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


def _in_window(position: Float, batch: PartBatch, part: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Which points on facades lie in window panes: one per bay and storey.

    Bays are counted along the sum of the two horizontal axes of the building, which grows by one metre per metre along
    walls of either direction.
    """
    local = position - batch.centre[part].astype(np.float32)
    cos, sin = np.cos(batch.yaw).astype(np.float32)[part], np.sin(batch.yaw).astype(np.float32)[part]
    along = local[:, 0] * (cos - sin) + local[:, 1] * (sin + cos)
    up = local[:, 2] + (batch.half[:, 2].astype(np.float32) - np.float32(1))[part]
    in_bay = np.abs(np.mod(along, np.float32(_BAY_M)) - np.float32(_BAY_M / 2)) < np.float32(0.6)
    in_storey = np.abs(np.mod(up, np.float32(_STOREY_M)) - np.float32(1.6)) < np.float32(0.7)
    return np.asarray(in_bay & in_storey)


def _smaller(a: Float, b: Float) -> Float:
    return np.where(np.abs(a) < np.abs(b), a, b)


def _count(objects: NDArray[np.int64], number: int) -> NDArray[np.int64]:
    return np.bincount(objects[objects >= 0], minlength=number).astype(np.int64)
