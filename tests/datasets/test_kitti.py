from __future__ import annotations

import gc
import logging
import pickle
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from adperception.datasets import KITTI
from adperception.geometry import count_points_in_boxes

MakeTree = Callable[..., Path]
LIDAR = "lidar/kitti"


def test_a_labelled_frame(make_tree: MakeTree) -> None:
    dataset = KITTI(make_tree())
    assert list(dataset.frame_ids) == ["000000", "000001", "000002", "000003"]
    frame = dataset.read(1)
    assert frame.frame_id == "000001"
    assert frame.boxes.names == ("Car", "Pedestrian")
    np.testing.assert_allclose(frame.boxes.boxes[0], [16, 2, -0.9, 4, 1.8, 1.6, 0.3], atol=0.02)
    assert count_points_in_boxes(frame.cloud.xyz, frame.boxes.boxes).min() >= 118
    assert frame.image_size == (375, 1242)
    assert (frame.cloud.points[:, 0] > 0).all()  # the wall behind the sensor is cut off
    assert len(KITTI(make_tree(), crop_to_image=False).read(1).cloud) == 1040


def test_splits(make_tree: MakeTree) -> None:
    root = make_tree()
    assert list(KITTI(root, split=["000002", "000000"]).frame_ids) == ["000002", "000000"]
    assert len(KITTI(root, split=None)) == 4
    with pytest.raises(FileNotFoundError, match=r'split="vall".*Splits there: train'):
        KITTI(root, split="vall")
    with pytest.raises(FileNotFoundError, match=r"1 of 2 frames have no file in .*velodyne \(first: 000009\.bin\)"):
        KITTI(root, split=["000001", "000009"])
    (root / "ImageSets/val.txt").write_text("\n")
    with pytest.raises(ValueError, match=r"val\.txt names no frame"):
        KITTI(root, split="val")


def test_empty_and_missing_folders(make_tree: MakeTree, tmp_path: Path) -> None:
    root = make_tree()
    with pytest.raises(FileNotFoundError, match=r"velodyne_reduced does not exist.*velodyne or velodyne_reduced"):
        KITTI(root, points="velodyne_reduced")
    (root / "training/velodyne_reduced").mkdir()
    with pytest.raises(ValueError, match=r"velodyne_reduced holds no \.bin file"):
        KITTI(root, points="velodyne_reduced")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        KITTI(tmp_path / "nowhere")
    with pytest.raises(ValueError, match='points="lidar" is not a folder of clouds'):
        KITTI(root, points="lidar")


def test_bad_files_are_named_when_read(make_tree: MakeTree) -> None:
    root = make_tree()
    dataset = KITTI(root)
    cloud, label, calib = (
        root / f"training/{f}" for f in ("velodyne/000000.bin", "label_2/000001.txt", "calib/000002.txt")
    )
    cloud.write_bytes(cloud.read_bytes()[:-3])
    label.write_text(label.read_text().replace("\n", " 1 2\n", 1))
    calib.write_text("\n".join(line for line in calib.read_text().splitlines() if "velo_to_cam" not in line))
    messages = [r"000000\.bin: .*left after", r"000001\.txt:1: .*has 17", r"000002\.txt: no line Tr_velo_to_cam"]
    for index, message in enumerate(messages):
        with pytest.raises(ValueError, match=message):
            dataset.read(index)


def test_nan_points_are_noted_on_the_frame(make_tree: MakeTree) -> None:
    root = make_tree()
    path = root / "training/velodyne/000000.bin"
    points = np.fromfile(path, dtype=np.float32)
    points[4 * 7 + 1] = np.nan
    points.tofile(path)
    frame = KITTI(root).read(0)
    assert frame.notes == ("1 of 1,040 points hold NaN or infinity and were dropped.",)
    assert np.isfinite(frame.cloud.points).all()


def test_without_labels(make_tree: MakeTree) -> None:
    root = make_tree()
    assert KITTI(root, labels=False).read(0).boxes is None
    (root / "training/label_2/000002.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 4 .*label_2 \(first: 000002\.txt\).*labels=False"):
        KITTI(root)
    assert KITTI(make_tree(labels=False)).read(0).boxes is None


def test_no_objects_is_not_unlabelled(make_tree: MakeTree) -> None:
    root = make_tree()
    (root / "training/label_2/000000.txt").write_text("DontCare -1 -1 -10 1 2 3 4 -1 -1 -1 -1000 -1000 -1000 -10\n")
    boxes = KITTI(root).read(0).boxes
    assert boxes is not None
    assert len(boxes) == 0


def test_frames_without_calibration_are_not_cut_and_say_so_once(
    make_tree: MakeTree, caplog: pytest.LogCaptureFixture
) -> None:
    root = make_tree(labels=False)
    (root / "training/calib/000001.txt").unlink()
    (root / "training/calib/000003.txt").unlink()
    with caplog.at_level(logging.WARNING):
        dataset = KITTI(root)
        frames = [dataset.read(i) for i in range(4)] + [dataset.read(1)]
    assert [r.getMessage() for r in caplog.records] == [
        "KITTI: 2 of 4 frames have no calibration (first: 000001); they are not cut to the camera image."
    ]
    assert [len(f.cloud) == 1040 for f in frames] == [False, True, False, True, True]
    assert frames[1].notes == ("No calibration: not cut to the image.",)
    assert frames[0].notes == ()


def test_labels_need_calibration(make_tree: MakeTree) -> None:
    root = make_tree()
    (root / "training/calib/000001.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"calib \(first: 000001\.txt\)\. Labels need it"):
        KITTI(root)


def test_sources_of_the_image_size(make_tree: MakeTree) -> None:
    import cv2

    root = make_tree(shapes=False)
    with pytest.raises(ValueError, match=r"frame 000000: .*image_shapes\.csv.*image_size=\(height, width\)"):
        KITTI(root).read(0)
    assert KITTI(root, crop_to_image=False).read(0).image_size is None
    assert KITTI(root, image_size=(300, 1000)).read(0).image_size == (300, 1000)
    with pytest.raises(ValueError, match="image_size"):
        KITTI(root, image_size=(0, 1000))
    (root / "image_shapes.csv").write_text("frame,height,width\n000000,370,1224\n")
    assert KITTI(root).read(0).image_size == (370, 1224)
    (root / "training/image_2").mkdir()
    cv2.imwrite(str(root / "training/image_2/000000.png"), np.zeros((374, 1238), dtype=np.uint8))
    assert KITTI(root).read(0).image_size == (374, 1238)  # the image itself knows best


def test_testing_does_not_take_the_sizes_of_training(make_tree: MakeTree) -> None:
    root = make_tree()
    shutil.copytree(root / "training", root / "testing")
    shutil.rmtree(root / "testing/label_2")
    (root / "ImageSets/test.txt").write_text("000000\n")
    dataset = KITTI(root, split="test", crop_to_image=False)
    assert dataset.folder == "testing"
    assert dataset.read(0).image_size is None
    assert dataset.read(0).boxes is None


def test_a_road_plane_is_given_in_the_lidar_frame(make_tree: MakeTree) -> None:
    root = make_tree()
    (root / "training/planes").mkdir()
    path = root / "training/planes/000000.txt"
    path.write_text("# Plane\nWidth 4\nHeight 1\n0.0 -2.0 0.0 3.4\n")  # 1.7 m below the camera, not normalised
    np.testing.assert_allclose(KITTI(root).read(0).road_plane, [0, 0, 1, 1.7], atol=1e-9)
    path.write_text("0.0 2.0 0.0 -3.4\n")  # the same plane, the other normal
    np.testing.assert_allclose(KITTI(root).read(0).road_plane, [0, 0, 1, 1.7], atol=1e-9)
    assert KITTI(root).read(1).road_plane is None
    assert KITTI(root, road_planes=False).read(0).road_plane is None
    path.write_text("# Plane\nWidth 4\nHeight 1\n0.0 -2.0 0.0\n")
    with pytest.raises(ValueError, match=r"000000\.txt: .*four numbers"):
        KITTI(root).read(0)
    path.write_text("1 0 0 3\n")
    with pytest.raises(ValueError, match="stands upright"):
        KITTI(root).read(0)


def test_memory_stays_flat_and_the_dataset_pickles_small(make_tree: MakeTree) -> None:
    dataset = KITTI(make_tree(), transforms=[dict(type="RandomWorldFlip"), dict(type="PointShuffle")])
    assert len(pickle.dumps(dataset)) < 5_000
    tracemalloc.start()
    held = []
    for i in range(500):
        dataset.get(i % 4, np.random.default_rng(i))
        if i in (99, 299, 499):
            gc.collect()
            held.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    # Bytes over 200 fetches: not even ten of the clouds. The smaller growth of two, because Python may double its table
    # of interned strings (megabytes, once) in between.
    assert min(np.diff(held)) < 100_000


@pytest.mark.real_data
def test_the_image_crop_gives_the_published_reduced_clouds(real_data: Path) -> None:
    whole = KITTI(real_data / LIDAR, split="trainval")
    reduced = KITTI(real_data / LIDAR, split="trainval", points="velodyne_reduced")
    assert len(whole) > 0
    for i in range(len(whole)):
        np.testing.assert_array_equal(whole.read(i).cloud.points, reduced.read(i).cloud.points)


@pytest.mark.real_data
def test_all_reduced_frames_hold_their_boxes_and_planes_lie_under_the_road(real_data: Path) -> None:
    dataset = KITTI(real_data / LIDAR, split="trainval_reduced", points="velodyne_reduced")
    assert len(dataset) > 0
    boxes = planes = 0
    for i in range(len(dataset)):
        frame = dataset.read(i)
        assert frame.notes == ()
        boxes += len(frame.boxes)
        assert (count_points_in_boxes(frame.cloud.xyz, frame.boxes.boxes) > 0).all()
        if frame.road_plane is not None:
            planes += 1
            assert frame.road_plane[3] == pytest.approx(1.73, abs=0.25)  # height of the sensor
            near = frame.cloud.xyz[(np.abs(frame.cloud.xyz[:, 1]) < 3) & (frame.cloud.xyz[:, 0] < 15)]
            height = near @ frame.road_plane[:3] + frame.road_plane[3]
            assert abs(np.median(height[np.abs(height) < 0.3])) < 0.05
    training = real_data / LIDAR / "training"
    labels = [line for name in dataset.frame_ids for line in (training / f"label_2/{name}.txt").open()]
    assert boxes == sum(not line.startswith("DontCare") for line in labels) > 0
    assert planes == sum((training / f"planes/{name}.txt").is_file() for name in dataset.frame_ids) > 0


@pytest.mark.real_data
def test_the_testing_frame(real_data: Path) -> None:
    dataset = KITTI(real_data / LIDAR, split="test_reduced", points="velodyne_reduced")
    frame = dataset.read(0)
    assert dataset.folder == "testing"
    assert frame.boxes is None
    assert len(frame.cloud) > 10_000
    assert frame.calibration is not None
