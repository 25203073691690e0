"""Files in CARRADA's layout: written and read back, and what is said about bad ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adperception.datasets.formats.carrada import (
    cube_file,
    mask_file,
    read_adc_times,
    read_annotations,
    read_boxes,
    read_cube,
    read_frames,
    read_mask,
    read_sensor,
    read_splits,
    read_view,
    view_file,
    view_shapes,
)
from adperception.datasets.formats.radar_sensor import SENSOR_FILE, RadarSensor
from adperception.structures import CARRADA_GRID, RadarViews

from radar_trees import GRID, SPLITS, instances_of, make_frame, make_tree

SEQUENCE = next(iter(SPLITS))


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tree(tmp_path_factory.mktemp("layout"), frames=5)


def test_what_is_written_reads_back(tree: Path) -> None:
    content = make_frame(0, 3)
    cube = read_cube(cube_file(tree.parent / "Carrada_RAD", SEQUENCE, "000003"), GRID)
    np.testing.assert_array_equal(cube, content.magnitude)
    views = RadarViews.processed(content.magnitude)
    for view, shape in view_shapes(GRID).items():
        stored = read_view(view_file(tree, SEQUENCE, view, "processed", "000003"), shape)
        assert stored.dtype == np.float64
        np.testing.assert_array_equal(stored, getattr(views, view))
    raw = read_view(view_file(tree, SEQUENCE, "range_doppler", "raw", "000003"), (32, 16))
    np.testing.assert_allclose(raw[0], content.magnitude[-1].sum(0), rtol=1e-5)  # row 0 of the view is near
    mask = read_mask(mask_file(tree, SEQUENCE, "sparse", "000003", "range_angle"), (32, 24))
    np.testing.assert_array_equal(mask, content.sparse.range_angle)
    assert read_splits(tree) == SPLITS
    assert read_frames(tree)[SEQUENCE] == tuple(f"{i:06d}" for i in range(5))
    assert read_adc_times(tree, SEQUENCE).tolist() == [10**18 + i * 10**8 for i in range(5)]  # type: ignore[union-attr]
    boxes, classes = read_boxes(tree, SEQUENCE, "range_angle")["000003"]
    assert classes.tolist() == [1, 3]
    np.testing.assert_array_equal(boxes[1], instances_of(3)[1].range_angle.box)


def test_annotations_read_back(tree: Path) -> None:
    annotations = read_annotations(tree)
    assert annotations is not None
    assert sorted(annotations[SEQUENCE]) == ["000002", "000003", "000004"]
    for ours, theirs in zip(annotations[SEQUENCE]["000003"], instances_of(3), strict=True):
        assert (ours.instance_id, ours.class_id) == (theirs.instance_id, theirs.class_id)
        for view in ("range_doppler", "range_angle"):
            for part in ("sparse", "dense", "box"):
                np.testing.assert_array_equal(getattr(getattr(ours, view), part), getattr(getattr(theirs, view), part))
    by_instance = json.loads((tree / "annotations_instance_oriented.json").read_text())
    by_frame = json.loads((tree / "annotations_frame_oriented.json").read_text())
    assert by_instance[SEQUENCE]["000018"]["000004"] == by_frame[SEQUENCE]["000004"]["000018"]


def test_the_sensor_of_a_tree(tree: Path, tmp_path: Path) -> None:
    assert read_sensor(tree) == RadarSensor(GRID, label_axis="sin")
    # The real CARRADA has no such file: its labels are linear in the angle.
    assert read_sensor(tmp_path) == RadarSensor(CARRADA_GRID, label_axis="angle")
    RadarSensor(GRID, range_order="near_first").write(tmp_path / SENSOR_FILE)
    with pytest.raises(ValueError, match=r"sensor\.json: CARRADA's cubes are range \(far first\)"):
        read_sensor(tmp_path)


def test_damaged_frames_are_named(tmp_path: Path) -> None:
    path = tmp_path / "000000.npy"
    values = np.ones(GRID.shape, dtype=np.float32)
    values[3, 4, 5] = np.nan
    np.save(path, values)
    with pytest.raises(ValueError, match=r"000000\.npy: 1 of 12,288 values are NaN"):
        read_cube(path, GRID)
    np.save(path, values.transpose(1, 0, 2))
    with pytest.raises(ValueError, match=r"\(24, 32, 16\), expected \(range, azimuth, Doppler\) \(32, 24, 16\)"):
        read_cube(path, GRID)
    np.save(path, np.ones(GRID.shape, dtype=np.complex64))
    with pytest.raises(ValueError, match="holds complex64"):
        read_cube(path, GRID)
    np.save(path, np.full((32, 16), np.nan))
    with pytest.raises(ValueError, match="512 of 512 values are NaN"):
        read_view(path, (32, 16))
    np.save(path, np.full((4, 32, 16), 2))
    with pytest.raises(ValueError, match="values from 2 to 2, a one-hot mask has 0 and 1 only"):
        read_mask(path, (32, 16))


def test_where_layers_of_a_mask_overlap_the_first_counts(tmp_path: Path) -> None:
    layers = np.zeros((4, 2, 2), dtype=np.float64)
    layers[0, 0, 0] = layers[1, 0, 1] = layers[3, 0, 1] = layers[2, 1, 1] = layers[0, 1, 1] = layers[3, 1, 0] = 1
    np.save(tmp_path / "m.npy", layers)
    np.testing.assert_array_equal(read_mask(tmp_path / "m.npy", (2, 2)), layers.argmax(0))


def _no_view(instance: dict[str, Any]) -> None:
    del instance["range_angle"]


def _bad_label(instance: dict[str, Any]) -> None:
    instance["range_angle"]["label"] = 2


def _bad_box(instance: dict[str, Any]) -> None:
    instance["range_angle"]["box"] = [[1, 2]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_no_view, "000003: instance 000018 has no range_angle"),
        (_bad_label, "000003: instance 000018: label must be"),
        (_bad_box, "000003: instance 000018, range_angle: must hold sparse and dense"),
    ],
)
def test_bad_annotations_name_frame_and_instance(
    tree: Path, tmp_path: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    content = json.loads((tree / "annotations_frame_oriented.json").read_text())
    change(content[SEQUENCE]["000003"]["000018"])
    (tmp_path / "annotations_frame_oriented.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        read_annotations(tmp_path)


def test_bad_index_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"data_seq_ref\.json does not exist"):
        read_splits(tmp_path)
    (tmp_path / "data_seq_ref.json").write_text('{"a": {"split": "train"}}')
    with pytest.raises(ValueError, match="sequence a: split is 'train', must be one of Train"):
        read_splits(tmp_path)
    index = tmp_path / "light_dataset_frame_oriented.json"
    for text, message in (
        ('{"a": ["x"]}', "must list frame names"),
        ('{"a": ["000001", "000001"]}', "listed twice"),
        ("\xff", "json"),
    ):
        index.write_text(text, encoding="latin-1")
        with pytest.raises(ValueError, match=message):
            read_frames(tmp_path)
    assert read_annotations(tmp_path) is None
    assert read_adc_times(tmp_path, "a") is None
    (tmp_path / "a").mkdir()
    (tmp_path / "a/adc_ts_a.txt").write_text("0 100\n1 then\n")
    with pytest.raises(ValueError, match=r"adc_ts_a\.txt:2: '1 then' does not end in nanoseconds"):
        read_adc_times(tmp_path, "a")
