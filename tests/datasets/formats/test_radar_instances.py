"""Objects from masks and boxes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from adperception.datasets.formats.radar_instances import (
    circular_extent,
    circular_mean,
    instances_from_masks,
    pair_boxes,
    radar_objects,
    split_pixels,
)
from adperception.structures import RadarMasks

from radar_trees import GRID, instances_of, masks_of


def test_the_same_objects_from_annotations_and_from_masks_with_boxes() -> None:
    instances = instances_of(3)
    boxes = [np.stack([getattr(i, v).box for i in instances]) for v in ("range_doppler", "range_angle")]
    guessed = instances_from_masks(masks_of(instances, "dense"), *boxes, [1, 3])
    ours, theirs = radar_objects(guessed, GRID.shape), radar_objects(instances, GRID.shape)
    np.testing.assert_allclose(ours.cells, theirs.cells)
    np.testing.assert_allclose(ours.sizes, theirs.sizes)
    # Rows 9 and 10 near side up are 23 and 22 from the far side: 32 - row.
    np.testing.assert_allclose(ours.cells[0], [32 - 9.5, 8.5, 4.5])
    np.testing.assert_allclose(ours.sizes[0], [2, 2, 2])


def test_pixels_go_to_the_nearest_box_of_their_class() -> None:
    mask = np.zeros((20, 20), dtype=np.uint8)
    mask[2:18, 5] = 3
    mask[10, 10] = 2
    boxes = [[2, 4, 5, 6], [14, 4, 17, 6], [3, 3, 16, 12]]
    first, second, other = split_pixels(mask, boxes, [3, 3, 2])
    # Grown boxes end at row 7 and begin at row 12: rows 8 and 9 are nearer to the first, 10 and 11 to the second.
    assert first[:, 0].tolist() == list(range(2, 10))
    assert second[:, 0].tolist() == list(range(10, 18))
    assert other.tolist() == [[10, 10]]


def test_an_object_without_pixels_has_the_centre_of_its_box() -> None:
    masks = RadarMasks(np.zeros((32, 16), dtype=np.uint8), np.zeros((32, 24), dtype=np.uint8))
    (instance,) = instances_from_masks(masks, [[4, 2, 6, 5]], [[26, 10, 28, 16]], [2])
    objects = radar_objects([instance], GRID.shape)
    np.testing.assert_allclose(objects.cells, [[27, 13, 3.5]])
    np.testing.assert_allclose(objects.sizes, [[3, 7, 4]])


def test_boxes_are_paired_by_class_and_rows_then_by_order() -> None:
    doppler = np.array([[4, 0, 6, 1], [20, 0, 22, 1], [20, 8, 22, 9], [20, 0, 22, 1]])
    angle = np.array([[10, 0, 12, 1], [10, 4, 12, 5], [10, 0, 12, 1], [26, 0, 28, 1]])
    partner = pair_boxes(doppler, np.array([1, 1, 1, 2]), angle, np.array([1, 1, 2, 1]), 32)
    assert partner.tolist() == [3, 0, 1, 2]
    with pytest.raises(ValueError, match=r"\[1\] in range-Doppler and \[2\] in range-angle"):
        pair_boxes(doppler[:1], np.array([1]), angle[:1], np.array([2]), 32)


def test_columns_wrap_around() -> None:
    assert circular_mean([14, 15, 0, 1], 16) == pytest.approx(15.5)
    assert circular_mean([15, 0, 1], 16) == pytest.approx(0)
    assert circular_mean([3, 4, 8], 16) == pytest.approx(5)
    assert circular_extent([14, 15, 0, 1], 16) == 4
    assert circular_extent([7], 16) == 1


@pytest.mark.real_data
def test_all_labelled_pixels_of_carradas_test_frames_find_their_object(real_data: Path) -> None:
    folder = real_data / "radar/carrada"
    stored = np.load(folder / "test_masks_and_tmvanet_predictions.npz")
    objects = without = 0
    for sequence in sorted({key.split("__")[1] for key in stored.files}):
        views = ("range_doppler", "range_angle")
        boxes = {v: json.loads((folder / f"boxes/{sequence}__{v}_light.json").read_text()) for v in views}
        masks = {v: stored[f"{v}__{sequence}__gt"] for v in views}
        for i, frame in enumerate(stored[f"range_doppler__{sequence}__frame"]):
            entry = boxes["range_doppler"].get(f"{frame:06d}")
            if entry is None:
                continue
            angle = boxes["range_angle"][f"{frame:06d}"]
            own = RadarMasks(masks["range_doppler"][i], masks["range_angle"][i])
            instances = instances_from_masks(own, entry["boxes"], angle["boxes"], entry["labels"], angle["labels"])
            objects += len(instances)
            without += sum(len(x.range_doppler.dense) == 0 for x in instances)
            for view in views:
                found = sum(len(getattr(x, view).dense) for x in instances)
                assert found == np.count_nonzero(getattr(own, view))
            for x in instances:
                rows = x.range_doppler.box[[0, 2]] + x.range_angle.box[[2, 0]]
                assert rows.tolist() == [256, 256]
                for label in (x.range_doppler, x.range_angle):
                    if len(label.dense):  # a label reaches at most 2 pixels beyond its box
                        assert (label.dense >= label.box[:2] - 2).all()
                        assert (label.dense <= label.box[2:] + 2).all()
    assert objects == 1628
    assert without == 1  # hidden behind the other object of its frame
