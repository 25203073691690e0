"""RADDet: pickled labels to JSON, splits, frames, bad files."""

from __future__ import annotations

import collections
import importlib.util
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from adperception.datasets import RADDet
from adperception.datasets.formats.radar_sensor import RadarSensor
from adperception.structures import CARRADA_GRID, RadarBatch, RadarGrid, RadarViews

GRID = RadarGrid(range_bins=16, azimuth_bins=12, doppler_bins=8, range_bin_m=2.0, doppler_bin_mps=0.5)
LABELS = {
    "classes": ["car", "person"],
    "boxes": np.array([[10, 6, 4, 3, 2, 4], [3, 1, 8.5, 1, 2, 3]]),
    "cart_boxes": np.zeros((2, 4)),
}


def cube(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=GRID.shape) + 1j * rng.normal(size=GRID.shape)).astype(np.complex64)


@pytest.fixture
def tool(repository: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("raddet_tool", repository / "data_tools/raddet.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def pickled(tmp_path: Path) -> Path:
    """20 training frames in two parts (part10 has none that is consecutive), 2 test frames, labels as downloaded."""
    names = [f"train/part2/{i:06d}" for i in range(10)] + [f"train/part10/{i * 2:06d}" for i in range(10)]
    for seed, name in enumerate([*names, "test/part1/000003", "test/part1/000007"]):
        folder, part, frame = name.split("/")
        for kind in ("RAD", "gt"):
            (tmp_path / folder / kind / part).mkdir(parents=True, exist_ok=True)
        np.save(tmp_path / folder / "RAD" / part / f"{frame}.npy", cube(seed))
        content = LABELS if seed else {"classes": [], "boxes": [], "cart_boxes": []}
        (tmp_path / folder / "gt" / part / f"{frame}.pickle").write_bytes(pickle.dumps(content))
    RadarSensor(GRID).write(tmp_path / "sensor.json")
    return tmp_path


@pytest.fixture
def tree(pickled: Path, tool: ModuleType) -> Path:
    assert tool.main(["convert", str(pickled)]) == 0
    return pickled


def test_converted_labels_are_read_and_pickles_are_not(
    pickled: Path, tool: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(FileNotFoundError, match=r"000001\.json does not exist, but 000001\.pickle does.*convert ROOT"):
        RADDet(pickled).read(1)
    assert tool.main(["convert", str(pickled)]) == 0
    assert "22 label files written, 0 there already, 0 not readable" in capsys.readouterr().out
    stored = json.loads((pickled / "train/gt/part2/000001.json").read_text())
    assert stored == {name: np.array(value).tolist() for name, value in LABELS.items()}
    assert len(list(pickled.rglob("*.pickle"))) == 22

    frame = RADDet(pickled).read(1)
    assert frame.objects is not None
    assert frame.objects.class_ids.tolist() == [3, 1]
    np.testing.assert_array_equal(frame.objects.cells, [[10, 6, 4], [3, 1, 0.5]])  # Doppler 8.5 wraps
    np.testing.assert_array_equal(frame.objects.sizes, [[3, 2, 4], [1, 2, 3]])
    assert frame.objects.range_m(GRID)[0] == 10.0  # (16 - 1 - 10) rows of 2 m
    np.testing.assert_array_equal(frame.cubes, np.abs(cube(1))[None])
    assert frame.cubes.dtype == np.float32
    assert frame.masks is None
    assert len(RADDet(pickled).read(0).objects) == 0


def test_edited_labels_are_kept_unless_told_otherwise(tree: Path, tool: ModuleType) -> None:
    path = tree / "train/gt/part2/000001.json"
    path.write_text(json.dumps({"classes": ["bus"], "boxes": [[1, 2, 3, 1, 1, 1]]}))
    assert tool.main(["convert", str(tree)]) == 0
    assert RADDet(tree).read(1).objects.class_ids.tolist() == [5]
    assert tool.main(["convert", str(tree), "--overwrite"]) == 0
    assert RADDet(tree).read(1).objects.class_ids.tolist() == [3, 1]


def test_splits(tree: Path) -> None:
    everything = RADDet(tree, "train_and_validation").frame_ids
    assert list(everything)[:1] + list(everything)[-2:] == [
        "train/part2/000000",
        "train/part10/000016",
        "train/part10/000018",
    ]
    assert list(RADDet(tree, "train").frame_ids) == list(everything)[:18]
    assert list(RADDet(tree, "validation").frame_ids) == list(everything)[18:]
    assert list(RADDet(tree, "test").frame_ids) == ["test/part1/000003", "test/part1/000007"]
    assert len(RADDet(tree, "train", fraction=0.5, interval=3)) == 3
    for path in (tree / "train/RAD/part2").iterdir():
        path.rename(path.with_suffix(".bak"))
    (tree / "train/RAD/part10/000018.npy").unlink()
    with pytest.raises(ValueError, match="fewer than 10"):
        RADDet(tree, "validation")
    with pytest.raises(ValueError, match='split="val" must be one of train, validation'):
        RADDet(tree, "val")


def test_rare_classes_are_listed_more_often(tree: Path) -> None:
    names = list(RADDet(tree, "test").frame_ids)
    (tree / "test/gt/part1/000007.json").write_text('{"classes": ["bus"], "boxes": [[1, 2, 3, 1, 1, 1]]}')
    dataset = RADDet(tree, "test", oversample={"bus": 3, "car": 2})
    assert list(dataset.frame_ids) == [names[0]] * 2 + [names[1]] * 3
    assert dataset.split_size == 2
    with pytest.raises(ValueError, match=r"oversample=\{'tram': 2\} must give whole numbers"):
        RADDet(tree, oversample={"tram": 2})


def test_sizes_come_from_the_training_split(tree: Path) -> None:
    (tree / "train/gt/part2/000002.json").write_text('{"classes": ["car"], "boxes": [[1, 2, 3, 21, 2, 4]]}')
    held_out = tree / "train/gt/part10/000018.json"
    held_out.write_text('{"classes": ["bus"], "boxes": [[1, 2, 3, 9, 9, 9]]}')
    sizes = RADDet(tree, "validation").training_sizes()
    assert sizes["car"] == pytest.approx(((16 * 3 + 21) / 17, 2, 4))
    assert sizes["bus"] == sizes["truck"]  # not in the training frames: the mean over all boxes
    assert sizes["person"] == (1.0, 2.0, 3.0)


def test_several_moments_only_where_numbers_are_consecutive(tree: Path, caplog: pytest.LogCaptureFixture) -> None:
    dataset = RADDet(tree, "train_and_validation", moments=3)
    assert list(dataset.frame_ids) == [f"train/part2/{i:06d}" for i in range(2, 10)]
    assert "8 of 20 frames" in caplog.text
    np.testing.assert_array_equal(dataset.read(0).cubes, np.abs([cube(0), cube(1), cube(2)]))
    with pytest.raises(ValueError, match=r"none of the 2 frames.*Use moments=1"):
        RADDet(tree, "test", moments=2)


def test_views_come_from_the_cubes_and_frames_make_batches(tree: Path) -> None:
    dataset = RADDet(tree, load=["views"])
    frame = dataset.get(2, np.random.default_rng(0))
    assert frame.cubes is None
    np.testing.assert_array_equal(frame.views.range_angle, RadarViews.processed(np.abs(cube(2))[None]).range_angle)
    batch = RadarBatch.from_frames([dataset.read(1), dataset.read(2)])
    assert batch.range_doppler.shape == (2, 1, 16, 8)
    assert batch.range_doppler_mask is None


def test_without_a_sensor_file_the_cells_are_those_of_raddet(tree: Path) -> None:
    (tree / "sensor.json").unlink()
    dataset = RADDet(tree)
    assert dataset.grid == CARRADA_GRID
    with pytest.raises(ValueError, match=r"000000\.npy: shape \(16, 12, 8\), expected .* \(256, 256, 64\)"):
        dataset.read(0)


def test_check(tree: Path, tool: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert tool.main(["check", str(tree)]) == 0
    out = capsys.readouterr().out
    assert f"{tree / 'train'}: 20 cubes, 20 with readable labels" in out
    assert "car               19   3, 2, 4" in out
    values = cube(5)
    values[0, 0, 0] = np.nan
    np.save(tree / "train/RAD/part2/000005.npy", values)
    (tree / "train/RAD/part2/000004.npy").unlink()
    (tree / "train/gt/part2/000003.json").write_text('{"classes": ["car"], "boxes": [[99, 0, 0, 1, 1, 1]]}')
    assert tool.main(["check", str(tree)]) == 1
    out = capsys.readouterr().out
    assert "000005.npy: 1 of 1,536 values are NaN" in out
    assert "000004.json: labels of a frame without a cube" in out
    assert "000003.json: box [99.0, 0.0, 0.0, 1.0, 1.0, 1.0] lies outside" in out


def test_a_label_file_with_foreign_content_does_not_stop_the_others(
    pickled: Path, tool: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    foreign = pickled / "train/gt/part2/000004.pickle"
    foreign.write_bytes(pickle.dumps({"classes": collections.Counter("a"), "boxes": []}))
    cut = pickled / "train/gt/part2/000005.pickle"
    cut.write_bytes(cut.read_bytes()[:-9])
    before = {path: path.read_bytes() for path in pickled.rglob("*.pickle")}
    assert tool.main(["convert", str(pickled)]) == 1
    out = capsys.readouterr().out
    assert "20 label files written, 0 there already, 2 not readable" in out
    assert f"ERROR: {foreign}: not read: it names the global collections.Counter" in out
    assert f"ERROR: {cut}: cut off, damaged or no pickle" in out
    assert not foreign.with_suffix(".json").exists()
    assert {path: path.read_bytes() for path in pickled.rglob("*.pickle")} == before
    assert not list(pickled.rglob("*.part"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"classes": ["car"]}, "must hold classes and boxes"),
        ({"classes": ["tram"], "boxes": [[1, 1, 1, 1, 1, 1]]}, "class 'tram' is not one of person"),
        ({"classes": ["car"], "boxes": [[1, 1, 1, 1, 1]]}, r"boxes of shape \(1, 5\) must be 1 rows"),
        ({"classes": ["car"], "boxes": [[1, 1, 1, 1, 1, float("nan")]]}, "finite"),
        ({"classes": ["car"], "boxes": [[1, 1, 1, 1, 1, -2]]}, "negative size"),
        ({"classes": ["car", "car"], "boxes": [[1, 1, 1, 1, 1, 1]]}, "must be 2 rows"),
        ({"classes": [], "boxes": "none"}, "rows of 6 numbers"),
    ],
)
def test_labels_of_another_form(tree: Path, content: dict[str, Any], message: str) -> None:
    (tree / "train/gt/part2/000001.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=rf"000001\.json: .*{message}"):
        RADDet(tree).read(1)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_cut, "cut short"),
        (lambda path: np.save(path, np.abs(cube(0))), "holds float32"),
        (lambda path: np.save(path, cube(0)[:8]), r"shape \(8, 12, 8\)"),
        (lambda path: np.save(path, np.full(GRID.shape, np.nan * 1j)), "values are NaN"),
        (lambda path: np.save(path, np.array([{}]), allow_pickle=True), "pickled objects"),
    ],
)
def test_damaged_cubes(tree: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(tree / "train/RAD/part2/000001.npy")
    with pytest.raises(ValueError, match=rf"000001\.npy: .*{message}"):
        RADDet(tree).read(1)


def test_missing_folders(tree: Path, tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(FileNotFoundError, match="must hold train/ and test/"):
        RADDet(tmp_path / "elsewhere")
    assert tool.main(["convert", str(tmp_path / "elsewhere")]) == 1
    assert "Unpack the labels" in capsys.readouterr().err
    (tree / "train/gt/part2/000001.json").write_text('{"classes": [')
    with pytest.raises(ValueError, match=r"not readable as JSON.*convert the labels again"):
        RADDet(tree).read(1)
