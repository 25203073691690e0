"""Arrays from files that may be damaged."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from adperception.datasets.formats.npy_arrays import (
    read_array,
    read_array_header,
    read_array_into,
    require_magnitudes,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    np.save(tmp_path / "a.npy", np.arange(24.0).reshape(2, 3, 4))
    return tmp_path / "a.npy"


def test_whole_files_read_back(path: Path) -> None:
    assert read_array(path, (2, 3, 4))[1, 2, 3] == 23
    assert read_array_header(path, (2, 3, 4)) == ((2, 3, 4), np.dtype("f8"))


@pytest.mark.parametrize("read", [read_array, read_array_header])
def test_what_is_wrong_with_a_file_is_said(read, path: Path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(FileNotFoundError, match=re.escape(f"{path}x does not exist")):
        read(path.with_name("a.npyx"))
    with pytest.raises(ValueError, match=re.escape("(2, 3, 4), expected (range, Doppler) (6, 4)")):
        read(path, (6, 4), "(range, Doppler)")
    with pytest.raises(ValueError, match="holds float64, expected numbers of kind u"):
        read(path, kinds="u")
    whole = path.read_bytes()
    for length in (len(whole) - 8, 50, 3, 0):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"a\.npy: .*copy it again"):
            read(path)
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="pickled objects, which are never loaded"):
        read(path)


@pytest.mark.parametrize("stored", [np.float64, np.float32, np.float16])
@pytest.mark.parametrize("order", ["C", "F"])
def test_reading_into_an_array_converts_where_it_must(stored: type, order: str, tmp_path: Path) -> None:
    values = np.arange(24.0).reshape(2, 3, 4)
    np.save(tmp_path / "a.npy", np.asarray(values, dtype=stored, order=order))  # type: ignore[call-overload]
    out = np.empty((2, 2, 3, 4), dtype=np.float32)
    read_array_into(tmp_path / "a.npy", out[1])
    np.testing.assert_array_equal(out[1], values)
    whole = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(whole[:-1])
    with pytest.raises(ValueError, match=r"a\.npy: not a whole \.npy array"):
        read_array_into(tmp_path / "a.npy", out[1])
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_array_into(tmp_path / "b.npy", out[1])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0])
def test_magnitudes_are_finite_and_not_negative(bad: float) -> None:
    values = np.ones((4, 4), dtype=np.float32)
    require_magnitudes(values, "here")
    values[1, 2] = bad
    with pytest.raises(ValueError, match="here: 1 of 16 values"):
        require_magnitudes(values, "here")
