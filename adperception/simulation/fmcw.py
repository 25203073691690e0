"""Frequency-modulated continuous-wave (FMCW) MIMO radar: from point scatterers to samples, and from those to a cube.

A chirp is mixed with its echo: the beat frequency is the range, the phase from chirp to chirp the radial velocity, the
phase from antenna to antenna the angle. Three Fourier transforms bring them out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from adperception.structures.radar_cube import RadarCube
from adperception.structures.radar_grid import RadarGrid

__all__ = [
    "SPEED_OF_LIGHT",
    "FMCWRadar",
    "Scatterers",
    "antenna_spectrum",
    "azimuth_transform",
    "range_azimuth_doppler",
    "simulate_adc",
    "white_noise",
]

SPEED_OF_LIGHT = 299_792_458.0
"""Metres per second."""

Array = NDArray[np.float64]
Complex = NDArray[np.complex64]

_WINDOWS: dict[str, tuple[float, float]] = {"none": (1.0, 0.0), "hann": (0.5, 0.5), "hamming": (0.54, 0.46)}
_TDM_PHASES = ("removed", "left_in", "none")


@dataclass(frozen=True)
class FMCWRadar:
    """A radar and how its samples are turned into a cube.

    The default is a chirp that gives CARRADA's and RADDet's cells; ``preset`` knows other radars.

    Attributes:
        carrier_hz: carrier frequency.
        slope_hz_per_s: how fast the chirp rises.
        sample_rate_hz: of the complex ADC.
        samples: ADC samples per chirp, the number of range rows.
        loops: chirp loops per frame, the number of Doppler columns. In a loop every transmitter sends once.
        loop_time_s: from loop to loop.
        transmitters: TX antennas.
        receivers: RX antennas. There are ``transmitters * receivers`` virtual antennas in a row, those of the first
            transmitter first.
        element_spacing: distance of neighbouring virtual antennas in half wavelengths.
        azimuth_bins: azimuth columns; the angle transform is padded with zeros to this length.
        range_window: ``"hann"``, ``"hamming"`` or ``"none"``, over the samples.
        doppler_window: the same over the loops.
        azimuth_window: the same over the virtual antennas.
        tdm_phase: transmitters that send in turn see a mover at different moments. ``"removed"``: the phase of that is
            taken out; ``"left_in"``: it stays, and movers are displaced in angle; ``"none"``: the transmitters send at
            the same time (told apart by code), so there is no such phase.
        remove_dc: subtract each chirp's mean before the range transform.
        frame_period_s: from frame to frame.
    """

    carrier_hz: float = 77e9
    slope_hz_per_s: float = 2.99792458e13
    sample_rate_hz: float = 10e6
    samples: int = 256
    loops: int = 64
    loop_time_s: float = SPEED_OF_LIGHT / 77e9 / (2 * 64 * 0.41968030701528203)
    transmitters: int = 2
    receivers: int = 4
    element_spacing: float = 77.0 / 76.8
    azimuth_bins: int = 256
    range_window: str = "hann"
    doppler_window: str = "none"
    azimuth_window: str = "none"
    tdm_phase: str = "removed"
    remove_dc: bool = False
    frame_period_s: float = 0.1

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type in ("float", "int"):
                if not (isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < float("inf")):
                    raise ValueError(f"FMCWRadar: {field.name}={value!r} must be a positive number.")
                if field.type == "int" and value != int(value):
                    raise ValueError(f"FMCWRadar: {field.name}={value!r} must be a whole number.")
            elif field.name.endswith("_window") and value not in _WINDOWS:
                raise ValueError(f"FMCWRadar: {field.name}={value!r} is not one of {sorted(_WINDOWS)}.")
        if self.tdm_phase not in _TDM_PHASES:
            raise ValueError(f"FMCWRadar: tdm_phase={self.tdm_phase!r} is not one of {list(_TDM_PHASES)}.")
        if self.azimuth_bins < self.antennas:
            raise ValueError(
                f"FMCWRadar: azimuth_bins={self.azimuth_bins} is less than the {self.antennas} virtual antennas "
                f"(transmitters * receivers); use at least as many."
            )

    @classmethod
    def preset(cls, name: str) -> FMCWRadar:
        """A known radar: ``carrada`` (RADDet's too), ``carrada_small``, ``ti_indoor``, ``rod2021`` or ``radial``.

        ``carrada_small`` has a quarter of CARRADA's range, azimuth and Doppler cells, four times as coarse, for studies
        without a GPU. ``ti_indoor`` is the radar of the OpenRadar sample frames. ``rod2021`` and ``radial`` have the
        published geometry; RADIal's Doppler-division multiplexing is replaced by transmitters that are told apart
        perfectly, and what its papers do not say (loop times, frame rates) is chosen to fit the published cells.
        """
        if name not in _PRESETS:
            raise ValueError(f"no radar preset {name!r}; there are {sorted(_PRESETS)}.")
        return cls(**_PRESETS[name])

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> FMCWRadar:
        """What ``to_dict`` wrote; ``{"preset": name, ...}`` starts from a preset. Missing values keep their default.

        Raises:
            ValueError: naming what is unknown or out of range.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        given = dict(values)
        preset = given.pop("preset", "carrada")
        unknown = sorted(set(given) - known)
        if unknown:
            raise ValueError(f"radar description: unknown {', '.join(unknown)}; known are preset, {', '.join(known)}.")
        if not isinstance(preset, str):
            raise ValueError(f"radar description: preset={preset!r} must be a name.")
        return dataclasses.replace(cls.preset(preset), **given)

    def to_dict(self) -> dict[str, Any]:
        """For JSON files; ``from_dict`` reads it back."""
        return dataclasses.asdict(self)

    @property
    def antennas(self) -> int:
        """Virtual antennas."""
        return self.transmitters * self.receivers

    @property
    def adc_shape(self) -> tuple[int, int, int]:
        """Shape of a frame: ``(loops, antennas, samples)``."""
        return self.loops, self.antennas, self.samples

    @property
    def wavelength_m(self) -> float:
        """Of the carrier."""
        return SPEED_OF_LIGHT / self.carrier_hz

    @property
    def range_bin_m(self) -> float:
        """``c / (2 B)`` with the sampled bandwidth B = slope * samples / sample rate."""
        return SPEED_OF_LIGHT * self.sample_rate_hz / (2 * self.slope_hz_per_s * self.samples)

    @property
    def doppler_bin_mps(self) -> float:
        """``wavelength / (2 * loops * loop time)``."""
        return self.wavelength_m / (2 * self.loops * self.loop_time_s)

    @property
    def grid(self) -> RadarGrid:
        """The cells of the cube."""
        return RadarGrid(
            range_bins=self.samples,
            azimuth_bins=self.azimuth_bins,
            doppler_bins=self.loops,
            range_bin_m=self.range_bin_m,
            doppler_bin_mps=self.doppler_bin_mps,
            element_spacing=self.element_spacing,
        )

    def windows(self) -> tuple[Array, Array, Array]:
        """Windows over samples, loops and antennas."""
        return (
            _window(self.range_window, self.samples),
            _window(self.doppler_window, self.loops),
            _window(self.azimuth_window, self.antennas),
        )

    @property
    def coherent_gain(self) -> float:
        """Height of a scatterer's peak in the cube over its amplitude at the ADC."""
        return float(np.prod([window.sum() for window in self.windows()]))

    @property
    def noise_gain(self) -> float:
        """Mean power of noise in the cube over its mean power at the ADC."""
        return float(np.prod([np.square(window).sum() for window in self.windows()]))


_PRESETS: dict[str, dict[str, Any]] = {
    "carrada": {},
    "carrada_small": {"sample_rate_hz": 2.5e6, "samples": 64, "slope_hz_per_s": 2.99792458e13 / 4, "loops": 16}
    | {"azimuth_bins": 64},
    "ti_indoor": {
        "carrier_hz": 77.4201e9,
        "slope_hz_per_s": 60e12,
        "sample_rate_hz": 2.5e6,
        "samples": 128,
        "loops": 128,
        "loop_time_s": 184e-6,
        "element_spacing": 1.0,
        "doppler_window": "hann",
        "remove_dc": True,
    },
    "rod2021": {
        "slope_hz_per_s": 21.0017e12,
        "sample_rate_hz": 4e6,
        "samples": 128,
        "loops": 255,
        "loop_time_s": 120e-6,
        "element_spacing": 1.0,
        "azimuth_bins": 128,
        "frame_period_s": 1 / 30,
    },
    "radial": {
        "slope_hz_per_s": SPEED_OF_LIGHT * 10e6 / (2 * 0.2 * 512),
        "samples": 512,
        "loops": 256,
        "loop_time_s": 75e-6,
        "transmitters": 12,
        "receivers": 16,
        "element_spacing": 1.0,
        "azimuth_bins": 512,
        "range_window": "hamming",
        "doppler_window": "hamming",
        "tdm_phase": "none",
        "frame_period_s": 0.2,
    },
}


@dataclass(frozen=True)
class Scatterers:
    """P points that send an echo.

    Attributes:
        range_m: ``(P,)``.
        velocity_mps: ``(P,)`` radial, approaching positive.
        sin_azimuth: ``(P,)``, grows with the azimuth column.
        amplitude: ``(P,)`` at the ADC, real or complex.
    """

    range_m: Array
    velocity_mps: Array
    sin_azimuth: Array
    amplitude: NDArray[Any]

    def __len__(self) -> int:
        return len(self.range_m)

    @classmethod
    def join(cls, parts: list[Scatterers]) -> Scatterers:
        """All of them together."""
        if not parts:
            return cls(np.zeros(0), np.zeros(0), np.zeros(0), np.zeros(0))
        return cls(
            np.concatenate([part.range_m for part in parts]),
            np.concatenate([part.velocity_mps for part in parts]),
            np.concatenate([part.sin_azimuth for part in parts]),
            np.concatenate([part.amplitude for part in parts]),
        )


def simulate_adc(
    scatterers: Scatterers, radar: FMCWRadar, noise_power: float = 0.0, rng: np.random.Generator | None = None
) -> Complex:
    """ADC samples of one frame.

    With loop q, virtual antenna m and sample n, the echo of a point at range R with speed v and azimuth a is
    ``exp(j (2 pi (f_R + f_D) n / f_s + 2 pi f_D (q T + tau_m) + pi s m sin(a) - 4 pi R / L))`` times its amplitude,
    where f_R = 2 S R / c, f_D = 2 v / L and s is the element spacing in half wavelengths. It is a product of a factor
    per sample, one per antenna and one per loop; the movement within a frame (centimetres) is left out of the range.

    Args:
        scatterers: P points; those beyond the last range fold back, as without an anti-alias filter.
        radar: the radar.
        noise_power: mean power of the complex white Gaussian noise of a sample.
        rng: for the noise; needed if there is any.

    Returns:
        ``(loops, antennas, samples)`` complex64.
    """
    beat_hz = 2 * radar.slope_hz_per_s * scatterers.range_m / SPEED_OF_LIGHT
    doppler_hz = 2 * scatterers.velocity_mps / radar.wavelength_m
    antenna = np.arange(radar.antennas)
    delay = antenna // radar.receivers * (radar.loop_time_s / radar.transmitters)
    if radar.tdm_phase == "none":
        delay = np.zeros(radar.antennas)
    fast = _turns(np.multiply.outer((beat_hz + doppler_hz) / radar.sample_rate_hz, np.arange(radar.samples)))
    across = _turns(
        np.multiply.outer(scatterers.sin_azimuth, antenna * (radar.element_spacing / 2))
        + np.multiply.outer(doppler_hz, delay)
        - (2 * scatterers.range_m / radar.wavelength_m)[:, None]
    )
    slow = _turns(np.multiply.outer(doppler_hz * radar.loop_time_s, np.arange(radar.loops)))
    across *= scatterers.amplitude.astype(np.complex64)[:, None]
    echo = (slow.T[:, None, :] * across.T).reshape(radar.loops * radar.antennas, len(scatterers)) @ fast
    adc: Complex = echo.reshape(radar.adc_shape).astype(np.complex64, copy=False)
    if noise_power > 0:
        if rng is None:
            raise ValueError("simulate_adc: noise needs a random generator; pass rng.")
        adc += white_noise(radar.adc_shape, noise_power, rng)
    return adc


def white_noise(shape: tuple[int, ...], power: float, rng: np.random.Generator) -> Complex:
    """Complex white Gaussian noise of a mean power."""
    pairs = rng.standard_normal((*shape, 2), dtype=np.float32)
    pairs *= np.float32(np.sqrt(power / 2))
    noise: Complex = pairs.view(np.complex64)[..., 0]
    return noise


def antenna_spectrum(adc: NDArray[Any], radar: FMCWRadar, workers: int = 1) -> Complex:
    """Range and Doppler transforms of a frame, before the angle transform.

    Args:
        adc: ``(loops, antennas, samples)`` complex.
        radar: the radar.
        workers: threads of the transforms.

    Returns:
        ``(range, antennas, Doppler)`` complex64, **row 0 near**, standstill in column ``loops / 2``, the phase of
        transmitters that send in turn removed if the radar says so.

    Raises:
        ValueError: if the shape is not the radar's, the samples are real, or not finite.
    """
    if adc.shape != radar.adc_shape or not np.iscomplexobj(adc):
        raise ValueError(
            f"ADC frame: {adc.dtype} {adc.shape} is not complex (loops, antennas, samples) = {radar.adc_shape}. Check "
            "the order of the axes and the sensor description."
        )
    samples = adc.astype(np.complex64)
    if not np.isfinite(samples.view(np.float32)).all():
        raise ValueError("ADC frame: there are NaN or infinite samples.")
    if radar.remove_dc:
        samples -= samples.mean(-1, keepdims=True)
    over_samples, over_loops, over_antennas = radar.windows()
    samples *= over_samples.astype(np.float32)
    if radar.doppler_window != "none" or radar.azimuth_window != "none":
        samples *= np.multiply.outer(over_loops, over_antennas).astype(np.float32)[..., None]
    spectrum = scipy.fft.fft(samples, axis=2, overwrite_x=True, workers=workers)
    spectrum = scipy.fft.fft(spectrum.transpose(2, 1, 0), axis=2, workers=workers)
    column = np.arange(radar.loops) - radar.loops // 2
    spectrum = np.take(spectrum, column % radar.loops, axis=2)
    if radar.tdm_phase == "removed":
        transmitter = np.arange(radar.antennas) // radar.receivers
        spectrum *= _turns(-np.multiply.outer(transmitter, column) / (radar.loops * radar.transmitters))
    result: Complex = spectrum
    return result


def azimuth_transform(spectrum: Complex, radar: FMCWRadar) -> Complex:
    """Zero-padded transform over the antennas, ``(..., antennas, Doppler)`` to ``(..., azimuth, Doppler)``.

    Few antennas become many columns, so a matrix product is faster than a padded fast transform, and the axes already
    stand where the cube has them.
    """
    column = np.arange(radar.azimuth_bins) - radar.azimuth_bins // 2
    transform = _turns(-np.multiply.outer(column, np.arange(radar.antennas)) / radar.azimuth_bins)
    cube: Complex = np.matmul(transform, spectrum)
    return cube


def range_azimuth_doppler(adc: NDArray[Any], radar: FMCWRadar, workers: int = 1) -> RadarCube:
    """The cube of a frame of ADC samples, complex64, axes as in ``RadarGrid``.

    Args:
        adc: ``(loops, antennas, samples)`` complex.
        radar: the radar.
        workers: threads of the transforms.
    """
    spectrum = antenna_spectrum(adc, radar, workers)
    return RadarCube(azimuth_transform(spectrum[::-1], radar), radar.grid)


def _turns(turns: Array) -> Complex:
    """``exp(2 pi j turns)``, the phase taken modulo one turn in double precision."""
    phase = ((turns - np.round(turns)) * (2 * np.pi)).astype(np.float32)
    result = np.empty(phase.shape, dtype=np.complex64)
    np.cos(phase, out=result.real)
    np.sin(phase, out=result.imag)
    return result


def _window(name: str, length: int) -> Array:
    constant, cosine = _WINDOWS[name]
    # Periodic, so that a Hann window has exactly three coefficients in its transform.
    return np.asarray(constant - cosine * np.cos(2 * np.pi * np.arange(length) / length))
