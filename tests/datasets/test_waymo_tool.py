"""data_tools/waymo.py on simulated drives."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from adperception.datasets import Waymo
from adperception.datasets.formats.waymo_parquet import group_by_frame, is_grouped_by_frame
from adperception.simulation.simulate_waymo import SimulateWaymo
from data_tools import waymo


@pytest.fixture(scope="module")
def drives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    options = dict(frames=4, segment_frames=2, columns=200, splits={"training": 1.0})
    return SimulateWaymo(tmp_path_factory.mktemp("waymo") / "tree", **options)()


@pytest.fixture
def copy(drives: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(drives, tmp_path / "tree"))


def test_check_counts_files_and_boxes(drives: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert waymo.main(["check", str(drives)]) == 0
    out = capsys.readouterr().out
    assert "training: 2 segments" in out
    assert "lidar_pose/        2 of 2" in out
    assert "frames: 4 (4 labelled)" in out
    assert "2 files in lidar/ are as downloaded" in out


def test_check_names_every_damaged_file_and_goes_on(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = sorted((copy / "training/lidar").glob("*.parquet"))
    first.write_bytes(first.read_bytes()[:1000])
    labels = copy / "training/lidar_box" / second.name
    table = pq.read_table(labels)
    at = table.schema.get_field_index("key.frame_timestamp_micros")
    moved = pa.array(table.column(at).to_numpy() + 1)
    pq.write_table(table.set_column(at, table.schema.field(at), moved), labels)
    assert waymo.main(["check", str(copy)]) == 1
    out = capsys.readouterr().out
    assert f"ERROR: {first}: not a readable Parquet file" in out
    assert f"ERROR: {labels} has labels of 2 frames without a range image" in out
    assert "frames: 2 (2 labelled, 2 of these without an object)" in out
    (copy / "training/vehicle_pose" / second.name).unlink()
    assert waymo.main(["check", str(copy)]) == 1
    assert f"vehicle_pose lacks 1 segments (first: {second.name})" in capsys.readouterr().out


def test_prepare_groups_by_frame_without_changing_a_row(
    drives: Path, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert waymo.main(["prepare", str(copy)]) == 0
    assert "4 of 4 files rewritten; 4 frames in the index" in capsys.readouterr().out
    for component in ("lidar", "lidar_pose"):
        for path in (copy / "training" / component).glob("*.parquet"):
            assert is_grouped_by_frame(path)
            assert pq.ParquetFile(path).num_row_groups == 2
            original = drives / "training" / component / path.name
            assert pq.read_table(path).equals(pq.read_table(original))
            assert not list(path.parent.glob(".*"))
    for index in range(4):
        np.testing.assert_array_equal(Waymo(copy).read(index).cloud.points, Waymo(drives).read(index).cloud.points)
    assert waymo.main(["prepare", str(copy)]) == 0
    assert "0 of 4 files rewritten" in capsys.readouterr().out


def test_a_damaged_file_stays_as_it_is(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = min((copy / "training/lidar").glob("*.parquet"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 4000] = bytes(4000)
    path.write_bytes(content)
    with pytest.raises(ValueError, match="download it again"):
        group_by_frame(path)
    assert path.read_bytes() == content
    assert not list(path.parent.glob(".*"))
    assert waymo.main(["prepare", str(copy)]) == 1
    assert str(path) in capsys.readouterr().err


def test_missing_trees_are_errors_with_a_way_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert waymo.main(["check", str(tmp_path)]) == 1
    assert "has no segment with all its files" in capsys.readouterr().out
    assert waymo.main(["prepare", str(tmp_path)]) == 1
    assert "lidar does not exist" in capsys.readouterr().err
