from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from adperception.datasets.formats import read_points, read_points_with_notes, write_bin
from adperception.datasets.formats.lzf import decompress_lzf
from adperception.structures import XYZI, PointCloud

RINGS = (*XYZI, "ring")


@pytest.fixture
def points() -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)


def write_pcd(path: Path, points: NDArray[np.float32], encoding: str, body: bytes, fields: str = "x y z intensity"):
    n = len(fields.split())
    header = (
        f"# comment\nVERSION 0.7\nFIELDS {fields}\nSIZE {'4 ' * n}\nTYPE {'F ' * n}\nCOUNT {'1 ' * n}\n"
        f"WIDTH {len(points)}\nHEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\nPOINTS {len(points)}\nDATA {encoding}\n"
    )
    path.write_bytes(header.encode() + body)


def literal_lzf(data: bytes) -> bytes:
    """Valid LZF without any copy."""
    chunks = [data[i : i + 32] for i in range(0, len(data), 32)]
    return b"".join(bytes([len(c) - 1]) + c for c in chunks)


def test_bin_round_trip(tmp_path: Path, points: NDArray[np.float32]) -> None:
    write_bin(tmp_path / "a.bin", PointCloud(points))
    assert (tmp_path / "a.bin").stat().st_size == 50 * 16
    np.testing.assert_array_equal(read_points(tmp_path / "a.bin").points, points)


def test_a_truncated_bin_gives_its_sizes(tmp_path: Path, points: NDArray[np.float32]) -> None:
    path = tmp_path / "000003.bin"
    path.write_bytes(points.tobytes()[:-5])
    with pytest.raises(ValueError, match=r"000003\.bin: 795 bytes .* 16 bytes .*11 bytes are left after 49 points"):
        read_points(path)


def test_an_empty_bin_is_an_empty_cloud(tmp_path: Path) -> None:
    (tmp_path / "a.bin").touch()
    assert len(read_points(tmp_path / "a.bin")) == 0


def test_nan_and_infinity_are_dropped_and_counted(tmp_path: Path, points: NDArray[np.float32]) -> None:
    bad = points.copy()
    bad[3, 2], bad[7, 0], bad[9, 3], bad[11, 1], bad[11, 0] = np.nan, np.inf, -np.inf, np.inf, -np.inf
    write_bin(tmp_path / "a.bin", PointCloud(bad))
    cloud, notes = read_points_with_notes(tmp_path / "a.bin")
    np.testing.assert_array_equal(cloud.points, np.delete(points, [3, 7, 9, 11], axis=0))
    assert notes == ("4 of 50 points hold NaN or infinity and were dropped.",)
    write_bin(tmp_path / "b.bin", PointCloud(points))
    assert read_points_with_notes(tmp_path / "b.bin")[1] == ()


def test_npy_plain_and_structured(tmp_path: Path, points: NDArray[np.float32]) -> None:
    np.save(tmp_path / "a.npy", points.astype(np.float64))
    np.testing.assert_array_equal(read_points(tmp_path / "a.npy").points, points)
    named = np.zeros(50, dtype=[("ring", "i4"), ("intensity", "f4"), ("x", "f8"), ("y", "f4"), ("z", "f4")])
    for i, name in enumerate(XYZI):
        named[name] = points[:, i]
    np.save(tmp_path / "b.npy", named)
    np.testing.assert_array_equal(read_points(tmp_path / "b.npy").points, points)
    assert read_points(tmp_path / "b.npy", RINGS).channels == RINGS


def test_npy_of_another_width_and_objects_are_refused(tmp_path: Path, points: NDArray[np.float32]) -> None:
    np.save(tmp_path / "a.npy", points)
    with pytest.raises(ValueError, match=r"\(50, 4\).*x, y, z, intensity, ring"):
        read_points(tmp_path / "a.npy", RINGS)
    np.save(tmp_path / "b.npy", np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="not a readable array of numbers"):
        read_points(tmp_path / "b.npy")


@pytest.mark.parametrize("encoding", ["ascii", "binary", "binary_compressed"])
def test_pcd(tmp_path: Path, points: NDArray[np.float32], encoding: str) -> None:
    swapped = points[:, [3, 0, 1, 2]]  # columns are taken by name, not by place
    raw = swapped.T.tobytes()
    body = {
        "ascii": "\n".join(" ".join(f"{v:.9g}" for v in row) for row in swapped).encode(),
        "binary": swapped.tobytes(),
        "binary_compressed": struct.pack("<II", len(literal_lzf(raw)), len(raw)) + literal_lzf(raw),
    }[encoding]
    path = tmp_path / "a.pcd"
    write_pcd(path, points, encoding, body, "intensity x y z")
    np.testing.assert_array_equal(read_points(path).points, points)
    write_pcd(path, points, encoding, body[: len(body) // 2], "intensity x y z")
    with pytest.raises(ValueError, match=r"a\.pcd: .*cut\s+off"):
        read_points(path)


def test_pcd_without_a_channel_names_both_lists(tmp_path: Path, points: NDArray[np.float32]) -> None:
    path = tmp_path / "a.pcd"
    write_pcd(path, points[:, :3], "binary", points[:, :3].tobytes(), "x y z")
    with pytest.raises(ValueError, match=r"declared channels are x, y, z, intensity, but the file has x, y, z"):
        read_points(path)
    assert len(read_points(path, ("x", "y", "z"))) == 50


def test_pcd_with_fields_of_several_values_and_padding(tmp_path: Path) -> None:
    record = np.zeros(3, dtype=[("x", "<f4"), ("n", "<f4", 3), ("y", "<f8"), ("pad", "u1", 2), ("z", "<i2")])
    record["x"], record["y"], record["z"] = [1, 2, 3], [4, 5, 6], [7, 8, 9]
    (tmp_path / "a.pcd").write_bytes(
        b"VERSION .7\nFIELDS x normal y _ z\nSIZE 4 4 8 1 2\nTYPE F F F U I\nCOUNT 1 3 1 2 1\nWIDTH 3\nHEIGHT 1\n"
        b"DATA binary\n" + record.tobytes()
    )
    cloud = read_points(tmp_path / "a.pcd", ("x", "y", "z"))
    np.testing.assert_array_equal(cloud.points, [[1, 4, 7], [2, 5, 8], [3, 6, 9]])


@pytest.mark.parametrize("text", ["", "FIELDS x y z\nDATA binary\n", "nonsense\n" * 20000])
def test_a_broken_pcd_header_is_an_error_with_the_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "broken.pcd").write_text(text)
    with pytest.raises(ValueError, match=r"broken\.pcd"):
        read_points(tmp_path / "broken.pcd")


def test_lzf_copies() -> None:
    # literal "ab"; copy of length 3 from distance 2 overlaps itself; long copy (7: length from the next byte)
    assert decompress_lzf(bytes([1, 97, 98, (1 << 5), 1]), 5) == b"ababa"
    assert decompress_lzf(bytes([0, 97, (7 << 5), 10, 0]), 20) == b"a" * 20
    with pytest.raises(ValueError, match="starts before the output"):
        decompress_lzf(bytes([0, 97, (1 << 5), 1]), 5)
    with pytest.raises(ValueError, match="middle of a copy"):
        decompress_lzf(bytes([0, 97, (1 << 5)]), 5)
    with pytest.raises(ValueError, match="header says 3"):
        decompress_lzf(bytes([0, 97]), 3)


def test_unknown_suffix_and_missing_file(tmp_path: Path) -> None:
    (tmp_path / "a.obj").touch()
    with pytest.raises(ValueError, match=r"\.bin, \.npy, \.npz, \.pcd, \.ply, \.las, \.laz"):
        read_points(tmp_path / "a.obj")
    with pytest.raises(FileNotFoundError, match=r"b\.bin"):
        read_points(tmp_path / "b.bin")


@pytest.mark.real_data
def test_pandaset(real_data: Path) -> None:
    expected = {  # of the table that came with the recordings
        "0001": (77295, [-194.3, -200.5, -3.5], [199.0, 192.2, 15.8]),
        "0002": (79372, [-193.6, -199.4, -6.8], [101.4, 195.0, 16.4]),
    }
    for name, (count, low, high) in expected.items():
        cloud, notes = read_points_with_notes(real_data / f"lidar/pandaset/{name}.pcd")
        assert len(cloud) == count
        assert notes == (f"{64 * 1856 - count:,} of {64 * 1856:,} points hold NaN or infinity and were dropped.",)
        np.testing.assert_allclose(cloud.xyz.min(axis=0), low, atol=0.06)
        np.testing.assert_allclose(cloud.xyz.max(axis=0), high, atol=0.06)
        assert 100 < cloud.points[:, 3].max() <= 255
