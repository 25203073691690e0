from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from adperception.datasets.formats import read_calibration, write_calibration
from adperception.structures import KittiCalibration


@pytest.fixture
def calibration() -> KittiCalibration:
    rng = np.random.default_rng(0)
    return KittiCalibration(rng.normal(size=(3, 4)), rng.normal(size=(3, 3)), rng.normal(size=(3, 4)))


def test_round_trip(tmp_path: Path, calibration: KittiCalibration) -> None:
    write_calibration(tmp_path / "c.txt", calibration)
    back = read_calibration(tmp_path / "c.txt")
    for name in ("p2", "r0_rect", "velo_to_cam"):
        np.testing.assert_allclose(getattr(back, name), getattr(calibration, name), rtol=1e-12)
    names = [line.split(":")[0] for line in (tmp_path / "c.txt").read_text().splitlines()]
    assert names == ["P0", "P1", "P2", "P3", "R0_rect", "Tr_velo_to_cam", "Tr_imu_to_velo"]


@pytest.mark.parametrize("name", ["P2", "R0_rect", "Tr_velo_to_cam"])
def test_a_missing_matrix_is_named(tmp_path: Path, calibration: KittiCalibration, name: str) -> None:
    path = tmp_path / "000007.txt"
    write_calibration(path, calibration)
    path.write_text("".join(line + "\n" for line in path.read_text().splitlines() if not line.startswith(name)))
    with pytest.raises(ValueError, match=rf"000007\.txt: no line {name} .*Add"):
        read_calibration(path)


def test_a_short_matrix_is_named_with_its_line(tmp_path: Path, calibration: KittiCalibration) -> None:
    path = tmp_path / "c.txt"
    write_calibration(path, calibration)
    lines = path.read_text().splitlines()
    lines[5] = lines[5].rsplit(" ", 1)[0]
    path.write_text("\n".join(lines))
    with pytest.raises(ValueError, match=r"c\.txt:6: Tr_velo_to_cam has 11 values .* expected 12"):
        read_calibration(path)
    lines[5] = "Tr_velo_to_cam: a b"
    path.write_text("\n".join(lines))
    with pytest.raises(ValueError, match=r"c\.txt:6: Tr_velo_to_cam holds something that is not a number"):
        read_calibration(path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_calibration(tmp_path / "c.txt")


@pytest.mark.real_data
def test_real_rotations_are_orthonormal(real_data: Path) -> None:
    for path in sorted((real_data / "lidar/kitti/training/calib").glob("*.txt")):
        rotation = read_calibration(path).lidar_to_rect[:3, :3]
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-6)
