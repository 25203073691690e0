from __future__ import annotations

import numpy as np
import pytest
import torch

from adperception.models.radar.projection_normalization import ProjectionNormalization
from adperception.models.radar.range_doppler_projections import range_doppler_projections
from adperception.structures import RadarFrame
from tests.models.radar.cube_frames import GRID, cube_frame


def test_training_frames_come_out_with_mean_zero_and_deviation_one() -> None:
    frames = [cube_frame([(10, 8, 4, 1)], i) for i in range(3)]
    normalization = ProjectionNormalization("train")
    assert list(normalization.observe(frames)) == frames
    cubes = torch.from_numpy(np.stack([f.cubes[-1:] for f in frames if f.cubes is not None]))
    values = normalization(range_doppler_projections(cubes))
    assert values.dtype == torch.float32
    for projection in values.unbind(1):
        assert float(projection.mean()) == pytest.approx(0, abs=1e-4)
        assert float(projection.std()) == pytest.approx(1, abs=1e-3)


def test_published_statistics_stay() -> None:
    normalization = ProjectionNormalization("carrada_tvt")
    list(normalization.observe([cube_frame([])]))
    assert float(normalization.statistics[0, 0]) == pytest.approx(58.471, abs=1e-3)


def test_frames_without_cubes_and_constant_ones_are_refused() -> None:
    with pytest.raises(ValueError, match="s/1 was read without its cube"):
        list(ProjectionNormalization().observe([RadarFrame("s/1", GRID)]))
    constant = RadarFrame("s/1", GRID, np.ones((1, *GRID.shape), dtype=np.float32))
    with pytest.raises(ValueError, match="constant or NaN"):
        list(ProjectionNormalization().observe([constant]))
