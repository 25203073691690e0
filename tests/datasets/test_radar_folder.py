"""Cubes of one's own: any order of axes, labels from masks and tables, bad files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pytest

from adperception.datasets import RadarFolder
from adperception.datasets.formats.radar_sensor import RadarSensor, read_radar_sensor
from adperception.structures import RadarGrid, RadarViews, flip_range_doppler_labels

GRID = RadarGrid(range_bins=16, azimuth_bins=12, doppler_bins=8, range_bin_m=2.0, doppler_bin_mps=0.5)
CLASSES = ("person", "car")


def cube(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random(GRID.shape, dtype=np.float32)


def make(root: Path, sensor: RadarSensor | None = None) -> Path:
    """Two sequences: a (4 frames, complex .npy), b (2 frames, magnitudes in .h5)."""
    for number, name in enumerate(["a/9", "a/10", "a/11", "a/12"]):
        (root / "a").mkdir(parents=True, exist_ok=True)
        np.save(root / f"{name}.npy", cube(number) * np.exp(1j * number))
    (root / "b").mkdir()
    for number, name in enumerate(["b/first", "b/second"], 4):
        with h5py.File(root / f"{name}.h5", "w") as file:
            file["cube"] = cube(number)
            file["time"] = 1.0
    (sensor or RadarSensor(GRID)).write(root / "sensor.json")
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make(tmp_path / "mine")


def test_frames_in_the_order_of_their_numbers_and_windows_inside_a_sequence(root: Path) -> None:
    dataset = RadarFolder(root)
    assert list(dataset.frame_ids) == ["a/9", "a/10", "a/11", "a/12", "b/first", "b/second"]
    for index in range(6):
        np.testing.assert_allclose(dataset.read(index).cubes[0], cube(index), rtol=1e-5)
    assert dataset.read(0).cubes.dtype == np.float32
    assert dataset.read(0).objects is None
    assert dataset.grid == GRID
    pairs = RadarFolder(root, moments=2)
    assert list(pairs.frame_ids) == ["a/10", "a/11", "a/12", "b/second"]
    np.testing.assert_allclose(pairs.read(3).cubes, [cube(4), cube(5)], rtol=1e-5)
    views = RadarFolder(root, load=["views"]).read(5)
    np.testing.assert_array_equal(views.views.range_doppler, RadarViews.processed(cube(5)[None]).range_doppler)
    with pytest.raises(ValueError, match=r"no sequence of .* has 5 frames"):
        RadarFolder(root, moments=5)


def test_splits_are_sequences(root: Path) -> None:
    assert list(RadarFolder(root, ["b"]).frame_ids) == ["b/first", "b/second"]
    (root / "val.txt").write_text("a\n")
    assert len(RadarFolder(root, "val.txt", moments=3)) == 2
    with pytest.raises(FileNotFoundError, match=r"split names c; .* has the sequences a, b\."):
        RadarFolder(root, ["c"])
    with pytest.raises(FileNotFoundError, match="one sequence per line"):
        RadarFolder(root, "train.txt")


def test_cubes_in_the_folder_itself_are_a_sequence(root: Path) -> None:
    RadarSensor(GRID).write(root / "a/sensor.json")
    assert list(RadarFolder(root / "a").frame_ids) == ["a/9", "a/10", "a/11", "a/12"]
    np.save(root / "1.npy", cube(0))
    with pytest.raises(ValueError, match=r"holds cubes itself \(1\.npy\) and in subfolders \(a, b\)"):
        RadarFolder(root)


ORDERS = [
    RadarSensor(GRID, axes=("doppler", "range", "azimuth")),
    RadarSensor(GRID, range_order="near_first"),
    RadarSensor(GRID, azimuth_order="descending"),
    RadarSensor(GRID, doppler_order="approaching_first"),
    RadarSensor(GRID, ("azimuth", "doppler", "range"), "near_first", "descending", "approaching_first"),
]


def place(sensor: RadarSensor, axes: tuple[str, ...], cells: dict[str, int], value: float) -> np.ndarray:
    """An array as ``sensor`` stores it, with one value at the cells of the package's order."""
    bins = dict(zip(("range", "azimuth", "doppler"), GRID.shape, strict=True))
    where = dict(cells)
    if sensor.range_order == "near_first":
        where["range"] = 15 - where["range"]
    if sensor.azimuth_order == "descending":
        where["azimuth"] = (12 - where["azimuth"]) % 12
    if sensor.doppler_order == "approaching_first":
        where["doppler"] = (8 - where["doppler"]) % 8
    stored = [axis for axis in sensor.axes if axis in axes]
    values = np.zeros([bins[axis] for axis in stored], dtype=np.float32 if value > 9 else np.uint8)
    values[tuple(where[axis] for axis in stored)] = value
    return values


@pytest.mark.parametrize("sensor", ORDERS)
@pytest.mark.parametrize("picture", [False, True])
def test_any_orientation_of_cubes_and_masks(tmp_path: Path, sensor: RadarSensor, picture: bool) -> None:
    """An echo and its labels come out at the same cells, whatever the order of axes in the files."""
    cells = {"range": 3, "azimuth": 7, "doppler": 6}
    (tmp_path / "s/masks").mkdir(parents=True)
    sensor.write(tmp_path / "sensor.json")
    assert read_radar_sensor(tmp_path / "sensor.json") == sensor
    np.save(tmp_path / "s/0.npy", place(sensor, ("range", "azimuth", "doppler"), cells, 100))
    doppler, angle = (place(sensor, ("range", axis), cells, 2) for axis in ("doppler", "azimuth"))
    if picture:
        cv2.imwrite(str(tmp_path / "s/masks/0_range_doppler.png"), doppler)
        cv2.imwrite(str(tmp_path / "s/masks/0_range_angle.png"), angle)
    else:
        np.savez(tmp_path / "s/masks/0.npz", range_doppler=doppler, range_angle=angle)
    velocity, degrees = float(GRID.velocity_mps(6)), float(GRID.azimuth_deg(7))
    row = f"s/0,car,{float(GRID.range_m(3))},{degrees},{velocity}"
    (tmp_path / "objects.csv").write_text(f"frame,class,range_m,azimuth_deg,velocity_mps\n{row}\n")
    frame = RadarFolder(tmp_path, class_names=CLASSES, masks=True, objects="objects.csv").read(0)
    assert np.argwhere(frame.cubes[0]).tolist() == [[3, 7, 6]]
    assert np.argwhere(frame.masks.range_angle).tolist() == [[3, 7]]
    assert np.argwhere(flip_range_doppler_labels(frame.masks.range_doppler)).tolist() == [[3, 6]]
    np.testing.assert_allclose(frame.objects.cells, [[3, 7, 6]], atol=1e-4)
    assert frame.objects.class_ids.tolist() == [2]


def test_sizes_and_velocities_beyond_the_doppler_axis(root: Path) -> None:
    (root / "o.csv").write_text(
        "frame,class,range_m,azimuth_deg,velocity_mps,range_size_m,azimuth_size_deg,velocity_size_mps\n"
        "a/9,person,10,0,2.5,4,60,1\na/10,,,,,,,\n"
    )
    dataset = RadarFolder(root, ["a"], CLASSES, objects="o.csv", unlisted_frames="skip")
    assert list(dataset.frame_ids) == ["a/9", "a/10"]
    objects = dataset.read(0).objects
    np.testing.assert_allclose(objects.cells, [[10, 6, 1]])  # 2.5 m/s is 5 columns after the middle, 4 + 5 - 8 = 1
    np.testing.assert_allclose(objects.sizes, [[2, 2 * 0.5 * GRID.element_spacing * 6, 2]], rtol=1e-5)
    assert len(dataset.read(1).objects) == 0


def test_frames_without_a_label(root: Path) -> None:
    (root / "o.jsonl").write_text(
        '{"frame": "a/11", "class": "car", "range_m": 5, "azimuth_deg": 1, "velocity_mps": 0}\n'
    )
    with pytest.raises(ValueError, match=r'5 of 6 frames have no label \(first: a/9\).*unlisted_frames="empty"'):
        RadarFolder(root, class_names=CLASSES, objects="o.jsonl")
    assert len(RadarFolder(root, class_names=CLASSES, objects="o.jsonl", unlisted_frames="empty")) == 6
    options = {"class_names": CLASSES, "objects": "o.jsonl", "unlisted_frames": "empty"}
    assert RadarFolder(root, ["a"], **options, oversample={"car": 2}).frame_ids[2:4] == ["a/11", "a/11"]
    windows = RadarFolder(root, class_names=CLASSES, objects="o.jsonl", unlisted_frames="skip", moments=2)
    assert list(windows.frame_ids) == ["a/11"]
    np.testing.assert_allclose(windows.read(0).cubes, [cube(1), cube(2)], rtol=1e-5)
    with pytest.raises(ValueError, match="none of the 6 frames"):
        RadarFolder(root, class_names=CLASSES, masks=True, unlisted_frames="skip")
    empty = RadarFolder(root, class_names=CLASSES, masks=True, unlisted_frames="empty").read(0)
    assert not empty.masks.range_doppler.any()


def test_a_label_for_a_frame_that_does_not_exist(root: Path) -> None:
    (root / "o.csv").write_text("frame,class,range_m,azimuth_deg,velocity_mps\na/77,car,5,0,0\n")
    with pytest.raises(FileNotFoundError, match=r'names frame "a/77", but there is no such cube.*named like "a/9"'):
        RadarFolder(root, class_names=CLASSES, objects="o.csv", unlisted_frames="empty")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a/9,tram,5,0,0", r"o\.csv:2: class 'tram' is not one of class_names \(person, car\)"),
        ("a/9,car,31,0,0", "range_m=31 is not within the cube's 0 to 30 m"),
        ("a/9,car,5,1.6e3,0", "azimuth_deg=1600"),
        ("a/9,car,5,0,fast", "velocity_mps is 'fast', not a number"),
        ("a/9,car,5,nan,0", "azimuth_deg=nan is not finite"),
        ("a/9,car,5,0", "4 values, but the header names 5"),
        (",car,5,0,0", "frame is ''"),
    ],
)
def test_bad_rows(root: Path, row: str, message: str) -> None:
    (root / "o.csv").write_text(f"frame,class,range_m,azimuth_deg,velocity_mps\n{row}\n")
    with pytest.raises(ValueError, match=message):
        RadarFolder(root, class_names=CLASSES, objects="o.csv", unlisted_frames="empty")


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _h5(path: Path, **content: Any) -> None:
    with h5py.File(path, "w") as file:
        file.update(content)


BAD = cube(0)
BAD[1, 2, 3] = np.nan


@pytest.mark.parametrize(
    ("frame", "damage", "message"),
    [
        ("a/9.npy", lambda p: np.save(p, BAD), r"a/9\.npy: 1 of 1,536 values are NaN"),
        ("a/9.npy", lambda p: np.save(p, cube(0) - 0.5), "negative; cubes are .* not decibels"),
        ("a/9.npy", lambda p: np.save(p, cube(0)[..., None]), r"shape \(16, 12, 8, 1\), expected \(16, 12, 8\)"),
        ("a/9.npy", lambda p: np.save(p, np.array([{}]), allow_pickle=True), "pickled objects"),
        ("a/9.npy", _cut, "cut short"),
        ("b/first.h5", _cut, "not a whole HDF5 file"),
        ("b/first.h5", lambda p: _h5(p, x=cube(0), y=cube(0)), r'holds x, y; call the cube\'s dataset "cube"'),
        ("b/first.h5", lambda p: _h5(p, cube="text"), "holds (object|.S4)"),
    ],
)
def test_bad_cubes(root: Path, frame: str, damage: Callable[[Path], None], message: str) -> None:
    damage(root / frame)
    dataset = RadarFolder(root)
    with pytest.raises(ValueError, match=message):
        dataset.read(list(dataset.frame_ids).index(frame.rsplit(".", 1)[0]))


RD, RA = np.zeros((16, 8), dtype=np.uint8), np.zeros((16, 12), dtype=np.uint8)


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ({"range_doppler": RD}, "has no range_angle, only range_doppler"),
        ({"range_doppler": RA, "range_angle": RA}, r"range_doppler has shape \(16, 12\), expected \(16, 8\)"),
        ({"range_doppler": RD + 3, "range_angle": RA}, r"from 3 to 3; classes are whole numbers from 0 .* to 2"),
        ({"range_doppler": RD + 0.5, "range_angle": RA}, "holds float64"),
    ],
)
def test_bad_masks(root: Path, masks: dict[str, np.ndarray], message: str) -> None:
    (root / "a/masks").mkdir()
    np.savez(root / "a/masks/9.npz", **masks)
    dataset = RadarFolder(root, class_names=CLASSES, masks=True, unlisted_frames="skip")
    with pytest.raises(ValueError, match=message):
        dataset.read(0)
    _cut(root / "a/masks/9.npz")
    with pytest.raises(ValueError, match=r"9\.npz: not a whole"):
        dataset.read(0)


def test_bad_pictures(root: Path) -> None:
    (root / "a/masks").mkdir()
    cv2.imwrite(str(root / "a/masks/9_range_doppler.png"), RD)
    dataset = RadarFolder(root, class_names=CLASSES, masks=True, unlisted_frames="skip")
    with pytest.raises(FileNotFoundError, match=r"9_range_angle\.png does not exist, but the mask of the other"):
        dataset.read(0)
    (root / "a/masks/9_range_angle.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match="not a whole PNG"):
        dataset.read(0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not readable as JSON"),
        ("[]", 'must hold an object with "grid"'),
        ('{"grid": {"range_bins": 16}}', "grid lacks azimuth_bins, doppler_bin_mps, doppler_bins, range_bin_m"),
        ('{"grid": GRID, "axis": []}', "axis is not known"),
        ('{"grid": GRID, "axes": ["range", "angle", "doppler"]}', "must be range, azimuth, doppler"),
        ('{"grid": GRID, "range_order": "near"}', "range_order 'near' must be one of far_first, near_first"),
    ],
)
def test_bad_descriptions(root: Path, text: str, message: str) -> None:
    grid = (root / "sensor.json").read_text().split('"grid": ')[1].split("}")[0] + "}"
    (root / "sensor.json").write_text(text.replace("GRID", grid))
    with pytest.raises(ValueError, match=rf"sensor\.json: .*{message}"):
        RadarFolder(root)


def test_what_is_missing(root: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="Give root= a folder"):
        RadarFolder(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="labels need class_names="):
        RadarFolder(root, masks=True)
    with pytest.raises(ValueError, match='unlisted_frames="maybe"'):
        RadarFolder(root, unlisted_frames="maybe")
    (root / "sensor.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"radar_folder\.py init"):
        RadarFolder(root)
    (tmp_path / "empty").mkdir()
    RadarSensor(GRID).write(tmp_path / "empty/sensor.json")
    with pytest.raises(ValueError, match=r"holds no \.npy or \.h5 cube"):
        RadarFolder(tmp_path / "empty")
    np.save(root / "b/first.npy", cube(0))
    RadarSensor(GRID).write(root / "sensor.json")
    with pytest.raises(ValueError, match="are the same frame"):
        RadarFolder(root)
