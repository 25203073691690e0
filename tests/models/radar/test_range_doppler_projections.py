from __future__ import annotations

import numpy as np
import torch

from adperception.models.radar.range_doppler_projections import range_doppler_projections
from adperception.structures import RadarViews


def test_sum_is_the_processed_view_and_maximum_keeps_narrow_echoes() -> None:
    rng = np.random.default_rng(0)
    cubes = rng.rayleigh(50, (2, 3, 40, 16, 8)).astype(np.float32)  # 240 rows: several blocks, the last one shorter
    both = range_doppler_projections(torch.from_numpy(cubes))
    assert both.shape == (2, 2, 3, 40, 8)
    view = RadarViews.processed(cubes).range_doppler[..., ::-1, :]
    np.testing.assert_allclose(both[:, 0], view, atol=1e-3)
    np.testing.assert_allclose(both[:, 1], 20 * np.log10(cubes.max(axis=3)), atol=0.02)


def test_an_empty_cube_is_zero_decibels() -> None:
    assert bool((range_doppler_projections(torch.zeros(1, 1, 8, 8, 8)) == 0).all())
