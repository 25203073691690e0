from __future__ import annotations

import numpy as np
import pytest

from adperception.structures import CARRADA_GRID, RadarCube, RadarGrid, RadarViews

GRID = RadarGrid(6, 5, 4)


def test_a_cube_must_have_the_shape_of_its_grid() -> None:
    with pytest.raises(ValueError, match=r"shape \(5, 6, 4\) is not \(range, azimuth, Doppler\) = \(6, 5, 4\)"):
        RadarCube(np.zeros((5, 6, 4), np.float32), GRID)


def test_magnitude_of_a_complex_cube() -> None:
    values = np.full(GRID.shape, 3 + 4j, np.complex64)
    cube = RadarCube(values, GRID)
    assert cube.is_complex
    assert cube.magnitude().dtype == np.float32
    np.testing.assert_array_equal(cube.magnitude(), 5)


def test_views_are_those_of_carrada() -> None:
    """Written out cell by cell: sums and 10 log10 of sums of squares, range-Doppler upside down."""
    magnitude = np.random.default_rng(0).gamma(2.0, 30.0, GRID.shape).astype(np.float32)
    processed, raw = RadarViews.processed(magnitude), RadarViews.raw(magnitude)
    rows, columns, doppler = GRID.shape
    for k in range(doppler):
        for i in range(rows):
            line = magnitude[i, :, k].astype(float)
            assert processed.range_doppler[rows - 1 - i, k] == pytest.approx(10 * np.log10((line**2).sum()), rel=1e-5)
            assert raw.range_doppler[rows - 1 - i, k] == pytest.approx(line.sum(), rel=1e-5)
        for j in range(columns):
            line = magnitude[:, j, k].astype(float)
            assert processed.angle_doppler[j, k] == pytest.approx(10 * np.log10((line**2).sum()), rel=1e-5)
            assert raw.angle_doppler[j, k] == pytest.approx(line.sum(), rel=1e-5)
    line = magnitude[2, 3].astype(float)
    assert processed.range_angle[2, 3] == pytest.approx(10 * np.log10((line**2).sum()), rel=1e-5)
    assert raw.range_angle[2, 3] == pytest.approx(line.sum(), rel=1e-5)


def test_mean_levels_of_raw_views_are_those_of_the_axes() -> None:
    """Radar data sheet 5.4: mean(RD raw) / mean(RA raw) = 256 / 64, mean(AD raw) = mean(RD raw)."""
    raw = RadarViews.raw(np.random.default_rng(0).gamma(2.0, 30.0, CARRADA_GRID.shape).astype(np.float32))
    assert raw.range_doppler.mean() / raw.range_angle.mean() == pytest.approx(4, rel=1e-4)
    assert raw.angle_doppler.mean() == pytest.approx(raw.range_doppler.mean(), rel=1e-4)


def test_stacked_views_equal_the_views_of_stacked_cubes() -> None:
    magnitudes = np.random.default_rng(0).gamma(2.0, 30.0, (3, *GRID.shape)).astype(np.float32)
    stacked, together = (
        RadarViews.stack([RadarViews.processed(m) for m in magnitudes]),
        RadarViews.processed(magnitudes),
    )
    for name in ("range_doppler", "range_angle", "angle_doppler"):
        np.testing.assert_allclose(getattr(stacked, name), getattr(together, name), rtol=1e-6)
