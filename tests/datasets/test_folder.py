from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from adperception.datasets import Folder
from adperception.geometry import VoxelCollate, Voxelizer
from adperception.registry import DATASETS, build
from adperception.structures import XYZI, VoxelGrid


@pytest.fixture
def clouds(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in ("b/2.bin", "b/1.bin", "a/c/3.npy"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        points = rng.uniform(0, 1, (10, 4)).astype(np.float32)
        if path.suffix == ".bin":
            points.tofile(path)
        else:
            np.save(path, points)
    (tmp_path / "b/readme.txt").write_text("not a cloud")
    return tmp_path


def test_files_are_found_below_and_sorted(clouds: Path) -> None:
    dataset = build(DATASETS, dict(type="Folder", root=str(clouds)))
    assert list(dataset.frame_ids) == ["a/c/3.npy", "b/1.bin", "b/2.bin"]
    frame = dataset.read(1)
    assert frame.boxes is None
    np.testing.assert_array_equal(frame.cloud.points.ravel(), np.fromfile(clouds / "b/1.bin", dtype=np.float32))


def test_splits(clouds: Path) -> None:
    assert list(Folder(clouds, split=["b/2.bin"]).frame_ids) == ["b/2.bin"]
    (clouds / "train.txt").write_text("b/1.bin\na/c/3.npy\n")
    assert list(Folder(clouds, split=str(clouds / "train.txt")).frame_ids) == ["b/1.bin", "a/c/3.npy"]
    with pytest.raises(FileNotFoundError, match="1 of 2 frames of the split"):
        Folder(clouds, split=["b/2.bin", "b/9.bin"])
    with pytest.raises(FileNotFoundError, match=r"none\.txt"):
        Folder(clouds, split="none.txt")


def test_empty_and_missing_folders(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no \.bin, \.npy, \.pcd file"):
        Folder(tmp_path)
    with pytest.raises(FileNotFoundError, match="does not exist or is no folder"):
        Folder(tmp_path / "nowhere")


def test_intensity_is_scaled_and_a_wrong_scale_is_noted(tmp_path: Path) -> None:
    points = np.array([[1, 2, 3, 255], [4, 5, 6, 51]], dtype=np.float32)
    points.tofile(tmp_path / "a.bin")
    assert "Intensity reaches 255" in Folder(tmp_path).read(0).notes[0]
    frame = Folder(tmp_path, intensity_max=255).read(0)
    assert frame.notes == ()
    np.testing.assert_allclose(frame.cloud.points[:, 3], [1, 0.2])
    np.testing.assert_array_equal(frame.cloud.xyz, points[:, :3])
    with pytest.raises(ValueError, match="intensity_max=0"):
        Folder(tmp_path, intensity_max=0)


def test_declared_channels(tmp_path: Path) -> None:
    np.zeros((6, 5), dtype=np.float32).tofile(tmp_path / "a.bin")
    assert len(Folder(tmp_path, channels=[*XYZI, "ring"]).read(0).cloud) == 6
    with pytest.raises(ValueError, match="left after 7 points"):
        Folder(tmp_path).read(0)


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("folder", "options", "frames", "points"),
    [
        ("kitti_odometry", {}, 4, [124668, 124605, 124478, 124167]),
        ("pandaset", {"intensity_max": 255}, 2, [77295, 79372]),
        ("nuscenes", {"intensity_max": 255, "channels": [*XYZI, "ring"]}, 1, [34688]),
        ("semantickitti", {}, 1, [123389]),
    ],
)
def test_recordings(real_data: Path, folder: str, options: dict[str, object], frames: int, points: list[int]) -> None:
    dataset = Folder(real_data / "lidar" / folder, **options)
    assert len(dataset) == frames
    read = [dataset.read(i) for i in range(frames)]
    assert [len(f.cloud) for f in read] == points
    assert all(f.cloud.points[:, 3].min() >= 0 and f.cloud.points[:, 3].max() <= 1 for f in read)
    grid = VoxelGrid.create((-51.2, -51.2, -5, 51.2, 51.2, 3), (0.1, 0.1, 0.2))
    batch = VoxelCollate(Voxelizer(grid, 5, 60_000), len(dataset.channels))(read)
    assert len(batch.voxels) > 10_000 * frames
