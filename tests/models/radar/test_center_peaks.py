from __future__ import annotations

import numpy as np
import torch

from adperception.models.radar.center_detector import CenterMaps
from adperception.models.radar.center_peaks import find_azimuths, find_peaks
from adperception.simulation.fmcw import FMCWRadar, Scatterers, range_azimuth_doppler, simulate_adc


def maps(*cells: tuple[int, int, int, float]) -> CenterMaps:
    """Scores at (class, row, column) of an 8 x 6 map, 3 classes; nothing elsewhere."""
    logits = torch.full((1, 3, 8, 6), -20.0)
    for class_id, row, column, score in cells:
        logits[0, class_id, row, column] = torch.logit(torch.tensor(score))
    return CenterMaps(logits, torch.full((1, 2, 8, 6), 0.25))


def test_only_maxima_of_their_neighbourhood_are_peaks() -> None:
    found = find_peaks(maps((0, 3, 2, 0.9), (0, 4, 3, 0.8), (0, 6, 2, 0.6)), 3, 6)
    torch.testing.assert_close(found.best[0, :2], torch.tensor([0.9, 0.6]))
    assert float(found.best[0, 2]) < 1e-6
    torch.testing.assert_close(found.places[0, 0], torch.tensor([6.5, 2.25]))


def test_neighbourhoods_wrap_in_doppler_but_not_in_range() -> None:
    found = find_peaks(maps((0, 3, 0, 0.9), (0, 3, 5, 0.8)), 2, 6)
    torch.testing.assert_close(found.best[0, 0], torch.tensor(0.9))
    assert float(found.best[0, 1]) < 1e-6
    found = find_peaks(maps((0, 0, 2, 0.9), (0, 7, 2, 0.8)), 2, 6)
    torch.testing.assert_close(found.best[0], torch.tensor([0.9, 0.8]))


def test_classes_at_one_cell_are_one_candidate_with_all_scores() -> None:
    found = find_peaks(maps((0, 3, 2, 0.9), (2, 3, 2, 0.7), (1, 6, 4, 0.5)), 2, 6)
    torch.testing.assert_close(found.scores[0, 0], torch.tensor([0.9, 0.0, 0.7]), atol=1e-6, rtol=0)
    torch.testing.assert_close(found.scores[0, 1], torch.tensor([0.0, 0.5, 0.0]), atol=1e-6, rtol=0)


def test_there_are_always_count_candidates() -> None:
    found = find_peaks(maps((0, 3, 2, 0.9)), 4, 6)
    assert found.scores.shape == (1, 4, 3)
    assert found.places.shape == (1, 4, 2)


def test_azimuth_of_simulated_targets() -> None:
    """Within 4 columns on CARRADA's axis, also where the beam wraps around."""
    radar = FMCWRadar.preset("carrada")
    rng = np.random.default_rng(0)
    sines = np.array([-0.9, -0.3, 0.0, 0.55, 0.93])
    ranges = np.array([8.0, 15.0, 22.0, 30.0, 40.0])
    speeds = np.array([2.0, -3.0, 0.0, 5.0, -1.0])
    points = Scatterers(ranges, speeds, sines, np.exp(2j * np.pi * rng.random(5)))
    cube = torch.from_numpy(range_azimuth_doppler(simulate_adc(points, radar), radar).magnitude())[None]
    grid = radar.grid
    rows = torch.from_numpy(grid.row(ranges)).round().long()
    columns = torch.from_numpy(grid.doppler_column(speeds)).round().long()
    found = find_azimuths(cube, torch.zeros(5, dtype=torch.int64), rows, columns, beam=32).numpy()
    true = (sines * grid.element_spacing + 1) * grid.azimuth_bins / 2
    error = np.abs((found - true + 128) % 256 - 128)
    assert error.max() <= 4, error


def test_static_clutter_beside_a_slow_object_does_not_decide() -> None:
    cube = torch.ones(1, 8, 32, 8)
    cube[0, 4, 20, 5] = 10.0
    cube[0, :, 3, 4] = 300.0  # a strong static echo in the next Doppler column
    cube[0, :, :, 4] += 100.0
    found = find_azimuths(cube, torch.tensor([0]), torch.tensor([4]), torch.tensor([5]), beam=4)
    assert abs(int(found) - 20) <= 1
