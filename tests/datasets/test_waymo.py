"""Waymo's Parquet layout, read back from simulated drives that recorded where their points are."""

from __future__ import annotations

import json
import logging
import pickle
import shutil
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from adperception.datasets import Waymo
from adperception.datasets.data_check import check_dataset
from adperception.datasets.formats.waymo_parquet import COMPONENTS
from adperception.geometry import count_points_in_boxes
from adperception.registry import DATASETS, build
from adperception.simulation.simulate_waymo import (
    SimulatedWaymoFrame,
    SimulateWaymo,
    car_lasers,
    segment_name,
    simulate_segment,
)

COLUMNS, SEGMENT_FRAMES = 240, 3
LIDAR_BOX = "[LiDARBoxComponent]"


@pytest.fixture(scope="module")
def drives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two drives of three frames."""
    options = dict(frames=6, segment_frames=SEGMENT_FRAMES, columns=COLUMNS, splits={"training": 1.0})
    return SimulateWaymo(tmp_path_factory.mktemp("waymo") / "tree", seed=5, **options)()


@pytest.fixture(scope="module")
def truth() -> dict[str, SimulatedWaymoFrame]:
    """What was simulated, by frame name."""
    made = {}
    for number in range(2):
        for frame in simulate_segment(5, number, SEGMENT_FRAMES, car_lasers(COLUMNS)):
            made[f"{segment_name(5, number)}/{frame.time}"] = frame
    return made


@pytest.fixture
def copy(drives: Path, tmp_path: Path) -> Path:
    """A tree to damage."""
    return Path(shutil.copytree(drives, tmp_path / "tree"))


def file_of(root: Path, component: str, number: int = 0) -> Path:
    return root / "training" / component / f"{segment_name(5, number)}.parquet"


def edit(path: Path, change) -> None:  # type: ignore[no-untyped-def]
    table = pq.read_table(path)
    pq.write_table(change(table), path, row_group_size=4)


def replaced(table: pa.Table, name: str, values: list) -> pa.Table:
    at = table.schema.get_field_index(name)
    return table.set_column(at, table.schema.field(at), pa.array(values, type=table.schema.field(at).type))


def test_points_lie_where_the_simulator_put_them(drives: Path, truth: dict[str, SimulatedWaymoFrame]) -> None:
    dataset = Waymo(drives, returns=(1,))
    assert sorted(dataset.frame_ids) == sorted(truth)
    for index, name in enumerate(dataset.frame_ids):
        positions = np.concatenate([truth[name].positions[laser] for laser in range(1, 6)])
        cloud, notes = dataset.read_cloud(index)
        assert notes == ()
        np.testing.assert_allclose(cloud.xyz, positions, atol=3e-4)  # poses are float32, kilometres from the origin
    assert cloud.channels == ("x", "y", "z", "intensity", "elongation")
    assert 0 <= cloud.points[:, 3].min() < cloud.points[:, 3].max() <= 0.9901  # tanh undoes the simulator's artanh
    assert cloud.points[:, 4].max() > 0.1


def test_boxes_hold_the_recorded_numbers_of_points(drives: Path, truth: dict[str, SimulatedWaymoFrame]) -> None:
    dataset = Waymo(drives)
    empty = 0
    for index, name in enumerate(dataset.frame_ids):
        frame, expected = dataset.read(index), truth[name]
        seen = expected.points > 0
        empty += int((~seen).sum())
        assert frame.boxes is not None
        np.testing.assert_allclose(frame.boxes.boxes, expected.boxes.boxes[seen], atol=1e-5)
        assert frame.boxes.names == expected.boxes.select(seen).names
        counts = count_points_in_boxes(frame.cloud.xyz, frame.boxes.boxes)
        assert np.abs(counts - expected.points[seen]).max() <= 2  # points on a face
        top = Waymo(drives, lasers=("TOP",)).read_cloud(index)[0]
        assert np.abs(count_points_in_boxes(top.xyz, frame.boxes.boxes) - expected.top_points[seen]).max() <= 2
    assert empty > 0, "the drives should have objects without points"


def test_ground_truth_has_the_official_difficulty(drives: Path, truth: dict[str, SimulatedWaymoFrame]) -> None:
    dataset = Waymo(drives)
    levels = []
    for index, name in enumerate(dataset.frame_ids):
        boxes, difficulty = dataset.read_ground_truth(index)
        expected = truth[name]
        seen = expected.points > 0
        hard = (expected.points[seen] <= 5) | expected.hard[seen]
        np.testing.assert_array_equal(difficulty, np.where(hard, 2, 1))
        assert boxes.names == expected.boxes.select(seen).names
        levels.append(difficulty)
    assert {1, 2} <= set(np.concatenate(levels).tolist())


def test_signs_are_read_but_neither_kept_nor_ground_truth(copy: Path) -> None:
    edit(file_of(copy, "lidar_box"), lambda t: replaced(t, f"{LIDAR_BOX}.type", [3] * len(t)))
    dataset = Waymo(copy)
    read = dataset.read(0)
    assert read.boxes is not None
    assert set(read.boxes.names) == {"Sign"}
    kept = dataset.get(0, np.random.default_rng(0)).boxes
    assert kept is not None
    assert len(kept) == len(dataset.read_ground_truth(0)[0]) == 0
    every = Waymo(copy, classes=None).get(0, np.random.default_rng(0)).boxes
    assert every is not None
    assert every.names == read.boxes.names


def test_flagged_objects_are_hard_however_many_points(copy: Path) -> None:
    edit(file_of(copy, "lidar_box"), lambda t: replaced(t, f"{LIDAR_BOX}.difficulty_level.detection", [2] * len(t)))
    assert set(Waymo(copy).read_ground_truth(0)[1].tolist()) == {2}
    edit(file_of(copy, "lidar_box"), lambda t: replaced(t, f"{LIDAR_BOX}.num_lidar_points_in_box", [6] * len(t)))
    edit(file_of(copy, "lidar_box"), lambda t: replaced(t, f"{LIDAR_BOX}.difficulty_level.detection", [None] * len(t)))
    assert set(Waymo(copy).read_ground_truth(0)[1].tolist()) == {1}


def test_second_returns_and_the_rolling_shutter_are_options(drives: Path) -> None:
    both, first, second = (Waymo(drives, returns=r).read_cloud(0)[0] for r in ((1, 2), (1,), (2,)))
    assert len(both) == len(first) + len(second)
    assert 0 < len(second) < 0.2 * len(first)
    top = dict(lasers=("TOP",), returns=(1,))
    still = Waymo(drives, rolling_shutter=False, **top).read_cloud(0)[0]
    moved = np.linalg.norm(still.xyz - Waymo(drives, **top).read_cloud(0)[0].xyz, axis=1)
    assert 0.02 < moved.max() < 2, "0.1 s of driving"


def test_no_label_zones_can_be_left_out(copy: Path) -> None:
    name = "[LiDARComponent].range_image_return1.values"

    def mark(table: pa.Table) -> pa.Table:
        values = [np.array(v.as_py(), dtype=np.float32).reshape(-1, 4) for v in table[name]]
        for image in values:
            image[::2, 3] = 1
        return replaced(table, name, [v.ravel() for v in values])

    edit(file_of(copy, "lidar"), mark)
    all_points, outside = (
        Waymo(copy, returns=(1,), drop_no_label_zones=drop).read_cloud(0)[0] for drop in (False, True)
    )
    assert 0.4 * len(all_points) < len(outside) < 0.6 * len(all_points)


def test_subsets_come_from_the_concatenated_list(drives: Path) -> None:
    every = list(Waymo(drives).frame_ids)
    assert len(every) == 6
    assert every == sorted(every)
    assert list(Waymo(drives, interval=4).frame_ids) == [every[0], every[4]]
    one = Waymo(drives, segments=[segment_name(5, 1)], interval=2)
    assert list(one.frame_ids) == [n for n in every if n.startswith(segment_name(5, 1))][::2]
    listed = drives / "mine.txt"
    listed.write_text(segment_name(5, 1) + "\n")
    assert Waymo(drives, segments=str(listed)).segments == [segment_name(5, 1)]
    listed.unlink()


def test_row_groups_of_any_size_give_the_same_frames(drives: Path, copy: Path) -> None:
    for size in (1, 3, 100):
        for component in COMPONENTS:
            table = pq.read_table(file_of(drives, component))
            # Rows in another order, too.
            shuffled = table.take(pa.array(np.random.default_rng(size).permutation(len(table))))
            pq.write_table(shuffled, file_of(copy, component), row_group_size=size)
        a, b = Waymo(copy), Waymo(drives)
        at = next(i for i, n in enumerate(b.frame_ids) if n.startswith(segment_name(5, 0)))
        assert a.frame_ids[at] == b.frame_ids[at]
        np.testing.assert_array_equal(a.read(at).cloud.points, b.read(at).cloud.points)
        assert sorted(a.read_ground_truth(at)[0].names) == sorted(b.read_ground_truth(at)[0].names)


def test_the_index_is_json_kept_and_renewed_when_a_file_changes(copy: Path) -> None:
    Waymo(copy)
    path = copy / "training" / "frame_index.json"
    stored = json.loads(path.read_text())
    before = path.stat().st_mtime_ns
    Waymo(copy)
    assert path.stat().st_mtime_ns == before
    edit(file_of(copy, "lidar"), lambda t: t.slice(0, 5))
    assert len(Waymo(copy)) == 1 + SEGMENT_FRAMES
    assert json.loads(path.read_text()) != stored
    path.write_text("{")
    assert len(Waymo(copy)) == 1 + SEGMENT_FRAMES


def test_data_workers_get_a_small_picklable_dataset(drives: Path) -> None:
    dataset = Waymo(drives)
    dataset.read(0)
    text = pickle.dumps(dataset)
    assert len(text) < 5_000
    np.testing.assert_array_equal(pickle.loads(text).read(3).cloud.points, dataset.read(3).cloud.points)


def test_boxes_and_points_agree_for_the_data_check(drives: Path) -> None:
    report = check_dataset(Waymo(drives))
    assert report.errors == ()
    assert report.labelled_frames == 6
    assert report.classes["Vehicle"].share_with_points > 0.99


def test_it_is_a_dataset_that_configs_can_name(drives: Path) -> None:
    shuffle = dict(type="PointShuffle")
    dataset = build(DATASETS, dict(type="Waymo", root=str(drives), interval=5, transforms=[shuffle]))
    frame = dataset.get(1, np.random.default_rng(0))
    assert frame.boxes is not None
    assert len(frame.cloud) == len(dataset.read(1).cloud)


def test_objects_of_other_frames_are_pasted(copy: Path) -> None:
    sampling = dict(type="GroundTruthSampling", objects=dict(Vehicle=60), min_points=20)
    dataset = Waymo(copy, segments=[segment_name(5, 0)], transforms=[sampling])
    before, after = dataset.read(0), dataset.get(0, np.random.default_rng(0))
    assert before.boxes is not None
    assert after.boxes is not None
    assert len(after.boxes) > before.boxes.names.count("Vehicle")
    assert after.cloud.channels == before.cloud.channels
    pasted = after.boxes.boxes[len(before.boxes) :]
    assert (count_points_in_boxes(after.cloud.xyz, pasted) >= 20).all()


def test_the_points_that_the_labels_state_are_found(drives: Path) -> None:
    same, stated = check_dataset(Waymo(drives)).stated_points
    assert stated > 50
    assert same > 0.95 * stated


def test_frames_without_objects_and_missing_classes(copy: Path) -> None:
    edit(file_of(copy, "lidar_box"), lambda t: t.slice(0, 0))
    dataset = Waymo(copy)
    assert {n.split("/")[0] for n in dataset.frame_ids} == {segment_name(5, 0), segment_name(5, 1)}
    empty = [i for i, n in enumerate(dataset.frame_ids) if n.startswith(segment_name(5, 0))]
    for index in empty:
        boxes = dataset.read(index).boxes
        assert boxes is not None
        assert len(boxes) == 0
        assert dataset.read_ground_truth(index)[1].shape == (0,)
    assert Waymo(copy, classes=("Cyclist",)).get(empty[0], np.random.default_rng(0)).boxes is not None
    assert check_dataset(dataset).errors == ()


def test_boxes_outside_the_range_are_cut_with_it(copy: Path) -> None:
    edit(file_of(copy, "lidar_box"), lambda t: replaced(t, f"{LIDAR_BOX}.box.center.x", [500.0] * len(t)))
    crop = dict(type="RangeCrop", point_cloud_range=[-75.2, -75.2, -2.0, 75.2, 75.2, 4.0])
    dataset = Waymo(copy, segments=[segment_name(5, 0)], transforms=[crop])
    boxes = dataset.get(0, np.random.default_rng(0)).boxes
    assert boxes is not None
    assert len(boxes) == 0
    assert any("contain any point" in error for error in check_dataset(dataset).errors)


def test_a_split_without_labels_is_unlabelled(copy: Path) -> None:
    shutil.rmtree(copy / "training" / "lidar_box")
    dataset = Waymo(copy)
    assert dataset.read(0).boxes is None
    with pytest.raises(ValueError, match="without labels, so there is no ground truth"):
        dataset.read_ground_truth(0)
    assert Waymo(copy, labels=False).read(0).boxes is None


@pytest.mark.parametrize("component", COMPONENTS)
def test_a_truncated_file_is_named(copy: Path, component: str) -> None:
    path = file_of(copy, component)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"not a readable Parquet file .*download it again") as error:
        Waymo(copy, segments=[segment_name(5, 0)]).read(0)
    assert str(path) in str(error.value)


def test_damage_inside_a_file_is_named(copy: Path) -> None:
    path = file_of(copy, "lidar")
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 4000] = bytes(4000)
    path.write_bytes(content)
    dataset = Waymo(copy, segments=[segment_name(5, 0)])
    with pytest.raises(ValueError, match=r"lidar.*\.parquet: ") as error:
        [dataset.read(index) for index in range(len(dataset))]
    assert str(path) in str(error.value)


@pytest.mark.parametrize("component", ["lidar_calibration", "lidar_pose", "vehicle_pose", "lidar_box"])
def test_a_missing_file_is_named_with_the_way_out(copy: Path, component: str) -> None:
    file_of(copy, component).unlink()
    with pytest.raises(FileNotFoundError, match=f"1 of 2 segments have no file in .*{component} .first: ") as error:
        Waymo(copy)
    still = "rolling_shutter=False"
    hints = {"lidar_pose": still, "vehicle_pose": still, "lidar_box": "labels=False"}
    assert hints.get(component, "") in str(error.value)


def test_labels_without_a_cloud(copy: Path, caplog: pytest.LogCaptureFixture) -> None:
    file_of(copy, "lidar", 1).unlink()
    with caplog.at_level(logging.WARNING):
        dataset = Waymo(copy)
    assert dataset.segments == [segment_name(5, 0)]
    assert f"labels of 1 segments have no range images (first: {segment_name(5, 1)})" in caplog.text
    with pytest.raises(FileNotFoundError, match=f"first: {segment_name(5, 1)}.parquet"):
        Waymo(copy, segments=[segment_name(5, 0), segment_name(5, 1)])


def test_lost_rows_are_named(copy: Path) -> None:
    time = int(Waymo(copy, segments=[segment_name(5, 0)]).frame_ids[0].split("/")[1])
    key = "key.frame_timestamp_micros"
    for component, message in [
        ("lidar_pose", f"no pixel poses for the frame at {time}"),
        ("vehicle_pose", f"no vehicle pose for the frame at {time}"),
    ]:
        original = file_of(copy, component).read_bytes()
        edit(file_of(copy, component), lambda t: t.filter(pa.compute.not_equal(t[key], time)))
        with pytest.raises(ValueError, match=message):
            Waymo(copy, segments=[segment_name(5, 0)]).read(0)
        file_of(copy, component).write_bytes(original)
    edit(file_of(copy, "lidar_calibration"), lambda t: t.slice(0, 4))
    with pytest.raises(ValueError, match="no calibration of LiDAR 5"):
        Waymo(copy, segments=[segment_name(5, 0)]).read(0)
    edit(file_of(copy, "lidar"), lambda t: t.filter(pa.compute.not_equal(t["key.laser_name"], 3)))
    notes = Waymo(copy, segments=[segment_name(5, 0)], lasers=("TOP", "SIDE_LEFT")).read(0).notes
    assert notes == ("No range image of SIDE_LEFT.",)
    with pytest.raises(ValueError, match="has no range image of SIDE_LEFT"):
        Waymo(copy, segments=[segment_name(5, 0)], lasers=("SIDE_LEFT",)).read(0)


def test_values_that_cannot_be_are_refused_naming_the_frame(copy: Path) -> None:
    edit(file_of(copy, "lidar_box"), lambda t: replaced(t, f"{LIDAR_BOX}.box.size.x", [-1.0] * len(t)))
    with pytest.raises(ValueError, match=r"frame \d+: box 1 of \d+ reads .*sizes positive"):
        Waymo(copy, segments=[segment_name(5, 0)]).read(0)
    name = "[LiDARComponent].range_image_return1.shape"
    edit(file_of(copy, "lidar"), lambda t: replaced(t, name, [[64, 7, 4]] * len(t)))
    with pytest.raises(ValueError, match=r"range_image_return1 has [\d,]+ values for the shape \[64, 7, 4\]"):
        Waymo(copy, segments=[segment_name(5, 0)]).read(0)


def test_another_datasets_file_is_named(copy: Path) -> None:
    pq.write_table(pa.table({"x": [1, 2]}), file_of(copy, "lidar"))
    with pytest.raises(ValueError, match=r"no column key.frame_timestamp_micros. The file is no lidar component"):
        Waymo(copy)


def test_options_without_sense_are_refused(drives: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r'"ROOF" is not a LiDAR; known are TOP, FRONT'):
        Waymo(drives, lasers=("ROOF",))
    for returns in ((), (3,)):
        with pytest.raises(ValueError, match="returns are 1 and 2"):
            Waymo(drives, returns=returns)
    with pytest.raises(FileNotFoundError, match=r"testing.lidar does not exist"):
        Waymo(drives, split="testing")
    (tmp_path / "training/lidar").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"holds no .parquet file"):
        Waymo(tmp_path)


def test_without_pyarrow_the_message_names_the_extra(drives: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ImportError, match=r'pip install "adperception\[parquet\]"'):
        Waymo(drives)
