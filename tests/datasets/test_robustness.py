"""What real data sets do to a reader, in each layout: empty frames, far boxes, missing classes, broken files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from adperception.datasets import KITTI, Argoverse2, Folder, LidarDataset
from adperception.datasets.data_check import check_dataset, require_sane_data
from adperception.datasets.formats import read_calibration, to_kitti_camera, write_bin, write_labels
from adperception.datasets.formats.feather import write_feather
from adperception.datasets.formats.label_table import write_label_table
from adperception.geometry import VoxelCollate, Voxelizer
from adperception.structures import Boxes3D, PointCloud, VoxelGrid

pytest.importorskip("pyarrow")

GRID = VoxelGrid.create((0, -10, -3, 24, 10, 1), (0.25, 0.25, 0.1))
CAR = np.array([[15, 2, -0.9, 4, 1.8, 1.6, 0.3]], dtype=np.float32)
FAR = CAR + np.float32([300, 0, 0, 0, 0, 0, 0])
FRAMES = {  # an ordinary frame, one without an object, one with a car out of range, one with a class of its own
    "0": Boxes3D(CAR, ("Car",)),
    "1": Boxes3D.empty(),
    "2": Boxes3D(np.concatenate([CAR, FAR]), ("Car", "Car")),
    "3": Boxes3D(CAR, ("Tram",)),
}


def points(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    inside = rng.uniform(-0.45, 0.45, (50, 3)) * [3.5, 1.2, 1.6] + CAR[0, :3]
    road = rng.uniform((1, -9, -1.8), (23, 9, -1.75), (300, 3))
    xyz = np.concatenate([inside, road])
    return np.column_stack([xyz, rng.uniform(size=len(xyz))]).astype(np.float32)


@dataclass(frozen=True)
class Tree:
    """A written dataset: how to open it, and its files of frame 2."""

    open: Callable[..., LidarDataset]
    cloud: Path
    labels: Path


@pytest.fixture(params=["kitti", "folder", "argoverse2"])
def tree(request: pytest.FixtureRequest, tmp_path: Path, make_tree: Callable[..., Path]) -> Tree:
    if request.param == "kitti":
        root = make_tree(frames=4)
        for name, boxes in FRAMES.items():
            folder = root / "training"
            calibration = read_calibration(folder / f"calib/00000{name}.txt")
            write_bin(folder / f"velodyne/00000{name}.bin", PointCloud(points(int(name))))
            write_labels(folder / f"label_2/00000{name}.txt", to_kitti_camera(boxes, calibration))
        return Tree(
            lambda **options: KITTI(root, crop_to_image=False, **options),
            root / "training/velodyne/000002.bin",
            root / "training/label_2/000002.txt",
        )
    if request.param == "folder":
        for name in FRAMES:
            write_bin(tmp_path / f"{name}.bin", PointCloud(points(int(name))))
        write_label_table(tmp_path / "labels.csv", {f"{name}.bin": boxes for name, boxes in FRAMES.items()})
        return Tree(
            lambda **options: Folder(tmp_path, labels="labels.csv", **options),
            tmp_path / "2.bin",
            tmp_path / "labels.csv",
        )
    folder = tmp_path / "sensor/train/log"
    (folder / "sensors/lidar").mkdir(parents=True)
    for name in FRAMES:
        x, y, z, intensity = points(int(name)).T
        columns = {"x": x, "y": y, "z": z, "intensity": (intensity * 255).astype(np.uint8)}
        write_feather(folder / f"sensors/lidar/{name}.feather", columns)
    rows = [(int(t), n, *b) for t, boxes in FRAMES.items() for n, b in zip(boxes.names, boxes.boxes, strict=True)]
    times, names, values = zip(*((r[0], r[1], r[2:]) for r in rows), strict=True)
    table = np.array(values, dtype=np.float64)
    keys = ("tx_m", "ty_m", "tz_m", "length_m", "width_m", "height_m")
    turn = {"qw": np.cos(table[:, 6] / 2), "qz": np.sin(table[:, 6] / 2), "qx": 0 * table[:, 6], "qy": 0 * table[:, 6]}
    count = {"num_interior_pts": np.full(len(rows), 50)}
    where = {"timestamp_ns": np.array(times), "category": np.array(names)}
    columns = {**where, **dict(zip(keys, table[:, :6].T, strict=True)), **turn, **count}
    write_feather(folder / "annotations.feather", columns)
    return Tree(
        lambda **options: Argoverse2(tmp_path, **options),
        folder / "sensors/lidar/2.feather",
        folder / "annotations.feather",
    )


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_empty_frames_and_boxes_out_of_range_make_batches(tree: Tree) -> None:
    dataset = tree.open(transforms=[dict(type="RangeCrop", point_cloud_range=GRID.point_cloud_range)])
    assert [dataset.read(i).boxes.names for i in range(4)] == [b.names for b in FRAMES.values()]
    np.testing.assert_allclose(dataset.read(2).boxes.boxes, FRAMES["2"].boxes, atol=1e-3)
    frames = [dataset.get(i, rng()) for i in range(4)]
    assert [len(frame.boxes) for frame in frames] == [1, 0, 1, 1]
    batch = VoxelCollate(Voxelizer(GRID, 5, 1000), 4)(frames)
    assert [len(boxes) for boxes in batch.boxes] == [1, 0, 1, 1]
    assert set(batch.voxels.coordinates[:, 0].tolist()) == {0, 1, 2, 3}


def test_boxes_can_be_read_without_the_cloud(tree: Tree) -> None:
    """As a metric reads them; KITTI's cloud is needed to say what was cut."""
    dataset = tree.open()
    for index in range(4):
        boxes, frame = dataset.read_boxes(index), dataset.read(index)
        assert boxes.names == frame.boxes.names
        np.testing.assert_array_equal(boxes.boxes, frame.boxes.boxes)
    if not isinstance(dataset, KITTI):
        tree.cloud.unlink()
        assert len(dataset.read_boxes(2)) == 2


def test_empty_frames_can_be_replaced(tree: Tree) -> None:
    dataset = tree.open(classes=["Tram"], replace_empty_frames=True)
    assert {dataset.get(i, rng(i)).frame_id for i in range(4)} == {dataset.frame_ids[3]}


def test_a_class_that_is_missing_changes_nothing(tree: Tree) -> None:
    dataset = tree.open(classes=["Car", "Cyclist"])
    assert [len(dataset.get(i, rng()).boxes) for i in range(4)] == [1, 0, 2, 0]
    sampling = dict(type="GroundTruthSampling", objects={"Car": 2, "Cyclist": 4}, min_points=1)
    frame = tree.open(transforms=[sampling]).get(1, rng())
    assert set(frame.boxes.names) <= {"Car"}
    assert set(check_dataset(dataset).classes) == {"Car", "Tram"}


def test_the_check_passes_and_counts(tree: Tree) -> None:
    report = require_sane_data(tree.open(), GRID)
    assert (report.frames, report.labelled_frames, report.empty_frames) == (4, 4, 1)
    assert report.boxes_in_range == 0.75


def test_a_truncated_cloud_is_named(tree: Tree) -> None:
    tree.cloud.write_bytes(tree.cloud.read_bytes()[:-7])
    dataset = tree.open()
    with pytest.raises(ValueError, match=rf"{tree.cloud.name}: .*[Cc]opy it again"):
        dataset.read(2)
    report = check_dataset(dataset)
    assert report.frames == 3
    assert [str(tree.cloud) in error for error in report.errors] == [True]


def test_truncated_labels_are_named(tree: Tree) -> None:
    """In the middle of a line: a shorter file with whole lines cannot be told from one with fewer objects."""
    tree.labels.write_bytes(tree.labels.read_bytes()[:-30])
    with pytest.raises(ValueError, match=rf"{tree.labels.name}"):
        [tree.open().read(i) for i in range(4)]


def test_labels_without_a_cloud(tree: Tree) -> None:
    tree.cloud.unlink()
    if tree.cloud.suffix == ".feather":  # logs are often copied in part: what is there is used
        assert [name.partition("/")[2] for name in tree.open().frame_ids] == ["0", "1", "3"]
        return
    with pytest.raises(FileNotFoundError, match=rf"{tree.cloud.stem}.*(Copy|take)"):
        tree.open()
