from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from adperception.datasets import KITTI, LidarDataset
from adperception.datasets.base import FrameIds, read_split
from adperception.datasets.transforms import PointShuffle, RangeCrop
from adperception.registry import DATASETS, build
from adperception.structures import LidarFrame

MakeTree = Callable[..., Path]


def test_frame_ids_are_a_sequence_of_strings() -> None:
    names = ["000001", "b/ü.bin", "", "z" * 90]
    ids = FrameIds(names)
    assert list(ids) == names
    assert len(ids) == 4
    assert ids[-1] == names[-1]
    assert ids[1:3] == names[1:3]
    assert "b/ü.bin" in ids
    with pytest.raises(IndexError):
        ids[4]


def test_a_split_is_not_empty_and_names_nobody_twice() -> None:
    assert read_split("a\n\nb\r\n", "train.txt") == ["a", "b"]
    with pytest.raises(ValueError, match=r"train\.txt names no frame"):
        read_split("\n", "train.txt")
    with pytest.raises(ValueError, match="frame b more than once"):
        read_split("a b b", "train.txt")


def test_get_applies_transforms_and_depends_on_the_generator_only(make_tree: MakeTree) -> None:
    config = dict(
        type="KITTI",
        root=str(make_tree()),
        transforms=[
            dict(type="RandomWorldFlip"),
            dict(type="RandomWorldRotation"),
            dict(type="RandomWorldScaling"),
            dict(type="RangeCrop", point_cloud_range=[0, -10, -3, 30, 10, 1]),
            dict(type="PointShuffle"),
        ],
    )
    a, b = build(DATASETS, config), build(DATASETS, config)
    a.get(0, np.random.default_rng(9))  # earlier calls leave no trace
    first, second = a.get(2, np.random.default_rng(5)), b.get(2, np.random.default_rng(5))
    np.testing.assert_array_equal(first.cloud.points, second.cloud.points)
    np.testing.assert_array_equal(first.boxes.boxes, second.boxes.boxes)
    assert not np.array_equal(first.cloud.points, a.get(2, np.random.default_rng(6)).cloud.points)


def test_an_unknown_transform_option_names_the_nearest(make_tree: MakeTree) -> None:
    with pytest.raises(ValueError, match=r'"angle_rang" is not an option .*Did you mean "angle_range"'):
        KITTI(make_tree(), transforms=[dict(type="RandomWorldRotation", angle_rang=(0, 1))])


def test_classes_are_chosen_after_the_transforms(make_tree: MakeTree) -> None:
    seen: list[tuple[str, ...]] = []

    def spy(frame, rng):
        seen.append(frame.boxes.names)
        return frame

    dataset = KITTI(make_tree(), classes=("Car",), transforms=[spy])
    assert dataset.read(0).boxes.names == ("Car", "Pedestrian")
    assert dataset.get(0, np.random.default_rng(0)).boxes.names == ("Car",)
    assert seen == [("Car", "Pedestrian")]


def test_replacement_of_empty_frames(make_tree: MakeTree) -> None:
    root = make_tree(frames=4)  # the car moves 1 m away per frame: only frame 0's reaches below x = 13.4 m
    crop = RangeCrop((11, -10, -3, 13.5, 10, 1))
    dataset = KITTI(root, classes=("Car",), transforms=[crop, PointShuffle()])
    empty = [len(dataset.get(i, np.random.default_rng(0)).boxes) == 0 for i in range(4)]
    assert empty == [False, True, True, True]
    dataset = KITTI(root, classes=("Car",), transforms=[crop, PointShuffle()], replace_empty_frames=True)
    frame = dataset.get(3, np.random.default_rng(0))
    assert frame.frame_id == "000000"
    assert frame.notes == ("Stands in for 000003, which has no box.",)
    assert dataset.get(0, np.random.default_rng(0)).notes == ()
    with pytest.raises(ValueError, match=r"no box of .*'Tram'"):
        KITTI(root, classes=("Tram",), replace_empty_frames=True).get(0, np.random.default_rng(0))
    with pytest.raises(ValueError, match="frame 000001 has no labels"):
        KITTI(root, labels=False, replace_empty_frames=True).get(1, np.random.default_rng(0))


class Names(LidarDataset):
    def read(self, index: int) -> LidarFrame:
        raise NotImplementedError


def names(count: int, **options: float) -> list[str]:
    return list(Names([f"{i:06d}" for i in range(count)], **options).frame_ids)


@pytest.mark.parametrize(("fraction", "kept"), [(0.05, 185), (0.2, 742), (0.5, 1856), (1.0, 3712)])
def test_label_efficiency_subsets_of_kitti_are_the_first_frames(fraction: float, kept: int) -> None:
    assert names(3712, fraction=fraction) == [f"{i:06d}" for i in range(kept)]


def test_a_fraction_is_not_robbed_of_a_frame_by_rounding() -> None:
    assert len(names(100, fraction=0.29)) == 29


def test_intervals_start_at_the_first_frame() -> None:
    assert names(11, interval=5) == ["000000", "000005", "000010"]
    assert names(11, interval=20) == ["000000"]
    assert names(11, interval=3, fraction=0.5) == ["000000", "000003"]  # of the first five
    assert Names(["a", "b", "c"], interval=2).split_size == 3


def test_subsets_that_leave_nothing_or_make_no_sense() -> None:
    with pytest.raises(ValueError, match=r"Names: fraction=0.05 of 19 frames leaves none\. Give at least 1/19"):
        names(19, fraction=0.05)
    for fraction in (0.0, -0.5, 5.0):
        with pytest.raises(ValueError, match=f"fraction={fraction} must be above 0 and at most 1"):
            names(19, fraction=fraction)
    for interval in (0, -1, 2.5):
        with pytest.raises(ValueError, match=f"interval={interval} must be a whole number"):
            names(19, interval=interval)


def test_datasets_take_subsets_from_a_config(make_tree: MakeTree) -> None:
    root = make_tree(frames=8)
    kitti = build(DATASETS, dict(type="KITTI", root=str(root), fraction=0.5, interval=3))
    assert list(kitti.frame_ids) == ["000000", "000003"]
    assert kitti.read(1).frame_id == "000003"
    folder = build(DATASETS, dict(type="Folder", root=str(root / "training/velodyne"), interval=7))
    assert list(folder.frame_ids) == ["000000.bin", "000007.bin"]
