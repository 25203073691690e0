from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from adperception.datasets.formats import read_points
from adperception.geometry import VoxelCollate, Voxelizer, voxelize_by_loop
from adperception.structures import XYZI, Boxes3D, LidarFrame, PointCloud, VoxelGrid

GRID = VoxelGrid.create((0, -2, -1, 4, 2, 1), (0.5, 0.5, 0.25))
CAPS = [(5, 40), (1, None), (2, 1), (None, None), (None, 30), (5, 10_000)]


def assert_equals_loop(voxelizer: Voxelizer, points: NDArray[np.float32]) -> int:
    features, zyx = voxelizer(torch.from_numpy(points))
    expected_features, expected_zyx = voxelize_by_loop(voxelizer, points)
    assert features.dtype == torch.float32
    assert zyx.dtype == torch.int32
    np.testing.assert_array_equal(zyx.numpy(), expected_zyx)
    np.testing.assert_allclose(features.numpy(), expected_features, rtol=1e-6, atol=1e-6)
    return len(features)


def crowded_points(n: int = 3000) -> NDArray[np.float32]:
    """Points in and around the grid, a third of them on voxel borders, many per voxel."""
    rng = np.random.default_rng(0)
    points = rng.uniform((-0.5, -2.5, -1.5, 0), (4.5, 2.5, 1.5, 1), (n, 4)).astype(np.float32)
    points[: n // 3, :3] = np.round(points[: n // 3, :3] * 4) / 4
    return rng.permutation(points)


@pytest.mark.parametrize(("max_points", "max_voxels"), CAPS)
def test_equals_the_loop(max_points: int | None, max_voxels: int | None) -> None:
    voxels = assert_equals_loop(Voxelizer(GRID, max_points, max_voxels), crowded_points())
    assert voxels == min(max_voxels or 466, 466)  # 466 of the 512 voxels are occupied


def test_hard_mode_by_hand() -> None:
    a, b, c = [0.1, 0.1, 0.1], [1.1, 0.1, 0.1], [2.1, 0.1, 0.1]
    points = np.array([[*a, 1], [*b, 10], [*a, 2], [*c, 100], [*b, 20], [*a, 99]], dtype=np.float32)
    features, zyx = Voxelizer(GRID, max_points_per_voxel=2, max_voxels=2)(torch.from_numpy(points))
    # a and b came first, c is over the cap; a takes its first two points, b takes one that comes after the cap closed.
    assert zyx.tolist() == [[4, 4, 0], [4, 4, 2]]
    assert features[:, 3].tolist() == [1.5, 15.0]


def test_borders_belong_to_the_voxel_above() -> None:
    points = np.array(
        [[0, -2, -1, 0], [4, 0, 0, 0], [0.5, -1.5, -0.75, 0], [1, 2, 0, 0], [1, 0, 1, 0]], dtype=np.float32
    )
    assert_equals_loop(Voxelizer(GRID, 5, None), points)
    _, zyx = Voxelizer(GRID, 5, None)(torch.from_numpy(points))
    assert zyx.tolist() == [[0, 0, 0], [1, 1, 1]]  # the maxima lie outside


@pytest.mark.parametrize("points", [np.zeros((0, 4)), np.full((7, 4), 50.0), np.full((3, 4), np.nan)])
def test_nothing_inside(points: NDArray[np.float64]) -> None:
    features, zyx = Voxelizer(GRID, 5, 100)(torch.from_numpy(points.astype(np.float32)))
    assert features.shape == (0, 4)
    assert zyx.shape == (0, 3)


def test_all_points_in_one_voxel() -> None:
    points = np.random.default_rng(0).uniform(0.01, 0.2, (5000, 5)).astype(np.float32)
    assert assert_equals_loop(Voxelizer(GRID, 5, 10), points) == 1
    features, _ = Voxelizer(GRID, None, 10)(torch.from_numpy(points))
    np.testing.assert_allclose(features[0], points.astype(np.float64).mean(axis=0), rtol=1e-4)


@pytest.mark.parametrize("option", ["max_points_per_voxel", "max_voxels"])
def test_a_cap_of_zero_is_refused(option: str) -> None:
    with pytest.raises(ValueError, match=f"{option} is 0"):
        Voxelizer(GRID, **{"max_points_per_voxel": 5, "max_voxels": 9, option: 0})


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("max_points", "max_voxels"), CAPS)
def test_cuda_equals_cpu(max_points: int | None, max_voxels: int | None) -> None:
    voxelizer, points = Voxelizer(GRID, max_points, max_voxels), torch.from_numpy(crowded_points())
    features, zyx = voxelizer(points)
    cuda_features, cuda_zyx = voxelizer(points.to("cuda"))
    assert torch.equal(cuda_zyx.cpu(), zyx)
    torch.testing.assert_close(cuda_features.cpu(), features, rtol=1e-6, atol=1e-6)


@pytest.mark.real_data
@pytest.mark.parametrize(("max_points", "max_voxels"), [(5, 16_000), (5, 4_000), (None, None)])
def test_real_frame_equals_the_loop(real_data: Path, max_points: int | None, max_voxels: int | None) -> None:
    points = read_points(real_data / "lidar/kitti/training/velodyne_reduced/000008.bin").points
    grid = VoxelGrid.create((0, -40, -3, 70.4, 40, 1), (0.05, 0.05, 0.1))
    voxels = assert_equals_loop(Voxelizer(grid, max_points, max_voxels), points)
    assert voxels == min(13_092, max_voxels or 13_092)  # twice 13,092 = the 26,184 voxels of the reference batch


def frame(
    name: str, points: NDArray[np.float32], channels: tuple[str, ...] = XYZI, labelled: bool = True
) -> LidarFrame:
    return LidarFrame(name, PointCloud(points, channels), Boxes3D.empty() if labelled else None)


def test_collate_keeps_frames_apart() -> None:
    points = crowded_points()
    outside = np.full((9, 4), 50, dtype=np.float32)
    collate = VoxelCollate(Voxelizer(GRID, 5, 100), 4)
    batch = collate([frame("a", points[:500]), frame("empty", outside), frame("b", points[500:])])
    assert batch.frame_ids == ("a", "empty", "b")
    assert len(batch) == batch.voxels.batch_size == 3
    assert batch.voxels.coordinates.dtype == torch.int32
    for number, own in enumerate([points[:500], outside, points[500:]]):
        mine = batch.voxels.coordinates[:, 0] == number
        features, zyx = voxelize_by_loop(collate.voxelizer, own)
        np.testing.assert_array_equal(batch.voxels.coordinates[mine, 1:].numpy(), zyx)
        np.testing.assert_allclose(batch.voxels.features[mine].numpy(), features, rtol=1e-6, atol=1e-6)
    assert [len(p) for p in batch.points][1] == 0
    inside = batch.points[0].numpy()
    assert len(inside) < 500
    assert ((inside[:, :3] >= (0, -2, -1)) & (inside[:, :3] < (4, 2, 1))).all()
    assert batch.boxes is not None
    assert collate([frame("a", points), frame("b", points, labelled=False)]).boxes is None


def test_the_batch_does_not_share_memory_with_the_dataset() -> None:
    points = np.full((4, 4), 0.5, dtype=np.float32)
    batch = VoxelCollate(Voxelizer(GRID, 5, 100), 4)([frame("a", points)])
    points[:] = -1
    assert (batch.points[0] == 0.5).all()
    assert (batch.voxels.features == 0.5).all()


def test_collate_is_picklable_and_refuses_an_empty_list() -> None:
    collate = pickle.loads(pickle.dumps(VoxelCollate(Voxelizer(GRID, 5, 100), XYZI)))
    assert len(collate([frame("a", crowded_points())])) == 1
    with pytest.raises(ValueError, match="list of frames is empty"):
        collate([])


@pytest.mark.parametrize("wanted", [4, XYZI, ("x", "y", "z", "intensity", "elongation")])
def test_other_channels_are_refused_with_both_lists(wanted: int | tuple[str, ...]) -> None:
    cloud = np.zeros((2, 5), dtype=np.float32)
    described = "4 channels" if wanted == 4 else rf"\({', '.join(wanted)}\)"  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=rf"frame 000007: .*\(x, y, z, intensity, ring\), the model reads {described}"):
        VoxelCollate(Voxelizer(GRID, 5, 100), wanted)([frame("000007", cloud, (*XYZI, "ring"))])
