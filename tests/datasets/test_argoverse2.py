from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pyarrow")

from adperception.datasets import Argoverse2
from adperception.datasets.argoverse2 import CATEGORIES, COARSE_CLASSES
from adperception.datasets.data_check import check_dataset, require_sane_data
from adperception.datasets.formats.feather import write_feather
from adperception.geometry import count_points_in_boxes
from adperception.registry import DATASETS, build
from adperception.structures import XYZI, VoxelGrid

LOGS = ("log_b", "log_a")
TIMES = (1_000_000_000, 99, 1_100_000_000)
CAR, DOG = (10.0, 2, 1, 4, 2, 1.5, 0.5), (-5.0, 1, 0.5, 1, 0.5, 0.6, 3.0)
MakeTree = Callable[..., Path]


def write_annotations(path: Path, times: Sequence[int], boxes: Sequence[tuple[str, tuple[float, ...]]]) -> None:
    rows = [(time, name, *box) for time in times for name, box in boxes]
    values = np.array([r[2:] for r in rows], dtype=np.float64).reshape(-1, 7)
    columns = dict(zip(("tx_m", "ty_m", "tz_m", "length_m", "width_m", "height_m"), values[:, :6].T, strict=True))
    write_feather(
        path,
        {
            "timestamp_ns": np.array([r[0] for r in rows], dtype=np.int64),
            "category": np.array([r[1] for r in rows], dtype=str),
            **columns,
            "qw": np.cos(values[:, 6] / 2),
            "qx": np.zeros(len(rows)),
            "qy": np.zeros(len(rows)),
            "qz": np.sin(values[:, 6] / 2),
            "num_interior_pts": np.full(len(rows), 40, dtype=np.int64),
        },
    )


def write_sweep(path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    parts = [rng.uniform((-40, -20, -0.3), (40, 20, -0.2), (300, 3))]
    for x, y, z, length, width, height, yaw in (CAR, DOG):
        local = rng.uniform(-0.45, 0.45, (40, 3)) * (length, width, height)
        cos, sin = math.cos(yaw), math.sin(yaw)
        parts.append(local @ np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]]) + (x, y, z))
    xyz = np.concatenate(parts).astype(np.float16)
    intensity = rng.integers(0, 256, len(xyz)).astype(np.uint8)
    laser = rng.integers(0, 64, len(xyz)).astype(np.uint8)
    offset = rng.integers(0, 10**8, len(xyz)).astype(np.int32)
    columns = {"x": xyz[:, 0], "y": xyz[:, 1], "z": xyz[:, 2]}
    write_feather(path, {**columns, "intensity": intensity, "laser_number": laser, "offset_ns": offset})


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two logs of three sweeps with a car and a dog; the annotations know a fourth sweep, whose cloud is missing."""
    for log in LOGS:
        folder = tmp_path / "sensor/train" / log
        (folder / "sensors/lidar").mkdir(parents=True)
        for time in TIMES:
            write_sweep(folder / f"sensors/lidar/{time}.feather", seed=time % 97)
        write_annotations(folder / "annotations.feather", (7, *TIMES), [("REGULAR_VEHICLE", CAR), ("DOG", DOG)])
    return tmp_path


def lidar(tree: Path, log: str, time: int) -> Path:
    return tree / f"sensor/train/{log}/sensors/lidar/{time}.feather"


def test_frames_are_sorted_by_log_and_time(tree: Path) -> None:
    dataset = build(DATASETS, dict(type="Argoverse2", root=str(tree)))
    times = ("99", "1000000000", "1100000000")
    assert list(dataset.frame_ids) == [f"{log}/{time}" for log in ("log_a", "log_b") for time in times]
    assert list(Argoverse2(tree, logs=["log_b"], interval=2).frame_ids) == ["log_b/99", "log_b/1100000000"]
    assert list(Argoverse2(tree, fraction=0.2).frame_ids) == ["log_a/99"]


def test_a_frame(tree: Path) -> None:
    dataset = Argoverse2(tree, channels=[*XYZI, "laser_number"])
    frame = dataset.read(1)
    assert frame.cloud.channels == (*XYZI, "laser_number")
    assert len(frame.cloud) == 380
    assert 0.9 < frame.cloud.points[:, 3].max() <= 1
    assert frame.cloud.points[:, 4].max() > 50
    assert frame.boxes.names == ("REGULAR_VEHICLE", "DOG")
    np.testing.assert_allclose(frame.boxes.boxes, [CAR, DOG], rtol=1e-6)
    counts = count_points_in_boxes(frame.cloud.xyz, frame.boxes.boxes)
    np.testing.assert_array_equal(counts, dataset.stated_points(1))
    assert require_sane_data(dataset).classes["DOG"].boxes == 6


def test_classes(tree: Path) -> None:
    assert Argoverse2(tree, class_map="coarse").read(0).boxes.names == ("Vehicle", "DOG")
    mapped = Argoverse2(tree, class_map={"DOG": "Animal", "ANIMAL": "Animal"}, classes=["Animal"])
    assert mapped.get(0, np.random.default_rng(0)).boxes.names == ("Animal",)
    with pytest.raises(
        ValueError, match=r'class_map: "REGULAR_VEHICEL" is no category\. Did you mean "REGULAR_VEHICLE"'
    ):
        Argoverse2(tree, class_map={"REGULAR_VEHICEL": "Car"})
    with pytest.raises(ValueError, match='class_map="fine" is not known'):
        Argoverse2(tree, class_map="fine")
    assert len(set(CATEGORIES)) == len(CATEGORIES) == 30
    assert set(COARSE_CLASSES.values()) == {"Vehicle", "Pedestrian", "Cyclist"}


def test_what_is_missing_is_named(tree: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"sensor/val does not exist.*one of its folders: train"):
        Argoverse2(tree, "val")
    with pytest.raises(FileNotFoundError, match=r"1 of 2 logs have no folder sensors/lidar .*first: log_c"):
        Argoverse2(tree, logs=["log_a", "log_c"])
    with pytest.raises(ValueError, match="channels=x, y, z, ring must start with x, y, z and be of x, y, z, intensity"):
        Argoverse2(tree, channels=["x", "y", "z", "ring"])
    (tree / "sensor/train/log_b/annotations.feather").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 2 logs have no annotations\.feather .*log_b/annotations"):
        Argoverse2(tree)
    assert Argoverse2(tree, logs=["log_a"]).labelled
    assert Argoverse2(tree, labels=False).read(0).boxes is None
    (tree / "sensor/train/log_a/annotations.feather").unlink()
    unlabelled = Argoverse2(tree)  # as split test
    assert not unlabelled.labelled
    assert unlabelled.stated_points(0) is None
    lidar(tree, "log_a", 99).rename(lidar(tree, "log_a", 99).with_name("extra.feather"))
    with pytest.raises(ValueError, match=r"extra\.feather is not named by a time in nanoseconds"):
        Argoverse2(tree)
    (tree / "sensor/empty").mkdir()
    with pytest.raises(ValueError, match=r"there is no cloud in .*sensor/empty"):
        Argoverse2(tree, "empty")


def test_labels_for_a_missing_cloud_are_told(tree: Path) -> None:
    lidar(tree, "log_a", 99).unlink()
    dataset = Argoverse2(tree, logs=["log_a"])
    assert len(dataset) == 2  # what is there can be used
    assert dataset.annotated_times("log_a") == {7, *TIMES}


def test_a_sweep_without_boxes_is_a_frame_with_a_note(tree: Path) -> None:
    write_annotations(tree / "sensor/train/log_a/annotations.feather", [1_100_000_000], [("DOG", DOG)])
    frame = Argoverse2(tree).read(0)
    assert frame.boxes is not None
    assert len(frame.boxes) == 0
    assert frame.notes == ("The annotations have no box of this sweep.",)
    write_annotations(tree / "sensor/train/log_a/annotations.feather", [], [])
    assert len(Argoverse2(tree).read(2).boxes) == 0


def test_damaged_files_are_named(tree: Path) -> None:
    cloud = lidar(tree, "log_a", 99)
    cloud.write_bytes(cloud.read_bytes()[:-30])
    report = check_dataset(Argoverse2(tree))
    assert report.frames == 5
    assert [e[: len(str(cloud))] for e in report.errors] == [str(cloud)]
    annotations = tree / "sensor/train/log_a/annotations.feather"
    write_annotations(annotations, [99], [("DOG", DOG), ("DOG", (1, 1, 1, 0, 1, 1, 0))])
    with pytest.raises(ValueError, match=r"annotations\.feather: row 1 \(frame log_a/99\) is no box"):
        Argoverse2(tree).read_boxes(0)


def test_boxes_out_of_range_go_with_the_crop(tree: Path) -> None:
    crop = dict(type="RangeCrop", point_cloud_range=[0, -20, -3, 40, 20, 3])
    frame = Argoverse2(tree, transforms=[crop]).get(0, np.random.default_rng(0))
    assert frame.boxes.names == ("REGULAR_VEHICLE",)


def test_ground_truth_sampling(tree: Path) -> None:
    sampling = dict(type="GroundTruthSampling", objects={"DOG": 3})
    dataset = Argoverse2(tree, transforms=[sampling], class_map="coarse", fraction=0.5)
    assert len(dataset.transforms[0].database) == 6  # of three frames
    assert any(p.name.startswith("object_database_train_frames_") for p in tree.iterdir())
    with pytest.raises(ValueError, match="was built from other frames"):  # the classes have other names
        Argoverse2(tree, transforms=[sampling], fraction=0.5)


@pytest.mark.real_data
def test_real_sweeps(real_data: Path) -> None:
    dataset = Argoverse2(real_data / "lidar/av2", "val", channels=[*XYZI, "laser_number"])
    assert [len(dataset.read(i).cloud) for i in range(2)] == [99229, 99466]
    same = total = 0
    for i in range(2):
        frame = dataset.read(i)
        counts = count_points_in_boxes(frame.cloud.xyz, frame.boxes.boxes)
        same += int(np.count_nonzero(counts == dataset.stated_points(i)))
        total += len(frame.boxes)
        assert np.count_nonzero(counts == 0) == 10
        assert frame.cloud.points[:, 4].max() == 63
    assert (same, total) == (162, 162)
    grid = VoxelGrid.create((-51.2, -51.2, -3, 51.2, 51.2, 5), (0.1, 0.1, 0.2))
    assert require_sane_data(dataset, grid).errors == ()
    (log,) = {name.partition("/")[0] for name in dataset.frame_ids}
    assert len(dataset.annotated_times(log)) == 156


@pytest.mark.real_data
def test_real_poses_bring_two_sweeps_together(real_data: Path) -> None:
    dataset = Argoverse2(real_data / "lidar/av2", "val")
    first, second = dataset.read_pose(0), dataset.read_pose(1)
    np.testing.assert_allclose(first[:3, :3] @ first[:3, :3].T, np.eye(3), atol=1e-9)
    moved = np.linalg.inv(second) @ first
    assert 0 < np.hypot(*moved[:2, 3]) < 3  # a tenth of a second
    assert np.linalg.det(first[:3, :3]) == pytest.approx(1)
    sensors = dataset.read_sensor_poses(0)
    assert 1.3 < sensors["up_lidar"][2, 3] < 2
    assert len(sensors) == 11
