"""Statistics of simulated recordings: what they measure, and how near the calibration is to CARRADA."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from adperception.simulation.radar_objects import CLASS_NAMES
from adperception.simulation.radar_realism import instance_statistics, map_statistics, median_by_bin
from adperception.simulation.radar_sequence import RadarSequence, SimulatedRadarFrame
from adperception.structures.radar_cube import RadarViews


def test_instance_statistics_measure_what_they_say() -> None:
    sequence = RadarSequence(5, 200, "carrada_small")
    frame = next(frame for frame in sequence if len(frame.instances) == 1)
    label = frame.instances[0]
    statistics = instance_statistics([frame])
    raw = RadarViews.raw(frame.cube.magnitude())
    row0, column0, row1, column1 = label.range_angle.box
    inside = frame.masks.range_angle[row0 : row1 + 1, column0 : column1 + 1] > 0
    assert statistics.area[0, 0] == inside.sum()
    expected = raw.range_angle[row0 : row1 + 1, column0 : column1 + 1][inside].mean()
    np.testing.assert_allclose(statistics.amplitude[0, 0], expected, rtol=1e-6)
    assert statistics.dense[0].tolist() == [len(label.range_angle.dense), len(label.range_doppler.dense)]
    assert len(statistics.level_db[label.class_id][0]) == len(label.range_angle.dense)


def test_map_statistics_are_moments_over_all_frames() -> None:
    frames = [RadarSequence(1, 60, "carrada_small")[index] for index in (0, 30)]
    statistics = map_statistics(frames)
    values = np.stack([RadarViews.processed(f.cube.magnitude()).range_angle for f in frames])
    np.testing.assert_allclose(statistics.values["range-angle, dB"], (values.mean(), values.std()), rtol=1e-5)
    np.testing.assert_allclose(statistics.objects.sum(), 1)


def test_median_by_bin_leaves_out_small_bins_and_nan() -> None:
    bins = np.array([1, 1, 1, 2, 2])
    assert median_by_bin(bins, np.array([1.0, 5.0, 3.0, 1.0, np.nan]), least=2) == {1: 3.0}


@pytest.mark.real_data
def test_objects_are_as_strong_as_carradas(real_data: Path) -> None:
    """Median amplitude per class over coarse range bins; docs/radar_simulator.md has the fine ones."""
    stored = np.load(real_data / "radar/carrada/instance_power_area_by_bin.npz")

    def frames() -> Iterator[SimulatedRadarFrame]:
        for seed in range(60):
            sequence = RadarSequence(seed, 200, "carrada", "angle")
            for index in (40, 120):
                if any(user.first_frame <= index < user.end_frame for user in sequence.scene.road_users):
                    yield sequence[index]

    statistics = instance_statistics(frames())
    compared = 0
    for class_id in (1, 2, 3):
        own, key = statistics.class_id == class_id, CLASS_NAMES[class_id] + "__range"
        recorded = median_by_bin(stored[f"{key}__bin"] // 6, stored[f"{key}__power"].astype(float), least=20)
        simulated = median_by_bin(statistics.range_bin[own] // 6, statistics.amplitude[own, 0], least=8)
        for b in set(recorded) & set(simulated):
            compared += 1
            assert abs(20 * np.log10(simulated[b] / recorded[b])) < 5, (class_id, b, simulated[b], recorded[b])
    assert compared >= 5
