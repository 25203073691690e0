from __future__ import annotations

import numpy as np
import pytest

from adperception.structures import CARRADA_GRID, RadarGrid


def test_carradas_grid_is_what_its_sensor_says() -> None:
    assert CARRADA_GRID.shape == (256, 256, 64)
    assert CARRADA_GRID.max_range_m == 50.0
    assert CARRADA_GRID.range_m(255) == 0.0
    assert CARRADA_GRID.velocity_mps(0) == pytest.approx(-13.43, abs=0.005)
    assert CARRADA_GRID.azimuth_deg(128) == 0.0
    # The published mapping: sin(theta) = (j * 2 pi / 256 - pi) / (pi * 77 / 76.8).
    assert CARRADA_GRID.sin_azimuth(200) == pytest.approx((200 * 2 * np.pi / 256 - np.pi) / (np.pi * 77 / 76.8))


@pytest.mark.parametrize("grid", [CARRADA_GRID, RadarGrid(64, 64, 16, 0.78125, 1.67872)])
def test_cells_and_units_are_inverse(grid: RadarGrid) -> None:
    rows, columns, doppler = (np.arange(n, dtype=float) for n in grid.shape)
    np.testing.assert_allclose(grid.row(grid.range_m(rows)), rows, atol=1e-9)
    np.testing.assert_allclose(grid.doppler_column(grid.velocity_mps(doppler)), doppler, atol=1e-9)
    inside = np.abs(grid.sin_azimuth(columns)) < 1
    np.testing.assert_allclose(grid.azimuth_column(grid.azimuth_deg(columns[inside])), columns[inside], atol=1e-9)


def test_doppler_wraps_around() -> None:
    fast = CARRADA_GRID.velocity_mps(63) + CARRADA_GRID.doppler_bin_mps
    assert CARRADA_GRID.doppler_column(fast) == pytest.approx(0.0, abs=1e-9)


def test_survives_json() -> None:
    assert RadarGrid(**CARRADA_GRID.to_dict()) == CARRADA_GRID


def test_refuses_an_empty_axis() -> None:
    with pytest.raises(ValueError, match="doppler_bins=0 must be positive"):
        RadarGrid(doppler_bins=0)
