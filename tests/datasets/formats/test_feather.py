from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pyarrow")

from adperception.datasets.formats.feather import read_feather, write_feather

COLUMNS = {
    "x": np.array([1.5, -2.25], dtype=np.float16),
    "n": np.array([0, 255], dtype=np.uint8),
    "t": np.array([315966265259836000, 315966265360032000]),
    "name": np.array(["BUS", "DOG"]),
}


def test_columns_keep_their_types(tmp_path: Path) -> None:
    write_feather(tmp_path / "a.feather", COLUMNS)
    read = read_feather(tmp_path / "a.feather", ["t", "x", "n", "name"])
    assert list(read) == ["t", "x", "n", "name"]
    for name in ("x", "n", "t"):
        np.testing.assert_array_equal(read[name], COLUMNS[name])
        assert read[name].dtype == COLUMNS[name].dtype
    assert read["name"].tolist() == ["BUS", "DOG"]


def test_bad_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.feather"
    write_feather(path, COLUMNS)
    with pytest.raises(ValueError, match=r"a\.feather: no column y, z; the file has x, n, t, name"):
        read_feather(path, ["x", "y", "z"])
    with pytest.raises(FileNotFoundError, match=r"b\.feather does not exist"):
        read_feather(tmp_path / "b.feather", ["x"])
    whole = path.read_bytes()
    for part in (whole[:-20], whole[:100], b"", b"x" * 500):
        path.write_bytes(part)
        with pytest.raises(ValueError, match=r"a\.feather: not a readable Feather file .* copy it again"):
            read_feather(path, ["x"])
    monkeypatch.setitem(sys.modules, "pyarrow.feather", None)
    with pytest.raises(
        ImportError, match=r'need pyarrow, which is not installed: pip install "adperception\[parquet\]"'
    ):
        read_feather(path, ["x"])
