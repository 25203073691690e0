from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from adperception.simulation.realism import (
    SweepStatistics,
    ground_mask,
    median_points_per_car,
    points_in_box,
    statistics_of_tree,
)
from adperception.simulation.simulate_kitti import SimulateKitti


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> SweepStatistics:
    root = SimulateKitti(tmp_path_factory.mktemp("realism") / "tree", frames=60, seed=0, workers=2)()
    return statistics_of_tree(root, (root / "ImageSets/trainval.txt").read_text().split())


@pytest.fixture(scope="module")
def recorded(real_data: Path) -> SweepStatistics:
    root = real_data / "lidar" / "kitti"
    whole = (root / "ImageSets/trainval.txt").read_text().split()
    cut = (root / "ImageSets/trainval_reduced.txt").read_text().split()
    return statistics_of_tree(root, whole, car_frames_reduced=[i for i in cut if i not in whole])


def test_ground_mask_knows_ground_from_walls_on_a_slope() -> None:
    rng = np.random.default_rng(0)
    ground = rng.uniform(-30, 30, (20000, 3)).astype(np.float32)
    ground[:, 2] = -1.73 + 0.02 * ground[:, 0]
    wall = np.column_stack([np.full(500, 10.0), rng.uniform(-5, 5, 500), rng.uniform(-0.9, 2, 500)]).astype(np.float32)
    mask = ground_mask(np.concatenate([ground, wall]))
    assert mask[:20000].mean() > 0.98
    assert mask[20000:].mean() < 0.02


def test_points_in_box_turns_with_the_box() -> None:
    box = np.array([5, 0, 0, 4, 2, 2, np.pi / 2], dtype=np.float32)
    points = np.array([[5, 1.9, 0], [6.5, 0, 0], [5.9, 0, 0.9], [5, 0, 1.1]], dtype=np.float32)
    assert points_in_box(points, box).tolist() == [True, False, True, False]


@pytest.mark.real_data
def test_mean_returns_per_frame_are_those_of_recorded_frames(simulated: SweepStatistics) -> None:
    assert 108_000 < simulated.returns.mean() < 126_000


@pytest.mark.real_data
def test_share_of_ground_is_within_a_factor_of_recorded(simulated: SweepStatistics, recorded: SweepStatistics) -> None:
    ratio = simulated.ground_share.mean() / recorded.ground_share.mean()
    assert 1 / 1.5 < ratio < 1.5


@pytest.mark.real_data
def test_points_per_car_are_within_a_factor_of_recorded(simulated: SweepStatistics, recorded: SweepStatistics) -> None:
    sim, real = median_points_per_car(simulated), median_points_per_car(recorded)
    compared = [b for b, (_, cars) in real.items() if cars >= 5]
    assert compared == [0, 10, 20, 30, 40]
    for b in compared:
        ratio = sim[b][0] / real[b][0]
        assert 1 / 1.5 < ratio < 1.5, f"{b} m: {sim[b]} simulated, {real[b]} recorded"
