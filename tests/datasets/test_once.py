"""ONCE's layout, read back from simulated drives that recorded where their points are."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from adperception.datasets import ONCE
from adperception.datasets.data_check import check_dataset
from adperception.datasets.formats import read_points
from adperception.geometry import count_points_in_boxes
from adperception.registry import DATASETS, build
from adperception.simulation.lidar_sensor import LidarSensor
from adperception.simulation.simulate_once import SimulateOnce, simulate_sequence, spinning_40_elevations

SPLITS = {"train": 0.4, "val": 0.2, "raw_small": 0.4}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five sequences of three frames: two for training, one for validation, two raw."""
    root = tmp_path_factory.mktemp("once") / "tree"
    return SimulateOnce(root, frames=15, sequence_frames=3, columns=300, seed=2, splits=SPLITS)()


@pytest.fixture
def copy(tree: Path, tmp_path: Path) -> Path:
    """A tree to damage."""
    return Path(shutil.copytree(tree, tmp_path / "tree"))


def edit(root: Path, sequence: str, **annotations: list) -> None:
    """Replace the annotations of the first frame of a sequence."""
    path = root / "data" / sequence / f"{sequence}.json"
    content = json.loads(path.read_text())
    content["frames"][0]["annos"].update(annotations)
    path.write_text(json.dumps(content))


def test_annotated_splits_give_their_annotated_frames_and_raw_splits_all(tree: Path) -> None:
    train, val, raw = (ONCE(tree, split) for split in SPLITS)
    assert (len(train), len(val), len(raw)) == (4, 2, 6)  # every second of three frames: the first and the last
    assert train.labelled
    assert not raw.labelled
    assert raw.read(0).boxes is None
    assert len(ONCE(tree, "train", labels=False)) == 6
    assert ONCE(tree, "train", labels=False).read(0).boxes is None
    assert len(ONCE(tree, None)) == 6  # all sequences, some of them annotated: their annotated frames
    assert list(ONCE(tree, train.sequences[:1]).frame_ids) == list(train.frame_ids[:2])
    assert list(ONCE(tree, "train", interval=3).frame_ids) == [train.frame_ids[0], train.frame_ids[3]]
    sequence, _, time = train.frame_ids[0].partition("/")
    assert (tree / "data" / sequence / "lidar_roof" / f"{time}.bin").is_file()


def test_points_and_boxes_are_those_of_the_simulator(tree: Path) -> None:
    dataset = ONCE(tree)
    for index, name in enumerate(dataset.frame_ids):
        sequence, _, time = name.partition("/")
        made = simulate_sequence(2, int(sequence), 3, _sensor())
        truth = next(f for f in made if f.frame_id == time)
        frame = dataset.read(index)
        np.testing.assert_array_equal(frame.cloud.points, truth.cloud.points)
        assert frame.boxes is not None
        np.testing.assert_allclose(frame.boxes.boxes, truth.boxes.boxes, atol=2e-6)
        assert frame.boxes.names == truth.boxes.names
        assert "Van" not in frame.boxes.names
        np.testing.assert_array_equal(count_points_in_boxes(frame.cloud.xyz, frame.boxes.boxes), truth.points)
        assert frame.notes == ()


def _sensor() -> LidarSensor:
    roof = ((150.0, 210.0, -90.0, -18.0), (340.0, 380.0, -90.0, -20.0))
    elevations = tuple(spinning_40_elevations().tolist())
    return LidarSensor(elevations, 300, height_m=1.9, max_range_m=100.0, own_vehicle=roof)


def test_native_axes_are_the_files_own(tree: Path) -> None:
    ours, native = ONCE(tree), ONCE(tree, native_axes=True)
    sequence, _, time = ours.frame_ids[0].partition("/")
    stored = read_points(tree / "data" / sequence / "lidar_roof" / f"{time}.bin").points
    a, b = ours.read(0), native.read(0)
    np.testing.assert_array_equal(b.cloud.points, stored)
    np.testing.assert_array_equal(a.cloud.points[:, :2], np.stack([-stored[:, 1], stored[:, 0]], axis=1))
    annotations = json.loads((tree / f"data/{sequence}/{sequence}.json").read_text())["frames"][0]["annos"]
    assert b.boxes is not None
    np.testing.assert_allclose(b.boxes.boxes, annotations["boxes_3d"], atol=1e-5)
    counts = annotations["num_points_in_gt"]
    np.testing.assert_array_equal(count_points_in_boxes(stored[:, :3], b.boxes.boxes), counts)


def test_the_beams_are_forty_between_15_and_minus_25_degrees() -> None:
    elevations = spinning_40_elevations()
    assert len(elevations) == 40
    assert (elevations[0], elevations[-1]) == (15, -25)
    assert np.all(np.diff(elevations) < 0)


def test_intensity_is_scaled_or_said_to_be_large(copy: Path) -> None:
    dataset = ONCE(copy)
    sequence, _, time = dataset.frame_ids[0].partition("/")
    path = copy / "data" / sequence / "lidar_roof" / f"{time}.bin"
    points = np.fromfile(path, dtype="<f4").reshape(-1, 4)
    before = points[:, 3].copy()
    points[:, 3] *= 255
    points.tofile(path)
    assert "give intensity_max=" in dataset.read(0).notes[0]
    scaled = ONCE(copy, intensity_max=255.0).read(0)
    np.testing.assert_allclose(scaled.cloud.points[:, 3], before, atol=1e-6)
    assert scaled.notes == ()
    with pytest.raises(ValueError, match="intensity_max=0 must be positive"):
        ONCE(copy, intensity_max=0)


def test_data_workers_get_arrays_not_objects(tree: Path) -> None:
    dataset = ONCE(tree)
    assert len(pickle.dumps(dataset)) < 20_000
    assert pickle.loads(pickle.dumps(dataset)).read(1).boxes.names == dataset.read(1).boxes.names
    first = dataset.read_boxes(0)
    assert first is not None
    first.boxes[:] = 0  # a copy
    assert dataset.read_boxes(0).boxes.any()
    assert dataset.read_boxes(-1).names == dataset.read_boxes(len(dataset) - 1).names


def test_objects_of_other_frames_are_pasted(copy: Path) -> None:
    for native in (False, True):
        database = str(copy / f"objects_{native}")
        sampling = dict(type="GroundTruthSampling", objects=dict(Car=40), min_points=10, database=database)
        dataset = ONCE(copy, native_axes=native, transforms=[sampling])
        before, after = dataset.read(0), dataset.get(0, np.random.default_rng(0))
        assert after.boxes is not None
        pasted = after.boxes.boxes[len(before.boxes) :]
        assert len(pasted) > 2
        assert (count_points_in_boxes(after.cloud.xyz, pasted) >= 10).all()


def test_boxes_and_points_agree_for_the_data_check(tree: Path) -> None:
    for native in (False, True):
        report = check_dataset(ONCE(tree, native_axes=native))
        assert report.errors == ()
        assert report.stated_points[0] == report.stated_points[1] > 20
        assert report.classes["Car"].share_with_points == 1


def test_it_is_a_dataset_that_configs_can_name(tree: Path) -> None:
    shuffle = [dict(type="PointShuffle")]
    section = dict(type="ONCE", root=str(tree), split="val", classes=["Car"], transforms=shuffle, fraction=0.5)
    dataset = build(DATASETS, section)
    frame = dataset.get(0, np.random.default_rng(0))
    assert len(dataset) == 1
    assert frame.boxes is not None
    assert set(frame.boxes.names) <= {"Car"}


def test_frames_without_objects_missing_classes_and_boxes_outside_the_range(copy: Path) -> None:
    first, second = ONCE(copy).sequences
    edit(copy, first, names=[], boxes_3d=[])
    edit(copy, second, names=["Bus"], boxes_3d=[[500.0, 0, 0, 10, 3, 3, 0]])
    crop = dict(type="RangeCrop", point_cloud_range=[-75.2, -75.2, -5.0, 75.2, 75.2, 3.0])
    dataset = ONCE(copy, classes=("Cyclist", "Bus"), transforms=[crop])
    assert len(dataset) == 4
    for index in range(4):
        boxes = dataset.get(index, np.random.default_rng(0)).boxes
        assert boxes is not None
        assert "Bus" not in boxes.names
    assert dataset.read_boxes(0) is not None
    assert len(dataset.read_boxes(0)) == 0
    assert dataset.read_boxes(2).names == ("Bus",)


def test_truncated_clouds_and_labels_are_named(copy: Path) -> None:
    dataset = ONCE(copy)
    sequence, _, time = dataset.frame_ids[0].partition("/")
    cloud = copy / "data" / sequence / "lidar_roof" / f"{time}.bin"
    cloud.write_bytes(cloud.read_bytes()[:1001])
    with pytest.raises(ValueError, match=rf"{time}\.bin: 1,001 bytes are not a whole number of points"):
        dataset.read(0)
    labels = copy / "data" / sequence / f"{sequence}.json"
    labels.write_text(labels.read_text()[:500])
    with pytest.raises(ValueError, match=rf"{sequence}\.json:1: not readable as JSON"):
        ONCE(copy)


def test_labels_without_a_cloud_are_named(copy: Path) -> None:
    sequence, _, time = ONCE(copy).frame_ids[0].partition("/")
    (copy / "data" / sequence / "lidar_roof" / f"{time}.bin").unlink()
    with pytest.raises(FileNotFoundError, match=rf"1 of 3 frames of .*{sequence}\.json have no cloud .*{time}\.bin"):
        ONCE(copy)
    shutil.rmtree(copy / "data" / sequence)
    with pytest.raises(FileNotFoundError, match=rf"{sequence}\.json does not exist.*take the sequence out"):
        ONCE(copy)


def test_missing_roots_and_splits_are_named(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere.data does not exist"):
        ONCE(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"Splits there: raw_small, train, val"):
        ONCE(tree, "training")
    (tmp_path / "data").mkdir()
    with pytest.raises(ValueError, match="holds no sequence"):
        ONCE(tmp_path, None)
