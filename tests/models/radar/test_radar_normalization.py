from __future__ import annotations

import numpy as np
import pytest
import torch

from adperception.models.radar.normalization import CubeNormalization, ViewNormalization, cube_decibels
from adperception.structures import RadarFrame, RadarGrid, RadarViews

GRID = RadarGrid(6, 5, 4)


def frames(count: int) -> list[RadarFrame]:
    rng = np.random.default_rng(0)
    cubes = [rng.gamma(2.0, 30.0, (1, *GRID.shape)).astype(np.float32) for _ in range(count)]
    return [RadarFrame(f"s/{n}", GRID, cube, RadarViews.processed(cube)) for n, cube in enumerate(cubes)]


def test_published_statistics() -> None:
    views, cubes = ViewNormalization("carrada_tvt"), CubeNormalization("carrada_tvt")
    ends = torch.tensor([37.59535773996415, 119.08313902425246])
    torch.testing.assert_close(views(ends, "range_doppler"), torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(views(torch.tensor(103.80548746494114), "range_angle"), torch.tensor(1.0))
    assert cubes(torch.tensor(32.145 + 6.444)) == pytest.approx(1.0)
    views.fit(frames(2))
    assert views.limits[0, 0] == pytest.approx(37.59535773996415)


def test_statistics_of_the_training_frames_travel_with_the_weights() -> None:
    given = frames(3)
    views, cubes = ViewNormalization(), CubeNormalization()
    views.fit(given)
    cubes.fit(given)
    everything = np.stack([frame.views.angle_doppler for frame in given])  # type: ignore[union-attr]
    normalised = views(torch.from_numpy(everything), "angle_doppler")
    assert float(normalised.min()) == pytest.approx(0, abs=1e-6)
    assert float(normalised.max()) == pytest.approx(1, abs=1e-6)
    decibels = cube_decibels(torch.from_numpy(np.stack([frame.cubes for frame in given])))  # type: ignore[misc]
    assert float(cubes(decibels).mean()) == pytest.approx(0, abs=1e-4)
    assert float(cubes(decibels).std(correction=0)) == pytest.approx(1, abs=1e-4)
    again = ViewNormalization()
    again.load_state_dict(views.state_dict())
    torch.testing.assert_close(again.limits, views.limits)


def test_without_statistics_there_is_no_output() -> None:
    with pytest.raises(ValueError, match="no normalisation statistics yet"):
        ViewNormalization()(torch.zeros(1), "range_angle")


def test_constant_or_broken_frames_give_no_statistics() -> None:
    constant = RadarFrame("s/0", GRID, np.ones((1, *GRID.shape), np.float32))
    with pytest.raises(ValueError, match="give no normalisation"):
        CubeNormalization().fit([constant])
    with pytest.raises(ValueError, match="give no normalisation"):
        ViewNormalization().fit([])
    with pytest.raises(ValueError, match="read without its cube"):
        CubeNormalization().fit([RadarFrame("s/0", GRID)])
    with pytest.raises(ValueError, match='normalization="none" must be'):
        ViewNormalization("none")  # type: ignore[arg-type]
