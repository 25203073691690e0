from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from adperception.datasets.formats.scan_files import fit_channels, read_scan
from adperception.structures import XYZI, PointCloud


def points(count: int = 5000, width: int = 4, intensity: float = 1.0) -> np.ndarray:
    """x, y, z, intensity, ring, ...: each channel with its own spread, as sensors have it; no order in the rows."""
    rng = np.random.default_rng(0)
    columns = [rng.normal(10, 20, count), rng.normal(0, 15, count), rng.normal(-1.5, 0.5, count)]
    columns += [rng.random(count) * intensity, rng.integers(0, 32, count), rng.random(count) * 1e-3]
    table = np.stack(columns[:width], axis=1).astype("<f4")
    table[:2, 3:4] = np.float32([[intensity], [0]])[:, : max(0, width - 3)]
    return table


def test_raw_file_of_the_models_channels(tmp_path: Path) -> None:
    points().tofile(tmp_path / "a.bin")
    scan = read_scan(tmp_path / "a.bin", XYZI)
    assert scan.reading == "read 5,000 points, channels x y z intensity"
    np.testing.assert_array_equal(scan.cloud.points, points())


@pytest.mark.parametrize("width", [3, 5, 6])
def test_raw_file_of_other_channels_is_not_misread(tmp_path: Path, width: int) -> None:
    """5,000 points of five values are 6,250 of four: only the values themselves can tell."""
    points(6000, width).tofile(tmp_path / "a.bin")
    with pytest.raises(
        ValueError, match=rf"looks like {width} values per point, but the model reads 4 .*--channels x y z"
    ):
        read_scan(tmp_path / "a.bin", XYZI)
    if width == 5:
        scan = read_scan(tmp_path / "a.bin", XYZI, channels=[*XYZI, "ring"])
        assert scan.reading == "read 6,000 points, channels x y z intensity ring"
        np.testing.assert_array_equal(scan.cloud.points, points(6000, 5)[:, :4])


@pytest.mark.parametrize(("largest", "divisor"), [(1.0, 1), (255.0, 255), (60_000.0, 65535)])
def test_intensity_is_brought_to_the_scale_of_the_model(tmp_path: Path, largest: float, divisor: int) -> None:
    np.save(tmp_path / "a.npy", points(intensity=largest))
    scan = read_scan(tmp_path / "a.npy", XYZI)
    assert scan.cloud.points[:, 3].max() == pytest.approx(largest / divisor)
    said = f"intensity spans 0…{largest:g}, model expects 0…1: dividing by {divisor}"
    assert scan.reading.endswith(said) == (divisor != 1)


def test_a_given_scale_wins_and_an_unknown_one_is_refused() -> None:
    cloud = PointCloud(points(intensity=100.0))
    assert fit_channels(cloud, XYZI, "scan", intensity_max=100).cloud.points[:, 3].max() == pytest.approx(1.0)
    with pytest.raises(ValueError, match=r"intensity reaches 1e\+06, which is no known scale. Give --intensity-max"):
        fit_channels(PointCloud(points(intensity=1e6)), XYZI, "scan")
    with pytest.raises(ValueError, match="intensity spans -5…"):
        fit_channels(PointCloud(points() - np.float32([0, 0, 0, 5])), XYZI, "scan")


def write_pcd(path: Path, names: str, rows: list[tuple[float, ...]]) -> Path:
    count = len(names.split())
    header = f"VERSION 0.7\nFIELDS {names}\nSIZE {'4 ' * count}\nTYPE {'F ' * count}\nCOUNT {'1 ' * count}\n"
    header += f"WIDTH {len(rows)}\nHEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\nPOINTS {len(rows)}\nDATA binary\n"
    path.write_bytes(header.encode() + b"".join(struct.pack(f"<{count}f", *row) for row in rows))
    return path


def test_named_columns_of_a_ros_export_in_any_order(tmp_path: Path) -> None:
    rows = [(7.0, 0.0, 1.0, 2.0, 3.0, 128.0), (8.0, 0.0, 4.0, 5.0, 6.0, 255.0), (8.0, 0.0, float("nan"), 5.0, 6.0, 0.0)]
    path = write_pcd(tmp_path / "a.pcd", "ring time x y z reflectivity", rows)
    scan = read_scan(path, XYZI)
    np.testing.assert_allclose(scan.cloud.points, [[1, 2, 3, 128 / 255], [4, 5, 6, 1]], rtol=1e-6)
    assert scan.reading.startswith("read 2 points, channels x y z reflectivity")
    assert '"reflectivity" taken as intensity' in scan.reading
    assert "intensity spans 128…255, model expects 0…1: dividing by 255" in scan.reading


def test_missing_intensity_is_a_decision(tmp_path: Path) -> None:
    path = write_pcd(tmp_path / "a.pcd", "x y z", [(1.0, 2.0, 3.0)])
    with pytest.raises(
        ValueError, match=r"has the channels x, y, z, but the model reads .*: no intensity. --fill-missing 0"
    ):
        read_scan(path, XYZI)
    scan = read_scan(path, XYZI, fill_missing=0.0)
    assert scan.cloud.points.tolist() == [[1, 2, 3, 0]]
    assert scan.reading.endswith("no intensity in the file: filled with 0")


def test_structured_arrays_empty_clouds_and_strange_files(tmp_path: Path) -> None:
    table = np.zeros(2, dtype=[("x", "f4"), ("y", "f4"), ("z", "f4"), ("remission", "u1")])
    table["remission"] = [51, 255]
    np.save(tmp_path / "a.npy", table)
    assert read_scan(tmp_path / "a.npy", XYZI).cloud.points[:, 3].tolist() == pytest.approx([0.2, 1.0])
    (tmp_path / "empty.bin").write_bytes(b"")
    assert len(read_scan(tmp_path / "empty.bin", XYZI).cloud) == 0
    with pytest.raises(FileNotFoundError, match="there is no scan here"):
        read_scan(tmp_path / "gone.bin", XYZI)
    (tmp_path / "a.txt").write_text("1 2 3")
    with pytest.raises(ValueError, match=r'"\.txt" files cannot be read; known are \.bin'):
        read_scan(tmp_path / "a.txt", XYZI)


@pytest.mark.real_data
def test_recorded_scans(real_data: Path) -> None:
    lidar = real_data / "lidar"
    kitti = sorted((lidar / "kitti/training").glob("velodyne*/*.bin"))
    for file in kitti:  # the width of none is doubted
        assert "dividing" not in read_scan(file, XYZI).reading
    (nuscenes,) = sorted((lidar / "nuscenes/samples").rglob("*.bin"))
    with pytest.raises(ValueError, match="looks like 5 values per point"):
        read_scan(nuscenes, XYZI)
    declared = read_scan(nuscenes, XYZI, channels=[*XYZI, "ring"])
    assert "dividing by 255" in declared.reading
    pandaset = read_scan(lidar / "pandaset/0001.pcd", XYZI)
    assert "dividing by 255" in pandaset.reading
    assert pandaset.cloud.points[:, 3].max() == 1.0
