"""FMCW radar: samples against the formula, the cube against plain transforms, targets and recorded movers found."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adperception.simulation.fmcw import (
    SPEED_OF_LIGHT,
    FMCWRadar,
    Scatterers,
    antenna_spectrum,
    azimuth_transform,
    range_azimuth_doppler,
    simulate_adc,
)
from adperception.structures.radar_cube import RadarViews
from adperception.structures.radar_grid import CARRADA_GRID

SMALL = FMCWRadar(samples=32, loops=16, azimuth_bins=32)


def targets(rng: np.random.Generator, count: int, radar: FMCWRadar) -> Scatterers:
    limit = radar.doppler_bin_mps * radar.loops / 2
    return Scatterers(
        rng.uniform(1, radar.grid.max_range_m, count),
        rng.uniform(-limit, limit, count),
        rng.uniform(-0.95, 0.95, count),
        rng.normal(size=count) + 1j * rng.normal(size=count),
    )


def samples_by_the_formula(scatterers: Scatterers, radar: FMCWRadar) -> np.ndarray:
    """Sample by sample, as in the docstring of ``simulate_adc``."""
    adc = np.zeros(radar.adc_shape, dtype=np.complex128)
    for p in range(len(scatterers)):
        beat = 2 * radar.slope_hz_per_s * scatterers.range_m[p] / SPEED_OF_LIGHT
        doppler = 2 * scatterers.velocity_mps[p] / radar.wavelength_m
        for q in range(radar.loops):
            for m in range(radar.antennas):
                delay = (m // radar.receivers) * radar.loop_time_s / radar.transmitters
                for n in range(radar.samples):
                    phase = 2 * np.pi * (beat + doppler) * n / radar.sample_rate_hz
                    phase += 2 * np.pi * doppler * (q * radar.loop_time_s + delay)
                    phase += np.pi * radar.element_spacing * m * scatterers.sin_azimuth[p]
                    phase -= 4 * np.pi * scatterers.range_m[p] / radar.wavelength_m
                    adc[q, m, n] += scatterers.amplitude[p] * np.exp(1j * phase)
    return adc


def cube_by_plain_transforms(adc: np.ndarray, radar: FMCWRadar) -> np.ndarray:
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(radar.samples) / radar.samples)
    spectrum = np.fft.fft(adc * window, axis=2)
    spectrum = np.fft.fftshift(np.fft.fft(spectrum, axis=0), axes=0)
    for column in range(radar.loops):
        doppler = (column - radar.loops // 2) / (radar.loops * radar.loop_time_s)
        for m in range(radar.antennas):
            delay = (m // radar.receivers) * radar.loop_time_s / radar.transmitters
            spectrum[column, m] *= np.exp(-2j * np.pi * doppler * delay)
    padded = np.fft.fftshift(np.fft.fft(spectrum, radar.azimuth_bins, axis=1), axes=1)
    return padded.transpose(2, 1, 0)[::-1]


def test_samples_equal_the_formula() -> None:
    scatterers = targets(np.random.default_rng(0), 3, SMALL)
    expected = samples_by_the_formula(scatterers, SMALL)
    np.testing.assert_allclose(simulate_adc(scatterers, SMALL), expected, atol=2e-5)


@pytest.mark.parametrize("loops", [16, 15])
def test_cube_equals_plain_transforms(loops: int) -> None:
    radar = dataclasses.replace(SMALL, loops=loops)
    rng = np.random.default_rng(1)
    adc = simulate_adc(targets(rng, 4, radar), radar, noise_power=0.1, rng=rng)
    expected = cube_by_plain_transforms(adc.astype(np.complex128), radar)
    values = range_azimuth_doppler(adc, radar).values
    np.testing.assert_allclose(values, expected, atol=1e-5 * np.abs(expected).max())


def test_presets_have_the_published_cells() -> None:
    assert FMCWRadar.preset("carrada").grid == CARRADA_GRID
    small = FMCWRadar.preset("carrada_small").grid
    assert small.shape == (64, 64, 16)
    np.testing.assert_allclose((small.range_bin_m, small.doppler_bin_mps), (0.78125, 1.67872), rtol=1e-5)
    indoor = FMCWRadar.preset("ti_indoor").grid
    np.testing.assert_allclose((indoor.range_bin_m, indoor.doppler_bin_mps), (0.0488, 0.0823), rtol=2e-3)
    assert FMCWRadar.preset("radial").antennas == 192
    np.testing.assert_allclose(FMCWRadar.preset("radial").range_bin_m, 0.2)
    assert FMCWRadar.preset("rod2021").grid.shape == (128, 128, 255)


def test_a_thousand_targets_are_found_where_they_are() -> None:
    """Ten targets per frame, each alone in a strip of 25 rows, at least 15 dB over the noise after range and Doppler.

    That is 24 dB in the cube. At 15 dB in the cube no estimator is good enough for the angle: the Cramer-Rao bound of
    eight antennas is a standard deviation of 2.2 columns, and 4 columns would be missed by one target in fourteen.
    Speeds stay half a bin within the limits: beyond, the strongest Doppler column belongs to the opposite speed, and
    transmitters that send in turn are then corrected for the wrong one.
    """
    radar = FMCWRadar.preset("carrada")
    grid, rng = radar.grid, np.random.default_rng(7)
    strip, per_frame = 25, 10
    worst = np.zeros(3)

    def peaks(adc: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        values = range_azimuth_doppler(adc, radar).values[: strip * per_frame].reshape(per_frame, -1)
        power = np.square(values.real) + np.square(values.imag)
        return power.argmax(1), power.max(1)

    for _ in range(100):
        drawn = targets(rng, per_frame, radar)
        rows = np.arange(per_frame) * strip + rng.uniform(6, strip - 6, per_frame)
        drawn = dataclasses.replace(
            drawn,
            range_m=grid.range_m(rows),
            velocity_mps=rng.uniform(-31.5, 31.5, per_frame) * grid.doppler_bin_mps,
            amplitude=np.ones(per_frame),
        )
        level = radar.antennas * 10 ** (rng.uniform(15, 30, per_frame) / 10)
        amplitude = np.sqrt(level / peaks(simulate_adc(drawn, radar))[1])
        noisy = simulate_adc(dataclasses.replace(drawn, amplitude=amplitude), radar, 1 / radar.noise_gain, rng)
        found = np.stack(np.unravel_index(peaks(noisy)[0], (strip, *grid.shape[1:])), axis=1)
        found[:, 0] += np.arange(per_frame) * strip
        degrees = np.degrees(np.arcsin(drawn.sin_azimuth))
        expected = np.stack([rows, grid.azimuth_column(degrees), grid.doppler_column(drawn.velocity_mps)], axis=1)
        error = np.abs(found - expected)
        error[:, 2] = np.minimum(error[:, 2], grid.doppler_bins - error[:, 2])
        worst = np.maximum(worst, error.max(0))
    assert (worst <= (1, 4, 1)).all(), worst


def test_tdm_phase_left_in_displaces_movers_only() -> None:
    radar = FMCWRadar.preset("carrada")
    left_in = dataclasses.replace(radar, tdm_phase="left_in")
    speed = 0.95 * radar.doppler_bin_mps * radar.loops / 2

    def column(velocity: float, how: FMCWRadar) -> int:
        scatterer = Scatterers(np.array([20.0]), np.array([velocity]), np.zeros(1), np.ones(1))
        magnitude = range_azimuth_doppler(simulate_adc(scatterer, how), how).magnitude()
        return int(np.unravel_index(magnitude.argmax(), magnitude.shape)[1])

    assert column(speed, radar) == column(0.0, radar) == column(0.0, left_in) == 128
    assert 8 <= abs(column(speed, left_in) - 128) <= 17
    together = dataclasses.replace(radar, tdm_phase="none")
    assert column(speed, together) == 128


def test_gains_say_what_the_transforms_do() -> None:
    radar = FMCWRadar.preset("carrada")
    on_cell = Scatterers(np.array([100 * radar.range_bin_m]), np.zeros(1), np.zeros(1), np.ones(1))
    peak = range_azimuth_doppler(simulate_adc(on_cell, radar), radar).magnitude().max()
    np.testing.assert_allclose(peak, radar.coherent_gain, rtol=1e-4)
    noise = simulate_adc(Scatterers.join([]), radar, 2.0, np.random.default_rng(0))
    power = np.square(range_azimuth_doppler(noise, radar).magnitude()).mean()
    np.testing.assert_allclose(power, 2.0 * radar.noise_gain, rtol=0.02)


def test_noise_has_the_texture_of_carrada() -> None:
    """radar-noise checks: 64 independent Rayleigh columns, Hann over range, eight antennas without a window."""
    radar = FMCWRadar.preset("carrada")
    adc = simulate_adc(Scatterers.join([]), radar, 1.0, np.random.default_rng(3))
    magnitude = range_azimuth_doppler(adc, radar).magnitude()
    raw = RadarViews.raw(magnitude)
    angle = raw.range_angle
    assert abs(angle.std() / angle.mean() - 0.0656) < 0.005
    assert 0.4 < np.corrcoef(angle[:-1].ravel(), angle[1:].ravel())[0, 1] < 0.5
    np.testing.assert_allclose(raw.range_doppler.mean() / angle.mean(), 4, rtol=1e-5)
    np.testing.assert_allclose(raw.angle_doppler.mean(), raw.range_doppler.mean(), rtol=1e-5)
    assert abs(np.log10(np.square(magnitude)).std() - 0.557) < 0.01


def test_angle_nulls_are_32_columns_apart() -> None:
    radar = FMCWRadar.preset("carrada")
    ahead = Scatterers(np.array([20.0]), np.zeros(1), np.zeros(1), np.ones(1))
    magnitude = range_azimuth_doppler(simulate_adc(ahead, radar), radar).magnitude()
    row = np.unravel_index(magnitude.argmax(), magnitude.shape)[0]
    beam = magnitude[row, :, 32]
    nulls = np.flatnonzero(beam < 1e-3 * beam.max())
    assert nulls.tolist() == [0, 32, 64, 96, 160, 192, 224]


def test_a_description_survives_json_and_is_checked() -> None:
    radar = dataclasses.replace(FMCWRadar.preset("ti_indoor"), azimuth_bins=64)
    assert FMCWRadar.from_dict(radar.to_dict()) == radar
    assert FMCWRadar.from_dict({"preset": "ti_indoor", "azimuth_bins": 64}) == radar
    cases: list[tuple[dict[str, Any], str]] = [
        ({"slopes": 1}, "unknown slopes"),
        ({"preset": "carada"}, "no radar preset 'carada'"),
        ({"samples": 0}, "samples=0"),
        ({"samples": 2.5}, "whole number"),
        ({"loop_time_s": float("nan")}, "loop_time_s=nan"),
        ({"range_window": "kaiser"}, "'kaiser' is not one of"),
        ({"tdm_phase": "kept"}, "'kept' is not one of"),
        ({"azimuth_bins": 4}, "8 virtual antennas"),
        ({"carrier_hz": "77e9"}, "carrier_hz='77e9'"),
    ]
    for values, message in cases:
        with pytest.raises(ValueError, match=message):
            FMCWRadar.from_dict(values)


def test_bad_frames_are_refused() -> None:
    adc = simulate_adc(Scatterers.join([]), SMALL, 1.0, np.random.default_rng(0))
    with pytest.raises(ValueError, match="order of the axes"):
        range_azimuth_doppler(adc.transpose(2, 1, 0), SMALL)
    with pytest.raises(ValueError, match="not complex"):
        range_azimuth_doppler(adc.real, SMALL)
    adc[3, 2, 1] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        range_azimuth_doppler(adc, SMALL)
    with pytest.raises(ValueError, match="random generator"):
        simulate_adc(Scatterers.join([]), SMALL, 1.0)


@pytest.mark.real_data
def test_recorded_frame_shows_two_walkers_and_the_reflector(real_data: Path) -> None:
    """An indoor frame of OpenRadar; parts of the samples were stored as unsigned 16-bit numbers."""
    radar = FMCWRadar.preset("ti_indoor")
    stored = np.load(real_data / "radar/openradar/doppler_example_1.npy")
    real, imaginary = ((part + 32768) % 65536 - 32768 for part in (stored.real, stored.imag))
    spectrum = antenna_spectrum(real + 1j * imaginary, radar)
    spectrum[:10] = 0  # leakage of the transmitter is stronger than anything in the room
    power = np.square(np.abs(spectrum)).sum(1)

    moving = power.copy()
    moving[:, 62:67] = 0
    found = []
    for _ in range(2):
        range_bin, column = np.unravel_index(moving.argmax(), moving.shape)
        angle = np.abs(azimuth_transform(spectrum[range_bin, :, column][:, None], radar)).argmax()
        found.append((range_bin * radar.range_bin_m, radar.grid.velocity_mps(column), radar.grid.sin_azimuth(angle)))
        moving[range_bin - 3 : range_bin + 4, column - 3 : column + 4] = 0
    expected = [(2.95, 0.58, 0.12), (2.95, -0.49, -0.28)]
    np.testing.assert_allclose(found, expected, atol=0.04)

    static = power[:, 64].argmax()
    assert static == 107
    assert abs(static * radar.range_bin_m - 5.22) < 0.02
