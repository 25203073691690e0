from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from adperception.datasets import Folder
from adperception.datasets.data_check import check_dataset
from adperception.datasets.formats import from_mmdet3d_v1, to_mmdet3d_v1, yaw_from_quaternion
from adperception.datasets.formats.label_table import write_label_table
from adperception.geometry import VoxelCollate, Voxelizer, count_points_in_boxes
from adperception.registry import DATASETS, build
from adperception.structures import XYZI, Boxes3D, VoxelGrid


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
    with pytest.raises(ValueError, match=r"holds no \.bin, \.npy, .*\.laz file"):
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


CAR = Boxes3D(np.array([[0.5, 0.5, 0.5, 1, 1, 1, 0]], dtype=np.float32), ("Car",))
HEADER = "frame,name,x,y,z,length,width,height,yaw\n"
ROW = "Car,0.5,0.5,0.5,1,1,1,0\n"


def label(clouds: Path, *frames: str) -> None:
    (clouds / "labels.csv").write_text(HEADER + "".join(f"{frame},{ROW}" for frame in frames))


def test_boxes_come_from_the_table(clouds: Path) -> None:
    (clouds / "labels.csv").write_text(HEADER + f"b/2.bin,{ROW}a/c/3,{ROW}b/2.bin,Van,1,2,3,4,2,2,0.5\nb/1,,,,,,,,\n")
    dataset = Folder(clouds, labels="labels.csv", classes=["Car"])
    assert dataset.labelled
    assert [dataset.read(i).boxes.names for i in range(3)] == [("Car",), (), ("Car", "Van")]
    np.testing.assert_array_equal(dataset.read(2).boxes.boxes, [CAR.boxes[0], [1, 2, 3, 4, 2, 2, 0.5]])
    assert dataset.get(2, np.random.default_rng(0)).boxes.names == ("Car",)
    assert len(dataset.read(0).cloud) == 10


def test_frames_that_the_table_does_not_name(clouds: Path) -> None:
    label(clouds, "b/1", "a/c/3")
    with pytest.raises(ValueError, match=r"1 of 3 frames are not in .*labels\.csv \(first: b/2\.bin\)\. .*\"empty\""):
        Folder(clouds, labels="labels.csv")
    empty = Folder(clouds, labels="labels.csv", unlisted_frames="empty")
    assert [len(empty.read(i).boxes) for i in range(3)] == [1, 1, 0]
    skipped = Folder(clouds, labels="labels.csv", unlisted_frames="skip")
    assert list(skipped.frame_ids) == ["a/c/3.npy", "b/1.bin"]
    assert [len(skipped.read(i).boxes) for i in range(2)] == [1, 1]
    label(clouds)
    assert len(Folder(clouds, labels="labels.csv", unlisted_frames="empty").read(0).boxes) == 0
    with pytest.raises(ValueError, match="names none of the 3 frames"):
        Folder(clouds, labels="labels.csv", unlisted_frames="skip")
    with pytest.raises(ValueError, match='unlisted_frames="none" is not known; choose from error, empty, skip'):
        Folder(clouds, labels="labels.csv", unlisted_frames="none")


def test_labels_for_a_missing_cloud(clouds: Path) -> None:
    label(clouds, "b/1", "b/2", "b/3", "a/c/3")
    with pytest.raises(FileNotFoundError, match=r'labels\.csv:4: labels for frame "b/3", but there is no cloud .*b/3 '):
        Folder(clouds, labels="labels.csv")
    with pytest.raises(FileNotFoundError, match=r"labels\.csv:4: labels for frame"):
        Folder(clouds, split=["b/1.bin"], labels="labels.csv")


def test_a_table_may_name_more_frames_than_the_split(clouds: Path) -> None:
    label(clouds, "b/1", "b/2", "a/c/3")
    dataset = Folder(clouds, split=["b/2.bin"], labels=str(clouds / "labels.csv"))
    assert [len(dataset.read(i).boxes) for i in range(len(dataset))] == [1]


def test_names_without_suffix_must_be_clear(clouds: Path) -> None:
    (clouds / "b/1.npy").write_bytes((clouds / "a/c/3.npy").read_bytes())
    label(clouds, "a/c/3", "b/2", "b/1")
    with pytest.raises(ValueError, match=r'labels\.csv:4: frame "b/1" may be any of b/1\.bin, b/1\.npy'):
        Folder(clouds, labels="labels.csv")
    (clouds / "b/1.npy").unlink()
    label(clouds, "a/c/3", "b/2", "b/1", "b/1.bin")
    with pytest.raises(ValueError, match=r'labels\.csv:5: frame "b/1\.bin" is the frame of line 4 under another name'):
        Folder(clouds, labels="labels.csv")


def test_a_class_that_no_box_has_is_said_aloud(clouds: Path, caplog: pytest.LogCaptureFixture) -> None:
    label(clouds, "b/1", "b/2", "a/c/3")
    dataset = Folder(clouds, labels="labels.csv", classes=["car"])
    assert "has no box of class car (it has Car)" in caplog.text
    assert len(dataset.get(0, np.random.default_rng(0)).boxes) == 0


def test_ground_truth_sampling_from_a_folder(clouds: Path) -> None:
    (clouds / "labels.csv").write_text(
        HEADER + f"b/1,{ROW}b/2,{ROW}" + "".join(f"a/c/3,{n},0.5,0.5,0.5,1,1,1,0\n" for n in ("Van",))
    )
    options = dict(
        labels="labels.csv",
        intensity_max=2.0,
        transforms=[dict(type="GroundTruthSampling", objects={"Car": 1}, min_points=1)],
    )
    dataset = Folder(clouds, **options)
    assert len(dataset) == 3  # the arrays of the database are not taken for clouds
    again = Folder(clouds, **options)
    assert len(again) == 3
    assert sorted(p.name for p in clouds.iterdir() if p.is_dir())[2].startswith("object_database_frames_")
    # (its one object collides with the Van at the same place)
    assert again.get(0, np.random.default_rng(0)).boxes.names == ("Van",)
    (clouds / "labels.csv").write_text(HEADER + f"b/1,{ROW}b/2,{ROW}a/c/3,{ROW}")
    with pytest.raises(ValueError, match="was built from other frames"):
        Folder(clouds, **options)


def test_difficulty_and_stated_points(clouds: Path) -> None:
    (clouds / "labels.csv").write_text(
        HEADER.strip() + ",difficulty,num_points\n" + f"b/1,{ROW.strip()},-1,7\nb/2,{ROW.strip()},,\na/c/3,,,,,,,,,,\n"
    )
    dataset = Folder(clouds, labels="labels.csv")
    assert [dataset.read_labelled(i)[2].tolist() for i in range(3)] == [[], [-1], [0]]
    assert [dataset.stated_points(i).tolist() for i in range(3)] == [[], [7], [-1]]
    assert Folder(clouds).stated_points(0).tolist() == []


@pytest.mark.real_data
def test_nuscenes_with_labels(real_data: Path, tmp_path: Path) -> None:
    """Boxes as mmdetection3d's own classes hold them, through our converter into a table."""
    info = json.loads((real_data / "lidar/nuscenes/infos.json").read_text())
    names = [o["category"] for o in info["instances"]]
    centres = Boxes3D(np.array([o["bbox_3d"] for o in info["instances"]], dtype=np.float32), tuple(names))
    boxes = from_mmdet3d_v1(to_mmdet3d_v1(centres), names)
    stated = np.array([o["num_lidar_pts"] for o in info["instances"]])
    write_label_table(tmp_path / "labels.csv", {info["lidar_file"]: boxes}, {info["lidar_file"]: stated})
    dataset = Folder(
        real_data / "lidar/nuscenes",
        labels=tmp_path / "labels.csv",
        channels=[*XYZI, "ring"],
        intensity_max=255,
    )
    (frame,) = [dataset.read(i) for i in range(len(dataset))]
    assert len(frame.cloud) == 34688
    assert set(np.unique(frame.cloud.points[:, 4])) == set(range(32))
    assert frame.cloud.points[:, 3].max() == 1
    counts = count_points_in_boxes(frame.cloud.xyz, frame.boxes.boxes)
    assert np.count_nonzero(counts == dataset.stated_points(0)) == 61
    assert np.count_nonzero(counts == 0) == 3
    assert check_dataset(dataset).errors == ()


@pytest.mark.real_data
def test_dgp_scene_with_labels(real_data: Path, tmp_path: Path) -> None:
    scene = real_data / "lidar/tri_dgp/scene_01"
    ontology = {o["id"]: o["name"] for o in json.loads(next((scene / "ontology").glob("*.json")).read_text())["items"]}
    frames = {}
    for path in sorted((scene / "bounding_box_3d/LIDAR").glob("*.json")):
        rows, names = [], []
        for annotation in json.loads(path.read_text())["annotations"]:
            box, pose = annotation["box"], annotation["box"]["pose"]
            turn = np.array([[pose["rotation"][k] for k in ("qw", "qx", "qy", "qz")]])
            place = [pose["translation"][k] for k in "xyz"]
            rows.append([*place, box["length"], box["width"], box["height"], yaw_from_quaternion(turn)[0]])
            names.append(ontology[annotation["class_id"]])
        frames[path.stem] = Boxes3D(np.array(rows, dtype=np.float32), tuple(names))
    write_label_table(tmp_path / "labels.jsonl", frames)
    dataset = Folder(scene / "point_cloud/LIDAR", labels=tmp_path / "labels.jsonl", npz_field="data")
    assert [len(dataset.read(i).boxes) for i in range(3)] == [95, 96, 95]
    report = check_dataset(dataset)
    assert report.errors == ()
    held = [np.count_nonzero(count_points_in_boxes(f.cloud.xyz, f.boxes.boxes)) for f in map(dataset.read, range(3))]
    assert held == [82, 81, 82]
