"""The loader reads a simulated tree by the same code as a real one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from adperception.datasets import KITTI
from adperception.datasets.data_check import require_sane_data
from adperception.geometry import VoxelCollate, Voxelizer
from adperception.simulation.simulate_kitti import SimulateKitti
from adperception.structures import VoxelGrid

GRID = VoxelGrid.create((0, -40, -3, 70.4, 40, 1), (0.1, 0.1, 0.1))


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("simulated") / "kitti"
    SimulateKitti(root, frames=4, seed=3, splits={"train": 1.0}, reduced=True, columns=700)()
    return root


def test_boxes_and_points_share_a_frame(tree: Path) -> None:
    report = require_sane_data(KITTI(tree, crop_to_image=False), GRID)
    assert report.frames == report.labelled_frames == 4
    assert report.classes["Car"].boxes >= 4
    assert report.remarks == ()


def test_the_simulated_reduced_clouds_are_the_image_crop(tree: Path) -> None:
    whole, reduced = KITTI(tree), KITTI(tree, points="velodyne_reduced")
    for index in range(4):
        a, b = whole.read(index).cloud.points, reduced.read(index).cloud.points
        assert len(a) > 500
        np.testing.assert_array_equal(a, b)


def test_from_disk_to_a_batch_with_data_workers(tree: Path) -> None:
    dataset = KITTI(tree, transforms=[dict(type="GroundTruthSampling"), dict(type="RandomWorldRotation")])
    collate = VoxelCollate(Voxelizer(GRID, 5, 16_000), 4)

    class Seeded(torch.utils.data.Dataset):  # type: ignore[type-arg]
        def __len__(self) -> int:
            return len(dataset)

        def __getitem__(self, index: int):
            return dataset.get(index, np.random.default_rng((0, index)))

    batches = [
        list(torch.utils.data.DataLoader(Seeded(), batch_size=2, collate_fn=collate, num_workers=workers))
        for workers in (0, 2)
    ]
    for a, b in zip(*batches, strict=True):
        assert a.frame_ids == b.frame_ids
        assert torch.equal(a.voxels.coordinates, b.voxels.coordinates)
        assert torch.equal(a.voxels.features, b.voxels.features)
        np.testing.assert_array_equal(a.boxes[0].boxes, b.boxes[0].boxes)
