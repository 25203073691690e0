from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from adperception.models.radar.radar_center_targets import RadarCenterTargets, labelled_centers, radar_center_targets
from adperception.structures import RadarObjects


def targets(*frames: list[tuple[list[float], list[float], int]]) -> RadarCenterTargets:
    """Frames of (cell, size, class); 20 x 16 cells in range and Doppler, 2 classes."""
    objects = [
        RadarObjects(
            np.array([o[0] for o in frame], dtype=np.float32).reshape(-1, 3),
            np.array([o[1] for o in frame], dtype=np.float32).reshape(-1, 3),
            np.array([o[2] for o in frame], dtype=np.int64),
            np.ones(len(frame), dtype=np.float32),
        )
        for frame in frames
    ]
    return radar_center_targets(labelled_centers(objects, torch.device("cpu")), len(frames), 2, 20, 16)


def test_peak_and_offset() -> None:
    made = targets([], [([7.5, 3, 4.25], [0, 0, 0], 2)])
    assert made.heatmaps.shape == (2, 2, 10, 16)
    assert float(made.heatmaps[0].max()) == 0
    assert float(made.heatmaps[1, 0].max()) == 0
    peak = made.heatmaps[1, 1]
    assert float(peak[3, 4]) == 1
    assert (made.frames.tolist(), made.rows.tolist(), made.columns.tolist()) == ([1], [3], [4])
    assert made.offsets.tolist() == [[0.75, 0.25]]
    assert float(peak[4, 4]) == pytest.approx(math.exp(-0.5))
    assert float(peak[4, 6]) == pytest.approx(math.exp(-0.5 - 2))


def test_deviation_is_a_sixth_of_the_extent_in_heatmap_cells() -> None:
    made = targets([([8, 0, 8], [24, 0, 18], 1)])
    assert float(made.heatmaps[0, 0, 6, 8]) == pytest.approx(math.exp(-(2**2) / (2 * 2**2)))
    assert float(made.heatmaps[0, 0, 4, 5]) == pytest.approx(math.exp(-(3**2) / (2 * 3**2)))


def test_doppler_wraps_around() -> None:
    made = targets([([8, 0, 15.75], [0, 0, 0], 1)])
    peak = made.heatmaps[0, 0, 4]
    assert made.columns.tolist() == [15]
    assert float(peak[0]) == float(peak[14]) == pytest.approx(math.exp(-0.5))


def test_the_higher_of_overlapping_peaks_stays() -> None:
    made = targets([([8, 0, 8], [0, 0, 0], 1), ([8, 0, 9], [0, 0, 0], 1)])
    peak = made.heatmaps[0, 0, 4]
    assert float(peak[8]) == float(peak[9]) == 1
    assert float(peak[10]) == pytest.approx(math.exp(-0.5))


def test_border_rows_stay_inside() -> None:
    made = targets([([19.9, 0, 0], [0, 0, 0], 1), ([0, 0, 0], [0, 0, 0], 2)])
    assert made.rows.tolist() == [9, 0]
