"""A simulated radar recording: cubes with labels as CARRADA's are made."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from adperception.simulation.cfar import CFAR
from adperception.simulation.fmcw import (
    FMCWRadar,
    Scatterers,
    antenna_spectrum,
    azimuth_transform,
    simulate_adc,
    white_noise,
)
from adperception.simulation.radar_labels import AzimuthAxis, InstanceLabel, label_instance, masks_of, objects_of
from adperception.simulation.radar_objects import MovingPoints, RoadUser
from adperception.simulation.radar_scene import NOISE_POWER, draw_scene, echo_gain, receiver_gain
from adperception.structures.radar_cube import RadarCube
from adperception.structures.radar_labels import RadarMasks, RadarObjects

__all__ = ["RadarSequence", "SimulatedRadarFrame"]

Complex = NDArray[np.complex64]

_START_NS = 1_600_000_000_000_000_000


@dataclass(frozen=True)
class SimulatedRadarFrame:
    """One frame of a simulated recording.

    Attributes:
        cube: complex.
        masks: dense labels.
        sparse: the pixels of the detections only.
        objects: centres and extents of the labelled objects.
        instances: labels of each object; an object without detections has none.
        time_ns: time stamp.
        adc: the samples the cube was made of, ``(loops, antennas, samples)`` complex64.
    """

    cube: RadarCube
    masks: RadarMasks
    sparse: RadarMasks
    objects: RadarObjects
    instances: list[InstanceLabel]
    time_ns: int
    adc: Complex


class RadarSequence:
    """A recording of a parked radar: up to two pedestrians, cyclists and cars at a time, or none.

    Frame i depends on the seed, the number of frames and i only, in any order and any process.

    Args:
        seed: of the scene and the noise.
        frames: how many.
        radar: the radar, or the name of a preset.
        ra_label_axis: ``"sin"`` puts range-angle labels where the echo is, ``"angle"`` where CARRADA puts them.
    """

    def __init__(
        self, seed: int, frames: int, radar: FMCWRadar | str = "carrada", ra_label_axis: AzimuthAxis = "sin"
    ) -> None:
        if frames < 1:
            raise ValueError(f"RadarSequence: frames={frames} must be at least 1.")
        if ra_label_axis not in ("sin", "angle"):
            raise ValueError(f"RadarSequence: ra_label_axis={ra_label_axis!r} is neither 'sin' nor 'angle'.")
        self.seed = seed
        self.frames = frames
        self.radar = FMCWRadar.preset(radar) if isinstance(radar, str) else radar
        self.ra_label_axis: AzimuthAxis = ra_label_axis
        self.grid = self.radar.grid
        self.scene = draw_scene(np.random.default_rng([seed, 0]), frames, self.radar.frame_period_s, self.grid)
        one_loop = dataclasses.replace(self.radar, loops=1)
        self._static = simulate_adc(self._received(self.scene.static), one_loop)
        self._cfar = label_detector(self.radar)
        self._radius = label_radius(self.radar)
        self._leakage = leakage(self.radar)

    def __len__(self) -> int:
        return self.frames

    def __iter__(self) -> Iterator[SimulatedRadarFrame]:
        return (self[index] for index in range(self.frames))

    def __getitem__(self, index: int) -> SimulatedRadarFrame:
        if not 0 <= index < self.frames:
            raise IndexError(f"frame {index} of a simulated recording of {self.frames} frames.")
        rng = np.random.default_rng([self.seed, 1, index])
        users = [user for user in self.scene.road_users if user.first_frame <= index < user.end_frame]
        points = [user.points(index, self.radar.frame_period_s) for user in users]
        echoes = [self._echo(user.class_id, of_user) for user, of_user in zip(users, points, strict=True)]
        adc = self._noise(rng)
        adc += self._static
        ghosts = [self._ghost(of_user, echo) for of_user, echo in zip(points, echoes, strict=True)]
        adc += simulate_adc(Scatterers.join(echoes + ghosts), self.radar)
        spectrum = antenna_spectrum(adc, self.radar)
        cube = RadarCube(azimuth_transform(spectrum[::-1], self.radar), self.grid)
        instances = self._label(users, echoes, spectrum)
        return SimulatedRadarFrame(
            cube=cube,
            masks=masks_of(instances, self.grid),
            sparse=masks_of(instances, self.grid, dense=False),
            objects=objects_of(instances, self.grid),
            instances=instances,
            time_ns=_START_NS + round(index * self.radar.frame_period_s * 1e9),
            adc=adc,
        )

    def _received(self, scatterers: Scatterers) -> Scatterers:
        """Amplitudes of the cube as amplitudes at the ADC, after the receiver's filter."""
        gain = receiver_gain(scatterers.range_m, self.grid.max_range_m) / self.radar.coherent_gain
        return dataclasses.replace(scatterers, amplitude=scatterers.amplitude * gain)

    def _echo(self, class_id: int, points: MovingPoints) -> Scatterers:
        echo = points.seen()
        gain = echo_gain(class_id, echo.range_m, echo.sin_azimuth)
        return self._received(dataclasses.replace(echo, amplitude=echo.amplitude * gain))

    def _ghost(self, points: MovingPoints, echo: Scatterers) -> Scatterers:
        if self.scene.wall is None:
            return Scatterers.join([])
        ghost = points.by_way_of(self.scene.wall, echo)
        heard = (ghost.range_m < self.grid.max_range_m) * self.scene.ghost_gain
        return dataclasses.replace(ghost, amplitude=ghost.amplitude * heard)

    def _noise(self, rng: np.random.Generator) -> Complex:
        """Noise that has passed the receiver's filter."""
        noise = white_noise(self.radar.adc_shape, NOISE_POWER / self.radar.noise_gain, rng)
        ranges = np.arange(self.radar.samples, dtype=np.float64) * self.grid.range_bin_m
        response = receiver_gain(ranges, self.grid.max_range_m)
        spectrum = scipy.fft.fft(noise, axis=2, overwrite_x=True) * response.astype(np.float32)
        filtered: Complex = scipy.fft.ifft(spectrum, axis=2, overwrite_x=True)
        return filtered

    def _label(self, users: list[RoadUser], echoes: list[Scatterers], spectrum: Complex) -> list[InstanceLabel]:
        """Detections of each object: cells that stand out and whose power is mostly the object's."""
        if not users:
            return []
        power = _power(spectrum)
        labels = []
        for user, echo in zip(users, echoes, strict=True):
            # Where its points are, and the rows next to them that the window spreads them over; not what leaks below
            # range 0, where the farthest rows are.
            first = max(int(echo.range_m.min() / self.grid.range_bin_m) - 1, 0)
            last = min(int(echo.range_m.max() / self.grid.range_bin_m) + 3, self.grid.range_bins)
            if first >= last:
                continue
            own = _power(antenna_spectrum(simulate_adc(echo, self.radar), self.radar))[first:last]
            cells = self._detections(power, first, last) & (own > 0.5 * power[first:last])
            cells &= (own > own.max() * _FAINTEST) & (own > own.max(axis=1, keepdims=True) * self._leakage)
            rows, columns = np.nonzero(cells)
            if not len(rows):
                continue
            rows += first
            beams = azimuth_transform(spectrum[rows, :, columns].T, self.radar)
            azimuth = np.abs(beams).argmax(axis=0)
            bins = (rows, azimuth, columns)
            labels.append(
                label_instance(user.instance_id, user.class_id, bins, self.grid, self.ra_label_axis, self._radius)
            )
        return labels

    def _detections(self, power: NDArray[np.float32], first: int, last: int) -> NDArray[np.bool_]:
        """Detections in rows ``first`` to ``last - 1``; the detector sees no more rows than it needs."""
        reach = self._cfar.guard[0] + self._cfar.training[0]
        start = max(first - reach, 0)
        return self._cfar(power[start : last + reach])[first - start : last - start]


_FAINTEST = 10 ** (-32 / 10)
"""Least power of a detection over the object's strongest one."""


def leakage(radar: FMCWRadar) -> float:
    """Least power of a detection over the strongest one in its row: -25 dB with CARRADA's 64 loops.

    Without a Doppler window an echo leaks over the whole axis as 1 / (pi k) after k columns. Leakage is not to become
    label, and with fewer loops it reaches the same share of the axis at a higher level.
    """
    return float(10 ** (-25 / 10) * (64 / radar.loops) ** 2)


def label_detector(radar: FMCWRadar) -> CFAR:
    """The detector whose detections become labels: ordered statistic, over a few rows and most of the Doppler axis."""
    half = max(radar.loops // 2 - 1, 1)
    guard = max(radar.loops // 16, 1)
    return CFAR(guard=(1, guard), training=(2, half - guard), factor=3.3, rank=0.6)


def label_radius(radar: FMCWRadar) -> float:
    """Growth of masks: 3 pixels in CARRADA's 256 rows, none where that is less than a pixel."""
    return max(3.0 * radar.samples / 256, 1.0)


def _power(spectrum: Complex) -> NDArray[np.float32]:
    """Power over the antennas, ``(range, Doppler)``."""
    total: NDArray[np.float32] = np.square(spectrum.real).sum(1) + np.square(spectrum.imag).sum(1)
    return total
