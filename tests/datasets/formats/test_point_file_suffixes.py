""".npz, .ply and .las clouds: what they hold, and what is said when they are damaged."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from adperception.datasets.formats import read_points, read_points_with_notes
from adperception.structures import XYZI

laspy = pytest.importorskip("laspy")
plyfile = pytest.importorskip("plyfile")

POINTS = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)


def write_ply(path: Path, points: np.ndarray = POINTS, text: bool = False, name: str = "intensity") -> None:
    rows = np.zeros(len(points), dtype=[("X", "<f8"), ("Y", "<f8"), ("Z", "<f8"), (name, "<f4"), ("ring", "u1")])
    for column, values in zip(("X", "Y", "Z", name), points.T, strict=True):
        rows[column] = values
    plyfile.PlyData([plyfile.PlyElement.describe(rows, "vertex")], text=text).write(str(path))


def write_las(path: Path, xyz: np.ndarray = POINTS[:, :3], offset: float = 0.0) -> None:
    header = laspy.LasHeader(point_format=1, version="1.2")
    header.scales, header.offsets = [0.001] * 3, [offset] * 3
    cloud = laspy.LasData(header)
    cloud.x, cloud.y, cloud.z = (xyz.astype(np.float64) + offset).T
    cloud.intensity = np.arange(len(xyz)) * 300
    cloud.write(str(path))


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("name", ["intensity", "scalar_Intensity"])
def test_ply(tmp_path: Path, text: bool, name: str) -> None:
    write_ply(tmp_path / "a.ply", text=text, name=name)
    np.testing.assert_allclose(read_points(tmp_path / "a.ply").points, POINTS, rtol=1e-6)
    assert read_points(tmp_path / "a.ply", ("x", "y", "z", "ring")).points.shape == (200, 4)
    with pytest.raises(ValueError, match=r"the file has x, y, z, intensity, ring: no time"):
        read_points(tmp_path / "a.ply", (*XYZI, "time"))


def test_nan_rows_of_a_ply_are_counted(tmp_path: Path) -> None:
    points = POINTS.copy()
    points[[3, 9], 1] = np.nan
    write_ply(tmp_path / "a.ply", points)
    cloud, notes = read_points_with_notes(tmp_path / "a.ply")
    assert len(cloud) == 198
    assert notes == ("2 of 200 points hold NaN or infinity and were dropped.",)


def test_a_damaged_ply(tmp_path: Path) -> None:
    path = tmp_path / "a.ply"
    write_ply(path)
    whole = path.read_bytes()
    for part in (whole[:-3], whole[:100], b"", b"\xff" * 300):
        path.write_bytes(part)
        with pytest.raises(ValueError, match=r"a\.ply: not a readable PLY file"):
            read_points(path)
    faces = np.zeros(1, dtype=[("a", "f4")])
    plyfile.PlyData([plyfile.PlyElement.describe(faces, "face")]).write(str(path))
    with pytest.raises(ValueError, match='needs the PLY element "vertex", but the file has face'):
        read_points(path)


def test_las_positions_are_scaled_and_moved(tmp_path: Path) -> None:
    write_las(tmp_path / "a.las", offset=50.0)
    cloud = read_points(tmp_path / "a.las")
    np.testing.assert_allclose(cloud.xyz, POINTS[:, :3] + 50, atol=6e-4)
    np.testing.assert_array_equal(cloud.points[:, 3], np.arange(200) * 300)
    assert read_points(tmp_path / "a.las", ("x", "y", "z", "gps_time")).points.shape == (200, 4)


def test_positions_on_a_map_are_refused(tmp_path: Path) -> None:
    write_las(tmp_path / "a.las", offset=400_000.0)
    with pytest.raises(ValueError, match=r"a\.las: x reaches 400,00\d m\. .* subtract the sensor's position"):
        read_points(tmp_path / "a.las")


def test_a_damaged_las(tmp_path: Path) -> None:
    path = tmp_path / "a.las"
    write_las(path)
    whole = path.read_bytes()
    for part in (whole[:-3], whole[:300], whole[:100], b"", b"\xff" * 500):
        path.write_bytes(part)
        with pytest.raises(ValueError, match=r"a\.las: not a readable LAS file"):
            read_points(path)
    path.write_bytes(whole[:-280])  # ten whole records
    with pytest.raises(ValueError, match=r"190 points, but the header announces 200: the file was cut off"):
        read_points(path)


def test_a_missing_library_names_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_ply(tmp_path / "a.ply")
    write_las(tmp_path / "a.las")
    (tmp_path / "a.laz").write_bytes((tmp_path / "a.las").read_bytes())
    if not laspy.LazBackend.detect_available():
        with pytest.raises(ImportError, match=r'no decompressor for \.laz files: pip install "laspy\[lazrs\]"'):
            read_points(tmp_path / "a.laz")
    for module in ("plyfile", "laspy"):
        monkeypatch.setitem(sys.modules, module, None)
    for name in ("a.ply", "a.las"):
        with pytest.raises(ImportError, match=r'not installed: pip install "adperception\[pointfiles\]"'):
            read_points(tmp_path / name)


def test_npz(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, data=POINTS.astype(np.float64))
    np.testing.assert_array_equal(read_points(path).points, POINTS)
    np.savez_compressed(path, data=POINTS, labels=np.zeros(200))
    np.testing.assert_array_equal(read_points(path, field="data").points, POINTS)
    with pytest.raises(ValueError, match=r"arrays data, labels, and none is named: name one with field="):
        read_points(path)
    with pytest.raises(ValueError, match=r'field="points" is none of them'):
        read_points(path, field="points")
    with pytest.raises(ValueError, match=r"shape \(200,\), but 4 channels are declared"):
        read_points(path, field="labels")


def test_a_damaged_npz(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, data=POINTS)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[1000:1050] = bytes(50)
    for part in (whole[:-30], whole[:100], b"", bytes(flipped)):
        path.write_bytes(part)
        with pytest.raises(ValueError, match=r"a\.npz: not a readable array of numbers"):
            read_points(path)
    np.savez(path, data=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="holds Python objects, which are never loaded"):
        read_points(path)


@pytest.mark.real_data
def test_dgp_clouds(real_data: Path) -> None:
    folder = real_data / "lidar/tri_dgp/scene_01/point_cloud/LIDAR"
    counts = [len(read_points(p, field="data")) for p in sorted(folder.glob("*.npz"))]
    assert counts == [40733, 40523, 40239]
