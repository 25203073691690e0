from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from adperception.datasets import KITTI, LidarDataset
from adperception.datasets.data_check import check_dataset, require_sane_data
from adperception.structures import Boxes3D, LidarFrame, PointCloud, VoxelGrid

MakeTree = Callable[..., Path]
GRID = VoxelGrid.create((0, -40, -3, 70.4, 40, 1), (0.1, 0.1, 0.1))


class Misread(LidarDataset):
    """A dataset whose boxes went through a wrong converter."""

    def __init__(self, inner: KITTI, wrong: Callable[[np.ndarray], np.ndarray]) -> None:
        super().__init__(inner.frame_ids)
        self.inner, self.wrong = inner, wrong

    def read(self, index: int) -> LidarFrame:
        frame = self.inner.read(index)
        return replace(frame, boxes=Boxes3D(self.wrong(frame.boxes.boxes).astype(np.float32), frame.boxes.names))


def test_a_sane_tree(make_tree: MakeTree) -> None:
    report = require_sane_data(KITTI(make_tree()), GRID)
    assert (report.frames, report.labelled_frames) == (4, 4)
    assert report.share_in_range == 1
    car = report.classes["Car"]
    assert (car.boxes, car.share_with_points, car.median_points) == (4, 1.0, pytest.approx(120, abs=2))
    assert car.mean_size == pytest.approx((4, 1.8, 1.6), abs=0.01)
    assert "Pedestrian             4     100.0%" in report.table()


def shifted(b: np.ndarray) -> np.ndarray:
    return b - np.stack([0 * b[:, 0], 0 * b[:, 0], b[:, 5] / 2] + [0 * b[:, 0]] * 4, axis=1)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda b: b[:, [1, 0, 2, 3, 4, 5, 6]], r'only 0% of "\w+" boxes .*; swapping \(x, y\) would give 100%'),
        (lambda b: b * [1, -1, 1, 1, 1, 1, -1], r'only 0% of "\w+" boxes .*; negating y would give 100%'),
        (
            shifted,
            r"8 labelled boxes hold 5\d\d points, but raising the boxes by half their height would give 9",
        ),
        (lambda b: b[:, [0, 1, 2, 4, 3, 5, 6]], r"points, but turning the boxes by 90 degrees would give"),
    ],
)
def test_boxes_in_another_frame_are_an_error_with_the_cure(
    make_tree: MakeTree, wrong: Callable[[np.ndarray], np.ndarray], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        require_sane_data(Misread(KITTI(make_tree()), wrong))


def test_height_of_the_road_is_the_median_of_some_frames() -> None:
    class Roads(LidarDataset):
        """Frame n: a road at -2 m; every tenth lies 5 m lower, and the first frame holds nothing."""

        def __init__(self) -> None:
            super().__init__([f"{n}" for n in range(40)])

        def read(self, index: int) -> LidarFrame:
            xy = np.random.default_rng(index).uniform(-20, 20, size=(20_000 if index else 0, 2))
            z = np.full(len(xy), -7.0 if index % 10 == 0 else -2.0)
            return LidarFrame(self.frame_ids[index], PointCloud(np.column_stack([xy, z, z]).astype(np.float32)))

    report = check_dataset(Roads())
    assert report.ground_height == pytest.approx(-2)
    assert "height of the road: -2.00 m" in report.table()
    empty = check_dataset(Roads(), max_frames=1)
    assert empty.ground_height is None
    assert "height of the road" not in empty.table()


def test_boxes_that_nothing_cures(make_tree: MakeTree) -> None:
    dataset = Misread(KITTI(make_tree()), lambda b: b + np.float32([500, 0, 0, 0, 0, 0, 0]))
    (error,) = check_dataset(dataset).errors
    assert error.endswith("probably in different frames.")


def test_a_rare_class_does_not_stop_a_training(make_tree: MakeTree) -> None:
    """Two empty boxes are no sign of wrong frames where others are full; six are."""

    class Rare(LidarDataset):
        def __init__(self, inner: KITTI, wrong: int) -> None:
            super().__init__(inner.frame_ids)
            self.inner, self.wrong = inner, wrong

        def read(self, index: int) -> LidarFrame:
            frame = self.inner.read(index)
            far = frame.boxes.boxes[:1] + np.float32([500, 0, 0, 0, 0, 0, 0])
            more = Boxes3D(np.concatenate([frame.boxes.boxes, far]), (*frame.boxes.names, "Tram"))
            return replace(frame, boxes=more) if index < self.wrong else frame

    assert require_sane_data(Rare(KITTI(make_tree(frames=6)), 2)).classes["Tram"].share_with_points == 0
    with pytest.raises(ValueError, match='only 0% of "Tram" boxes'):
        require_sane_data(Rare(KITTI(make_tree(frames=6)), 6))


def test_a_range_without_any_point(make_tree: MakeTree) -> None:
    grid = VoxelGrid.create((0, -40, 5, 70.4, 40, 9), (0.1, 0.1, 0.1))
    with pytest.raises(ValueError, match=r"voxelize: 0 of [\d,]+ points are inside .*Check units"):
        require_sane_data(KITTI(make_tree(), labels=False), grid)


def test_every_bad_file_is_listed_and_notes_are_kept(make_tree: MakeTree) -> None:
    root = make_tree()
    for name in ("000000", "000002"):
        path = root / f"training/velodyne/{name}.bin"
        path.write_bytes(path.read_bytes()[:-1])
    path = root / "training/velodyne/000003.bin"
    points = np.fromfile(path, dtype=np.float32)
    points[5] = np.nan
    points.tofile(path)
    report = check_dataset(KITTI(root))
    assert report.frames == 2
    assert ["000000" in report.errors[0], "000002" in report.errors[1], len(report.errors)] == [True, True, 2]
    assert report.remarks == ("000003: 1 of 1,040 points hold NaN or infinity and were dropped.",)
    assert report.table().count("ERROR") == 2
    assert check_dataset(KITTI(make_tree()), max_frames=2).frames <= 2


@pytest.mark.real_data
def test_real_frames_are_sane(real_data: Path) -> None:
    dataset = KITTI(real_data / "lidar/kitti", split="trainval_reduced", points="velodyne_reduced")
    report = require_sane_data(dataset, GRID)
    frames = [dataset.read(i) for i in range(len(dataset))][: report.frames]
    assert sum(c.boxes for c in report.classes.values()) == sum(len(frame.boxes) for frame in frames) > 0
    assert all(c.share_with_points == 1 for c in report.classes.values())
    counts = [len(frame.cloud) for frame in frames]
    assert report.points == (min(counts), int(np.median(counts)), max(counts))
    assert report.share_in_range is not None
    assert report.share_in_range > 0.9
